//! The switch: frames of one port, to those that they are for.
//!
//! A [turn](Switch::turn) takes frames from the transmit rings that had events, has the head of each
//! copied here, all by one call of Xen's, and finds out whom they are for. Each receive ring has a
//! queue of frames that wait for its pages. As many as there are pages for are then copied from
//! guest to guest, again by one call. No step looks at a port that it has nothing to do with, and
//! none allocates.

mod convert;
mod deliver;
mod gather;

use alloc::boxed::Box;
use alloc::collections::{BinaryHeap, VecDeque};
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::time::Duration;

use xen_sys::page::Shared;

use crate::head::Mac;
use crate::place::Copier;
use crate::port::{Config, Counters, Port, PortId, Queue, QueueId, Rings};
use crate::table::Table;
use crate::violation::Violation;

use convert::Bench;
use deliver::Round;
use gather::Fresh;

/// Pages of our own that the switch needs, the first of those that the [`Copier`] has.
pub const PAGES: usize = deliver::END;

/// Ports at most.
const PORTS_MAX: usize = 4096;

/// Responses in a transmit ring that are worth an event of their own.
const PROMPT: u32 = 4;

/// Responses for which there may be no event yet. A guest that goes on sending looks at them by
/// itself, and must not run out of slots.
const OWED_MAX: u32 = 16;

/// For how long an event for few responses is kept back: such a guest needs none, and one that
/// exchanges small frames with another is woken half as often.
const OWED_FOR: Duration = Duration::from_millis(1);

/// How often a turn delivers before its owner gets to do something else.
const ROUNDS: usize = 8;

/// Memory that a new port leaves for what else there is.
const SPARE: usize = 128 * 1024;

/// Whose ring has news.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// The transmit ring: slots are free again.
    Tx,
    /// The receive ring: frames are there.
    Rx,
}

/// Something to be done at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// The queue may send again.
    Credit(QueueId),
    /// Frames have waited long for pages of the queue.
    Stall(QueueId),
    /// The queue has waited long for an event of its transmit ring.
    Owed(QueueId),
}

struct Entry<P> {
    generation: u32,
    port: Option<Port<P>>,
}

/// Ports, and what waits to be done for them.
pub struct Switch<P> {
    entries: Vec<Entry<P>>,
    /// The ports that there are, for frames to all.
    present: Vec<PortId>,
    table: Table,
    ready: VecDeque<QueueId>,
    outputs: VecDeque<QueueId>,
    touched: Vec<QueueId>,
    notifications: VecDeque<(QueueId, Side)>,
    violations: VecDeque<(PortId, Violation)>,
    timers: BinaryHeap<Reverse<(Duration, Timer)>>,
    fresh: Fresh,
    round: Round,
    /// Made for the first port that does not take every frame as it is.
    bench: Option<Box<Bench>>,
    /// When the last turn began.
    now: Duration,
}

impl<P: Shared> Switch<P> {
    /// A switch without ports.
    #[must_use]
    pub fn new() -> Self {
        Self {
            entries: Vec::new(),
            present: Vec::new(),
            table: Table::new(),
            ready: VecDeque::new(),
            outputs: VecDeque::new(),
            touched: Vec::new(),
            notifications: VecDeque::new(),
            violations: VecDeque::new(),
            timers: BinaryHeap::new(),
            fresh: Fresh::new(),
            round: Round::new(),
            bench: None,
            now: Duration::ZERO,
        }
    }

    /// Adds a port with these rings, at least one pair; `None` if there are too many ports, or there is
    /// not the memory for another. What is in its rings already is looked at in the next turn.
    pub fn attach(
        &mut self,
        config: Config,
        rings: impl ExactSizeIterator<Item = Rings<P>>,
    ) -> Option<PortId> {
        let queues = u8::try_from(rings.len()).ok().filter(|&count| count > 0)?;
        if !has_memory(memory::<P>(queues) + SPARE) {
            return None;
        }
        let index = match self.entries.iter().position(|entry| entry.port.is_none()) {
            Some(index) => index,
            None if self.entries.len() < PORTS_MAX => {
                self.entries.push(Entry { generation: 0, port: None });
                self.entries.len() - 1
            }
            None => return None,
        };
        if !config.takes.is_all() && self.bench.is_none() {
            self.bench = Some(Box::new(Bench::new()));
        }
        let entry = &mut self.entries[index];
        entry.port = Some(Port::new(config, rings));
        let index = u16::try_from(index).ok()?;
        let id = PortId { index, generation: entry.generation };
        if let Some(mac) = config.mac {
            self.table.give(mac, id);
        }
        self.present.push(id);
        self.reserve();
        for number in 0..queues {
            self.hear(QueueId { port: id, number });
        }
        Some(id)
    }

    /// Sees to it that what is to be done for all ports that there are can be noted without allocating,
    /// beside what is noted now: that may be of ports that have gone.
    fn reserve(&mut self) {
        let ports = self.entries.iter().filter_map(|entry| entry.port.as_ref());
        let queues = ports.map(|port| port.queues.len()).sum();
        self.ready.reserve(queues);
        self.outputs.reserve(queues);
        self.touched.reserve(queues);
        // In a turn, of the transmit ring one that was owed and one, and of the receive ring one.
        self.notifications.reserve(3 * queues);
        self.violations.reserve(self.present.len());
        // One of each kind.
        self.timers.reserve(3 * queues);
    }

    /// Removes a port. What waited for it is responded to; its own frames go nowhere any more.
    pub fn detach(&mut self, id: PortId) {
        let Some(port) = self.take_out(id) else { return };
        self.present.retain(|&present| present != id);
        if let Some(mac) = port.config.mac {
            self.table.take_back(mac, id);
            self.give_again(mac);
        }
        for queue in &port.queues {
            for waiting in &queue.receive.waiting {
                self.end_use(waiting.from, waiting.frame, xen_sys::ring::netif::DROPPED);
            }
        }
        self.publish();
    }

    /// An address that one had can be another's, too, as that of a guest whose migration failed.
    fn give_again(&mut self, mac: Mac) {
        let Self { entries, present, table, .. } = self;
        let has_it =
            |id: &PortId| find(entries, *id).is_some_and(|port| port.config.mac == Some(mac));
        if !table.is_given(mac)
            && let Some(id) = present.iter().copied().rfind(has_it)
        {
            table.give(mac, id);
        }
    }

    fn take_out(&mut self, id: PortId) -> Option<Port<P>> {
        let entry = self.entries.get_mut(id.index())?;
        if entry.generation != id.generation {
            return None;
        }
        entry.generation = entry.generation.wrapping_add(1);
        entry.port.take()
    }

    fn port(&mut self, id: PortId) -> Option<&mut Port<P>> {
        find(&mut self.entries, id)
    }

    fn queue(&mut self, id: QueueId) -> Option<&mut Queue<P>> {
        let port = self.port(id.port).filter(|port| !port.is_ended)?;
        port.queues.get_mut(usize::from(id.number))
    }

    /// What went through a port.
    pub fn counters(&mut self, id: PortId) -> Option<Counters> {
        self.port(id).map(|port| port.counters)
    }

    /// There was an event of a queue: frames to be sent, or pages to receive in.
    pub fn hear(&mut self, id: QueueId) {
        let Some(queue) = self.queue(id) else { return };
        let (ready, output) = (!queue.is_ready, !queue.is_output);
        let output = output && !queue.receive.waiting.is_empty();
        queue.is_ready = true;
        queue.is_output |= output;
        if ready {
            self.ready.push_back(id);
        }
        if output {
            self.outputs.push_back(id);
        }
    }

    /// Moves frames; tells whether there is more to do at once.
    pub fn turn(&mut self, copier: &mut impl Copier, now: Duration) -> bool {
        self.now = now;
        self.expire(now);
        self.gather(copier, now);
        for _ in 0..ROUNDS {
            if !self.deliver(copier, now) {
                break;
            }
        }
        self.publish();
        !self.ready.is_empty() || !self.outputs.is_empty()
    }

    /// When the next turn is due without any event.
    #[must_use]
    pub fn due(&self) -> Option<Duration> {
        self.timers.peek().map(|&Reverse((due, _))| due)
    }

    /// A queue to one of whose rings an event is to be sent.
    pub fn next_notification(&mut self) -> Option<(QueueId, Side)> {
        self.notifications.pop_front()
    }

    /// Whether a port broke a rule and is not yet detached.
    #[must_use]
    pub fn has_violation(&self) -> bool {
        !self.violations.is_empty()
    }

    /// A port that broke a rule, and is to be detached.
    pub fn next_violation(&mut self) -> Option<(PortId, Violation)> {
        self.violations.pop_front()
    }

    fn expire(&mut self, now: Duration) {
        while let Some(&Reverse((due, timer))) = self.timers.peek() {
            if due > now {
                break;
            }
            self.timers.pop();
            match timer {
                Timer::Credit(id) => self.refill(id),
                Timer::Stall(id) => self.end_stall(id, now),
                Timer::Owed(id) => self.pay(id),
            }
        }
    }

    /// A queue may send again.
    fn refill(&mut self, id: QueueId) {
        if let Some(queue) = self.queue(id) {
            queue.is_spent = false;
        }
        self.hear(id);
    }

    /// Notes that a port broke a rule.
    fn accuse(&mut self, id: PortId, violation: Violation) {
        if let Some(port) = self.port(id).filter(|port| !port.is_ended) {
            port.is_ended = true;
            self.violations.push_back((id, violation));
        }
    }

    /// Notes that a queue has responses to show.
    fn touch(&mut self, id: QueueId) {
        if let Some(queue) = self.queue(id).filter(|queue| !queue.is_touched) {
            queue.is_touched = true;
            self.touched.push(id);
        }
    }

    /// Shows all responses.
    fn publish(&mut self) {
        while let Some(id) = self.touched.pop() {
            let Some(queue) = self.queue(id) else { continue };
            queue.is_touched = false;
            let responses = queue.ring.unshown();
            let (tx, rx) = (queue.ring.publish(), queue.receive.publish());
            // A guest that is owed an event asks for no other.
            if tx || queue.owed > 0 {
                self.announce(id, responses);
            }
            if rx {
                self.notifications.push_back((id, Side::Rx));
            }
        }
    }

    /// Sends an event for responses in a transmit ring, or owes it.
    fn announce(&mut self, id: QueueId, responses: u32) {
        let due = self.now + OWED_FOR;
        let Some(queue) = self.queue(id) else { return };
        queue.owed += responses;
        if responses >= PROMPT || queue.owed >= OWED_MAX {
            queue.owed = 0;
            self.notifications.push_back((id, Side::Tx));
        } else if !core::mem::replace(&mut queue.is_owing, true) {
            self.timers.push(Reverse((due, Timer::Owed(id))));
        }
    }

    /// Sends an event that is owed, unless the guest has looked meanwhile.
    fn pay(&mut self, id: QueueId) {
        let Some(queue) = self.queue(id) else { return };
        queue.is_owing = false;
        let owed = core::mem::take(&mut queue.owed);
        if owed > 0 && queue.ring.is_awaited() {
            self.notifications.push_back((id, Side::Tx));
        }
    }
}

/// How many bytes a port of so many queues takes, at most.
#[must_use]
pub const fn memory<P>(queues: u8) -> usize {
    convert::BENCH_BYTES + queues as usize * Queue::<P>::BYTES
}

/// Whether there is memory for that much, as it is when many things are to be allocated that cannot do
/// without.
fn has_memory(bytes: usize) -> bool {
    let mut room = Vec::<u8>::new();
    let has_room = room.try_reserve_exact(bytes).is_ok();
    // What is never looked at need not be allocated at all.
    core::hint::black_box(&mut room);
    has_room
}

fn find<P>(entries: &mut [Entry<P>], id: PortId) -> Option<&mut Port<P>> {
    let entry = entries.get_mut(id.index())?;
    entry.port.as_mut().filter(|_| entry.generation == id.generation)
}

impl<P: Shared> Default for Switch<P> {
    fn default() -> Self {
        Self::new()
    }
}
