//! Transactions: what they may be told, and whether they may commit.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use super::{Checked, Got, Model, Told, done, fail, owned, show};
use crate::reference::{
    self, Answer, Around, Caller, Limits, Op, SPECIALS, Touched, Tree, Watch, allows,
};

/// The most transactions that one client has open here.
const OPEN_MAX: usize = 3;

/// An open transaction.
pub(super) struct Transaction {
    pub(super) id: u32,
    /// What was at its start: the store, and all that answers depend on besides.
    start: Tree,
    caller: Caller,
    limits: Limits,
    lives: BTreeMap<u16, u32>,
    epoch: u32,
    /// Its private tree.
    tree: Tree,
    /// What it did and was told.
    log: Vec<(String, Op, Answer)>,
    changed: bool,
    /// Whether it was told something after rights had changed: its start need not explain it.
    mixed: bool,
    /// The paths that it touched.
    paths: BTreeSet<String>,
    /// It touched too many.
    doomed: bool,
}

impl Transaction {
    /// Runs an operation inside.
    pub(super) fn act(&mut self, around: Around<'_>, epoch: u32, path: String, op: Op) -> Answer {
        let mut after = self.tree.clone();
        let (answer, touched) = reference::apply(&mut after, around, &path, &op);
        if answer == Err("EINVAL") {
            // Who asks for what cannot be is told nothing of the store.
            return answer;
        }
        if around.caller.domain != 0 {
            let made = after.keys().filter(|path| !self.tree.contains_key(*path)).cloned();
            self.paths.extend(made.chain([path.clone()]));
            if !allows(around.limits.transaction_nodes, self.paths.len()) {
                self.doomed = true;
                return Err("ENOSPC");
            }
        }
        self.tree = after;
        self.changed |= !touched.is_empty();
        self.mixed |= epoch != self.epoch;
        self.log.push((path, op, answer.clone()));
        answer
    }

    /// Runs all of it again; the answers must be the same.
    fn runs_again(&self, tree: &mut Tree, around: Around<'_>) -> Option<BTreeSet<Touched>> {
        let mut touched = BTreeSet::new();
        for (path, op, answer) in &self.log {
            let (again, changes) = reference::apply(tree, around, path, op);
            if again != *answer {
                return None;
            }
            touched.extend(changes);
        }
        Some(touched)
    }

    /// Whether it might have run at its start, which is moment enough for one that only read.
    fn is_explained_by_its_start(&self) -> bool {
        let (caller, limits, lives) = (self.caller, self.limits, &self.lives);
        let around = Around { caller, limits, lives, counts_nodes: false };
        self.runs_again(&mut self.start.clone(), around).is_some()
    }
}

impl Model {
    pub(super) fn start(&mut self, by: u16) -> Checked {
        let count = self.transactions.get(&by).map_or(0, Vec::len);
        if count >= OPEN_MAX {
            return Ok(());
        }
        let got = self.ask(by, 6, 0, &[0])?;
        if !allows(self.limits(by).transactions, count + 1) {
            return self.compare(&got, &Err("ENOSPC"), &Told::new(), "one transaction too many");
        }
        let Ok(id) = &got.answer else { return fail("a transaction was refused") };
        let id = String::from_utf8_lossy(id).trim_end_matches('\0').parse();
        let id = id.map_err(|e| TestCaseError::fail(format!("no transaction id: {e}")))?;
        let open = Transaction {
            id,
            start: self.tree.clone(),
            caller: self.caller(by),
            limits: self.limits(by),
            lives: self.lives.clone(),
            epoch: self.epoch,
            tree: self.tree.clone(),
            log: Vec::new(),
            changed: false,
            mixed: false,
            paths: BTreeSet::new(),
            doomed: false,
        };
        self.transactions.entry(by).or_default().push(open);
        Ok(())
    }

    pub(super) fn end(&mut self, by: u16, within: usize, commit: bool) -> Checked {
        let Some(open) = self.transactions.get_mut(&by) else { return Ok(()) };
        if within >= open.len() {
            return Ok(());
        }
        let open = open.remove(within);
        let flag: &[u8] = if commit { b"T\0" } else { b"F\0" };
        self.resume_all()?;
        let got = self.ask(by, 7, open.id, flag)?;
        let what = format!("{by} ends {:?}, {commit}", open.log);
        if !commit {
            return self.compare(&got, &done(), &Told::new(), &what);
        }
        if open.doomed {
            return self.compare(&got, &Err("ENOMEM"), &Told::new(), &what);
        }
        let (caller, limits) = (self.caller(by), self.limits(by));
        let around = Around { caller, limits, lives: &self.lives, counts_nodes: false };
        let mut after = self.tree.clone();
        let again = open.runs_again(&mut after, around);
        if !open.changed && !open.mixed {
            prop_assert!(open.is_explained_by_its_start(), "nothing explains what it saw: {what}");
            return self.compare(&got, &done(), &Told::new(), &what);
        }
        let Some(touched) = again else {
            return self.compare(&got, &Err("EAGAIN"), &Told::new(), &what);
        };
        let [was, is] = [&self.tree, &after].map(|tree| reference::owned(tree, caller).0);
        if by != 0 && is > was && !allows(limits.nodes, is) {
            return self.compare(&got, &Err("ENOSPC"), &Told::new(), &what);
        }
        prop_assert_eq!(&got.answer, &owned(&done()), "{}", what);
        let before = core::mem::replace(&mut self.tree, after);
        self.compare_commit(&got, &before, &touched)?;
        self.compare_store(&format!("after {what}"))
    }

    /// Events of a commit: all that must, none that may not be told.
    fn compare_commit(&self, got: &Got, before: &Tree, touched: &BTreeSet<Touched>) -> Checked {
        prop_assert!(got.after.is_empty(), "events behind the answer to a commit");
        for domain in &self.introduced {
            let (mut must, mut may) = (BTreeSet::new(), BTreeSet::new());
            for watch in self.watches.iter().filter(|watch| watch.domain == *domain) {
                may.extend(self.may_be_told(watch, before, touched));
                must.extend(self.must_be_told(watch, before, touched));
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

    /// Whether a change leaves something to tell: not what was made and removed inside.
    fn lasts(&self, before: &Tree, touched: &Touched) -> bool {
        before.contains_key(&touched.path) || self.tree.contains_key(&touched.path)
    }

    /// The events of one watch that are no lie.
    fn may_be_told(
        &self,
        watch: &Watch,
        before: &Tree,
        touched: &BTreeSet<Touched>,
    ) -> BTreeSet<Vec<u8>> {
        let is_new = |path: &&String| !before.contains_key(*path);
        let made = self.tree.keys().filter(is_new).cloned();
        let made = made.map(|path| Touched { path, exact: false });
        let lasting = touched.iter().filter(|touched| self.lasts(before, touched)).cloned();
        let heard = lasting.chain(made).flat_map(|touched| watch.hears(&touched, before));
        let news = touched.iter().filter(|touched| SPECIALS.contains(&&*touched.path));
        let news = news.filter_map(|touched| watch.hears_of(&touched.path, None));
        heard.chain(news).map(|path| watch.event(&path)).collect()
    }

    /// The events of one watch that its owner relies on.
    fn must_be_told(
        &self,
        watch: &Watch,
        before: &Tree,
        touched: &BTreeSet<Touched>,
    ) -> BTreeSet<Vec<u8>> {
        let caller = self.caller(watch.domain);
        let mut told = BTreeSet::new();
        for touched in touched {
            if SPECIALS.contains(&&*touched.path) {
                let heard = watch.hears_of(&touched.path, None);
                let heard = heard.filter(|_| self.may_hear(watch.domain, &touched.path));
                told.extend(heard.map(|path| watch.event(&path)));
                continue;
            }
            // What was made on the way, removed with its parent and made on the way again, was only
            // ever made on the way.
            let is_detour = touched.exact && !before.contains_key(&touched.path);
            if is_detour || !self.lasts(before, touched) {
                continue;
            }
            for path in watch.hears(touched, before) {
                let is_sure = match watch.domain {
                    0 => self.lasts(before, &Touched { path: path.clone(), exact: false }),
                    // What went with its parent is told to those who could read it.
                    _ if touched.exact && !reference::is_readable(before, caller, &path) => false,
                    _ => reference::is_readable(&self.tree, caller, &path),
                };
                if is_sure {
                    told.insert(watch.event(&path));
                }
            }
        }
        told
    }
}
