//! What this domain did since its start.

/// Counts for an operator, and for whoever measures.
#[derive(Clone, Copy, Debug, Default)]
pub struct Activity {
    /// Turns of the main loop.
    pub turns: u64,
    /// Times that it slept and was woken.
    pub wakeups: u64,
    /// Events that came.
    pub events: u64,
    /// Events that were sent.
    pub notifications: u64,
}

/// What was asked of Xen to move frames.
#[derive(Clone, Copy, Debug, Default)]
pub struct Copying {
    /// Calls.
    pub calls: u64,
    /// Copies made by them.
    pub copies: u64,
}
