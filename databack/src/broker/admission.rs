//! Who may have a channel, and how much there may be of everything.

use core::fmt;

use xen_sys::page::{PAGE_SIZE, Shared};

use super::Broker;
use crate::ask::Kind;
use crate::policy::{Act, Owner, Resource};
use crate::vchan::Sizes;

/// The least order of a ring to a front: frames but for messages fit into it whole.
const LEAST_ORDER: usize = 8 << 10;

/// Bytes that a channel is charged beside its rings.
const CHANNEL_COST: usize = 2048;

/// What there may be, where the policy says nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Channels of one domain.
    pub channels: u32,
    /// Bytes that one domain uses: its rings and what waits.
    pub memory: usize,
    /// Subscriptions of one domain.
    pub subscriptions: u32,
    /// Channels of all domains.
    pub total_channels: usize,
    /// Bytes that all domains use.
    pub total_memory: usize,
    /// Bytes of messages that are kept for later, of all domains.
    pub kept_memory: usize,
    /// Pushes of one channel under way.
    pub pushes: u16,
    /// Publishes of one channel unanswered.
    pub publishes: u16,
    /// Names that one channel serves.
    pub services: u16,
}

impl Limits {
    /// What there may be in a domain with so many free bytes of memory. A quarter is left for what
    /// is not charged to anybody, since there is no answer to its lack.
    #[must_use]
    pub fn within(memory: usize) -> Self {
        let (total_memory, kept_memory) = (memory / 4 * 3, memory / 8);
        let all = Self::default();
        Self { total_memory, kept_memory, memory: all.memory.min(total_memory), ..all }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            channels: 8,
            memory: 4 << 20,
            subscriptions: 128,
            total_channels: 2048,
            total_memory: 64 << 20,
            kept_memory: 16 << 20,
            pushes: 32,
            publishes: 16,
            services: 64,
        }
    }
}

/// Why there is no channel for who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The policy does not allow what it is for, which this says in words.
    Denied(&'static str),
    /// The domain has as many as it may.
    TooMany,
    /// The broker has as many as it can.
    Full,
    /// The domain may not use so much memory, or there is not so much.
    NoMemory,
    /// The ring to the guest is too small for frames.
    TooSmall,
}

/// What [`Refusal::Denied`] was about.
pub(super) const SERVICES: &str = "to push, serve, publish or subscribe";
pub(super) const ECHO: &str = "an echo";
pub(super) const STREAM: &str = "a stream of this name";

/// What a channel with rings of these sizes is charged.
pub(super) const fn cost(sizes: Sizes) -> usize {
    sizes.pages() * PAGE_SIZE + CHANNEL_COST
}

impl<M: Shared> Broker<M> {
    /// Whether a channel may be set up for `owner`.
    ///
    /// # Errors
    /// [`Refusal`], which is a sentence for who asked.
    pub fn admit(&self, owner: &Owner, kind: &Kind, sizes: Sizes) -> Result<(), Refusal> {
        let rights = self.policy.rights_of(owner);
        let (allowed, what) = match kind {
            Kind::Services => (rights.any_service(), SERVICES),
            Kind::Echo => (rights.allow(Act::Echo), ECHO),
            Kind::Stream(name) => (rights.allow(Act::Stream(name.as_str())), STREAM),
        };
        if !allowed {
            return Err(Refusal::Denied(what));
        }
        if *kind == Kind::Services && sizes.right().bytes() < LEAST_ORDER {
            return Err(Refusal::TooSmall);
        }
        let account = self.accounts.find(owner.domain);
        let (channels, used) = account.map_or((0, 0), |a| (a.channels, a.memory));
        let most = self.policy.limit(owner, Resource::Channels);
        if u64::from(channels) >= most.unwrap_or(self.limits.channels.into()) {
            return Err(Refusal::TooMany);
        }
        if self.channels.len() >= self.limits.total_channels {
            return Err(Refusal::Full);
        }
        let most = self.policy.limit(owner, Resource::Memory);
        let most = most.map_or(self.limits.memory, |most| most.try_into().unwrap_or(usize::MAX));
        if used.saturating_add(cost(sizes)) > most
            || self.accounts.memory.saturating_add(cost(sizes)) > self.limits.total_memory
        {
            return Err(Refusal::NoMemory);
        }
        Ok(())
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Denied(what) => {
                return write!(f, "no rule of the policy allows this domain {what}");
            }
            Self::TooMany => "the domain has as many channels as it may",
            Self::Full => "there are as many channels as there can be",
            Self::NoMemory => "the domain may not use so much memory, or there is not so much",
            Self::TooSmall => "services need right=13 or more: frames have to fit into the ring",
        })
    }
}
