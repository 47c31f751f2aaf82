//! A broker and its fronts in one process. A channel is served when its front's ring says that an
//! event is due, and a front looks at its ring when the broker's says so: whatever is not told
//! stays undone.

use core::time::Duration;
use std::sync::Arc;

use xen_sys::ids::DomId;
use xen_sys::page::OwnPages;
use xen_sys::ring::BadIndex;

use databack::ask::Ask;
use databack::broker::{Broker, ChannelId, Ended, Limits, Refusal};
use databack::frame::{self, Call, Notice};
use databack::policy::{Owner, Policy};
use databack::vchan::{End, Order, Sizes};

pub(super) type Memory = Arc<OwnPages>;

pub(super) struct World {
    pub(super) broker: Broker<Memory>,
    pub(super) fronts: Vec<Front>,
    pub(super) now: Duration,
}

/// One end of a channel, as an application has it.
pub(super) struct Front {
    pub(super) id: ChannelId,
    pub(super) end: End<Memory>,
    /// What it has to say and had no room for.
    pub(super) outbox: Vec<u8>,
    /// What it heard and did not look at.
    pub(super) inbox: Vec<u8>,
    /// Whether it looks at what comes at all.
    pub(super) reads: bool,
    pub(super) awake: bool,
    pub(super) ended: Option<Ended>,
    /// Whether it changes its ring's indexes behind its own back.
    pub(super) lies: bool,
    /// What its rings are charged.
    cost: usize,
}

/// Which front.
pub(super) type F = usize;

pub(super) fn sizes(left: u16, right: u16) -> Sizes {
    Sizes::new(Order::new(left).unwrap(), Order::new(right).unwrap()).unwrap()
}

pub(super) fn owner(domain: u16) -> Owner {
    let name = (domain >= 100).then(|| format!("guest{domain}").into());
    Owner { domain: DomId::new(domain).unwrap(), name }
}

impl World {
    pub(super) fn new(policy: &str) -> Self {
        Self::with(policy, Limits::default())
    }

    pub(super) fn with(policy: &str, limits: Limits) -> Self {
        let mut world =
            Self { broker: Broker::new(limits), fronts: Vec::new(), now: Duration::ZERO };
        world.set_policy(policy);
        world
    }

    pub(super) fn set_policy(&mut self, text: &str) {
        let mut policy = Policy::default();
        policy.add(text).unwrap();
        self.broker.set_policy(policy);
        self.after();
        self.run();
    }

    pub(super) fn ask(&mut self, domain: u16, kind: &str, sizes: Sizes) -> Result<F, Refusal> {
        let kind = kind.parse::<Ask>().unwrap().kind;
        self.broker.admit(&owner(domain), &kind, sizes)?;
        let memory = Arc::new(OwnPages::zeroed(sizes.pages()).unwrap());
        let end = End::serve(Arc::clone(&memory), sizes, (0..sizes.grants()).map(|_| 0));
        let before = self.broker.memory();
        let id = self.broker.open(owner(domain), kind, end).unwrap();
        let cost = self.broker.memory() - before;
        let end = End::connect(memory, sizes);
        let (outbox, inbox) = (Vec::new(), Vec::new());
        let front = Front {
            id,
            end,
            outbox,
            inbox,
            reads: true,
            awake: true,
            ended: None,
            lies: false,
            cost,
        };
        self.fronts.push(front);
        self.serve(id);
        self.run();
        Ok(self.fronts.len() - 1)
    }

    /// A front that has been greeted, with 64 KiB each way.
    pub(super) fn join(&mut self, domain: u16) -> F {
        self.join_with(domain, sizes(16, 16))
    }

    pub(super) fn join_with(&mut self, domain: u16, sizes: Sizes) -> F {
        let front = self.ask(domain, "services", sizes).unwrap();
        self.say(front, Call::Hello { version: 1, features: 0 }, b"");
        let greeted = self.next(front, |notice, _| matches!(notice, Notice::Hello { .. }));
        assert_eq!(greeted, Some(true));
        front
    }

    /// Says something, and lets everybody do what follows from it.
    pub(super) fn say(&mut self, front: F, call: Call<'_>, payload: &[u8]) {
        self.write(front, call, payload);
        self.run();
    }

    /// Has something said with what comes next.
    pub(super) fn write(&mut self, front: F, call: Call<'_>, payload: &[u8]) {
        let head = frame::encode(&call, u32::try_from(payload.len()).unwrap()).unwrap();
        self.send(front, head.bytes());
        self.send(front, payload);
    }

    pub(super) fn send(&mut self, front: F, bytes: &[u8]) {
        let front = &mut self.fronts[front];
        front.outbox.extend(bytes);
        front.awake = true;
    }

    /// Lets everybody do what there is to do, until nobody is told of anything more.
    pub(super) fn run(&mut self) {
        loop {
            let mut events = Vec::new();
            for front in self.fronts.iter_mut().filter(|front| front.awake) {
                if front.pump() {
                    events.push(front.id);
                }
            }
            for id in &events {
                self.serve(*id);
            }
            if events.is_empty() && !self.fronts.iter().any(|front| front.awake) {
                return;
            }
        }
    }

    pub(super) fn serve(&mut self, id: ChannelId) {
        while self.broker.serve(id, self.now) {}
        self.after();
    }

    /// Lets time pass.
    pub(super) fn pass(&mut self, time: Duration) -> Option<Duration> {
        self.now += time;
        let next = self.broker.tick(self.now);
        self.after();
        self.run();
        next
    }

    pub(super) fn after(&mut self) {
        while let Some(id) = self.broker.next_notification() {
            for front in self.fronts.iter_mut().filter(|front| front.id == id) {
                front.awake = true;
            }
        }
        while let Some((id, why)) = self.broker.next_ended() {
            for front in self.fronts.iter_mut().filter(|front| front.id == id) {
                assert_eq!(front.ended, None, "a channel ends once");
                front.ended = Some(why);
            }
            self.close_channel(id);
        }
        self.broker.check();
    }

    /// Closes a channel whose client lets go of it at once.
    fn close_channel(&mut self, id: ChannelId) {
        let domain = self.broker.owner(id).expect("it is there").domain;
        let end = self.broker.close(id).expect("it is there");
        self.broker.freed(domain, end.sizes());
    }

    /// The owner closes a channel, as when its request is gone.
    pub(super) fn close(&mut self, front: F) {
        let front = &mut self.fronts[front];
        front.reads = false;
        let id = front.id;
        self.close_channel(id);
        self.after();
        self.run();
    }

    /// The front goes, and says so.
    pub(super) fn leave(&mut self, front: F) {
        let front = &mut self.fronts[front];
        front.pump();
        front.end.close();
        front.reads = false;
        let id = front.id;
        self.serve(id);
        self.run();
    }

    /// Looks at the next frame that a front heard, and takes it.
    pub(super) fn next<T>(
        &mut self,
        front: F,
        look: impl FnOnce(Notice<'_>, &[u8]) -> T,
    ) -> Option<T> {
        let inbox = &mut self.fronts[front].inbox;
        let frame = frame::decode::<Notice<'_>>(inbox).unwrap()?;
        let end = frame.head + frame.payload as usize;
        let seen = look(frame.header, inbox.get(frame.head..end)?);
        inbox.drain(..end);
        Some(seen)
    }

    /// The next thing that a front hears is this.
    #[track_caller]
    pub(super) fn hears(&mut self, front: F, expected: Notice<'_>, payload: &[u8]) {
        let heard = self.next(front, |notice, bytes| {
            assert_eq!(notice, expected);
            assert!(
                bytes == payload,
                "{notice:?} with {} bytes instead of {}",
                bytes.len(),
                payload.len()
            );
        });
        assert!(heard.is_some(), "heard nothing instead of {expected:?}");
    }

    #[track_caller]
    pub(super) fn hears_nothing(&mut self, front: F) {
        let heard =
            self.next(front, |notice, bytes| format!("{notice:?} with {} bytes", bytes.len()));
        assert_eq!(heard, None);
        assert!(self.fronts[front].inbox.is_empty(), "part of a frame");
    }

    /// The memory that is in use beside that of the channels themselves.
    pub(super) fn waiting_memory(&self) -> usize {
        let open = |front: &&Front| self.broker.owner(front.id).is_some();
        let fixed: usize = self.fronts.iter().filter(open).map(|front| front.cost).sum();
        self.broker.memory() - fixed
    }
}

impl Front {
    /// Says and hears what it can, and asks to be told when there is more; whether the broker has
    /// to be told.
    pub(super) fn pump(&mut self) -> bool {
        self.awake = false;
        while self.try_pump().unwrap_or_else(|bad| {
            assert!(self.lies, "{bad}");
            false
        }) {}
        self.end.take_notify()
    }

    /// Moves what it can; whether there is more.
    fn try_pump(&mut self) -> Result<bool, BadIndex> {
        let written = self.end.write(&self.outbox)?;
        self.outbox.drain(..written);
        let mut bytes = [0; 4096];
        let read = if self.reads { self.end.read(&mut bytes)? } else { 0 };
        self.inbox.extend(&bytes[..read]);
        let more = (self.reads && self.end.await_bytes(0)?)
            || (!self.outbox.is_empty() && self.end.await_room(0)?);
        Ok(more && !self.lies)
    }
}

/// Numbers that nobody has.
pub(super) fn pattern(len: usize) -> Vec<u8> {
    (0..=250u8).cycle().enumerate().map(|(i, byte)| byte ^ i.to_le_bytes()[1]).take(len).collect()
}
