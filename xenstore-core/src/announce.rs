//! Events: who is told of a change.
//!
//! A connection hears of a change if one of its watches is on the way, and if it may read the node
//! or the node's parent when the change happens.

mod watched;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cmp::Ordering;

use crate::change::Change;
use crate::connection::Connections;
use crate::host::{ConnId, DomId};
use crate::outbox::Event;
use crate::path::{Name, Path, Place, extend_decimal};
use crate::perms::{Perms, Subject};
use crate::store::{Caller, Commit, Store};
use crate::trail::Home;
use crate::transaction::Record;
use crate::tree::{Node, Reach, Special, Step, Tree};
use crate::watch::{Spot, Watch, WatchId, Watches};
use watched::{Visit, Watched};

/// Everybody who can be told something.
#[derive(Debug)]
pub(crate) struct Audience {
    pub(crate) watches: Watches,
    pub(crate) connections: Connections,
    /// Kept between events for its memory.
    heard: Vec<Heard>,
}

/// A watch that hears of a change.
#[derive(Clone, Copy, Debug)]
struct Heard {
    conn: u32,
    order: u64,
    watch: WatchId,
    /// The length of the path that it is told.
    told: usize,
    /// The length of its own path.
    own: usize,
    /// Of its token, see [`Watch::mark`].
    mark: u32,
}

/// What decides who may know of a change.
#[derive(Clone, Copy)]
struct Secrecy<'a> {
    perms: &'a Perms,
    /// The permissions before, where they were others.
    before: Option<&'a Perms>,
    parent: Option<&'a Perms>,
}

impl<'a> Secrecy<'a> {
    fn new(perms: &'a Perms, parent: Option<&'a Rc<Perms>>) -> Self {
        Self { perms, before: None, parent: parent.map(|parent| &**parent) }
    }

    /// Returns the secrecy of a node that was reached.
    fn at(reach: Reach<'a>) -> Self {
        Self::new(&reach.node.perms, reach.parent.map(|parent| &parent.perms))
    }

    fn lets(&self, subject: &Subject) -> bool {
        self.perms.readable(subject)
            || self.parent.is_some_and(|parent| parent.readable(subject))
            || self.before.is_some_and(|before| before.readable(subject))
    }
}

impl Audience {
    pub(crate) fn new() -> Self {
        Self { watches: Watches::new(), connections: Connections::default(), heard: Vec::new() }
    }

    /// Tells of one change to the store.
    pub(crate) fn tell(&mut self, store: &Store, place: Place<'_>, change: &Change) {
        let path = place.as_bytes();
        match change {
            Change::Nothing => {}
            Change::Written { perms, parent, .. } => {
                self.tell_path(store, path, 0, Secrecy::new(perms, parent.as_ref()));
            }
            Change::Created { perms, parent, made, .. } => {
                // The parent of all but the topmost new node is new too, with the same permissions.
                let parent = if *made > 1 { perms } else { parent };
                self.tell_path(store, path, *made, Secrecy::new(perms, Some(parent)));
            }
            Change::Permitted { node, perms, parent } => {
                let secrecy = Secrecy::new(perms, parent.as_ref());
                let before = Some(&*node.perms);
                self.tell_path(store, path, 0, Secrecy { before, ..secrecy });
            }
            Change::Announced { special, .. } => self.tell_special(store, *special, None),
            Change::Removed { subtree, parent } => {
                let path = Path::trusted(path);
                self.tell_below(store, path, subtree, Step::Leave, &mut |_| true);
                let secrecy = Secrecy::new(&subtree.perms, Some(parent));
                self.tell_path(store, path.as_bytes(), 0, secrecy);
            }
        }
    }

    /// Tells what a transaction changed in the end, each path once, in the order in which the
    /// transaction first used them.
    pub(crate) fn tell_commit(&mut self, store: &Store, home: Option<&Home>, commit: &Commit) {
        match commit {
            Commit::Nothing => {}
            Commit::Change(record) => self.tell_only(store, record.place(), &record.change),
            Commit::Changes { before, log } => self.tell_all(store, home, before, log),
        }
    }

    /// As [`tell`](Self::tell), of what a transaction changed: what was removed is told from the
    /// top down.
    fn tell_only(&mut self, store: &Store, place: Place<'_>, change: &Change) {
        let (Place::Node(path), Change::Removed { subtree, parent }) = (place, change) else {
            return self.tell(store, place, change);
        };
        self.tell_path(store, path.as_bytes(), 0, Secrecy::new(&subtree.perms, Some(parent)));
        self.tell_below(store, path, subtree, Step::Enter, &mut |_| true);
    }

    fn tell_all(&mut self, store: &Store, home: Option<&Home>, before: &Tree, log: &[Record]) {
        let mut uses: BTreeMap<&[u8], Use> = BTreeMap::new();
        for (first, record) in log.iter().enumerate() {
            let change = &record.change;
            let path = uses.entry(record.place().as_bytes()).or_insert(Use { first, ..Use::NONE });
            path.changed |= !change.is_nothing();
            path.removed |= matches!(change, Change::Removed { .. });
        }
        // What one removal told of, another above it must not tell again.
        let mut told: BTreeSet<Box<[u8]>> = BTreeSet::new();
        for (at, record) in log.iter().enumerate() {
            let place = record.place();
            let Some(used) = uses.get(place.as_bytes()) else { continue };
            if used.first != at || !used.changed {
                continue;
            }
            let path = match place {
                Place::Node(path) => path,
                Place::Special(name) => {
                    if let Some(special) = Special::from_name(name) {
                        self.tell_special(store, special, None);
                    }
                    continue;
                }
            };
            let was = self.tell_outcome(store, home, before, path);
            let Some(gone) = was.filter(|_| used.removed) else { continue };
            // Even a node that came back under a new child lost its value on the way.
            self.tell_below(store, path, gone, Step::Enter, &mut |below| {
                let named = uses.get(below).is_some_and(|path| path.changed);
                !named && told.insert(below.into())
            });
        }
    }

    /// Tells of a domain, or of any at all if none is named, to who watches for such news.
    ///
    /// Watches without a depth hear the plain name; those with one, and those of a domain's own
    /// name, hear of each domain.
    pub(crate) fn tell_special(&mut self, store: &Store, special: Special, domain: Option<DomId>) {
        let perms = store.tree.special(special);
        let secrecy = Secrecy::new(perms, Some(&store.tree.root().perms));
        let mut path = special.name().to_vec();
        let own = path.len();
        let Some(spot) = self.watches.spot(&path) else { return };
        self.heard.clear();
        if let Some(domain) = domain {
            path.push(b'/');
            let name = path.len();
            extend_decimal(&mut path, domain.0.into());
            if let Some(spot) = self.watches.below(spot, Name::new(&path[name..])) {
                self.hear_at(spot, path.len(), path.len(), |_| true);
            }
        }
        let told = path.len();
        self.hear_at(spot, told, own, |depth| match depth {
            None => domain.is_none(),
            Some(depth) => domain.is_some() && depth > 0,
        });
        self.deliver(store, &path, secrecy);
    }

    /// Queues a watch's first event, which tells only its own path, to whoever registered it.
    pub(crate) fn greet(&mut self, watch: WatchId, path: &[u8]) {
        let heard = Heard { conn: 0, order: 0, watch, told: path.len(), own: path.len(), mark: 0 };
        self.queue(heard, path, &mut Some(path.into()));
    }

    /// Tells some of a connection's watches of their own paths, if there was no memory for an event
    /// before: what it was is not known any more.
    pub(crate) fn make_good(&mut self, conn: ConnId) {
        const AT_ONCE: usize = 16;
        let Some(connection) = self.connections.find_mut(conn) else { return };
        let Some(first) = connection.outbox.owed() else { return };
        let rest = connection.watches.get(first..).unwrap_or_default();
        let more = (rest.len() > AT_ONCE).then_some(first + AT_ONCE);
        connection.outbox.owe(more);
        let next: Vec<_> = rest.iter().copied().take(AT_ONCE).collect();
        for id in next {
            let mut path = Vec::new();
            if let Some(watch) = self.watches.watch(id) {
                self.watches.extend_path(watch, &mut path);
                self.greet(id, &path);
            }
        }
    }

    /// Tells what became of a path in a transaction that is committed; returns the node that was
    /// there before.
    fn tell_outcome<'t>(
        &mut self,
        store: &Store,
        home: Option<&Home>,
        before: &'t Tree,
        path: Path<'_>,
    ) -> Option<&'t Rc<Node>> {
        let (was, is) = (before.reach(path, home, &mut ()), store.tree.reach(path, home, &mut ()));
        let gone = (was.missing == 0).then_some(was.node);
        if is.missing == 0 {
            let before = gone.map(|node| &*node.perms);
            let secrecy = Secrecy { before, ..Secrecy::at(is) };
            self.tell_path(store, path.as_bytes(), was.missing, secrecy);
        } else if was.missing == 0 {
            self.tell_path(store, path.as_bytes(), 0, Secrecy::at(was));
        }
        gone
    }

    /// Tells watches at and above a path, as far as their depth reaches.
    ///
    /// A watch that does not reach the path's end hears of new parents that it does reach: it
    /// would not learn of them otherwise.
    fn tell_path(&mut self, store: &Store, bytes: &[u8], made: usize, secrecy: Secrecy<'_>) {
        let Self { watches, heard, .. } = self;
        heard.clear();
        watches.along(bytes, &mut |watch, own, level| {
            let Some(registered) = watches.watch(watch) else { return };
            let Watch { order, conn, .. } = *registered;
            let mark = registered.mark();
            let full = Heard { conn, order, watch, told: bytes.len(), own, mark };
            let Some(depth) = registered.depth() else {
                heard.push(full);
                return;
            };
            let path = Path::trusted(bytes);
            let levels = path.depth();
            if level + depth >= levels {
                heard.push(full);
                return;
            }
            // What is above the watch is none of its business, even if it is new.
            for above in levels - level - depth..made.min(levels - level + 1) {
                heard.push(Heard { told: path.ancestor(above).as_bytes().len(), ..full });
            }
        });
        if !self.heard.is_empty() {
            self.deliver(store, bytes, secrecy);
        }
    }

    /// Tells the watches that are exactly at a node below a node that is gone.
    #[inline(never)]
    fn tell_below(
        &mut self,
        store: &Store,
        path: Path<'_>,
        gone: &Rc<Node>,
        when: Step,
        wanted: &mut dyn FnMut(&[u8]) -> bool,
    ) {
        let Some(top) = self.watches.spot(path.as_bytes()) else { return };
        let mut walk = Watched::new(path, gone, top);
        while let Some(visit) = walk.next(&self.watches) {
            let Visit { step, path, node, parent, spot } = visit;
            if step == when && wanted(path) {
                let secrecy = Secrecy::new(&node.perms, Some(&parent.perms));
                self.heard.clear();
                self.hear_at(spot, path.len(), path.len(), |_| true);
                self.deliver(store, path, secrecy);
            }
        }
    }

    /// Notes every watch that is exactly at a spot and has a wanted depth.
    fn hear_at(
        &mut self,
        spot: Spot,
        told: usize,
        own: usize,
        wanted: impl Fn(Option<usize>) -> bool,
    ) {
        let Self { watches, heard, .. } = self;
        watches.at(spot, |watch| {
            if let Some(registered) = watches.watch(watch)
                && wanted(registered.depth())
            {
                let Watch { order, conn, .. } = *registered;
                let mark = registered.mark();
                heard.push(Heard { conn, order, watch, told, own, mark });
            }
        });
    }

    /// Queues what was heard, in the order in which the watches were registered.
    fn deliver(&mut self, store: &Store, path: &[u8], secrecy: Secrecy<'_>) {
        let mut heard = core::mem::take(&mut self.heard);
        if heard.len() > 1 {
            self.put_in_order(&mut heard);
        }
        let mut shared = (heard.len() > 1).then(|| path.into());
        for &heard in &heard {
            let listener = self.connections.in_slot(heard.conn);
            let caller = listener.and_then(|(conn, _)| store.caller(conn.domain));
            let Some(Caller { subject, .. }) = caller else { continue };
            let lets = if heard.told == path.len() {
                secrecy.lets(&subject)
            } else {
                let told = Path::trusted(&path[..heard.told]);
                Secrecy::at(store.tree.reach(told, None, &mut ())).lets(&subject)
            };
            if lets {
                self.queue(heard, path, &mut shared);
            }
        }
        heard.clear();
        self.heard = heard;
    }

    /// Sorts what was heard by connection and registration, and leaves out what a connection would
    /// be told twice, because several of its watches have the same token.
    fn put_in_order(&self, heard: &mut Vec<Heard>) {
        let order = |heard: &Heard| (heard.conn, heard.order, heard.told);
        sort(heard, &|a, b| order(a).cmp(&order(b)));
        if !heard.is_sorted_by(|a, b| a.conn < b.conn) {
            let key = |heard: &Heard| (heard.conn, heard.told, heard.mark);
            let spelled = |heard: &Heard| {
                self.watches.watch(heard.watch).map(|watch| (watch.token(), watch.implied()))
            };
            sort(heard, &|a, b| {
                let by_token = key(a).cmp(&key(b)).then_with(|| spelled(a).cmp(&spelled(b)));
                by_token.then(a.order.cmp(&b.order))
            });
            heard.dedup_by(|later, first| {
                key(later) == key(first) && spelled(later) == spelled(first)
            });
            sort(heard, &|a, b| order(a).cmp(&order(b)));
        }
    }

    fn queue(&mut self, heard: Heard, path: &[u8], shared: &mut Option<Rc<[u8]>>) {
        let Heard { watch: id, told, own, .. } = heard;
        let Some(watch) = self.watches.watch_mut(id) else { return };
        self.connections.mark(watch.conn, |connection| {
            let event = Event { id, watch, path, told, own };
            let number = connection.outbox.event(&event, shared);
            watch.newest = number.unwrap_or(watch.newest);
            number.is_some()
        });
    }
}

/// How a transaction used a path.
#[derive(Clone, Copy, Debug)]
struct Use {
    /// The first record that names it.
    first: usize,
    changed: bool,
    removed: bool,
}

impl Use {
    const NONE: Self = Self { first: 0, changed: false, removed: false };
}

/// One sort for every order: each copy of it would add kilobytes to the image.
#[inline(never)]
fn sort(heard: &mut [Heard], order: &dyn Fn(&Heard, &Heard) -> Ordering) {
    heard.sort_unstable_by(order);
}
