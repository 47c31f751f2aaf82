//! What the store did since its start.

use alloc::vec::Vec;

/// Counts for an operator, and for whoever measures.
#[derive(Debug, Default)]
pub struct Activity {
    /// Turns of the main loop.
    pub turns: u64,
    /// Times that it slept and was woken.
    pub wakeups: u64,
    /// Events that were seen.
    pub events: u64,
    /// Events that were sent to guests for what was moved in their rings.
    pub notifications: u64,
}

impl Activity {
    /// Each count with its name.
    #[must_use]
    pub fn named(&self) -> Vec<(&'static str, u64)> {
        let Self { turns, wakeups, events, notifications } = *self;
        let named = [
            ("turns", turns),
            ("wake-ups", wakeups),
            ("events", events),
            ("notifications", notifications),
        ];
        named.into()
    }
}
