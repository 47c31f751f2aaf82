//! What goes on, in numbers. They hold nothing that a client wrote.

use xen_sys::page::Shared;

use super::Broker;

/// What a broker has, and what it did since its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    /// Channels that are open.
    pub channels: usize,
    /// Names that are served.
    pub services: usize,
    /// Pushes under way.
    pub pushes_open: usize,
    /// Subscriptions.
    pub subscriptions: usize,
    /// Messages that are kept for later subscribers.
    pub kept: usize,
    /// Bytes that all domains use: their rings and what waits.
    pub memory: usize,
    /// Channels that were opened.
    pub opened: u64,
    /// Blocks that were pushed.
    pub pushes: u64,
    /// Bytes of blocks that receivers took.
    pub push_bytes: u64,
    /// Messages that were published.
    pub published: u64,
    /// Their bytes.
    pub published_bytes: u64,
    /// What was refused because it would have taken more memory than its domain, or all, may use.
    pub refused: u64,
    /// Channels that ended by a violation, by its name.
    pub violations: [(&'static str, u64); 6],
}

impl<M: Shared> Broker<M> {
    /// What there is and was done.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let all = &self.accounts.all;
        Figures {
            channels: self.channels.len(),
            services: self.services.len(),
            pushes_open: self.pushes.len(),
            subscriptions: self.subscriptions.len(),
            kept: self.kept.len(),
            memory: self.accounts.memory,
            opened: all.opened,
            pushes: all.pushes,
            push_bytes: all.bytes,
            published: all.published,
            published_bytes: all.published_bytes,
            refused: all.refused,
            violations: self.violations.named(),
        }
    }
}
