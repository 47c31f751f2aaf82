//! Random fronts, some of them honest, and what must hold of them whatever the others do.
//!
//! Of a block: it comes to one receiver at most, no byte of it out of place, and its sender hears
//! exactly one outcome, which is the receiver's word if there is one. Of messages: each
//! subscription hears them in the order of their numbers, and every one of them, or is told how many
//! it lost. Of all: an honest front is never ended, and once all honest fronts read, give credit and
//! answer, nothing of theirs is left undone.

use core::sync::atomic::Ordering;
use core::time::Duration;
use std::collections::BTreeMap;

use databack::broker::Limits;
use databack::frame::{Call, Notice, Outcome, Slow};
use xen_sys::ring::shared::Region;

use super::world::{F, World, sizes};

// The fuzzer of the broker has this file by its path.
#[path = "play/hearing.rs"]
mod hearing;

/// Domains 1 to 4 are honest, 7 and 8 are not.
const POLICY: &str = "\
    allow 1 serve n*\nallow 1 push *\nallow 1 publish t/#\nallow 1 subscribe t/#\n\
    allow 2 serve n*\nallow 2 push *\nallow 2 publish t/#\nallow 2 subscribe t/#\n\
    allow 3 serve n*\nallow 3 push *\nallow 3 publish t/#\nallow 3 subscribe t/#\n\
    allow 4 serve n*\nallow 4 push *\nallow 4 publish t/#\nallow 4 subscribe t/#\n\
    allow 7 serve h*\nallow 7 push *\nallow 7 publish h/#\nallow 7 subscribe h/#\n\
    allow 8 serve h*\nallow 8 push *\nallow 8 publish h/#\nallow 8 subscribe h/#\n\
    limit 4 memory 300K\nlimit * memory 1500K";

const NAMES: [&str; 3] = ["n1", "n2", "n3"];
const TOPICS: [&str; 4] = ["t", "t/a", "t/b", "t/b/c"];
const FILTERS: [&str; 4] = ["t/#", "t/+", "t/b", "t/b/#"];
const LENGTHS: [usize; 8] = [0, 1, 8, 100, 3_000, 20_000, 70_000, 200_000];

/// One step: what, by whom, and two numbers about it.
pub(super) type Step = [u8; 4];

#[derive(Default)]
struct Actor {
    front: F,
    domain: u16,
    gone: bool,
    next_id: u32,
    /// Its pushes that have no outcome, by id.
    pushes: BTreeMap<u32, Sending>,
    /// What it gets, by the broker's id.
    deliveries: BTreeMap<u64, Receiving>,
    /// Its subscriptions: the last number, and how much credit is left.
    subscriptions: BTreeMap<u32, (u64, u32)>,
    publishes: usize,
}

struct Sending {
    block: usize,
    sent: usize,
    allowed: usize,
}

struct Receiving {
    len: u64,
    got: Vec<u8>,
    from: u16,
    name: String,
}

/// A block that an honest front pushed.
struct Block {
    name: &'static str,
    from: u16,
    bytes: Vec<u8>,
    until: Option<Duration>,
    receiver: Option<usize>,
    /// The receiver's word.
    said: Option<(Outcome, Vec<u8>)>,
    outcome: Option<Outcome>,
}

pub(super) struct Play {
    world: World,
    actors: Vec<Actor>,
    blocks: Vec<Block>,
    /// How many messages were to go out, came, and were reported as lost.
    offered: u64,
    came: u64,
    lost: u64,
    /// Whether nobody leaves or ends a subscription, so that every message can be accounted for.
    calm: bool,
    /// Whether somebody did.
    uncounted: bool,
}

impl Play {
    pub(super) fn new(calm: bool) -> Self {
        let limits = Limits { pushes: 4, publishes: 4, ..Limits::default() };
        let mut play = Self {
            world: World::with(POLICY, limits),
            actors: Vec::new(),
            blocks: Vec::new(),
            offered: 0,
            came: 0,
            lost: 0,
            calm,
            uncounted: false,
        };
        for domain in [1, 2, 3, 4, 7, 8] {
            play.actors.push(Actor { domain, gone: true, ..Actor::default() });
            play.come(play.actors.len() - 1);
        }
        play
    }

    /// Does one step and all that follows from it.
    pub(super) fn step(&mut self, [what, who, a, b]: Step) {
        let actor = usize::from(who) % self.actors.len();
        if self.actors[actor].gone {
            self.come(actor);
        } else if self.actors[actor].domain > 4 {
            self.misbehave(actor, what, a, b);
        } else {
            self.behave(actor, what, a, b);
        }
        self.settle();
    }

    /// Lets all honest fronts do what they owe, and looks whether everything is done then.
    pub(super) fn finish(mut self) {
        for actor in 0..4 {
            if self.actors[actor].gone {
                self.come(actor);
            }
            self.read(actor, true);
        }
        self.settle();
        let mut rounds = 0..200;
        while self.has_work() && rounds.next().is_some() {
            for actor in 0..4 {
                self.answer_all(actor);
                self.give_credit(actor);
            }
            self.settle();
        }
        // One message more for each, with which it hears how many it lost before.
        for topic in TOPICS {
            self.publish(0, topic, 1, false);
            self.settle();
        }
        for actor in &self.actors[..4] {
            assert!(actor.deliveries.is_empty(), "d{} has blocks left", actor.domain);
            assert!(actor.pushes.is_empty(), "d{} waits for an outcome", actor.domain);
            assert_eq!(actor.publishes, 0, "d{} waits for an answer", actor.domain);
        }
        if !self.uncounted {
            assert_eq!(self.offered, self.came + self.lost, "every message came or is known lost");
        }
    }

    /// Whether something of the honest is not done.
    fn has_work(&self) -> bool {
        let waits = |id: &u32, one: &Actor| one.subscriptions[id].1 < 5;
        self.actors[..4].iter().any(|one| {
            !one.deliveries.is_empty()
                || !one.pushes.is_empty()
                || one.publishes > 0
                || one.subscriptions.keys().any(|id| waits(id, one))
        })
    }

    fn come(&mut self, actor: usize) {
        let domain = self.actors[actor].domain;
        let (left, right) = [(16, 16), (10, 13), (13, 14), (12, 16)][actor % 4];
        // A domain that left much behind may be refused for now.
        let Ok(front) = self.world.ask(domain, "services", sizes(left, right)) else { return };
        self.world.say(front, Call::Hello { version: 1, features: 0 }, b"");
        self.world.next(front, |notice, _| assert!(matches!(notice, Notice::Hello { .. })));
        self.actors[actor] = Actor { front, domain, ..Actor::default() };
    }

    fn behave(&mut self, actor: usize, what: u8, a: u8, b: u8) {
        let front = self.actors[actor].front;
        let number = usize::from(a);
        match what % 16 {
            0 | 1 => self.say(actor, Call::Serve { name: NAMES[number % 3] }),
            2 => self.say(actor, Call::Unserve { name: NAMES[number % 3] }),
            3..=6 => self.push(actor, a, b),
            7 => {
                let id = self.actors[actor].pushes.keys().next().copied();
                if let Some(id) = id {
                    self.say(actor, Call::PushCancel { id });
                }
            }
            8 | 9 => {
                self.publish(actor, TOPICS[number % 4], LENGTHS[usize::from(b) % 8], b & 64 > 0)
            }
            10 => self.subscribe(actor, a, b),
            11 if !self.calm => {
                let id = self.actors[actor].subscriptions.pop_first();
                if let Some((id, _)) = id {
                    self.uncounted = true;
                    self.say(actor, Call::Unsubscribe { id });
                }
            }
            12 => self.give_credit(actor),
            13 => self.answer_all(actor),
            14 => self.read(actor, a & 1 == 0),
            15 if a < 64 && !self.calm => {
                self.leave(actor);
                if b & 1 == 0 { self.world.leave(front) } else { self.world.close(front) }
            }
            _ => {
                self.world.pass(Duration::from_millis(b.into()));
            }
        }
    }

    /// Says what is no frame, frames that make no sense, and indexes that cannot be.
    fn misbehave(&mut self, actor: usize, what: u8, a: u8, b: u8) {
        let front = self.actors[actor].front;
        let (small, id) = (u32::from(a), u64::from(b));
        match what % 12 {
            0 => self.world.send(front, &[a, b, a ^ b, what]),
            1 => {
                self.world.fronts[front].lies = true;
                let region = Region::of(self.world.fronts[front].end.memory());
                let word = region.word(usize::from(a % 4) * 4);
                word.fetch_add(u32::from(b) << (a / 16), Ordering::Relaxed);
            }
            2 => self.world.write(front, Call::Done { id, flag: small }, &[b; 200]),
            3 => self.world.write(front, Call::Done { id: id << 32 | u64::from(a), flag: 0 }, b""),
            4 => self.world.write(front, Call::PushData { id: small }, &[b; 1000]),
            5 => {
                let name = NAMES[usize::from(b) % 3];
                let call =
                    Call::Push { id: small, domain: None, name, len: id << 10, timeout_ms: 1 };
                self.world.write(front, call, &[a; 50]);
            }
            6 => self.world.fronts[front].reads = false,
            7 => {
                // Half a frame.
                let call = Call::Publish { id: small, topic: "h/x", retain: true };
                let head = databack::frame::encode(&call, 5000).unwrap();
                self.world.send(front, head.bytes());
            }
            8 => {
                let call =
                    Call::Subscribe { id: small, filter: "h/#", slow: Slow::Wait, credit: 0 };
                self.world.write(front, call, b"");
            }
            9 => self.world.write(
                front,
                Call::Publish { id: small, topic: "h/y", retain: false },
                &[b; 99],
            ),
            10 => self.world.write(front, Call::Serve { name: NAMES[usize::from(b) % 3] }, b""),
            _ => {
                self.world.leave(front);
                self.leave(actor);
            }
        }
        self.world.run();
        // Whatever it did to its own ring, the stub would look at it now and then.
        self.world.serve(self.world.fronts[front].id);
    }

    fn say(&mut self, actor: usize, call: Call<'_>) {
        let front = self.actors[actor].front;
        self.world.write(front, call, b"");
    }

    fn read(&mut self, actor: usize, reads: bool) {
        let front = &mut self.world.fronts[self.actors[actor].front];
        front.reads = reads;
        front.awake = true;
    }

    fn leave(&mut self, actor: usize) {
        let one = &mut self.actors[actor];
        one.gone = true;
        self.uncounted |= !one.subscriptions.is_empty() || one.publishes > 0;
    }

    fn push(&mut self, actor: usize, a: u8, b: u8) {
        let len = LENGTHS[usize::from(a) % 8];
        let name = NAMES[usize::from(b) % 3];
        let domain = (b & 8 > 0).then_some(u16::from(b / 16) % 4 + 1);
        let timeout_ms = if a & 32 > 0 { 300 } else { 0 };
        let one = &mut self.actors[actor];
        one.next_id += 1;
        let (id, block) = (one.next_id, self.blocks.len());
        let until =
            (timeout_ms > 0).then(|| self.world.now + Duration::from_millis(timeout_ms.into()));
        let bytes = content(block, len);
        let first = len.min(usize::from(a) * 100);
        self.blocks.push(Block {
            name,
            from: one.domain,
            bytes: bytes.clone(),
            until,
            receiver: None,
            said: None,
            outcome: None,
        });
        one.pushes.insert(id, Sending { block, sent: first, allowed: 65_536 });
        let call = Call::Push { id, domain, name, len: len as u64, timeout_ms };
        let front = one.front;
        self.world.write(front, call, &bytes[..first]);
    }

    fn publish(&mut self, actor: usize, topic: &str, len: usize, retain: bool) {
        let one = &mut self.actors[actor];
        one.next_id += 1;
        one.publishes += 1;
        let call = Call::Publish { id: one.next_id, topic, retain };
        let front = one.front;
        self.world.write(front, call, &content(0, len));
    }

    fn subscribe(&mut self, actor: usize, a: u8, b: u8) {
        let one = &mut self.actors[actor];
        one.next_id += 1;
        let (id, credit) = (one.next_id, u32::from(b % 16));
        one.subscriptions.insert(id, (0, credit));
        let most = if self.calm { 2 } else { 3 };
        let slow = [Slow::Wait, Slow::DropOldest, Slow::Disconnect][usize::from(b / 16) % most];
        let filter = FILTERS[usize::from(a) % 4];
        self.say(actor, Call::Subscribe { id, filter, slow, credit });
    }

    fn give_credit(&mut self, actor: usize) {
        for (id, messages) in self.actors[actor].subscriptions.clone().into_keys().map(|id| (id, 5))
        {
            if let Some((_, credit)) = self.actors[actor].subscriptions.get_mut(&id) {
                *credit += messages;
            }
            self.say(actor, Call::Credit { id, messages });
        }
    }

    /// Answers every delivery, whole or not.
    fn answer_all(&mut self, actor: usize) {
        while let Some((id, got)) = self.actors[actor].deliveries.pop_first() {
            let flag = u32::try_from(got.got.len()).unwrap();
            let reply = got.got[..got.got.len().min(flag as usize % 4097)].to_vec();
            let rejects = flag % 5 == 3;
            if let Some(block) = self.block_of(&got).and_then(|number| self.blocks.get_mut(number))
            {
                let word = if rejects { Outcome::Rejected } else { Outcome::Done { flag } };
                block.said = Some((word, reply.clone()));
            }
            let front = self.actors[actor].front;
            let call = if rejects { Call::Reject { id } } else { Call::Done { id, flag } };
            self.world.write(front, call, &reply);
        }
    }

    /// Which block it is, as far as its bytes tell.
    fn block_of(&self, got: &Receiving) -> Option<usize> {
        let number = got.got.first_chunk::<8>().map(|number| u64::from_le_bytes(*number))?;
        (got.from <= 4).then(|| usize::try_from(number).expect("a number of ours"))
    }
}

/// The bytes of a block: its number, then what depends on it.
fn content(number: usize, len: usize) -> Vec<u8> {
    let seed = number.to_le_bytes()[0];
    let rest = (0..=250u8).cycle().map(|byte| byte ^ seed);
    (number as u64).to_le_bytes().into_iter().chain(rest).take(len).collect()
}
