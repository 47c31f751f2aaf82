//! Transactions: a snapshot to work on, and a record of what was asked and answered.
//!
//! At the end the record is judged again on the tree as it is then. If every answer still holds,
//! the transaction might as well have run at that moment, so it commits; exactly the transactions
//! that fit somewhere into one order of all do.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::rc::Rc;
use alloc::vec::Vec;

use crate::change::{Change, Effect};
use crate::debris::Debris;
use crate::operation::{Answer, Edit, Judge, Look, PathOp, apply};
use crate::path::{Path, Place};
use crate::perms::Perms;
use crate::trail::Trail;
use crate::tree::Tree;
use crate::wire::Error;

/// An open transaction.
#[derive(Debug)]
pub(crate) struct Transaction {
    snapshot: Snapshot,
    /// The store's count of what changed besides the tree, at the start.
    epoch: u64,
    /// The same count when it was last asked something.
    last_epoch: u64,
    log: Vec<Record>,
    /// No fewer than the different paths touched; exactly them once `paths` is there.
    touched: usize,
    /// Names in the listings of the record, which judging it again may compare.
    names: usize,
    /// No fewer than the levels of its paths, which judging it again goes through.
    levels: usize,
    /// Whether they are counted: to count them took a twentieth of a transaction of four requests.
    levels_counted: bool,
    /// Hashes of the paths; only made when the count above nears its limit.
    paths: Option<BTreeSet<u64>>,
    /// Set when a refusal left the transaction incomplete: it cannot commit.
    pub(crate) doomed: bool,
    /// Set when its memory was needed for others: it must be repeated.
    pub(crate) sacrificed: bool,
    /// What the record is charged with, in bytes.
    pub(crate) memory: usize,
}

/// The tree as a transaction sees it.
///
/// The change of its last record waits until something else is asked: most transactions change one
/// node and end, and then the store's own tree is changed, which shares nothing with a snapshot any
/// more. To copy the nodes of the path, and their neighbours' references, took half of the
/// instructions of a transaction of four requests, and more of them among more domains.
#[derive(Debug)]
struct Snapshot {
    /// The tree at the start.
    base: Tree,
    /// The tree as it was changed since; `None` if it was not.
    own: Option<Tree>,
    waiting: Option<Waiting>,
}

/// A change that was judged and is not done yet.
#[derive(Debug)]
pub(crate) struct Waiting {
    generation: u64,
    trail: Trail,
}

/// What a transaction leads to.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Nothing changes.
    Nothing,
    /// This is the only change; it is to be [done](Record::apply) to the store's tree.
    Change(Record, Waiting),
    /// This takes the place of the store's tree, after all these changes.
    Tree(Tree, Vec<Record>),
}

impl Snapshot {
    fn new(tree: &Tree) -> Self {
        Self { base: tree.clone(), own: None, waiting: None }
    }

    /// Returns the tree after all changes; `last` is the record of the last.
    fn tree(&mut self, last: Option<&Record>) -> &Tree {
        if let Some(waiting) = self.waiting.take()
            && let Some(last) = last
        {
            last.apply(self.own.get_or_insert_with(|| self.base.clone()), &waiting);
        }
        self.own.as_ref().unwrap_or(&self.base)
    }

    /// Gives up both trees, unless the base is the store's tree still.
    fn scrap(self, tree: &Tree, debris: &mut Debris) {
        if !self.base.is(tree) {
            debris.take_tree(self.base);
        }
        self.own.into_iter().for_each(|own| debris.take_tree(own));
    }

    /// Has a change wait that judging said, and took this way to.
    fn change_later(&mut self, change: &Change, generation: u64, trail: Trail) {
        self.waiting = (!change.is_nothing()).then_some(Waiting { generation, trail });
    }
}

/// One request of a transaction, and what came of it.
#[derive(Debug)]
pub(crate) struct Record {
    /// What it is about, and then the value that it writes.
    text: Box<[u8]>,
    place_len: u16,
    op: KeptOp,
    answer: Result<Answer, Error>,
    pub(crate) change: Change,
}

/// A [`PathOp`] without the bytes that it names.
#[derive(Debug)]
enum KeptOp {
    Value,
    Names,
    Part(i32),
    Perms,
    Write,
    Mkdir,
    Rm,
    SetPerms(Rc<Perms>),
}

impl Record {
    pub(crate) fn new(op: &PathOp<'_>, answer: Result<Answer, Error>, change: Change) -> Self {
        let mut value = &[][..];
        let kept = match op {
            PathOp::Look(Look::Value(_)) => KeptOp::Value,
            PathOp::Look(Look::Names(_)) => KeptOp::Names,
            PathOp::Look(Look::Part(_, from)) => KeptOp::Part(*from),
            PathOp::Look(Look::Perms(_)) => KeptOp::Perms,
            PathOp::Edit(Edit::Write(_, written)) => {
                value = written;
                KeptOp::Write
            }
            PathOp::Edit(Edit::Mkdir(_)) => KeptOp::Mkdir,
            PathOp::Edit(Edit::Rm(_)) => KeptOp::Rm,
            PathOp::Edit(Edit::Perms(_, perms)) => KeptOp::SetPerms(Rc::clone(perms)),
        };
        let place = op.place().as_bytes();
        let place_len = u16::try_from(place.len()).expect("a frame holds the place");
        Self { text: [place, value].concat().into(), place_len, op: kept, answer, change }
    }

    pub(crate) fn place(&self) -> Place<'_> {
        Place::trusted(&self.text[..self.place_len.into()])
    }

    /// Returns what keeping a request costs, in bytes, with the nodes that only its transaction
    /// has. What it removes, others have, or its snapshot would keep anyway.
    pub(crate) fn memory(op: &PathOp<'_>, change: &Change) -> usize {
        let value = if let PathOp::Edit(Edit::Write(_, value)) = op { value.len() } else { 0 };
        let mut memory = size_of::<Self>() + op.place().as_bytes().len() + value;
        change.follow(op.place(), &mut |effect| {
            if let Effect::Charge { bytes, .. } = effect {
                memory += bytes.unsigned_abs();
            }
        });
        memory
    }

    fn op(&self) -> PathOp<'_> {
        let (place, value) = self.text.split_at(self.place_len.into());
        let path = || Path::trusted(place);
        match &self.op {
            KeptOp::Value => PathOp::Look(Look::Value(path())),
            KeptOp::Names => PathOp::Look(Look::Names(path())),
            KeptOp::Part(from) => PathOp::Look(Look::Part(path(), *from)),
            KeptOp::Perms => PathOp::Look(Look::Perms(self.place())),
            KeptOp::Write => PathOp::Edit(Edit::Write(path(), value)),
            KeptOp::Mkdir => PathOp::Edit(Edit::Mkdir(path())),
            KeptOp::Rm => PathOp::Edit(Edit::Rm(path())),
            KeptOp::SetPerms(perms) => PathOp::Edit(Edit::Perms(self.place(), Rc::clone(perms))),
        }
    }

    /// Gives up what it remembers.
    pub(crate) fn scrap(self, debris: &mut Debris) {
        if let Ok(answer) = self.answer {
            debris.take_answer(answer);
        }
        debris.take_change(self.change);
    }

    /// Does the change, which waits, to the tree that it was judged on.
    #[inline(never)]
    pub(crate) fn apply(&self, tree: &mut Tree, waiting: &Waiting) {
        if let PathOp::Edit(edit) = self.op() {
            apply(tree, &edit, &self.change, waiting.generation, &waiting.trail);
        }
    }
}

impl Transaction {
    pub(crate) fn new(tree: &Tree, epoch: u64) -> Self {
        Self {
            snapshot: Snapshot::new(tree),
            epoch,
            last_epoch: epoch,
            log: Vec::new(),
            touched: 0,
            names: 0,
            levels: 0,
            levels_counted: false,
            paths: None,
            doomed: false,
            sacrificed: false,
            memory: 0,
        }
    }

    pub(crate) fn log(&self) -> &[Record] {
        &self.log
    }

    /// Returns the tree as the transaction sees it, when it is asked something.
    pub(crate) fn tree(&mut self) -> &Tree {
        self.snapshot.tree(self.log.last())
    }

    /// Makes sure that one more request can be kept.
    ///
    /// # Errors
    /// [`Error::Enomem`] if there is no memory for it.
    pub(crate) fn make_room(&mut self) -> Result<(), Error> {
        self.log.try_reserve(1).map_err(|_| Error::Enomem)
    }

    /// Gives up what the transaction alone keeps. It goes on as if it had begun now, and must be
    /// repeated in the end.
    pub(crate) fn sacrifice(&mut self, tree: &Tree, debris: &mut Debris) {
        core::mem::replace(&mut self.snapshot, Snapshot::new(tree)).scrap(tree, debris);
        core::mem::take(&mut self.log).into_iter().for_each(|record| record.scrap(debris));
        (self.names, self.levels) = (0, 0);
        self.paths = None;
        self.sacrificed = true;
    }

    /// Keeps a request that was judged on the [`tree`](Self::tree), with the way that judging it
    /// took and what would be the generation of what it changes.
    pub(crate) fn record(&mut self, record: Record, generation: u64, trail: Trail) {
        self.snapshot.change_later(&record.change, generation, trail);
        self.log.push(record);
    }

    /// Counts the paths that a request touches: its own, and those of the parents that it makes.
    ///
    /// Returns the number of different ones so far; it is exact if it is above `limit`.
    pub(crate) fn touch(&mut self, place: Place<'_>, change: &Change, limit: usize) -> usize {
        let made = if let Change::Created { made, .. } = change { *made } else { 1 };
        self.touched += made;
        if self.touched > limit && self.paths.is_none() {
            let mut paths = BTreeSet::new();
            for record in &self.log {
                note(&mut paths, record.place(), &record.change);
            }
            self.paths = Some(paths);
        }
        if let Some(paths) = &mut self.paths {
            note(paths, place, change);
            self.touched = paths.len();
        }
        self.touched
    }

    /// Adds a request to what judging the record again costs, in levels of paths and names in
    /// listings. Returns that; it is exact if it is above `limit`.
    pub(crate) fn go(&mut self, place: Place<'_>, names: usize, limit: usize) -> usize {
        self.names += names;
        // A level has a slash and a name.
        let most = place.as_bytes().len() / 2 + 1;
        self.levels += if self.levels_counted { place.levels() } else { most };
        if self.names + self.levels > limit && !self.levels_counted {
            let recorded = self.log.iter().map(|record| record.place().levels());
            self.levels = recorded.sum::<usize>() + place.levels();
            self.levels_counted = true;
        }
        self.names + self.levels
    }

    /// Whether nothing was changed: then all that was answered held at the start, and that is
    /// moment enough to have run at.
    pub(crate) fn only_read(&self) -> bool {
        self.log.iter().all(|record| record.change.is_nothing())
    }

    /// Notes that the transaction is asked something at this count.
    pub(crate) fn ask_at(&mut self, epoch: u64) {
        self.last_epoch = epoch;
    }

    /// Whether all was answered by the rights of its start: a snapshot keeps nodes, but neither
    /// deaths nor targets wait for its end.
    pub(crate) fn is_of_one_moment(&self) -> bool {
        self.epoch == self.last_epoch
    }

    /// Whether nothing at all happened since the start, so that what was done holds as it is.
    pub(crate) fn is_undisturbed(&self, tree: &Tree, epoch: u64) -> bool {
        self.epoch == epoch && self.snapshot.base.is(tree)
    }

    /// Runs the record again on a tree as it is now, with the changes on the way in the record.
    ///
    /// # Errors
    /// [`Error::Eagain`] if an answer that was given holds no more.
    pub(crate) fn replay(
        &mut self,
        tree: &Tree,
        judge: &mut Judge<'_>,
        debris: &mut Debris,
        generation: &mut u64,
    ) -> Result<(), Error> {
        core::mem::replace(&mut self.snapshot, Snapshot::new(tree)).scrap(tree, debris);
        for at in 0..self.log.len() {
            let (before, rest) = self.log.split_at_mut(at);
            let Some(record) = rest.first_mut() else { break };
            let op = record.op();
            let (answer, change) = match judge.judge(self.snapshot.tree(before.last()), &op) {
                Ok((answer, change)) => (Ok(answer), change),
                Err(denial) => (Err(denial.error), Change::Nothing),
            };
            let holds = match (&record.answer, &answer) {
                (Ok(then), Ok(now)) => then.still_holds(now, judge.domains),
                (Err(then), Err(now)) => then == now,
                _ => false,
            };
            if !holds {
                return Err(Error::Eagain);
            }
            if let PathOp::Edit(_) = op {
                *generation += 1;
            }
            debris.take_change(core::mem::replace(&mut record.change, change));
            let trail = core::mem::take(&mut judge.trail);
            self.snapshot.change_later(&record.change, *generation, trail);
        }
        Ok(())
    }

    /// Ends the transaction: what it leads to on the tree that it saw last. Then it is to be
    /// scrapped, before the store changes.
    pub(crate) fn end(&mut self) -> Outcome {
        let Snapshot { own, waiting, .. } = &mut self.snapshot;
        if own.is_none() {
            let Some(waiting) = waiting.take() else { return Outcome::Nothing };
            let last = self.log.pop();
            return last.map_or(Outcome::Nothing, |last| Outcome::Change(last, waiting));
        }
        let tree = self.tree().clone();
        Outcome::Tree(tree, core::mem::take(&mut self.log))
    }

    /// Gives up what it remembers; `tree` is the store's.
    pub(crate) fn scrap(self: Box<Self>, tree: &Tree, debris: &mut Debris) {
        let Self { snapshot, log, .. } = *self;
        snapshot.scrap(tree, debris);
        log.into_iter().for_each(|record| record.scrap(debris));
    }
}

/// Adds the paths that a request touches. Hashes, because a path of a thousand levels has as many
/// ancestors with a thousand names each. Paths whose hashes agree count as one: who contrives
/// that gains a few paths more, which its memory quota counts all the same.
fn note(paths: &mut BTreeSet<u64>, place: Place<'_>, change: &Change) {
    let above = match (place, change) {
        (Place::Node(path), Change::Created { made, .. }) => path.depth() - made,
        _ => usize::MAX,
    };
    // FNV-1a, which has the hash of every ancestor on its way.
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let mut level = 0;
    for (at, byte) in place.as_bytes().iter().enumerate() {
        if *byte == b'/' && at > 0 {
            level += 1;
            if level > above {
                paths.insert(hash);
            }
        }
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    paths.insert(hash);
}
