//! Random conversations of several domains, compared with the simplest store there could be.
//!
//! Replies must be equal; events too, in their order, except that a commit's and a death's events
//! are compared as sets between what must and what may be told. After every step the store's own
//! check must find nothing, and after some of them what it says each domain uses must be what a
//! count of the simplest store gives. What was removed is cleared away a node at a time, or some.
//!
//! A committed transaction must be explained by running it again at its end (or, if it changed
//! nothing, by its start), and only one that cannot be explained so may be refused. So the order
//! of the commits is an order in which all of them might have run one after the other.
//!
//! Left out is what only the store itself can count: the memory that transactions keep, and so
//! the quota on memory. `PROPTEST_CASES` raises the number of cases, of which there are 256; a
//! failure prints its seed and the shortest conversation that fails.

mod commits;
mod lives;
mod watches;
mod whole;

use std::collections::{BTreeMap, BTreeSet};

use conversations::world::{Open, WATCH_EVENT};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError};

use crate::harness::world::{CUTS, World};
use crate::reference::{self, Answer, Around, Caller, Entry, Limits, Op, Tree, Watch, allows};
use crate::steps::{Deed, GUESTS, Step, conflicts, steps};
use commits::Transaction;

/// No open transaction has this number in its client's list.
const OUTSIDE: usize = usize::MAX;

struct Model {
    world: World,
    tree: Tree,
    watches: Vec<Watch>,
    /// The life of every domain that Xen knows.
    lives: BTreeMap<u16, u32>,
    last_life: u32,
    introduced: BTreeSet<u16>,
    /// Those the store has heard of, whose end therefore means something.
    known: BTreeSet<u16>,
    /// Those whose shutdown was told.
    shut_down: BTreeSet<u16>,
    targets: BTreeMap<u16, (u16, u32)>,
    features: BTreeMap<u16, u32>,
    limits: BTreeMap<u16, Limits>,
    /// Counts what changes rights other than by the tree.
    epoch: u32,
    transactions: BTreeMap<u16, Vec<Transaction>>,
    /// The events of those who do not read: each once, in their order.
    waiting: Told,
}

type Checked = Result<(), TestCaseError>;
/// Event payloads by the domain that hears them.
type Told = BTreeMap<u16, Vec<Vec<u8>>>;

fn fail<T>(why: impl Into<String>) -> Result<T, TestCaseError> {
    Err(TestCaseError::fail(why.into()))
}

impl Model {
    fn new(cut: usize) -> Result<Self, TestCaseError> {
        let mut model = Self {
            world: World::new(CUTS[cut]),
            tree: reference::newborn(),
            watches: Vec::new(),
            lives: BTreeMap::from([(0, 0)]),
            last_life: 0,
            introduced: BTreeSet::from([0]),
            known: BTreeSet::from([0]),
            shut_down: BTreeSet::new(),
            targets: BTreeMap::new(),
            features: BTreeMap::new(),
            limits: BTreeMap::new(),
            epoch: 0,
            transactions: BTreeMap::new(),
            waiting: Told::new(),
        };
        for guest in GUESTS {
            model.be_born(guest)?;
        }
        Ok(model)
    }

    fn caller(&self, domain: u16) -> Caller {
        let target = self.targets.get(&domain).copied();
        Caller {
            domain,
            life: self.lives.get(&domain).copied().unwrap_or(u32::MAX - 1),
            target: target.filter(|(of, life)| self.lives.get(of) == Some(life)),
        }
    }

    /// The limits that bind a domain.
    fn limits(&self, domain: u16) -> Limits {
        let limits = self.limits.get(&domain).copied().unwrap_or_default();
        if domain == 0 { Limits::default() } else { limits }
    }

    /// Whether a domain can ask for something, and reads what it is answered.
    fn is_able(&self, by: u16) -> bool {
        self.introduced.contains(&by) && !self.waiting.contains_key(&by)
    }

    fn step(&mut self, step: &Step) -> Checked {
        match step {
            Step::Do { by, .. }
            | Step::Watch { by, .. }
            | Step::Unwatch { by, .. }
            | Step::ResetWatches { by }
            | Step::Start { by }
            | Step::End { by, .. }
            | Step::Pause { guest: by }
                if !self.is_able(*by) => {}
            Step::Pause { guest } => {
                self.world.ring(*guest).stopped = true;
                self.waiting.entry(*guest).or_default();
            }
            Step::Resume { guest } => self.resume(*guest)?,
            Step::Do { by, within, at, deed } => self.act(*by, *within, at, deed)?,
            Step::Watch { by, at, token, depth } => self.watch(*by, at, token, *depth)?,
            Step::Unwatch { by, at, token } => self.unwatch(*by, at, token)?,
            Step::ResetWatches { by } => self.reset_watches(*by)?,
            Step::Start { by } => self.start(*by)?,
            Step::End { by, within, commit } => self.end(*by, *within, *commit)?,
            Step::Live { guest, event } => self.live(*guest, *event)?,
            Step::Target { of, target } => self.set_target(*of, *target)?,
            Step::Features { of, features } => self.set_features(*of, *features)?,
            Step::Limit { of, quota, limit } => self.set_limit(*of, *quota, *limit)?,
        }
        self.world.server.check().map_err(TestCaseError::fail)
    }

    fn act(&mut self, by: u16, within: usize, at: &str, deed: &Deed) -> Checked {
        let op = self.op(deed);
        let path = absolute(by, at);
        let (kind, payload) = encode(at, &op);
        let (caller, limits) = (self.caller(by), self.limits(by));
        let open = self.transactions.get_mut(&by).and_then(|open| open.get_mut(within));
        let id = open.as_ref().map_or(0, |open| open.id);
        let what = format!("{by} in {id}: {op:?} {at}");
        if let Some(error) = refused_unread(&op, limits) {
            let got = self.ask(by, kind, id, &payload)?;
            return self.compare(&got, &Err(error), &Told::new(), &what);
        }
        if let Op::SetPerms(entries) = &op {
            let named = entries.iter().map(|entry| entry.domain);
            self.known.extend(named.filter(|domain| self.lives.contains_key(domain)));
        }
        let around = Around { caller, limits, lives: &self.lives, counts_nodes: open.is_none() };
        if let Some(open) = open {
            let answer = open.act(around, self.epoch, path, op);
            let got = self.ask(by, kind, id, &payload)?;
            return self.compare(&got, &answer, &Told::new(), &what);
        }
        let before = self.tree.clone();
        let (answer, touched) = reference::apply(&mut self.tree, around, &path, &op);
        let mut told = self.told(&before, &touched);
        self.lay_aside(&mut told);
        let got = self.ask(by, kind, 0, &payload)?;
        self.compare(&got, &answer, &told, &what)
    }

    /// Gives the domains in a permission list the life they have now.
    fn op(&self, deed: &Deed) -> Op {
        match deed {
            Deed::Read => Op::Read,
            Deed::Directory => Op::Directory,
            Deed::GetPerms => Op::GetPerms,
            Deed::Write(value) => Op::Write(vec![b'0' + value; usize::from(*value)]),
            Deed::Mkdir => Op::Mkdir,
            Deed::Rm => Op::Rm,
            Deed::SetPerms(entries) => {
                let (everybody, any_life) = reference::EVERYBODY;
                let entry = |&(letter, domain): &(char, u16)| {
                    let life = self.lives.get(&domain).copied();
                    let life = if domain == everybody { Some(any_life) } else { life };
                    Entry { letter, domain, life }
                };
                Op::SetPerms(entries.iter().map(entry).collect())
            }
        }
    }

    fn compare(&self, got: &Got, answer: &Answer, told: &Told, what: &str) -> Checked {
        prop_assert_eq!(&got.answer, &owned(answer), "{}", what);
        prop_assert!(got.after.is_empty(), "{what}: events behind the answer");
        prop_assert_eq!(readable(&got.told), readable(told), "events of {}", what);
        Ok(())
    }

    /// Sends one request; returns its answer and every event that came of it.
    fn ask(
        &mut self,
        by: u16,
        kind: u32,
        tx_id: u32,
        payload: &[u8],
    ) -> Result<Got, TestCaseError> {
        let req_id = self.world.ring(by).mailbox.fresh_req_id();
        self.world.ask(by, Open { kind, req_id, tx_id }, payload);
        self.world.settle().map_err(TestCaseError::fail)?;
        let ring = self.world.ring(by);
        ring.mailbox.open.clear();
        let answered = ring.mailbox.inbox.iter().position(|frame| frame.kind != WATCH_EVENT);
        let Some(at) = answered else { return fail(format!("no answer to {kind} of {by}")) };
        let after: Vec<_> = ring.mailbox.inbox.drain(at + 1..).map(|frame| frame.payload).collect();
        let Some(reply) = ring.mailbox.inbox.pop_back() else { return fail("no reply") };
        prop_assert_eq!((reply.req_id, reply.tx_id), (req_id, tx_id), "the reply's marks");
        let text = String::from_utf8_lossy(&reply.payload).trim_end_matches('\0').to_owned();
        let answer = if reply.kind == kind { Ok(reply.payload) } else { Err(text) };
        let told = self.heard()?;
        let before = told.get(&by).cloned().unwrap_or_default();
        Ok(Got { answer, before, after, told })
    }

    fn resume(&mut self, guest: u16) -> Checked {
        let Some(told) = self.waiting.remove(&guest) else { return Ok(()) };
        self.world.read_again(guest).map_err(TestCaseError::fail)?;
        let got = self.heard()?.remove(&guest).unwrap_or_default();
        let lines = |events: &[Vec<u8>]| events.iter().map(|event| show(event)).collect::<Vec<_>>();
        prop_assert_eq!(lines(&got), lines(&told), "what waited for {}", guest);
        Ok(())
    }

    fn resume_all(&mut self) -> Checked {
        GUESTS.into_iter().try_for_each(|guest| self.resume(guest))
    }

    /// Lays aside what those hear who do not read; one waiting event stands for all its like,
    /// except those of special names, which some clients count.
    fn lay_aside(&mut self, told: &mut Told) {
        for (domain, waiting) in &mut self.waiting {
            for event in told.remove(domain).unwrap_or_default() {
                if !waiting.contains(&event) || event.starts_with(b"@") {
                    waiting.push(event);
                }
            }
        }
    }

    /// Takes the events that everybody received.
    fn heard(&mut self) -> Result<Told, TestCaseError> {
        self.world.settle().map_err(TestCaseError::fail)?;
        let mut told = Told::new();
        for (domain, ring) in &mut self.world.outside.rings {
            for frame in ring.mailbox.inbox.drain(..) {
                prop_assert_eq!(frame.kind, WATCH_EVENT, "{} got an answer too many", domain);
                told.entry(*domain).or_default().push(frame.payload);
            }
        }
        Ok(told)
    }
}

struct Got {
    answer: Result<Vec<u8>, String>,
    /// Events of the asking domain that came before its answer.
    before: Vec<Vec<u8>>,
    /// Those that came after.
    after: Vec<Vec<u8>>,
    /// All that came before, by domain.
    told: Told,
}

/// What a request is refused with before any node is looked at.
fn refused_unread(op: &Op, limits: Limits) -> Option<&'static str> {
    let Op::SetPerms(entries) = op else { return None };
    if !allows(limits.node_permissions, entries.len()) {
        return Some("ENOSPC");
    }
    match entries[0].life {
        None => Some("ENOENT"),
        Some(life) if life == reference::EVERYBODY.1 => Some("ENOMEM"),
        Some(_) => None,
    }
}

fn absolute(by: u16, at: &str) -> String {
    if at.starts_with(['/', '@']) { at.to_owned() } else { format!("/local/domain/{by}/{at}") }
}

fn encode(at: &str, op: &Op) -> (u32, Vec<u8>) {
    let (kind, rest) = match op {
        Op::Directory => (1, Vec::new()),
        Op::Read => (2, Vec::new()),
        Op::GetPerms => (3, Vec::new()),
        Op::Write(value) => (11, value.clone()),
        Op::Mkdir => (12, Vec::new()),
        Op::Rm => (13, Vec::new()),
        Op::SetPerms(entries) => {
            let spelled = entries.iter().map(|entry| format!("{}{}\0", entry.letter, entry.domain));
            (14, spelled.collect::<String>().into_bytes())
        }
    };
    (kind, [at.as_bytes(), &[0], &rest].concat())
}

fn done() -> Answer {
    Ok(b"OK\0".to_vec())
}

fn owned(answer: &Answer) -> Result<Vec<u8>, String> {
    answer.clone().map_err(str::to_owned)
}

fn show(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn readable(told: &Told) -> BTreeMap<u16, Vec<String>> {
    let lines = |events: &Vec<Vec<u8>>| events.iter().map(|event| show(event)).collect();
    let told = told.iter().filter(|(_, events)| !events.is_empty());
    told.map(|(domain, events)| (*domain, lines(events))).collect()
}

fn hold(steps: &[Step], cut: usize) -> Checked {
    let mut model = Model::new(cut)?;
    for (number, step) in steps.iter().enumerate() {
        model.step(step)?;
        // Who asks for figures has all settled that was removed; most steps find it as it is.
        if number % 4 == 3 {
            model.compare_accounts()?;
        }
    }
    model.compare_accounts()?;
    model.resume_all()?;
    model.compare_store("at the end")
}

proptest! {
    #![proptest_config(Config { failure_persistence: None, ..Config::default() })]

    #[test]
    fn the_store_does_as_the_simplest_store_would(steps in steps(), cut in 0..CUTS.len()) {
        hold(&steps, cut)?;
    }

    #[test]
    fn transactions_are_as_if_one_came_after_the_other(steps in conflicts(), cut in 0..CUTS.len()) {
        hold(&steps, cut)?;
    }
}
