//! Figures as text that Prometheus reads: its text exposition format, version 0.0.4.

use alloc::string::String;
use core::fmt::{self, Display, Write};

use super::{Family, Figures, Kind, Show};
use crate::http::Page;

/// The media type of the text.
const KIND: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The most bytes of the text.
const MOST: usize = 256 * 1024;

impl Figures<'_> {
    /// The page, unless there is not the memory for it, or it would be larger than any can be.
    #[must_use]
    pub fn page(&self) -> Option<Page> {
        let mut text = Text { to: Bounded(String::new()), family: None };
        self.show(&mut text).ok()?;
        Some(Page { kind: KIND, text: text.to.0 })
    }
}

/// The format, line by line.
struct Text<W> {
    to: W,
    family: Option<Family>,
}

impl<W: Write> Show for Text<W> {
    fn family(&mut self, family: Family) -> fmt::Result {
        let Family { name, help, .. } = family;
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge | Kind::Info => "gauge",
        };
        self.family = Some(family);
        write!(self.to, "# HELP stubdom_{name} {help}\n# TYPE stubdom_{name} {kind}\n")
    }

    fn sample(&mut self, labels: &[&str], value: &dyn Display) -> fmt::Result {
        let Family { name, labels: names, .. } = self.family.ok_or(fmt::Error)?;
        write!(self.to, "stubdom_{name}")?;
        for (number, (name, label)) in names.iter().zip(labels).enumerate() {
            let before = if number == 0 { '{' } else { ',' };
            write!(self.to, "{before}{name}=\"{}\"", Escaped(label))?;
        }
        let after = if labels.is_empty() { "" } else { "}" };
        writeln!(self.to, "{after} {value}")
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
