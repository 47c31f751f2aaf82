//! Figures of this domain as text that Prometheus reads: its text exposition format, version 0.0.4.
//!
//! Whoever has figures puts them into a [`Figures`]; what it does not have is not shown. They are
//! counts and amounts, and names of this program's own: nothing that a guest wrote is among them.

use alloc::string::String;
use core::fmt::{self, Display, Write};
use core::time::Duration;

use crate::http::Page;

/// The media type of the text.
const KIND: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The most bytes of the text.
const MOST: usize = 256 * 1024;

/// Counts, each by the name of what it counts.
pub type Named<'a> = &'a [(&'a str, u64)];

/// All that can be shown.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures<'a> {
    /// Who this is.
    pub identity: Identity<'a>,
    /// Since the start.
    pub uptime: Duration,
    /// Bytes that the heap ever got.
    pub memory: usize,
    /// Bytes of it that are free.
    pub memory_free: usize,
    /// What was done, if that is counted.
    pub activity: Option<Activity>,
    /// The store, if it is here.
    pub store: Option<Store<'a>>,
    /// The data channels, if they are here.
    pub channels: Option<Channels>,
    /// The ports of the switch.
    pub ports: &'a [Port<'a>],
}

/// What was done since the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Activity {
    /// Events that came.
    pub events: u64,
    /// Events that were sent.
    pub notifications: u64,
    /// How often all slept and was woken.
    pub wakeups: u64,
}

/// Who this is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Identity<'a> {
    /// The image's version.
    pub version: &'a str,
    /// What it does.
    pub role: &'a str,
    /// Xen's version.
    pub xen: &'a str,
}

/// Figures of the store.
#[derive(Clone, Copy, Debug, Default)]
pub struct Store<'a> {
    /// Requests that were answered, by their kind.
    pub requests: Named<'a>,
    /// Errors among the answers, by their name.
    pub errors: Named<'a>,
    /// What quotas refused, by the quota.
    pub refusals: Named<'a>,
    /// Nodes that there are.
    pub nodes: usize,
    /// Domains that are known.
    pub domains: usize,
    /// Connections that there are.
    pub connections: usize,
    /// Watches that there are.
    pub watches: usize,
    /// Transactions that are open.
    pub transactions_open: usize,
    /// Transactions that were ended.
    pub transactions: u64,
    /// Those among them that have to be tried again.
    pub aborts: u64,
    /// Bytes that came.
    pub bytes_in: u64,
    /// Bytes that were sent.
    pub bytes_out: u64,
}

/// Figures of the data channels.
#[derive(Clone, Copy, Debug, Default)]
pub struct Channels {
    /// Channels that are open.
    pub open: usize,
    /// Channels that were opened.
    pub opened: u64,
}

/// Figures of a port of the switch.
#[derive(Clone, Copy, Debug, Default)]
pub struct Port<'a> {
    /// Its name.
    pub name: &'a str,
    /// What came from whom it is for.
    pub incoming: Way,
    /// What was sent there.
    pub outgoing: Way,
    /// Frames that went nowhere, by the reason.
    pub drops: Named<'a>,
}

impl<'a> Port<'a> {
    /// Its name, the direction's, and what went there.
    const fn ways(&self) -> [(&'a str, &'static str, Way); 2] {
        [(self.name, "in", self.incoming), (self.name, "out", self.outgoing)]
    }
}

/// What went in one direction.
#[derive(Clone, Copy, Debug, Default)]
pub struct Way {
    /// Frames.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Figures<'_> {
    /// The page, unless there is not the memory for it, or it would be larger than any can be.
    #[must_use]
    pub fn page(&self) -> Option<Page> {
        let mut text = Bounded(String::new());
        self.write(&mut text).ok()?;
        Some(Page { kind: KIND, text: text.0 })
    }

    /// Writes the text.
    ///
    /// # Errors
    /// Those of `to`.
    pub fn write(&self, to: impl Write) -> fmt::Result {
        let mut text = Text(to);
        let Identity { version, role, xen } = self.identity;
        text.family("info", Kind::Gauge, "Who this is; always 1.")?
            .sample(&[("version", version), ("role", role), ("xen", xen)], 1)?;
        let uptime = Seconds(self.uptime);
        text.single("uptime_seconds", Kind::Gauge, "Time since the start.", uptime)?;
        let memory = self.memory;
        text.single("memory_bytes", Kind::Gauge, "Memory of the heap, used or not.", memory)?;
        let free = self.memory_free;
        text.single("memory_free_bytes", Kind::Gauge, "Memory of the heap that is free.", free)?;
        if let Some(Activity { events, notifications, wakeups }) = self.activity {
            text.single("events_total", Kind::Counter, "Events that came.", events)?;
            let help = "Events that were sent.";
            text.single("notifications_total", Kind::Counter, help, notifications)?;
            let help = "Times that it slept and was woken.";
            text.single("wakeups_total", Kind::Counter, help, wakeups)?;
        }
        if let Some(store) = &self.store {
            store.write(&mut text)?;
        }
        if let Some(Channels { open, opened }) = self.channels {
            text.single("channels", Kind::Gauge, "Data channels that are open.", open)?;
            let help = "Data channels that were opened.";
            text.single("channels_opened_total", Kind::Counter, help, opened)?;
        }
        write_ports(self.ports, &mut text)
    }
}

impl Store<'_> {
    fn write(&self, text: &mut Text<impl Write>) -> fmt::Result {
        let by = |name, label, help, counts| (name, label, help, counts);
        for (name, label, help, counts) in [
            by("store_requests_total", "type", "Requests that were answered.", self.requests),
            by("store_errors_total", "error", "Answers that were errors.", self.errors),
            by("store_refusals_total", "quota", "Requests that a quota refused.", self.refusals),
        ] {
            let mut family = text.family(name, Kind::Counter, help)?;
            counts.iter().try_for_each(|&(of, count)| family.sample(&[(label, of)], count))?;
        }
        for (name, help, count) in [
            ("store_nodes", "Nodes of the tree.", self.nodes),
            ("store_domains", "Domains that are known.", self.domains),
            ("store_connections", "Connections of domains.", self.connections),
            ("store_watches", "Watches of all connections.", self.watches),
            ("store_transactions_open", "Transactions that are open.", self.transactions_open),
        ] {
            text.single(name, Kind::Gauge, help, count)?;
        }
        for (name, help, count) in [
            ("store_transactions_total", "Transactions that were ended.", self.transactions),
            ("store_aborts_total", "Transactions that must be tried again.", self.aborts),
            ("store_received_bytes_total", "Bytes of requests.", self.bytes_in),
            ("store_sent_bytes_total", "Bytes of answers and of events.", self.bytes_out),
        ] {
            text.single(name, Kind::Counter, help, count)?;
        }
        Ok(())
    }
}

fn write_ports(ports: &[Port<'_>], text: &mut Text<impl Write>) -> fmt::Result {
    let ways = || ports.iter().flat_map(|port| port.ways());
    if ports.is_empty() {
        return Ok(());
    }
    text.single("switch_ports", Kind::Gauge, "Ports of the switch.", ports.len())?;
    let mut family = text.family("switch_frames_total", Kind::Counter, "Frames, by port.")?;
    for (port, direction, way) in ways() {
        family.sample(&[("port", port), ("direction", direction)], way.frames)?;
    }
    let mut family =
        text.family("switch_bytes_total", Kind::Counter, "Bytes of frames, by port.")?;
    for (port, direction, way) in ways() {
        family.sample(&[("port", port), ("direction", direction)], way.bytes)?;
    }
    let help = "Frames that went nowhere, by port and reason.";
    let mut family = text.family("switch_drops_total", Kind::Counter, help)?;
    for port in ports {
        for &(reason, count) in port.drops {
            family.sample(&[("port", port.name), ("reason", reason)], count)?;
        }
    }
    Ok(())
}

/// What Prometheus makes of a figure.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// It only grows, but for a new start.
    Counter,
    /// It is what it is now.
    Gauge,
}

/// The format, line by line.
struct Text<W>(W);

/// The samples of one name.
struct Family<'t, W> {
    to: &'t mut W,
    name: &'static str,
}

impl<W: Write> Text<W> {
    fn family(
        &mut self,
        name: &'static str,
        kind: Kind,
        help: &str,
    ) -> Result<Family<'_, W>, fmt::Error> {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        write!(self.0, "# HELP stubdom_{name} {help}\n# TYPE stubdom_{name} {kind}\n")?;
        Ok(Family { to: &mut self.0, name })
    }

    fn single(
        &mut self,
        name: &'static str,
        kind: Kind,
        help: &str,
        value: impl Display,
    ) -> fmt::Result {
        self.family(name, kind, help)?.sample(&[], value)
    }
}

impl<W: Write> Family<'_, W> {
    fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) -> fmt::Result {
        write!(self.to, "stubdom_{}", self.name)?;
        for (number, (label, text)) in labels.iter().enumerate() {
            let before = if number == 0 { '{' } else { ',' };
            write!(self.to, "{before}{label}=\"{}\"", Escaped(text))?;
        }
        let after = if labels.is_empty() { "" } else { "}" };
        writeln!(self.to, "{after} {value}")
    }
}

/// A time in the format's unit. Floating point would cost the image more than all of this.
struct Seconds(Duration);

impl Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0.as_secs(), self.0.subsec_millis())
    }
}

/// A label's value as the format has it.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '\\' => f.write_str("\\\\"),
            '"' => f.write_str("\\\""),
            '\n' => f.write_str("\\n"),
            c => f.write_char(c),
        })
    }
}

/// Text of at most [`MOST`] bytes, for which running out of memory is an error.
struct Bounded(String);

impl Write for Bounded {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        if part.len() > MOST - self.0.len() {
            return Err(fmt::Error);
        }
        self.0.try_reserve(part.len()).map_err(|_| fmt::Error)?;
        self.0.push_str(part);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
