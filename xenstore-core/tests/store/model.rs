//! Random conversations of several domains, compared with the simplest store there could be.
//!
//! Replies must be equal; events too, in their order, except that a commit's and a death's events
//! are compared as sets between what must and what may be told. A committed transaction must be
//! explained by running it again at its end (or, if it changed nothing, by its start), and only
//! one that cannot be explained so may be refused. `PROPTEST_CASES` raises the number of cases.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError};

use conversations::world::Open;

use crate::harness::world::{CUTS, World};
use crate::reference::{self, Answer, Caller, Entry, Op, Touched, Tree, Watch};
use crate::steps::{Deed, GUESTS, Step, conflicts, steps};

const WATCH_EVENT: u32 = 15;

/// A transaction as the model keeps it.
struct Transaction {
    id: u32,
    /// Its private tree.
    tree: Tree,
    /// What it did and was told.
    log: Vec<(String, Op, Answer)>,
    changed: bool,
}

struct Model {
    world: World,
    tree: Tree,
    watches: Vec<Watch>,
    lives: BTreeMap<u16, u32>,
    transactions: BTreeMap<u16, Transaction>,
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
            transactions: BTreeMap::new(),
            waiting: Told::new(),
        };
        for guest in GUESTS {
            model.be_born(guest)?;
        }
        Ok(model)
    }

    fn caller(&self, domain: u16) -> Caller {
        Caller { domain, life: self.lives.get(&domain).copied().unwrap_or(0) }
    }

    fn step(&mut self, step: &Step) -> Checked {
        match step {
            Step::Do { by, .. }
            | Step::Watch { by, .. }
            | Step::Unwatch { by, .. }
            | Step::Start { by }
            | Step::End { by, .. }
                if self.waiting.contains_key(by) => {}
            Step::Pause { guest } => {
                self.world.ring(*guest).stopped = true;
                self.waiting.entry(*guest).or_default();
            }
            Step::Resume { guest } => self.resume(*guest)?,
            Step::Do { by, at, deed } => self.act(*by, at, deed)?,
            Step::Watch { by, at, token } => self.watch(*by, at, token)?,
            Step::Unwatch { by, at, token } => self.unwatch(*by, at, token)?,
            Step::Start { by } => self.start(*by)?,
            Step::End { by, commit } => self.end(*by, *commit)?,
            Step::Die { guest } => {
                self.die(*guest)?;
                self.be_born(*guest)?;
            }
        }
        self.world.server.check().map_err(TestCaseError::fail)
    }

    fn act(&mut self, by: u16, at: &str, deed: &Deed) -> Checked {
        let op = self.op(deed);
        let path = absolute(by, at);
        let (kind, payload) = encode(at, &op);
        let caller = self.caller(by);
        let Some(transaction) = self.transactions.get_mut(&by) else {
            let before = self.tree.clone();
            let (answer, touched) = reference::apply(&mut self.tree, caller, &path, &op);
            let mut told = self.told(&before, &touched);
            self.lay_aside(&mut told);
            let got = self.ask(by, kind, 0, &payload)?;
            return self.compare(&got, &answer, &told, &format!("{by}: {op:?} {at}"));
        };
        let (answer, touched) = reference::apply(&mut transaction.tree, caller, &path, &op);
        transaction.changed |= !touched.is_empty();
        transaction.log.push((path, op.clone(), answer.clone()));
        let id = transaction.id;
        let got = self.ask(by, kind, id, &payload)?;
        self.compare(&got, &answer, &Told::new(), &format!("{by} in {id}: {op:?} {at}"))
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
                let entry = |(letter, domain): &(char, u16)| Entry {
                    letter: *letter,
                    domain: *domain,
                    life: self.lives.get(domain).copied(),
                };
                Op::SetPerms(entries.iter().map(entry).collect())
            }
        }
    }

    fn watch(&mut self, by: u16, at: &str, token: &str) -> Checked {
        let path = absolute(by, at);
        // Told apart by their tokens, no two watches share an event.
        let token = &*format!("{path}{token}");
        let is_it = |old: &Watch| (old.domain, &*old.path, &*old.token) == (by, &path, token);
        let (mut answer, mut told) = (Err("EEXIST"), Vec::new());
        if !self.watches.iter().any(is_it) {
            let (token, relative) = (token.to_owned(), !at.starts_with('/'));
            let watch = Watch { domain: by, relative, path: path.clone(), token };
            told.push(watch.event(&path));
            self.watches.push(watch);
            answer = Ok(b"OK\0".to_vec());
        }
        let got = self.ask(by, 4, 0, &[at.as_bytes(), &[0], token.as_bytes(), &[0]].concat())?;
        prop_assert_eq!(&got.answer, &owned(&answer), "{} watches {}", by, at);
        prop_assert!(got.before.is_empty(), "{by} heard an event before WATCH was answered");
        prop_assert_eq!(&got.after, &told, "{} watches {}: the first event", by, at);
        Ok(())
    }

    fn unwatch(&mut self, by: u16, at: &str, token: &str) -> Checked {
        let path = absolute(by, at);
        // Told apart by their tokens, no two watches share an event.
        let token = &*format!("{path}{token}");
        let is_it = |old: &Watch| (old.domain, &*old.path, &*old.token) == (by, &path, token);
        let known = self.watches.iter().position(is_it);
        let answer = known.map(|at| drop(self.watches.remove(at)));
        let answer = answer.map(|()| b"OK\0".to_vec()).ok_or("ENOENT");
        let got = self.ask(by, 5, 0, &[at.as_bytes(), &[0], token.as_bytes(), &[0]].concat())?;
        self.compare(&got, &answer, &Told::new(), &format!("{by} unwatches {at}"))
    }

    fn start(&mut self, by: u16) -> Checked {
        if self.transactions.contains_key(&by) {
            return Ok(());
        }
        let got = self.ask(by, 6, 0, &[0])?;
        let Ok(id) = &got.answer else { return fail("a transaction was refused") };
        let id = String::from_utf8_lossy(id).trim_end_matches('\0').parse();
        let id = id.map_err(|e| TestCaseError::fail(format!("no transaction id: {e}")))?;
        let (tree, log) = (self.tree.clone(), Vec::new());
        self.transactions.insert(by, Transaction { id, tree, log, changed: false });
        Ok(())
    }

    fn end(&mut self, by: u16, commit: bool) -> Checked {
        let Some(transaction) = self.transactions.remove(&by) else { return Ok(()) };
        let flag: &[u8] = if commit { b"T\0" } else { b"F\0" };
        self.resume_all()?;
        let got = self.ask(by, 7, transaction.id, flag)?;
        if !commit {
            return self.compare(&got, &Ok(b"OK\0".to_vec()), &Told::new(), "given up");
        }
        let caller = self.caller(by);
        let (mut after, mut touched, mut same) = (self.tree.clone(), BTreeSet::new(), true);
        for (path, op, answer) in &transaction.log {
            let (again, changes) = reference::apply(&mut after, caller, path, op);
            same &= again == *answer;
            touched.extend(changes);
        }
        let what = format!("{by} commits {:?}", transaction.log);
        if !same && transaction.changed {
            return self.compare(&got, &Err("EAGAIN"), &Told::new(), &what);
        }
        prop_assert_eq!(&got.answer, &Ok(b"OK\0".to_vec()), "{}", what);
        // One that changed nothing may stand at its start as well as at its end.
        let stood_at_its_start = !transaction.changed && self.dump()? == shown(&self.tree);
        if same && !stood_at_its_start {
            let before = core::mem::replace(&mut self.tree, after);
            self.compare_commit(&got, &before, &touched)?;
        }
        prop_assert_eq!(self.dump()?, shown(&self.tree), "the store after {}", what);
        Ok(())
    }

    /// Events of a commit: all that must, none that may not be told.
    fn compare_commit(&self, got: &Got, before: &Tree, touched: &BTreeSet<Touched>) -> Checked {
        prop_assert!(got.after.is_empty(), "events behind the answer to a commit");
        let is_new = |path: &&String| !before.contains_key(*path);
        let made = self.tree.keys().filter(is_new).cloned();
        let made = made.map(|path| Touched { path, exact: false });
        // What was made and removed inside leaves nothing to tell.
        let lasting = |t: &Touched| before.contains_key(&t.path) || self.tree.contains_key(&t.path);
        // What was made on the way, removed with its parent and made on the way again, was only
        // ever made on the way.
        let is_detour = |t: &Touched| t.exact && !before.contains_key(&t.path);
        let possible = touched.iter().filter(|t| lasting(t)).cloned().chain(made);
        let possible: BTreeSet<Touched> = possible.collect();
        for domain in self.lives.keys() {
            let caller = self.caller(*domain);
            let own = self.watches.iter().filter(|watch| watch.domain == *domain);
            let (mut must, mut may) = (BTreeSet::new(), BTreeSet::new());
            for watch in own {
                let heard = |t: &&Touched| watch.hears(t);
                may.extend(possible.iter().filter(heard).map(|t| watch.event(&t.path)));
                let sure = |t: &&Touched| match *domain {
                    0 => true,
                    // What went with its parent is told to those who could read it.
                    _ if t.exact && !reference::is_readable(before, caller, &t.path) => false,
                    _ => reference::is_readable(&self.tree, caller, &t.path),
                };
                let sure = touched
                    .iter()
                    .filter(|t| lasting(t) && !is_detour(t))
                    .filter(heard)
                    .filter(sure);
                must.extend(sure.map(|t| watch.event(&t.path)));
            }
            let told = got.told.get(domain).cloned().unwrap_or_default();
            let set: BTreeSet<_> = told.iter().cloned().collect();
            prop_assert_eq!(set.len(), told.len(), "a commit told {} twice: {:?}", domain, told);
            let missing: Vec<_> = must.difference(&set).map(|e| show(e)).collect();
            prop_assert!(missing.is_empty(), "a commit did not tell {domain} of {missing:?}");
            let extra: Vec<_> = set.difference(&may).map(|e| show(e)).collect();
            prop_assert!(extra.is_empty(), "a commit told {domain} of {extra:?}");
        }
        Ok(())
    }

    fn die(&mut self, guest: u16) -> Checked {
        self.resume_all()?;
        let open: Vec<u16> = self.transactions.keys().copied().collect();
        for by in open {
            self.end(by, false)?;
        }
        self.watches.retain(|watch| watch.domain != guest);
        let dead = self.caller(guest);
        let before = self.tree.clone();
        let touched = reference::bury(&mut self.tree, dead);
        let mut told = self.told(&before, &touched);
        self.world.destroy(&[guest]);
        let mut heard = self.heard()?;
        heard.remove(&guest);
        told.values_mut().chain(heard.values_mut()).for_each(|events| events.sort());
        prop_assert_eq!(readable(&heard), readable(&told), "events of the death of {}", guest);
        prop_assert_eq!(self.dump()?, shown(&self.tree), "the store after the death of {}", guest);
        Ok(())
    }

    fn be_born(&mut self, guest: u16) -> Checked {
        self.world.create(guest);
        *self.lives.entry(guest).or_insert(0) += 1;
        let home = format!("/local/domain/{guest}");
        let data = format!("{home}/data");
        self.act(0, &home, &Deed::Mkdir)?;
        self.act(0, &home, &Deed::SetPerms(vec![('n', 0), ('r', guest)]))?;
        self.act(0, &data, &Deed::Mkdir)?;
        self.act(0, &data, &Deed::SetPerms(vec![('n', guest)]))?;
        let got = self.ask(0, 8, 0, format!("{guest}\x001\x001\0").as_bytes())?;
        self.compare(&got, &Ok(b"OK\0".to_vec()), &Told::new(), "an introduction")
    }

    /// The events that watches must hear of these changes, in their order.
    fn told(&self, before: &Tree, touched: &[Touched]) -> Told {
        let mut told = Told::new();
        for change in touched {
            for watch in self.watches.iter().filter(|watch| watch.hears(change)) {
                let caller = self.caller(watch.domain);
                if reference::is_told(before, &self.tree, caller, &change.path) {
                    told.entry(watch.domain).or_default().push(watch.event(&change.path));
                }
            }
        }
        told
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

    /// Lays aside what those hear who do not read; one waiting event stands for all its like.
    fn lay_aside(&mut self, told: &mut Told) {
        for (domain, waiting) in &mut self.waiting {
            for event in told.remove(domain).unwrap_or_default() {
                if !waiting.contains(&event) {
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

    /// The whole store as the toolstack sees it.
    fn dump(&mut self) -> Result<Vec<String>, TestCaseError> {
        let mut lines = Vec::new();
        let mut open = vec!["/".to_owned()];
        while let Some(path) = open.pop() {
            let mut read = |kind| {
                let got = self.ask(0, kind, 0, &[path.as_bytes(), &[0]].concat())?;
                got.answer.map_err(|e| TestCaseError::fail(format!("{path} is listed, but {e}")))
            };
            let (value, perms, names) = (read(2)?, read(3)?, read(1)?);
            lines.push(format!("{path} {} {}", show(&value), show(&perms)));
            let names = String::from_utf8_lossy(&names).into_owned();
            let base = path.trim_end_matches('/');
            let names = names.split_terminator('\0');
            open.extend(names.map(|name| format!("{base}/{name}")));
        }
        lines.sort();
        Ok(lines)
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

fn absolute(by: u16, at: &str) -> String {
    if at.starts_with('/') { at.to_owned() } else { format!("/local/domain/{by}/{at}") }
}

fn encode(at: &str, op: &Op) -> (u32, Vec<u8>) {
    let (kind, rest) = match op {
        Op::Directory => (1, Vec::new()),
        Op::Read => (2, Vec::new()),
        Op::GetPerms => (3, Vec::new()),
        Op::Write(value) => (11, value.clone()),
        Op::Mkdir => (12, Vec::new()),
        Op::Rm => (13, Vec::new()),
        Op::SetPerms(entries) => (14, reference::listed(entries)),
    };
    (kind, [at.as_bytes(), &[0], &rest].concat())
}

fn owned(answer: &Answer) -> Result<Vec<u8>, String> {
    answer.clone().map_err(str::to_owned)
}

fn show(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn readable(told: &Told) -> BTreeMap<u16, Vec<String>> {
    let lines = |events: &Vec<Vec<u8>>| events.iter().map(|event| show(event)).collect();
    told.iter().map(|(domain, events)| (*domain, lines(events))).collect()
}

/// The model's store in the form of [`Model::dump`].
fn shown(tree: &Tree) -> Vec<String> {
    let line = |(path, node): (&String, &reference::Node)| {
        format!("{path} {} {}", show(&node.value), show(&reference::listed(&node.perms)))
    };
    let mut lines: Vec<String> = tree.iter().map(line).collect();
    lines.sort();
    lines
}

fn hold(steps: &[Step], cut: usize) -> Checked {
    let mut model = Model::new(cut)?;
    for step in steps {
        model.step(step)?;
    }
    model.resume_all()?;
    prop_assert_eq!(model.dump()?, shown(&model.tree), "the store at the end");
    Ok(())
}

proptest! {
    #![proptest_config(Config { failure_persistence: None, ..Config::default() })]

    #[test]
    fn the_store_does_as_the_simplest_store_would(steps in steps(), cut in 0..CUTS.len()) {
        hold(&steps, cut)?;
    }

    #[test]
    fn transactions_are_as_if_one_came_after_the_other(steps in conflicts()) {
        hold(&steps, 0)?;
    }
}
