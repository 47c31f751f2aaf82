//! The trie of watched paths.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::branches::Branches;
use super::homes::Homes;
use super::{Watch, WatchId, mark};
use crate::children::Tails;
use crate::host::DomId;
use crate::path::{Key, Name, Names, Path, home_of};
use crate::slab::Slab;

/// A place in the trie: where one watched path, or the beginning of one, stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spot {
    /// One watch at a short name with nothing below: most watches are like this, and then the
    /// watch itself is all there is.
    Alone(WatchId),
    Point(PointId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PointId(u32);

#[derive(Debug)]
pub(super) struct Point {
    parent: PointId,
    key: Key,
    tail: Box<[u8]>,
    here: Here,
    children: Branches,
}

/// The points, by their numbers.
pub(super) type Points = Slab<Point>;

/// The watches that are exactly at a point.
#[derive(Debug)]
enum Here {
    None,
    One(WatchId),
    #[expect(clippy::box_collection, reason = "most points hold one watch, and stay small so")]
    Many(Box<BTreeSet<Rank>>),
}

/// What many watches of one path are found by: the connection, and the mark of the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    conn: u32,
    mark: u32,
    id: WatchId,
}

impl Rank {
    fn new(watch: &Watch, id: WatchId) -> Self {
        Self { conn: watch.conn, mark: mark(watch.token()), id }
    }
}

#[derive(Debug)]
pub(super) struct Trie {
    points: Slab<Point>,
    /// The point of `/`.
    root: PointId,
    /// The point above all names that begin with `@`.
    special: PointId,
    homes: Homes,
}

impl Tails<Spot> for Slab<Point> {
    fn tail<'a>(&'a self, child: &'a Spot) -> &'a [u8] {
        match child {
            Spot::Alone(_) => &[],
            Spot::Point(id) => self.find(id.0).map_or(&[], |point| &point.tail),
        }
    }
}

impl Trie {
    pub(super) fn new() -> Self {
        let mut points = Slab::new();
        let mut top = || {
            let name = Name::new(&[]);
            // Neither is ever removed, so that neither needs a parent.
            PointId(points.insert(Point::new(PointId(u32::MAX), name)))
        };
        let (root, special) = (top(), top());
        Self { points, root, special, homes: Homes::default() }
    }

    /// Returns where every path, or every `@` name, begins.
    pub(super) fn top(&self, special: bool) -> Spot {
        Spot::Point(if special { self.special } else { self.root })
    }

    pub(super) fn spot(&self, path: &[u8]) -> Option<Spot> {
        let (start, mut names) = match self.enter(path) {
            Some((home, names)) => (home, names),
            None => {
                let (special, names) = Names::of_watch(path);
                let top = self.top(special.is_some());
                (special.map_or(Some(top), |name| self.below(top, name))?, names)
            }
        };
        names.try_fold(start, |spot, name| self.below(spot, name))
    }

    /// Returns what stands at the home that a path leads to, and the names that follow; `None` if
    /// it leads to none, or nothing there is watched.
    fn enter<'p>(&self, path: &'p [u8]) -> Option<(Spot, Names<'p>)> {
        let (domain, end) = home_of(path)?;
        Some((self.homes.find(domain)?, Path::trusted(path).names_from(end)))
    }

    #[inline]
    pub(super) fn below(&self, spot: Spot, name: Name<'_>) -> Option<Spot> {
        let Spot::Point(id) = spot else { return None };
        self.points.find(id.0)?.children.find(name, &self.points)
    }

    /// Returns how many children a spot has.
    pub(super) fn children_len(&self, spot: Spot) -> usize {
        self.children(spot).map_or(0, Branches::len)
    }

    /// Returns the name and the spot of one of them by its place in name order.
    pub(super) fn nth_child(&self, spot: Spot, place: usize) -> Option<(Name<'_>, Spot)> {
        let (key, child) = self.children(spot)?.nth(place)?;
        let tail = match child {
            Spot::Alone(_) => &[],
            Spot::Point(id) => &*self.points.find(id.0)?.tail,
        };
        Some((Name { key, tail }, child))
    }

    fn children(&self, spot: Spot) -> Option<&Branches> {
        let Spot::Point(id) = spot else { return None };
        self.points.find(id.0).map(|point| &point.children)
    }

    #[inline(always)]
    pub(super) fn at(&self, spot: Spot, mut to: impl FnMut(WatchId)) {
        #[inline(never)]
        fn each(ranks: &BTreeSet<Rank>, to: &mut dyn FnMut(WatchId)) {
            ranks.iter().for_each(|rank| to(rank.id));
        }
        match spot {
            Spot::Alone(id) => to(id),
            Spot::Point(id) => match self.points.find(id.0).map(|point| &point.here) {
                None | Some(Here::None) => {}
                Some(Here::One(id)) => to(*id),
                Some(Here::Many(ranks)) => each(ranks, &mut to),
            },
        }
    }

    /// Returns the points above the homes of domains, from the root down, and what stands at the
    /// domain's home; `None` if nothing below the first is watched.
    pub(super) fn home(&self, domain: DomId) -> Option<([Spot; 3], Option<Spot>)> {
        let above = [self.root, self.homes.local?, self.homes.domain?].map(Spot::Point);
        Some((above, self.homes.find(domain)))
    }

    /// Returns the connection's watch of that token at a spot.
    pub(super) fn find(
        &self,
        all: &Slab<Watch>,
        spot: Spot,
        conn: u32,
        token: &[u8],
    ) -> Option<WatchId> {
        let is = |id: &WatchId| {
            all.find(id.0).is_some_and(|watch| watch.conn == conn && watch.token() == token)
        };
        let here = match spot {
            Spot::Alone(id) => return Some(id).filter(is),
            Spot::Point(id) => &self.points.find(id.0)?.here,
        };
        match here {
            Here::None => None,
            Here::One(id) => Some(*id).filter(is),
            Here::Many(ranks) => {
                let from = Rank { conn, mark: mark(token), id: WatchId(0) };
                let to = Rank { id: WatchId(u32::MAX), ..from };
                ranks.range(from..=to).map(|rank| rank.id).find(is)
            }
        }
    }

    /// Appends the path that a watch was put at.
    pub(super) fn extend_path(&self, watch: &Watch, out: &mut Vec<u8>) {
        let start = out.len();
        // Names are found from the last one up, so the path is filled from its end.
        out.resize(start + usize::from(watch.path_len), b'/');
        let path = &mut out[start..];
        let mut end = path.len();
        let mut put = |key: Key, tail: &[u8]| {
            for part in [tail, &key.bytes()[..key.len()]] {
                let from = end - part.len();
                path[from..end].copy_from_slice(part);
                end = from;
            }
            end = end.saturating_sub(1);
        };
        if watch.alone != Key::NONE {
            put(watch.alone, &[]);
        }
        let mut at = PointId(watch.point);
        while at != self.root
            && at != self.special
            && let Some(point) = self.points.find(at.0)
        {
            put(point.key, &point.tail);
            at = point.parent;
        }
    }

    /// Puts a watch at its path.
    pub(super) fn add(&mut self, all: &mut Slab<Watch>, path: &[u8], id: WatchId) {
        let (special, mut names) = Names::of_watch(path);
        let (mut at, mut next) = match (special, self.enter(path)) {
            (Some(name), _) => (self.special, Some(name)),
            (None, Some((Spot::Point(home), below))) => {
                names = below;
                (home, names.next())
            }
            (None, _) => (self.root, names.next()),
        };
        while let Some(name) = next {
            next = names.next();
            let last = next.is_none();
            if last && name.tail.is_empty() && self.below(Spot::Point(at), name).is_none() {
                self.insert_child(at, name, Spot::Alone(id));
                place(all, id, at, name.key);
                return;
            }
            at = self.step(all, at, name);
        }
        self.join(all, at, id);
    }

    /// Takes a watch out, and every point that then leads nowhere.
    pub(super) fn remove(&mut self, all: &Slab<Watch>, id: WatchId) {
        let Some(watch) = all.find(id.0) else { return };
        let at = PointId(watch.point);
        match watch.alone {
            Key::NONE => self.part(at, Rank::new(watch, id)),
            key => self.remove_child(at, key, &[]),
        }
        self.prune(at);
    }

    /// Returns the point below of that name, made where there is none.
    fn step(&mut self, all: &mut Slab<Watch>, at: PointId, name: Name<'_>) -> PointId {
        let present = self.below(Spot::Point(at), name);
        if let Some(Spot::Point(id)) = present {
            return id;
        }
        let id = PointId(self.points.insert(Point::new(at, name)));
        if name.tail.is_empty() {
            self.homes.note_point(self.root, at, name.key, id);
        }
        match present {
            Some(Spot::Alone(watch)) => {
                // A point must carry the name before it takes the place in the list.
                self.replace_child(at, name, Spot::Point(id));
                self.join(all, id, watch);
            }
            Some(Spot::Point(_)) | None => self.insert_child(at, name, Spot::Point(id)),
        }
        id
    }

    /// Adds a watch to those of a point.
    fn join(&mut self, all: &mut Slab<Watch>, at: PointId, id: WatchId) {
        place(all, id, at, Key::NONE);
        let (Some(point), Some(watch)) = (self.points.find_mut(at.0), all.find(id.0)) else {
            return;
        };
        match &mut point.here {
            Here::None => point.here = Here::One(id),
            Here::One(first) => {
                let first = *first;
                let mut ranks = BTreeSet::new();
                // One by one: to collect them would sort them first, for two.
                ranks.insert(Rank::new(watch, id));
                if let Some(watch) = all.find(first.0) {
                    ranks.insert(Rank::new(watch, first));
                }
                point.here = Here::Many(Box::new(ranks));
            }
            Here::Many(ranks) => {
                ranks.insert(Rank::new(watch, id));
            }
        }
    }

    /// Takes a watch out of those of a point.
    fn part(&mut self, at: PointId, rank: Rank) {
        let Some(point) = self.points.find_mut(at.0) else { return };
        match &mut point.here {
            Here::None => {}
            Here::One(_) => point.here = Here::None,
            Here::Many(ranks) => {
                ranks.remove(&rank);
                if ranks.len() == 1 {
                    point.here = ranks.first().map_or(Here::None, |last| Here::One(last.id));
                }
            }
        }
    }

    /// Removes a point and those above it, as long as they hold no watch and lead to none.
    fn prune(&mut self, mut at: PointId) {
        while at != self.root && at != self.special {
            let Some(point) = self.points.find(at.0) else { return };
            if !matches!(point.here, Here::None) || !point.children.is_none() {
                return;
            }
            let parent = point.parent;
            // The point is still needed to tell its name while it is taken out.
            let (key, tail) = (point.key, point.tail.clone());
            self.remove_child(parent, key, &tail);
            self.points.remove(at.0);
            self.homes.forget_point(at);
            at = parent;
        }
    }

    fn insert_child(&mut self, at: PointId, name: Name<'_>, child: Spot) {
        self.homes.set(at, name, Some(child));
        self.with_children(at, |points, children| children.insert(name, child, points));
    }

    fn replace_child(&mut self, at: PointId, name: Name<'_>, child: Spot) {
        self.homes.set(at, name, Some(child));
        self.with_children(at, |points, children| children.replace(name, child, points));
    }

    fn remove_child(&mut self, at: PointId, key: Key, tail: &[u8]) {
        let name = Name { key, tail };
        self.homes.set(at, name, None);
        self.with_children(at, |points, children| children.remove(name, points));
    }

    /// Lends a point's children out, since their names are told by the other points.
    fn with_children(&mut self, at: PointId, change: impl FnOnce(&Points, &mut Branches)) {
        let Some(point) = self.points.find_mut(at.0) else { return };
        let mut children = core::mem::take(&mut point.children);
        change(&self.points, &mut children);
        if let Some(point) = self.points.find_mut(at.0) {
            point.children = children;
        }
    }

    /// Compares the trie with the watches: each is where it says, and no point leads nowhere.
    pub(super) fn check(&self, all: &Slab<Watch>) -> Result<(), String> {
        for (number, watch) in all.iter() {
            let id = WatchId(number);
            let at = Spot::Point(PointId(watch.point));
            let spot = match watch.alone {
                Key::NONE => Some(at),
                key => self.below(at, Name { key, tail: &[] }),
            };
            let mut found = false;
            if let Some(spot) = spot {
                self.at(spot, |other| found |= other == id);
            }
            if !found {
                return Err(format!("watch {number} is not where it says"));
            }
        }
        let mut held = 0;
        for (number, point) in self.points.iter() {
            let id = PointId(number);
            self.at(Spot::Point(id), |_| held += 1);
            for place in 0..point.children.len() {
                let child = point.children.nth(place);
                held += usize::from(matches!(child, Some((_, Spot::Alone(_)))));
            }
            let top = id == self.root || id == self.special;
            if !top && matches!(point.here, Here::None) && point.children.is_none() {
                return Err(format!("point {number} of the watches leads nowhere"));
            }
        }
        self.check_homes()?;
        if held == all.len() {
            Ok(())
        } else {
            Err(format!("{held} watches are in the index, {} exist", all.len()))
        }
    }
}

impl Trie {
    /// Compares the table of homes with the points.
    fn check_homes(&self) -> Result<(), String> {
        let point = |path: &[u8]| match self.spot(path) {
            Some(Spot::Point(id)) => Some(id),
            Some(Spot::Alone(_)) | None => None,
        };
        let known = (point(b"/local"), point(b"/local/domain"));
        if known != (self.homes.local, self.homes.domain) {
            return Err("the way to the homes of watches is not what is noted".into());
        }
        let children = known.1.and_then(|id| self.children(Spot::Point(id)));
        let mut homes = 0;
        for place in 0..children.map_or(0, Branches::len) {
            let Some((key, spot)) = children.and_then(|all| all.nth(place)) else { continue };
            let name = Name { key, tail: self.points.tail(&spot) };
            let Some(domain) = name.domain() else { continue };
            homes += 1;
            if self.homes.find(domain) != Some(spot) {
                return Err(format!("the home of watches of domain {domain} is not what is noted"));
            }
        }
        if homes == self.homes.len() {
            Ok(())
        } else {
            Err(format!("{homes} homes are watched, {} are noted", self.homes.len()))
        }
    }
}

fn place(all: &mut Slab<Watch>, id: WatchId, at: PointId, alone: Key) {
    if let Some(watch) = all.find_mut(id.0) {
        (watch.point, watch.alone) = (at.0, alone);
    }
}

impl Point {
    fn new(parent: PointId, name: Name<'_>) -> Self {
        Self {
            parent,
            key: name.key,
            tail: name.tail.into(),
            here: Here::None,
            children: Branches::None,
        }
    }
}
