//! What guests do wrong, on the console: a few lines in a while, however much it is.

use core::fmt::Display;

/// Lines between two [`Complaints::rest`]s.
const LINES: u32 = 8;

/// Counts the lines.
#[derive(Debug, Default)]
pub struct Complaints {
    lines: u32,
}

impl Complaints {
    /// Says what a domain did, unless too much was said lately.
    pub fn note(&mut self, domain: impl Display, what: impl Display) {
        self.lines = self.lines.saturating_add(1);
        if self.lines <= LINES {
            log::warn!("domain {domain}: {what}");
        }
    }

    /// Some time has passed: says how much was not said, and begins anew.
    pub fn rest(&mut self) {
        let unsaid = core::mem::take(&mut self.lines).saturating_sub(LINES);
        if unsaid > 0 {
            log::warn!("{unsaid} more such lines were left out");
        }
    }
}
