//! Interfaces as ports of the switch.

use alloc::vec::Vec;
use core::time::Duration;

use xen_sys::ids::DomId;
use xen_sys::page::Shared;
use xen_sys::ring::slots::Back;

use crate::head::Mac;
use crate::held::{self, Held};
use crate::receive::{self, Receive};
use crate::table::Table;

pub(crate) use crate::rate::Credit;
pub use crate::rate::Rate;

/// A port's number. Once the port is detached, nothing is found by it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId {
    pub(crate) index: u16,
    pub(crate) generation: u32,
}

impl PortId {
    /// A number that no other port has at the same time; they are dense.
    #[must_use]
    pub const fn index(self) -> usize {
        self.index as usize
    }
}

/// A queue of a port: a pair of rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId {
    /// Whose.
    pub port: PortId,
    /// Its number among the port's.
    pub number: u8,
}

/// What a frontend can receive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Takes {
    /// Frames in more than one slot (`feature-sg`).
    pub chains: bool,
    /// Frames of TCP over IPv4 that are yet to be cut (`feature-gso-tcpv4`).
    pub gso4: bool,
    /// The same over IPv6 (`feature-gso-tcpv6`).
    pub gso6: bool,
    /// Blank checksums over IPv4 (no `feature-no-csum-offload`).
    pub blank4: bool,
    /// Blank checksums over IPv6 (`feature-ipv6-csum-offload`).
    pub blank6: bool,
}

/// What an interface is.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Who grants the pages of its frames; `None` if they are our own, and its references count
    /// them.
    pub domain: Option<DomId>,
    /// Its address, from which alone it may send; `None` for one behind which there are others.
    pub mac: Option<Mac>,
    /// How much it may send.
    pub rate: Option<Rate>,
    /// What it can receive.
    pub takes: Takes,
}

/// The two rings of a queue, by the pages they are in.
#[derive(Debug)]
pub struct Rings<P> {
    /// What the guest sends.
    pub tx: P,
    /// What it receives.
    pub rx: P,
}

/// Why a frame went nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drop {
    /// Shorter than an Ethernet header.
    Short,
    /// From an address that is not its sender's.
    Source,
    /// To nobody that is known, or back to where it came from.
    Nobody,
    /// Its receiver had no page for it.
    NoRoom,
    /// Its receiver takes no frames of this form.
    Form,
    /// It could not be copied.
    Copy,
}

impl Drop {
    /// All of them, in the order of [`Counters::dropped`].
    pub const ALL: [Self; 6] =
        [Self::Short, Self::Source, Self::Nobody, Self::NoRoom, Self::Form, Self::Copy];

    /// A word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::Source => "source",
            Self::Nobody => "nobody",
            Self::NoRoom => "no_room",
            Self::Form => "form",
            Self::Copy => "copy",
        }
    }
}

/// What went through a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames that it sent.
    pub sent_frames: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Frames that it received.
    pub received_frames: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Frames that it sent and that went nowhere, and frames that it did not receive.
    pub dropped: [u64; Drop::ALL.len()],
}

impl Counters {
    pub(crate) fn drop(&mut self, why: Drop) {
        self.dropped[why as usize] += 1;
    }
}

/// A queue at work.
pub(crate) struct Queue<P> {
    pub(crate) ring: held::Ring<P>,
    pub(crate) held: Held,
    pub(crate) receive: Receive<P>,
    /// It is among those whose transmit ring is to be looked at.
    pub(crate) is_ready: bool,
    /// It is among those to which frames are to be delivered.
    pub(crate) is_output: bool,
    /// It is among those that have responses to show.
    pub(crate) is_touched: bool,
    /// There is a timer for when it may send again.
    pub(crate) is_spent: bool,
    /// There is a timer for the frames that wait for it.
    pub(crate) is_watched: bool,
    /// Responses in its transmit ring for which it got no event.
    pub(crate) owed: u32,
    /// There is a timer for them.
    pub(crate) is_owing: bool,
}

impl<P> Queue<P> {
    /// How much memory it takes, with what the switch notes of it, which may be twice as much as there is
    /// to note.
    pub(crate) const BYTES: usize = 2 * size_of::<Self>() + Held::BYTES + receive::BYTES + 1024;
}

impl<P: Shared> Queue<P> {
    fn new(rings: Rings<P>) -> Self {
        Self {
            ring: Back::attach(rings.tx),
            held: Held::new(),
            receive: Receive::new(rings.rx),
            is_ready: false,
            is_output: false,
            is_touched: false,
            is_spent: false,
            is_watched: false,
            owed: 0,
            is_owing: false,
        }
    }
}

/// A port at work.
pub(crate) struct Port<P> {
    pub(crate) config: Config,
    pub(crate) credit: Option<Credit>,
    pub(crate) queues: Vec<Queue<P>>,
    pub(crate) counters: Counters,
    /// It broke a rule: nothing more is taken from it or given to it.
    pub(crate) is_ended: bool,
}

impl<P: Shared> Port<P> {
    pub(crate) fn new(config: Config, rings: impl Iterator<Item = Rings<P>>) -> Self {
        Self {
            config,
            credit: config.rate.map(Credit::new),
            queues: rings.map(Queue::new).collect(),
            counters: Counters::default(),
            is_ended: false,
        }
    }

    /// Whether the port may send from an address; one behind which there are others is heard of.
    pub(crate) fn may_send_from(
        &self,
        id: PortId,
        source: Mac,
        table: &mut Table,
        now: Duration,
    ) -> bool {
        match self.config.mac {
            Some(own) => source == own,
            None if source.is_group() || table.is_given(source) => false,
            None => {
                table.learn(source, id, now);
                true
            }
        }
    }
}
