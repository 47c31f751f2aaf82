//! The tree of nodes: a value that can be copied for the price of a reference.
//!
//! A change copies only the nodes on its path, and only while a snapshot shares them. So a
//! transaction starts at no cost, and dropping its snapshot frees what it alone still held.

mod node;
mod rubble;
mod walk;

use alloc::boxed::Box;
use alloc::rc::Rc;

use crate::children::{Children, own};
use crate::path::{Names, Path};
use crate::perms::Perms;
use crate::trail::{Home, Track, Trail};
pub(crate) use node::{Node, OfNodes};
pub(crate) use rubble::Rubble;
pub(crate) use walk::{Step, Walk, for_each_node};

/// The nodes of a store, and the permissions of its two special nodes.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    root: Rc<Node>,
    /// In the order of [`Special`].
    specials: [Rc<Perms>; 2],
}

/// A name that is no node, but has permissions and can be watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Special {
    /// A domain was introduced.
    Introduce,
    /// A domain shut down, died or was released.
    Release,
}

impl Special {
    pub(crate) fn from_name(name: &[u8]) -> Option<Self> {
        [Self::Introduce, Self::Release].into_iter().find(|special| special.name() == name)
    }

    pub(crate) fn name(self) -> &'static [u8] {
        match self {
            Self::Introduce => b"@introduceDomain",
            Self::Release => b"@releaseDomain",
        }
    }
}

/// How far a path leads into a tree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reach<'t> {
    /// The last node on the path.
    pub(crate) node: &'t Rc<Node>,
    /// The one above it; `None` at the root.
    pub(crate) parent: Option<&'t Rc<Node>>,
    /// How many names are left; 0 if the path's own node was reached.
    pub(crate) missing: usize,
}

impl Reach<'_> {
    /// Goes on as far as there are nodes, and tells the way.
    #[inline(always)]
    fn reach(mut self, mut names: Names<'_>, trail: &mut impl Track) -> Self {
        #[cold]
        fn count(names: Names<'_>) -> usize {
            names.count()
        }
        while let Some(name) = names.next() {
            let Some((spot, child)) = self.node.locate(name) else {
                self.missing = 1 + count(names);
                break;
            };
            trail.push(spot);
            self.parent = Some(self.node);
            self.node = child;
        }
        self
    }
}

/// A path, and the trail that [`Tree::reach`] left on it in the tree as it is now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way<'a> {
    pub(crate) path: Path<'a>,
    pub(crate) trail: &'a Trail,
}

impl Tree {
    /// Makes a tree of a root alone.
    pub(crate) fn new(root: Rc<Perms>, introduce: Rc<Perms>, release: Rc<Perms>) -> Self {
        Self { root: Node::new(&[], &[], root, None, 0), specials: [introduce, release] }
    }

    pub(crate) fn root(&self) -> &Rc<Node> {
        &self.root
    }

    pub(crate) fn into_root(self) -> Rc<Node> {
        self.root
    }

    /// Whether both are the same by construction; false says nothing.
    pub(crate) fn is(&self, other: &Self) -> bool {
        let [introduce, release] = &self.specials;
        Rc::ptr_eq(&self.root, &other.root)
            && Rc::ptr_eq(introduce, &other.specials[0])
            && Rc::ptr_eq(release, &other.specials[1])
    }

    pub(crate) fn special(&self, special: Special) -> &Rc<Perms> {
        &self.specials[special as usize]
    }

    pub(crate) fn set_special(&mut self, special: Special, perms: Rc<Perms>) {
        self.specials[special as usize] = perms;
    }

    /// Follows a path as far as there are nodes, and tells the way.
    ///
    /// Most paths lead to the home of who asks, and there is less to search for on the way there.
    pub(crate) fn reach(
        &self,
        path: Path<'_>,
        home: Option<&Home>,
        trail: &mut impl Track,
    ) -> Reach<'_> {
        trail.restart();
        if let Some((home, names)) = home.and_then(|home| self.reach_home(path, home, trail)) {
            return home.reach(names, trail);
        }
        trail.restart();
        let root = Reach { node: &self.root, parent: None, missing: 0 };
        match home.filter(|_| path.is_relative()) {
            None => root.reach(path.names(), trail),
            // There is no home.
            Some(home) => {
                let mut reach = root.reach(home.names(), trail);
                reach.missing += path.names().count();
                reach
            }
        }
    }

    /// Follows a path to the home that it leads to; returns how far that is, and the names left.
    fn reach_home<'p>(
        &self,
        path: Path<'p>,
        home: &Home,
        trail: &mut impl Track,
    ) -> Option<(Reach<'_>, Names<'p>)> {
        let names = home.names_below(path)?;
        let [local, domain, number] = home.hints();
        let parent = self.root.child_at(local)?.child_at(domain)?;
        let node = parent.child_at(number)?;
        for (_, hint) in [local, domain, number] {
            trail.push(hint.get());
        }
        Some((Reach { node, parent: Some(parent), missing: 0 }, names))
    }

    /// Sets the value of a node that exists.
    pub(crate) fn write(&mut self, way: Way<'_>, value: &[u8], generation: u64) {
        if let Some(node) = self.find_mut(way, way.trail.len()) {
            node.set_value(value);
            node.touch(generation);
        }
    }

    /// Sets the permissions of a node that exists.
    pub(crate) fn set_perms(&mut self, way: Way<'_>, perms: Rc<Perms>, generation: u64) {
        if let Some(node) = self.find_mut(way, way.trail.len()) {
            node.perms = perms;
            node.touch(generation);
        }
    }

    /// Makes a node that does not exist, and its parents where they are missing too; all get the
    /// same permissions, and only the last one the value.
    pub(crate) fn create(
        &mut self,
        way: Way<'_>,
        value: &[u8],
        perms: &Rc<Perms>,
        generation: u64,
    ) {
        let made = way.path.depth() - way.trail.len();
        let Some(mut name) = way.path.last().filter(|_| made > 0) else { return };
        let Some(here) = self.find_mut(way, way.trail.len()) else { return };
        here.touch(generation);
        // From the last one up, so that each is put into its parent only once.
        let mut node = Node::new(name.tail, value, Rc::clone(perms), None, generation);
        let mut path = way.path;
        for _ in 1..made {
            path = path.ancestor(1);
            let Some(above) = path.last() else { return };
            let children = Some(Box::new(Children::new(name, node)));
            node = Node::new(above.tail, &[], Rc::clone(perms), children, generation);
            name = above;
        }
        match &mut here.children {
            Some(children) => children.insert(name, node, &OfNodes),
            none => *none = Some(Box::new(Children::new(name, node))),
        }
    }

    /// Takes out a node, which is not the root, with all below it.
    pub(crate) fn remove(&mut self, way: Way<'_>, generation: u64) -> Option<Rc<Node>> {
        let name = way.path.last()?;
        let parent = self.find_mut(way, way.trail.len().checked_sub(1)?)?;
        let children = parent.children.as_mut()?;
        let node = children.remove(name, &OfNodes)?;
        if children.len() == 0 {
            parent.children = None;
        }
        parent.touch(generation);
        Some(node)
    }

    /// Returns a node for change, so many levels down a way, with every node on it made our own.
    fn find_mut(&mut self, way: Way<'_>, levels: usize) -> Option<&mut Node> {
        let mut here = own(&mut self.root)?;
        if let Some(spots) = way.trail.spots(levels) {
            for spot in spots {
                here = own(here.children.as_mut()?.at_mut(*spot)?)?;
            }
        } else {
            for name in way.path.names().take(levels) {
                here = own(here.children.as_mut()?.find_mut(name, &OfNodes)?)?;
            }
        }
        Some(here)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::host::DomId;
    use crate::perms::{Access, Entry, Interned, Who};

    fn perms() -> Rc<Perms> {
        let owner = Entry { who: Who::FIRST, domain: DomId(0), access: Access::None };
        Interned::default().list(&[owner])
    }

    fn tree() -> Tree {
        Tree::new(perms(), perms(), perms())
    }

    fn path(path: &str) -> Path<'_> {
        Path::trusted(path.as_bytes())
    }

    fn find<'t>(tree: &'t Tree, at: &str) -> Option<&'t Rc<Node>> {
        let reach = tree.reach(path(at), None, &mut Trail::default());
        (reach.missing == 0).then_some(reach.node)
    }

    /// Does something at the end of a path.
    fn at<T>(tree: &mut Tree, at: &str, change: impl FnOnce(&mut Tree, Way<'_>) -> T) -> T {
        let mut trail = Trail::default();
        tree.reach(path(at), None, &mut trail);
        change(tree, Way { path: path(at), trail: &trail })
    }

    fn create(tree: &mut Tree, path: &str, value: &[u8], perms: &Rc<Perms>, generation: u64) {
        at(tree, path, |tree, way| tree.create(way, value, perms, generation));
    }

    fn write(tree: &mut Tree, path: &str, value: &[u8], generation: u64) {
        at(tree, path, |tree, way| tree.write(way, value, generation));
    }

    fn remove(tree: &mut Tree, path: &str, generation: u64) -> Option<Rc<Node>> {
        at(tree, path, |tree, way| tree.remove(way, generation))
    }

    fn value<'t>(tree: &'t Tree, at: &str) -> Option<&'t [u8]> {
        find(tree, at).map(|node| node.value())
    }

    #[test]
    fn a_node_is_small() {
        assert_eq!(size_of::<Node>(), 40, "with the two counts of its Rc that makes 56");
    }

    #[test]
    fn a_snapshot_stays_as_it_was() {
        let mut tree = tree();
        create(&mut tree, "/a/backend-id/c", b"1", &perms(), 1);
        let snapshot = tree.clone();
        write(&mut tree, "/a/backend-id/c", b"22", 2);
        create(&mut tree, "/a/backend-id/d", b"", &perms(), 3);
        remove(&mut tree, "/a/backend-id/c", 4);
        assert_eq!(value(&snapshot, "/a/backend-id/c"), Some(&b"1"[..]));
        assert_eq!(value(&snapshot, "/a/backend-id/d"), None);
        assert_eq!(value(&tree, "/a/backend-id/c"), None);
        assert_eq!(value(&tree, "/a/backend-id/d"), Some(&b""[..]));
        assert!(!tree.is(&snapshot));
    }

    #[test]
    fn only_what_changes_is_copied() {
        let mut tree = tree();
        create(&mut tree, "/a/b", b"", &perms(), 1);
        create(&mut tree, "/c/d", b"", &perms(), 1);
        let snapshot = tree.clone();
        write(&mut tree, "/a/b", b"x", 2);
        let same = |at| match (find(&tree, at), find(&snapshot, at)) {
            (Some(ours), Some(theirs)) => Rc::ptr_eq(ours, theirs),
            _ => panic!("{at} is missing"),
        };
        assert!(!same("/a/b") && !same("/a") && same("/c") && same("/c/d"));
    }

    #[test]
    fn the_generation_grows_where_a_node_or_its_names_change() {
        let mut tree = tree();
        let generation = |tree: &Tree, at: &str| find(tree, at).map(|node| node.generation());
        create(&mut tree, "/a/b", b"", &perms(), 5);
        write(&mut tree, "/a/b", b"x", 6);
        assert_eq!((generation(&tree, "/a"), generation(&tree, "/a/b")), (Some(5), Some(6)));
        create(&mut tree, "/a/c", b"", &perms(), 7);
        assert_eq!((generation(&tree, "/"), generation(&tree, "/a")), (Some(5), Some(7)));
        remove(&mut tree, "/a/c", 8);
        assert_eq!(generation(&tree, "/a"), Some(8));
    }

    #[test]
    fn a_path_leads_as_far_as_there_are_nodes() {
        let mut tree = tree();
        create(&mut tree, "/a/b", b"", &perms(), 1);
        let reach = tree.reach(path("/a/b/c/d"), None, &mut Trail::default());
        assert_eq!(reach.missing, 2);
        assert!(Rc::ptr_eq(reach.node, find(&tree, "/a/b").expect("it was made")));
        assert_eq!(tree.reach(path("/"), None, &mut Trail::default()).missing, 0);
        assert!(tree.reach(path("/"), None, &mut Trail::default()).parent.is_none());
    }

    #[test]
    fn a_walk_enters_and_leaves_in_name_order() {
        let mut tree = tree();
        for at in ["/a/long-name-1/x", "/a/c", "/b"] {
            create(&mut tree, at, b"", &perms(), 1);
        }
        let mut steps = Vec::new();
        let mut walk = Walk::new(Path::ROOT, tree.root());
        while let Some(visit) = walk.next() {
            let sign = if visit.step == Step::Enter { '+' } else { '-' };
            steps.push(format!("{sign}{}", String::from_utf8_lossy(visit.path)));
        }
        let expected = "+/ +/a +/a/c -/a/c +/a/long-name-1 +/a/long-name-1/x -/a/long-name-1/x \
                        -/a/long-name-1 -/a +/b -/b -/";
        assert_eq!(steps.join(" "), expected);
    }

    #[test]
    fn rubble_is_freed_a_part_at_a_time() {
        let (mut tree, perms) = (tree(), perms());
        for number in 0..5_000 {
            create(&mut tree, &format!("/a/{}/{number}", number % 70), b"", &perms, 1);
        }
        let (removed, mut rubble) = (remove(&mut tree, "/a", 2), Rubble::default());
        let before = Rc::strong_count(&perms);
        rubble.add(removed.expect("it was there"));
        let mut left = Rc::strong_count(&perms);
        assert_eq!(before - left, 1, "the node itself is freed at once, and nothing below");
        while !rubble.free(&mut 1) {
            let now = Rc::strong_count(&perms);
            assert!(left - now <= 32, "{} nodes at once", left - now);
            left = now;
        }
        assert_eq!(Rc::strong_count(&perms), 1, "all are freed");
        create(&mut tree, "/b/c", b"", &perms, 3);
        let snapshot = tree.clone();
        rubble.add(remove(&mut tree, "/b", 4).expect("it was there"));
        assert!(rubble.free(&mut 1) && find(&snapshot, "/b/c").is_some(), "a snapshot keeps it");
    }

    #[test]
    fn the_deepest_tree_needs_no_deep_stack() {
        let run = || {
            let deep = "/a".repeat(2047);
            let mut tree = tree();
            create(&mut tree, &deep, b"x", &perms(), 1);
            let snapshot = tree.clone();
            write(&mut tree, &deep, b"y", 2);
            assert_eq!(value(&snapshot, &deep), Some(&b"x"[..]));
            let mut walk = Walk::new(Path::ROOT, tree.root());
            let mut deepest = 0;
            while let Some(visit) = walk.next() {
                deepest = deepest.max(visit.path.len());
            }
            assert_eq!(deepest, deep.len());
            drop(remove(&mut tree, "/a", 3));
            drop(snapshot);
        };
        // As small a stack as the image's.
        let thread = std::thread::Builder::new().stack_size(64 << 10).spawn(run);
        thread.expect("a thread starts").join().expect("the stack was deep enough");
    }
}
