//! Watches: who wants to hear of changes at and below a path.
//!
//! The watched paths form a trie by name, so finding who hears of a path costs a walk along that
//! path, whatever else is watched.

mod branches;
mod homes;
mod trie;

use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;

use crate::path::{HOMES, Key, Name, Names, Path, WatchPath, home_of};
use crate::slab::Slab;
pub(crate) use trie::Spot;
use trie::Trie;

/// A watch, for as long as it is registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct WatchId(pub(crate) u32);

/// A registered watch.
#[derive(Debug)]
pub(crate) struct Watch {
    token: Token,
    /// Grows from watch to watch: events of one change are queued in the order of registration.
    pub(crate) order: u64,
    /// The slot of its connection.
    pub(crate) conn: u32,
    /// Where the connection's list has it.
    pub(crate) listed_at: u32,
    /// The last event that was queued for it, see [`crate::outbox::Outbox`].
    pub(crate) newest: u32,
    /// The point of the trie that it is at; or below, under the name `alone`.
    point: u32,
    /// The name under which it stands alone, or [`Key::NONE`].
    alone: Key,
    path_len: u16,
    /// How many levels below its path it hears of, at most [`DEPTH_MAX`].
    depth: u16,
    /// How many bytes of its path its owner left out.
    implied: u8,
}

/// Deeper than any path; a watch of this depth has no limit.
const UNLIMITED: u16 = u16::MAX;

/// The deepest limit that is told apart from a deeper one; no path has so many names.
const DEPTH_MAX: u16 = u16::MAX - 1;

impl Watch {
    pub(crate) fn token(&self) -> &[u8] {
        self.token.bytes()
    }

    /// Returns a number that is the same for equal tokens, and different for almost all others:
    /// tokens of a thousand bytes that differ in the last are not compared byte by byte.
    pub(crate) fn mark(&self) -> u32 {
        match &self.token {
            Token::Short { .. } => 0,
            Token::Long { mark, .. } => *mark,
        }
    }

    /// Returns the token for who outlives the watch.
    pub(crate) fn shared_token(&self) -> Rc<[u8]> {
        match &self.token {
            Token::Short { .. } => self.token().into(),
            Token::Long { bytes, .. } => Rc::clone(bytes),
        }
    }

    /// Returns how many bytes at the front of a path its events leave out.
    pub(crate) fn implied(&self) -> usize {
        self.implied.into()
    }

    /// Returns what its owner is charged for it, in bytes.
    pub(crate) fn memory(&self) -> usize {
        usize::from(self.path_len) + self.token().len()
    }

    /// Returns how many levels below its path it hears of; `None` if of all.
    pub(crate) fn depth(&self) -> Option<usize> {
        (self.depth != UNLIMITED).then_some(self.depth.into())
    }
}

/// A token; the usual ones, such as a pointer in hexadecimal, need no memory of their own.
#[derive(Debug)]
enum Token {
    Short { len: u8, bytes: [u8; Self::SHORT] },
    Long { mark: u32, bytes: Rc<[u8]> },
}

impl Token {
    const SHORT: usize = 22;

    fn new(token: &[u8]) -> Self {
        let mut bytes = [0; Self::SHORT];
        match (bytes.get_mut(..token.len()), u8::try_from(token.len())) {
            (Some(start), Ok(len)) => {
                start.copy_from_slice(token);
                Self::Short { len, bytes }
            }
            _ => Self::Long { mark: mark(token), bytes: token.into() },
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Short { len, bytes } => &bytes[..usize::from(*len)],
            Self::Long { bytes, .. } => bytes,
        }
    }
}

/// FNV-1a. Tokens that collide slow down only the connection that chose them.
fn mark(token: &[u8]) -> u32 {
    token.iter().fold(0x811c_9dc5, |mark, &byte| (mark ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// Every watch of every connection.
#[derive(Debug)]
pub(crate) struct Watches {
    all: Slab<Watch>,
    trie: Trie,
    next_order: u64,
}

impl Watches {
    pub(crate) fn new() -> Self {
        Self { all: Slab::new(), trie: Trie::new(), next_order: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn watch(&self, id: WatchId) -> Option<&Watch> {
        self.all.find(id.0)
    }

    pub(crate) fn watch_mut(&mut self, id: WatchId) -> Option<&mut Watch> {
        self.all.find_mut(id.0)
    }

    /// Returns the connection's watch with that path and token.
    pub(crate) fn find(&self, conn: u32, path: &[u8], token: &[u8]) -> Option<WatchId> {
        let spot = self.spot(path)?;
        self.trie.find(&self.all, spot, conn, token)
    }

    /// Registers a watch that the connection does not have yet; `newest` is where the events that
    /// are queued for it will begin.
    pub(crate) fn add(
        &mut self,
        conn: u32,
        path: WatchPath<'_>,
        token: &[u8],
        depth: Option<u32>,
        listed_at: u32,
        newest: u32,
    ) -> WatchId {
        let depth = depth
            .map_or(UNLIMITED, |depth| u16::try_from(depth).unwrap_or(DEPTH_MAX).min(DEPTH_MAX));
        let watch = Watch {
            token: Token::new(token),
            order: self.next_order,
            conn,
            listed_at,
            newest,
            point: u32::MAX,
            alone: Key::NONE,
            path_len: u16::try_from(path.full.len()).unwrap_or(u16::MAX),
            depth,
            implied: path.implied,
        };
        self.next_order += 1;
        let id = WatchId(self.all.insert(watch));
        self.trie.add(&mut self.all, path.full, id);
        id
    }

    /// Returns a watch's path.
    pub(crate) fn path_of(&self, watch: &Watch) -> Rc<[u8]> {
        let mut path = Vec::new();
        self.extend_path(watch, &mut path);
        path.into()
    }

    /// Appends a watch's path.
    pub(crate) fn extend_path(&self, watch: &Watch, out: &mut Vec<u8>) {
        self.trie.extend_path(watch, out);
    }

    /// Takes a watch out.
    pub(crate) fn remove(&mut self, id: WatchId) -> Option<Watch> {
        self.trie.remove(&self.all, id);
        self.all.remove(id.0)
    }

    /// Returns where the trie has that path, if anything there or below is watched.
    pub(crate) fn spot(&self, path: &[u8]) -> Option<Spot> {
        self.trie.spot(path)
    }

    /// Returns where the trie has the child of that name.
    pub(crate) fn below(&self, spot: Spot, name: Name<'_>) -> Option<Spot> {
        self.trie.below(spot, name)
    }

    /// Returns how many children the trie has of a spot.
    pub(crate) fn children_len(&self, spot: Spot) -> usize {
        self.trie.children_len(spot)
    }

    /// Returns the name and the spot of that one of them in name order.
    pub(crate) fn nth_child(&self, spot: Spot, place: usize) -> Option<(Name<'_>, Spot)> {
        self.trie.nth_child(spot, place)
    }

    /// Tells every watch that is exactly at a spot.
    pub(crate) fn at(&self, spot: Spot, to: impl FnMut(WatchId)) {
        self.trie.at(spot, to);
    }

    /// Tells every watch at a path's own spot and at those above, from the root down, with the
    /// length of the watch's path in bytes and in levels.
    pub(crate) fn along(&self, path: &[u8], to: &mut dyn FnMut(WatchId, usize, usize)) {
        if let Some((domain, end)) = home_of(path)
            && let Some((above, home)) = self.trie.home(domain)
        {
            let [root, local, domain] = above;
            self.trie.at(root, |id| to(id, "/".len(), 0));
            self.trie.at(local, |id| to(id, "/local".len(), 1));
            self.trie.at(domain, |id| to(id, HOMES.len() - 1, 2));
            if let Some(home) = home {
                self.down(home, Path::trusted(path).names_from(end), above.len(), path, to);
            }
            return;
        }
        let (special, names) = Names::of_watch(path);
        let mut spot = self.trie.top(special.is_some());
        if let Some(name) = special {
            let Some(next) = self.trie.below(spot, name) else { return };
            spot = next;
        }
        self.down(spot, names, 0, path, to);
    }

    /// Tells every watch at a spot, which is that many levels below the root, and below it on the
    /// way that the names lead.
    fn down(
        &self,
        mut spot: Spot,
        mut names: Names<'_>,
        mut level: usize,
        path: &[u8],
        to: &mut dyn FnMut(WatchId, usize, usize),
    ) {
        loop {
            // The root's own path is one byte, although no name was taken.
            let len = (path.len() - names.left()).max(1);
            self.trie.at(spot, |id| to(id, len, level));
            let next = names.next().and_then(|name| self.trie.below(spot, name));
            let Some(next) = next else { return };
            spot = next;
            level += 1;
        }
    }

    /// Compares the index with the watches, see [`crate::Server::check`].
    pub(crate) fn check(&self) -> Result<(), String> {
        self.trie.check(&self.all)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Registers a watch unless the connection has it already.
    fn add(watches: &mut Watches, conn: u32, path: &str, token: &str) -> Option<WatchId> {
        let path = WatchPath { full: path.as_bytes(), implied: 0 };
        let new = watches.find(conn, path.full, token.as_bytes()).is_none();
        new.then(|| watches.add(conn, path, token.as_bytes(), None, 0, 0))
    }

    fn along(watches: &Watches, path: &str) -> Vec<(String, usize, usize)> {
        let mut hits = Vec::new();
        watches.along(path.as_bytes(), &mut |id, len, level| {
            let token = watches.watch(id).expect("it is registered").token();
            hits.push((String::from_utf8_lossy(token).into_owned(), len, level));
        });
        hits
    }

    #[test]
    fn a_watch_is_small() {
        assert!(size_of::<Option<Watch>>() <= 64, "{} bytes", size_of::<Watch>());
    }

    #[test]
    fn a_change_is_heard_along_its_path_only() {
        let mut watches = Watches::new();
        for path in ["/", "/a", "/a/b", "/a/backend-id", "/ab", "@releaseDomain/5"] {
            add(&mut watches, 1, path, path).expect("each is new");
            watches.check().expect("the index is right");
        }
        let expected = [("/", 1, 0), ("/a", 2, 1), ("/a/b", 4, 2)];
        let expected: Vec<_> =
            expected.map(|(token, len, level)| (token.into(), len, level)).into();
        assert_eq!(along(&watches, "/a/b/c"), expected);
        let expected = [("/", 1, 0), ("/a", 2, 1), ("/a/backend-id", 13, 2)];
        let expected: Vec<_> =
            expected.map(|(token, len, level)| (token.into(), len, level)).into();
        assert_eq!(along(&watches, "/a/backend-id"), expected);
        assert_eq!(along(&watches, "@releaseDomain/5"), [("@releaseDomain/5".into(), 16, 1)]);
    }

    #[test]
    fn homes_are_found_by_number_and_other_names_are_not() {
        let mut watches = Watches::new();
        let homes = ["/", "/local/domain/7", "/local/domain/7/a", "/local/domain/1000/b/c"];
        let others = ["/local/domain/07", "/local/domain/7x/a", "/local/domain/70000/a", "/local"];
        for path in homes.into_iter().chain(others) {
            add(&mut watches, 1, path, path).expect("each is new");
            watches.check().expect("the index is right");
        }
        let tokens = |watches: &Watches, path: &str| -> Vec<String> {
            along(watches, path).into_iter().map(|(token, ..)| token).collect()
        };
        assert_eq!(
            along(&watches, "/local/domain/7/a/x"),
            [
                ("/", 1, 0),
                ("/local", 6, 1),
                ("/local/domain/7", 15, 3),
                ("/local/domain/7/a", 17, 4)
            ]
            .map(|(token, len, level)| (token.to_owned(), len, level))
        );
        assert_eq!(tokens(&watches, "/local/domain/8/a"), ["/", "/local"]);
        assert_eq!(tokens(&watches, "/local/domain/07/a"), ["/", "/local", "/local/domain/07"]);
        assert_eq!(tokens(&watches, "/local/domain/70000/a").len(), 3);
        for path in homes.into_iter().chain(others) {
            let watch = watches.find(1, path.as_bytes(), path.as_bytes()).expect("it is there");
            watches.remove(watch).expect("it is registered");
            watches.check().expect("the index is right");
        }
    }

    #[test]
    fn the_same_token_and_path_are_the_same_watch() {
        let mut watches = Watches::new();
        let long = "t".repeat(100);
        let first = add(&mut watches, 1, "/a", &long).expect("it is new");
        assert_eq!(add(&mut watches, 1, "/a", &long), None);
        add(&mut watches, 1, "/a", "other").expect("another token");
        add(&mut watches, 2, "/a", &long).expect("another connection");
        assert_eq!(watches.find(1, b"/a", long.as_bytes()), Some(first));
        watches.remove(first);
        assert_eq!(watches.find(1, b"/a", long.as_bytes()), None);
        watches.check().expect("the index is right");
    }

    proptest! {
        #[test]
        fn matches_a_naive_list(steps in prop::collection::vec((0u32..3, 0usize..7, 0u32..3, 0u32..3), 1..200)) {
            const PATHS: [&str; 7] =
                ["/", "/local/domain", "/a/b", "/a/b/long-name-1", "/local/domain/7", "/local/domain/7/c", "@releaseDomain/7"];
            let mut watches = Watches::new();
            let mut model = BTreeMap::new();
            for (action, path, conn, token) in steps {
                let token = format!("token-{token}");
                let key = (path, conn, token.clone());
                if action < 2 {
                    let added = add(&mut watches, conn, PATHS[path], &token);
                    prop_assert_eq!(added.is_some(), !model.contains_key(&key));
                    if let Some(id) = added {
                        model.insert(key, id);
                    }
                } else if let Some(id) = model.remove(&key) {
                    let removed = watches.remove(id).expect("it is registered");
                    prop_assert_eq!(removed.token(), token.as_bytes());
                }
                watches.check().expect("the index is right");
                prop_assert_eq!(watches.len(), model.len());
            }
            for (path, name) in PATHS.into_iter().enumerate() {
                let mut heard = Vec::new();
                watches.along(name.as_bytes(), &mut |id, len, _| {
                    if len == name.len() {
                        heard.push(id);
                    }
                });
                heard.sort();
                let mut expected: Vec<_> =
                    model.iter().filter(|((at, ..), _)| *at == path).map(|(_, id)| *id).collect();
                expected.sort();
                prop_assert_eq!(heard, expected, "watches at {}", name);
            }
        }
    }
}
