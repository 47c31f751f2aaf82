//! Figures of this domain: one list, shown as a [page](Figures::page) that Prometheus reads, as
//! [nodes](Nodes) of Xenstore, and as [lines](Figures::lines) for a terminal.
//!
//! Whoever has figures puts them into a [`Figures`]; what it does not have is not shown. They are
//! counts and amounts, and names of this program's own: nothing that a guest wrote is among them.

mod nodes;
mod text;

use alloc::format;
use alloc::string::String;
use core::fmt::{self, Display};
use core::time::Duration;

use databack::broker;
use xenstore_core::{Counts, Stats};

use crate::activity::{Activity, Copying};

pub use nodes::{Change, Nodes};

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
    /// What was done.
    pub activity: Activity,
    /// What was asked of Xen to move frames, if there is a switch.
    pub copying: Option<Copying>,
    /// The store, if it is here.
    pub store: Option<Store<'a>>,
    /// The data channels, if they are here.
    pub channels: Option<broker::Figures>,
    /// The ports of the switch.
    pub ports: &'a [Port<'a>],
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
#[derive(Clone, Copy, Debug)]
pub struct Store<'a> {
    /// What it did.
    pub counts: &'a Counts,
    /// What it holds.
    pub stats: Stats,
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

/// The name of a port: that of what is behind it, with a number where another has that one already.
#[must_use]
pub fn port_name(wanted: String, is_taken: impl Fn(&str) -> bool) -> String {
    if !is_taken(&wanted) {
        return wanted;
    }
    let mut numbered = (2_u32..).map(|number| format!("{wanted}-{number}"));
    numbered.find(|name| !is_taken(name)).unwrap_or(wanted)
}

/// What went in one direction.
#[derive(Clone, Copy, Debug, Default)]
pub struct Way {
    /// Frames.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What a family of figures is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// It only grows, but for a new start.
    Counter,
    /// It is what it is now.
    Gauge,
    /// Its labels are the figure.
    Info,
}

/// Figures of one name, told apart by their labels.
#[derive(Clone, Copy, Debug)]
struct Family {
    name: &'static str,
    kind: Kind,
    help: &'static str,
    labels: &'static [&'static str],
}

/// A way to show figures.
trait Show {
    /// What comes is of this family; each comes once.
    fn family(&mut self, family: Family) -> fmt::Result;

    /// A figure of the family that came last, with a value for each of its labels.
    fn sample(&mut self, labels: &[&str], value: &dyn Display) -> fmt::Result;
}

impl Figures<'_> {
    /// Shows them all: this is the list.
    fn show(&self, to: &mut impl Show) -> fmt::Result {
        let mut list = List(to);
        let Identity { version, role, xen } = self.identity;
        let family = Family {
            name: "info",
            kind: Kind::Info,
            help: "Who this is; always 1.",
            labels: &["version", "role", "xen"],
        };
        list.0.family(family)?;
        list.0.sample(&[version, role, xen], &1)?;
        list.gauge("uptime_seconds", "Time since the start.", &Seconds(self.uptime))?;
        list.gauge("memory_bytes", "Memory of the heap, used or not.", &self.memory)?;
        list.gauge("memory_free_bytes", "Memory of the heap that is free.", &self.memory_free)?;
        let Activity { turns, wakeups, events, notifications } = self.activity;
        list.counter("turns_total", "Turns of the main loop.", turns)?;
        list.counter("wakeups_total", "Times that it slept and was woken.", wakeups)?;
        list.counter("events_total", "Events that came.", events)?;
        list.counter("notifications_total", "Events that were sent.", notifications)?;
        if let Some(Copying { calls, copies }) = self.copying {
            list.counter("grant_copy_calls_total", "Calls of Xen's to copy frames.", calls)?;
            list.counter("grant_copies_total", "Copies that they made.", copies)?;
        }
        if let Some(store) = &self.store {
            show_store(store, &mut list)?;
        }
        if let Some(channels) = &self.channels {
            show_channels(channels, &mut list)?;
        }
        show_ports(self.ports, &mut list)
    }
}

fn show_store(store: &Store<'_>, list: &mut List<'_, impl Show>) -> fmt::Result {
    let Store { counts, stats } = store;
    let by = |name, help, labels| Family { name, kind: Kind::Counter, help, labels };
    let family = by("store_requests_total", "Requests that were answered.", &["type"]);
    list.by_name(family, counts.requests())?;
    let family = by("store_errors_total", "Answers that were errors.", &["error"]);
    list.by_name(family, counts.errors())?;
    let family = by("store_refusals_total", "Requests that a quota refused.", &["quota"]);
    list.by_name(family, counts.refusals())?;
    let help = "Transactions that were started.";
    list.counter("store_transactions_started_total", help, counts.transactions_started())?;
    let help = "Transactions that ended, by how they did.";
    let family = by("store_transactions_ended_total", help, &["how"]);
    list.by_name(family, counts.transactions_ended())?;
    let open = counts.transactions_open();
    list.gauge("store_transactions_open", "Transactions that are open.", &open)?;
    for (name, help, count) in [
        ("store_nodes", "Nodes of the tree.", stats.nodes),
        ("store_watches", "Watches of all connections.", stats.watches),
        ("store_connections", "Connections of domains.", stats.connections),
        ("store_domains", "Domains that are known.", stats.domains),
    ] {
        list.gauge(name, help, &count)?;
    }
    list.counter("store_received_bytes_total", "Bytes of requests.", counts.received_bytes())?;
    let help = "Bytes of answers and of events.";
    list.counter("store_sent_bytes_total", help, counts.sent_bytes())
}

fn show_channels(channels: &broker::Figures, list: &mut List<'_, impl Show>) -> fmt::Result {
    for (name, help, count) in [
        ("channels", "Data channels that are open.", channels.channels),
        ("channels_services", "Names that are served.", channels.services),
        ("channels_subscriptions", "Subscriptions to messages.", channels.subscriptions),
        ("channels_pushes_open", "Blocks that are under way.", channels.pushes_open),
        ("channels_kept_messages", "Messages that are kept for later.", channels.kept),
        ("channels_memory_bytes", "Memory of rings and of what waits.", channels.memory),
    ] {
        list.gauge(name, help, &count)?;
    }
    let help = "What would have taken more memory than its domain may use.";
    for (name, help, count) in [
        ("channels_opened_total", "Data channels that were opened.", channels.opened),
        ("channels_pushes_total", "Blocks that were pushed.", channels.pushes),
        ("channels_push_bytes_total", "Bytes of blocks that were taken.", channels.push_bytes),
        ("channels_messages_total", "Messages that were published.", channels.published),
        ("channels_message_bytes_total", "Bytes of messages.", channels.published_bytes),
        ("channels_refusals_total", help, channels.refused),
    ] {
        list.counter(name, help, count)?;
    }
    let family = Family {
        name: "channels_violations_total",
        kind: Kind::Counter,
        help: "Channels that ended since their client broke a rule.",
        labels: &["rule"],
    };
    list.by_name(family, channels.violations.into_iter())
}

fn show_ports(ports: &[Port<'_>], list: &mut List<'_, impl Show>) -> fmt::Result {
    if ports.is_empty() {
        return Ok(());
    }
    list.gauge("switch_ports", "Ports of the switch.", &ports.len())?;
    let ways = || ports.iter().flat_map(Port::ways);
    let by = |name, help, labels| Family { name, kind: Kind::Counter, help, labels };
    list.0.family(by("switch_frames_total", "Frames, by port.", &["port", "direction"]))?;
    for (port, direction, way) in ways() {
        list.0.sample(&[port, direction], &way.frames)?;
    }
    list.0.family(by("switch_bytes_total", "Bytes of frames, by port.", &["port", "direction"]))?;
    for (port, direction, way) in ways() {
        list.0.sample(&[port, direction], &way.bytes)?;
    }
    let help = "Frames that went nowhere, by port and reason.";
    list.0.family(by("switch_drops_total", help, &["port", "reason"]))?;
    for port in ports {
        for (reason, count) in port.drops {
            list.0.sample(&[port.name, reason], count)?;
        }
    }
    Ok(())
}

/// What the list is made with.
struct List<'s, S>(&'s mut S);

impl<S: Show> List<'_, S> {
    fn gauge(
        &mut self,
        name: &'static str,
        help: &'static str,
        value: &dyn Display,
    ) -> fmt::Result {
        self.0.family(Family { name, kind: Kind::Gauge, help, labels: &[] })?;
        self.0.sample(&[], value)
    }

    fn counter(&mut self, name: &'static str, help: &'static str, count: u64) -> fmt::Result {
        self.0.family(Family { name, kind: Kind::Counter, help, labels: &[] })?;
        self.0.sample(&[], &count)
    }

    fn by_name<'n>(
        &mut self,
        family: Family,
        mut counts: impl Iterator<Item = (&'n str, u64)>,
    ) -> fmt::Result {
        self.0.family(family)?;
        counts.try_for_each(|(name, count)| self.0.sample(&[name], &count))
    }
}

/// A time in seconds. Floating point would cost the image more than all of this.
struct Seconds(Duration);

impl Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0.as_secs(), self.0.subsec_millis())
    }
}

#[cfg(test)]
mod tests;
