//! A broker in a thread of its own, and links to it through memory that both share: who is not
//! notified sleeps on.

use alloc::sync::Arc;
use core::time::Duration;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use databack::ask::Kind;
use databack::broker::{Broker, ChannelId, Limits};
use databack::policy::{Owner, Policy};
use databack::vchan::{End, Order, Sizes};
use xen_sys::ids::DomId;
use xen_sys::page::OwnPages;

use crate::{Connection, Error, Link, Stream};

pub(crate) type Memory = Arc<OwnPages>;

/// What wakes a front.
#[derive(Debug, Default)]
struct Bell {
    state: Mutex<State>,
    rung: Condvar,
}

#[derive(Debug, Default)]
struct State {
    is_rung: bool,
    /// The domain of the channels is no more.
    is_gone: bool,
}

impl Bell {
    fn ring(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.rung.notify_all();
    }

    fn wait(&self, deadline: Option<Instant>) -> Result<(), Error> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while !state.is_rung && !state.is_gone {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                break;
            }
            let left = left.unwrap_or(Duration::from_secs(20));
            let (next, waited) = self.rung.wait_timeout(state, left).expect("as above");
            state = next;
            assert!(!waited.timed_out() || deadline.is_some(), "nobody was notified for long");
        }
        state.is_rung = false;
        if state.is_gone { Err(Error::Gone) } else { Ok(()) }
    }
}

enum Wish {
    Open { owner: Owner, kind: Kind, sizes: Sizes, answer: Sender<Result<Promise, String>> },
    Notify(ChannelId),
    Policy(String),
    Stop,
}

struct Promise {
    memory: Memory,
    id: ChannelId,
    bell: Arc<Bell>,
}

/// A domain that has channels, as long as it is not dropped.
pub(crate) struct Host {
    wishes: Sender<Wish>,
    thread: Option<JoinHandle<()>>,
}

impl Host {
    pub(crate) fn new(policy: &str) -> Self {
        let (wishes, received) = mpsc::channel();
        let thread = thread::spawn(move || Served::default().run(&received));
        wishes.send(Wish::Policy(policy.to_owned())).expect("it was just started");
        Self { wishes, thread: Some(thread) }
    }

    /// By which domains ask for channels, also after this host has gone.
    pub(crate) fn door(&self) -> Door {
        Door(Arc::new(Mutex::new(self.wishes.clone())))
    }

    pub(crate) fn join(&self, domain: u16) -> Connection<MemoryLink> {
        self.door().connect(domain, 16)
    }

    pub(crate) fn stream(&self, domain: u16, kind: Kind) -> Stream<MemoryLink> {
        Stream::over(self.door().open(domain, kind, 12).expect("a channel"))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // It is over if it panicked, which whoever waited for it tells.
        let _ = self.wishes.send(Wish::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Where channels are asked for: of one host, and of another when that is put in its place.
#[derive(Clone)]
pub(crate) struct Door(Arc<Mutex<Sender<Wish>>>);

impl Door {
    pub(crate) fn lead_to(&self, host: &Host) {
        *self.0.lock().expect("no thread panics with it") = host.wishes.clone();
    }

    pub(crate) fn open(&self, domain: u16, kind: Kind, order: u16) -> Result<MemoryLink, Error> {
        let wishes = self.0.lock().expect("no thread panics with it").clone();
        let domain = DomId::new(domain).expect("an ordinary number");
        let order = Order::new(order).expect("a ring's order");
        let sizes = Sizes::new(order, order).expect("two rings");
        let (answer, answered) = mpsc::channel();
        let owner = Owner { domain, name: None };
        wishes.send(Wish::Open { owner, kind, sizes, answer }).map_err(|_| Error::Gone)?;
        let answer = answered.recv().map_err(|_| Error::Gone)?;
        let promise = answer.map_err(|why| Error::Refused { backend: DomId::DOM0, why })?;
        let Promise { memory, id, bell } = promise;
        let mut link = MemoryLink { end: End::connect(memory, sizes), id, bell, wishes };
        link.notify()?;
        Ok(link)
    }

    /// A connection that asks here again when its channel is lost.
    pub(crate) fn connect(&self, domain: u16, order: u16) -> Connection<MemoryLink> {
        let door = self.clone();
        let open = move || door.open(domain, Kind::Services, order);
        let link = open().expect("a channel");
        Connection::over(link, Some(Box::new(open))).expect("a welcome")
    }
}

/// A front's end.
pub(crate) struct MemoryLink {
    end: End<Memory>,
    id: ChannelId,
    bell: Arc<Bell>,
    wishes: Sender<Wish>,
}

impl Link for MemoryLink {
    type Memory = Memory;

    fn end(&mut self) -> &mut End<Memory> {
        &mut self.end
    }

    fn notify(&mut self) -> Result<(), Error> {
        self.wishes.send(Wish::Notify(self.id)).map_err(|_| Error::Gone)
    }

    fn wait(&mut self, deadline: Option<Instant>) -> Result<(), Error> {
        self.bell.wait(deadline)
    }
}

impl Drop for MemoryLink {
    fn drop(&mut self) {
        self.end.close();
        // Whoever went before needs no notice.
        let _ = self.notify();
    }
}

/// What the host's thread has.
struct Served {
    broker: Broker<Memory>,
    bells: Vec<(ChannelId, Arc<Bell>)>,
    began: Instant,
}

impl Default for Served {
    fn default() -> Self {
        let broker = Broker::new(Limits::default());
        Self { broker, bells: Vec::new(), began: Instant::now() }
    }
}

impl Drop for Served {
    /// As a domain goes: without a word on the rings, but noticed in Xenstore.
    fn drop(&mut self) {
        for (_, bell) in &self.bells {
            bell.ring(|state| state.is_gone = true);
        }
    }
}

impl Served {
    fn run(mut self, wishes: &Receiver<Wish>) {
        loop {
            let next = self.broker.tick(self.began.elapsed());
            self.follow();
            let patience = next
                .map_or(Duration::from_secs(60), |next| next.saturating_sub(self.began.elapsed()));
            match wishes.recv_timeout(patience) {
                Ok(Wish::Open { owner, kind, sizes, answer }) => {
                    // Nobody listens any longer if it fails.
                    let _ = answer.send(self.open(owner, kind, sizes));
                }
                Ok(Wish::Notify(id)) => while self.broker.serve(id, self.began.elapsed()) {},
                Ok(Wish::Policy(text)) => {
                    let mut policy = Policy::default();
                    policy.add(&text).expect("a policy");
                    self.broker.set_policy(policy);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Wish::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn open(&mut self, owner: Owner, kind: Kind, sizes: Sizes) -> Result<Promise, String> {
        self.broker.admit(&owner, &kind, sizes).map_err(|refusal| refusal.to_string())?;
        let memory = Arc::new(OwnPages::zeroed(sizes.pages()).expect("memory"));
        let grants = (0..sizes.grants()).map(|_| 0);
        let end = End::serve(Arc::clone(&memory), sizes, grants);
        let id = self.broker.open(owner, kind, end).map_err(|_| "no room".to_owned())?;
        let bell = Arc::new(Bell::default());
        self.bells.push((id, Arc::clone(&bell)));
        Ok(Promise { memory, id, bell })
    }

    /// Sends the notifications that are due, and closes what ended.
    fn follow(&mut self) {
        while let Some(id) = self.broker.next_notification() {
            self.ring(id);
        }
        while let Some((id, _)) = self.broker.next_ended() {
            let owner = self.broker.owner(id).map(|owner| owner.domain);
            if let (Some(owner), Some(mut end)) = (owner, self.broker.close(id)) {
                end.close();
                self.broker.freed(owner, end.sizes());
            }
            self.ring(id);
            self.bells.retain(|(other, _)| *other != id);
        }
    }

    fn ring(&self, id: ChannelId) {
        for (_, bell) in self.bells.iter().filter(|(other, _)| *other == id) {
            bell.ring(|state| state.is_rung = true);
        }
    }
}
