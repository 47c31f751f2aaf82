//! Fronts that run while the broker does: an event that is not sent is missed for good.

use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use databack::ask::Kind;
use databack::broker::{Broker, ChannelId, Limits};
use databack::frame::{self, Call, Notice, Outcome, Slow};
use databack::policy::Policy;
use databack::vchan::{End, Sizes};

use super::world::{Memory, owner, pattern, sizes};

const PATIENCE: Duration = Duration::from_secs(60);

/// A front in a thread of its own, which sleeps when it has nothing to do.
struct Front {
    id: ChannelId,
    end: End<Memory>,
    events: Receiver<()>,
    broker: Sender<ChannelId>,
    outbox: Vec<u8>,
    inbox: Vec<u8>,
}

impl Front {
    fn say(&mut self, call: Call<'_>, payload: &[u8]) {
        let head = frame::encode(&call, u32::try_from(payload.len()).unwrap()).unwrap();
        self.outbox.extend(head.bytes());
        self.outbox.extend(payload);
    }

    /// Looks at the next frame that comes, however long that takes.
    fn next<T>(&mut self, look: impl FnOnce(Notice<'_>, &[u8]) -> T) -> T {
        loop {
            if let Some(frame) = frame::decode::<Notice<'_>>(&self.inbox).unwrap() {
                let end = frame.head + frame.payload as usize;
                if let Some(payload) = self.inbox.get(frame.head..end) {
                    let seen = look(frame.header, payload);
                    self.inbox.drain(..end);
                    return seen;
                }
            }
            self.pump();
        }
    }

    fn flush(&mut self) {
        while !self.outbox.is_empty() {
            self.pump();
        }
    }

    /// Moves what it can, else sleeps until it is told of more.
    fn pump(&mut self) {
        let written = self.end.write(&self.outbox).unwrap();
        self.outbox.drain(..written);
        let mut bytes = [0; 5000];
        let read = self.end.read(&mut bytes).unwrap();
        self.inbox.extend(&bytes[..read]);
        if self.end.take_notify() {
            self.broker.send(self.id).unwrap();
        }
        if written + read > 0 || self.end.await_bytes(0).unwrap() {
            return;
        }
        if !self.outbox.is_empty() && self.end.await_room(0).unwrap() {
            return;
        }
        self.events.recv_timeout(PATIENCE).expect("nobody told this front anything");
    }
}

/// A broker, and who is to be told what.
struct Host {
    broker: Broker<Memory>,
    fronts: BTreeMap<ChannelId, Sender<()>>,
    sender: Sender<ChannelId>,
    receiver: Receiver<ChannelId>,
}

impl Host {
    fn new(policy: &str) -> Self {
        let mut rules = Policy::default();
        rules.add(policy).unwrap();
        let mut broker = Broker::new(Limits::default());
        broker.set_policy(rules);
        let (sender, receiver) = channel();
        Self { broker, fronts: BTreeMap::new(), sender, receiver }
    }

    fn join(&mut self, domain: u16, sizes: Sizes) -> Front {
        let memory = Memory::new(xen_sys::page::OwnPages::zeroed(sizes.pages()).unwrap());
        let end = End::serve(Memory::clone(&memory), sizes, (0..sizes.grants()).map(|_| 0));
        let id = self.broker.open(owner(domain), Kind::Services, end).unwrap();
        let (told, events) = channel();
        self.fronts.insert(id, told);
        let end = End::connect(memory, sizes);
        let (outbox, inbox) = (Vec::new(), Vec::new());
        let mut front = Front { id, end, events, broker: self.sender.clone(), outbox, inbox };
        front.say(Call::Hello { version: 1, features: 0 }, b"");
        front
    }

    /// Serves until all fronts have closed.
    fn run(mut self) {
        while !self.fronts.is_empty() {
            let id = self.receiver.recv_timeout(PATIENCE).expect("nobody told the broker anything");
            while self.broker.serve(id, Duration::ZERO) {}
            while let Some(id) = self.broker.next_notification() {
                if let Some(front) = self.fronts.get(&id) {
                    // One that closed does not listen.
                    let _ = front.send(());
                }
            }
            while let Some((id, why)) = self.broker.next_ended() {
                assert_eq!(why, databack::broker::Ended::Closed);
                self.fronts.remove(&id);
                let domain = self.broker.owner(id).expect("it is there").domain;
                let end = self.broker.close(id).expect("it is there");
                self.broker.freed(domain, end.sizes());
            }
        }
    }
}

fn leave(mut front: Front) {
    front.flush();
    front.end.close();
    front.broker.send(front.id).unwrap();
}

fn skip_greeting(front: &mut Front) {
    front.next(|notice, _| assert!(matches!(notice, Notice::Hello { .. })));
}

const LENGTHS: [usize; 6] = [1, 64, 4_096, 65_536, 100_000, 1_000_000];

fn push_all(mut front: Front) {
    skip_greeting(&mut front);
    for (id, len) in (1..).zip(LENGTHS.into_iter().cycle().take(24)) {
        let block = pattern(len);
        let (mut sent, mut allowed) = (len.min(30_000), 65_536);
        let call = Call::Push { id, domain: None, name: "jobs", len: len as u64, timeout_ms: 0 };
        front.say(call, &block[..sent]);
        loop {
            let part = (allowed.min(len) - sent).min(30_000);
            if part > 0 {
                front.say(Call::PushData { id }, &block[sent..sent + part]);
                sent += part;
                continue;
            }
            let credit = front.next(|notice, _| match notice {
                Notice::PushCredit { bytes, .. } => Some(bytes as usize),
                Notice::PushDone { outcome: Outcome::Done { flag: 7 }, .. } => None,
                other => panic!("{other:?}"),
            });
            match credit {
                Some(bytes) => allowed += bytes,
                None => break,
            }
        }
    }
    leave(front);
}

fn receive_all(mut front: Front, served: &Sender<()>) {
    front.say(Call::Serve { name: "jobs" }, b"");
    skip_greeting(&mut front);
    front.next(|notice, _| assert_eq!(notice, Notice::Served { name: "jobs" }));
    served.send(()).unwrap();
    for len in LENGTHS.into_iter().cycle().take(24) {
        let (mut block, mut number) = (Vec::new(), 0);
        while block.len() < len {
            front.next(|notice, bytes| {
                match notice {
                    Notice::Deliver { id, .. } | Notice::DeliverData { id } => number = id,
                    other => panic!("{other:?}"),
                }
                block.extend(bytes);
            });
        }
        assert!(block == pattern(len), "{len} bytes");
        front.say(Call::Done { id: number, flag: 7 }, &block[..len.min(4096)]);
    }
    leave(front);
}

#[test]
fn blocks_flow_while_everybody_sleeps_when_idle() {
    for (left, right) in [(16, 16), (10, 13), (12, 13)] {
        let mut host = Host::new("allow * push *\nallow * serve *");
        let (sender, receiver) = (host.join(1, sizes(left, 13)), host.join(2, sizes(12, right)));
        let (served, ready) = channel();
        let receiver = thread::spawn(move || receive_all(receiver, &served));
        let sender = thread::spawn(move || {
            ready.recv_timeout(PATIENCE).unwrap();
            push_all(sender);
        });
        host.run();
        sender.join().unwrap();
        receiver.join().unwrap();
    }
}

#[test]
fn messages_flow_while_everybody_sleeps_when_idle() {
    const COUNT: u32 = 200;
    let mut host = Host::new("allow * publish #\nallow * subscribe #");
    let mut publisher = host.join(1, sizes(12, 13));
    let readers: Vec<Front> = (2..5).map(|domain| host.join(domain, sizes(12, 13))).collect();
    let (joined, ready) = channel();
    let readers: Vec<_> = readers
        .into_iter()
        .map(|mut front| {
            let joined = joined.clone();
            thread::spawn(move || {
                front.say(Call::Subscribe { id: 1, filter: "#", slow: Slow::Wait, credit: 3 }, b"");
                skip_greeting(&mut front);
                front.next(|notice, _| assert_eq!(notice, Notice::Subscribed { id: 1 }));
                joined.send(()).unwrap();
                for number in 0..COUNT {
                    front.next(|notice, bytes| {
                        assert!(matches!(notice, Notice::Message { dropped: 0, .. }), "{notice:?}");
                        assert!(bytes == pattern(number as usize * 150));
                    });
                    front.say(Call::Credit { id: 1, messages: 1 }, b"");
                }
                leave(front);
            })
        })
        .collect();
    let publisher = thread::spawn(move || {
        skip_greeting(&mut publisher);
        for _ in 0..3 {
            ready.recv_timeout(PATIENCE).unwrap();
        }
        for id in 0..COUNT {
            let call = Call::Publish { id, topic: "t", retain: false };
            publisher.say(call, &pattern(id as usize * 150));
            publisher.next(|notice, _| assert_eq!(notice, Notice::Published { id, receivers: 3 }));
        }
        leave(publisher);
    });
    host.run();
    publisher.join().unwrap();
    for reader in readers {
        reader.join().unwrap();
    }
}
