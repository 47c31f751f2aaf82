//! The command line: which role, and the switches of the tests.
//!
//! Words are separated by blanks. A word is an option, with or without `--` in front; a value
//! follows after `=` or as the next word. `init-xenstore-domain` gives `--event PORT`, followed by
//! the text of its `--param`; `xl` gives the text of `extra=`.

use core::fmt;

/// Everything the command line can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// `--event PORT`: dom0's event channel. It makes this the Xenstore of the host.
    pub event: Option<u32>,
    /// `events=fifo|2l`: the event channel ABI instead of the best that Xen offers.
    pub events: EventAbi,
    /// `hypercalls=page|direct`: how Xen is called.
    pub hypercalls: Hypercalls,
    /// `test-fault`, `test-panic`: fail at once, on purpose.
    pub failure: Option<Failure>,
}

/// Which event channel ABI to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EventAbi {
    /// FIFO where Xen has it, else 2-level.
    #[default]
    Best,
    /// FIFO or nothing.
    Fifo,
    /// 2-level, even where Xen has FIFO.
    TwoLevel,
}

/// How hypercalls enter Xen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Hypercalls {
    /// By the instruction of the processor's vendor.
    #[default]
    Direct,
    /// Through the hypercall page.
    Page,
}

/// A failure on purpose, for the tests of its report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// An access to memory that is not mapped.
    Fault,
    /// A panic.
    Panic,
}

/// A command line that cannot be obeyed: the option, and what it wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed<'a> {
    /// The option's name.
    pub option: &'a str,
    /// The value that was found, if there was one.
    pub value: Option<&'a str>,
    /// What would have been right.
    pub wanted: &'static str,
}

impl fmt::Display for Malformed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { option, value, wanted } = self;
        match value {
            Some(value) => write!(f, "command line: {option} wants {wanted}, not {value:?}"),
            None => write!(f, "command line: {option} wants {wanted}, and nothing follows it"),
        }
    }
}

impl Options {
    /// Reads a command line. Each word that is no option is given to `unknown` and ignored, as
    /// other Xenstore servers have options that mean nothing here.
    ///
    /// # Errors
    /// [`Malformed`] when a known option has no value, or one that it cannot have.
    pub fn parse<'a>(
        command_line: &'a str,
        mut unknown: impl FnMut(&'a str),
    ) -> Result<Self, Malformed<'a>> {
        let mut options = Self::default();
        let mut words = command_line.split_ascii_whitespace();
        while let Some(word) = words.next() {
            let (name, attached) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (word, None),
            };
            let option = name.strip_prefix("--").unwrap_or(name);
            let mut value = || attached.or_else(|| words.next());
            let malformed = |value, wanted| Malformed { option, value, wanted };
            match option {
                "event" => {
                    let value = value();
                    let port = value.and_then(|v| v.parse().ok()).filter(|&port| port != 0);
                    options.event = Some(port.ok_or(malformed(value, "a port number"))?);
                }
                "events" => {
                    options.events = match value() {
                        Some("fifo") => EventAbi::Fifo,
                        Some("2l") => EventAbi::TwoLevel,
                        other => return Err(malformed(other, "fifo or 2l")),
                    }
                }
                "hypercalls" => {
                    options.hypercalls = match value() {
                        Some("direct") => Hypercalls::Direct,
                        Some("page") => Hypercalls::Page,
                        other => return Err(malformed(other, "direct or page")),
                    }
                }
                "test-fault" => options.failure = Some(Failure::Fault),
                "test-panic" => options.failure = Some(Failure::Panic),
                _ => unknown(word),
            }
        }
        Ok(options)
    }
}
