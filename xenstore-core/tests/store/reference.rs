//! Xenstore in its simplest form: a map of paths, everything looked for by walking over all of it.
//!
//! Written from the protocol's rules alone, to be compared with.

use std::collections::BTreeMap;

/// An entry of a permission list, and which life of the domain it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub letter: char,
    pub domain: u16,
    /// `None`: there was no such domain when it was written.
    pub life: Option<u32>,
}

/// Stands for every domain in a permission, and its life for any life.
pub(crate) const EVERYBODY: (u16, u32) = (0x7ff5, u32::MAX);

/// The nodes that are none: their permissions say who hears of domains.
pub(crate) const SPECIALS: [&str; 2] = ["@introduceDomain", "@releaseDomain"];

/// Limits of a domain; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    pub nodes: Option<usize>,
    pub watches: Option<usize>,
    pub transactions: Option<usize>,
    pub transaction_nodes: Option<usize>,
    pub node_permissions: Option<usize>,
    pub node_size: Option<usize>,
}

/// Whether a limit allows this much.
pub(crate) fn allows(limit: Option<usize>, value: usize) -> bool {
    limit.is_none_or(|limit| value <= limit)
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub value: Vec<u8>,
    pub perms: Vec<Entry>,
}

pub(crate) type Tree = BTreeMap<String, Node>;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    pub domain: u16,
    pub life: u32,
    /// The life of the domain whose rights it has, too.
    pub target: Option<(u16, u32)>,
}

impl Caller {
    /// Whether an entry names this life of the domain.
    fn is(self, entry: &Entry) -> bool {
        (entry.domain, entry.life) == (self.domain, Some(self.life))
    }

    /// Whether an entry is about the caller.
    fn is_meant_by(self, entry: &Entry) -> bool {
        let named = entry.life.map(|life| (entry.domain, life));
        self.is(entry) || named.is_some() && (named == self.target || named == Some(EVERYBODY))
    }
}

/// What an operation's answer depends on, besides the tree.
#[derive(Clone, Copy)]
pub(crate) struct Around<'a> {
    pub caller: Caller,
    pub limits: Limits,
    /// The lives that domains have now.
    pub lives: &'a BTreeMap<u16, u32>,
    /// Whether the number of nodes counts, as it does outside of transactions.
    pub counts_nodes: bool,
}

/// An operation on nodes, its path absolute.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Read,
    Directory,
    GetPerms,
    Write(Vec<u8>),
    Mkdir,
    Rm,
    SetPerms(Vec<Entry>),
}

/// A reply's payload, or the error's name.
pub(crate) type Answer = Result<Vec<u8>, &'static str>;

/// A path that an operation changed: heard by watches at and above it, or only exactly at it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Touched {
    pub path: String,
    pub exact: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Watch {
    pub domain: u16,
    /// As it was asked for, to give back.
    pub relative: bool,
    pub path: String,
    pub token: String,
    /// How many levels below its path it hears of.
    pub depth: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Right {
    Read,
    Write,
    Own,
}

/// The path above, `None` for the root.
pub(crate) fn parent(path: &str) -> Option<&str> {
    match path.rsplit_once('/')? {
        ("", "") => None,
        ("", _) => Some("/"),
        (above, _) => Some(above),
    }
}

/// Whether `path` is `top` or below it.
pub(crate) fn is_within(path: &str, top: &str) -> bool {
    let below = path.strip_prefix(top);
    top == "/" || below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The names directly below a node, in their order.
pub(crate) fn children(tree: &Tree, path: &str) -> Vec<String> {
    let is_child = |other: &&String| parent(other) == Some(path);
    let names = tree.keys().filter(is_child).filter_map(|child| child.rsplit('/').next());
    let mut names: Vec<String> = names.map(str::to_owned).collect();
    names.sort();
    names
}

/// The store at birth.
pub(crate) fn newborn() -> Tree {
    let owner = Entry { letter: 'n', domain: 0, life: Some(0) };
    let node = Node { value: Vec::new(), perms: vec![owner] };
    let private = ["/", "/tool", "/tool/xenstored", "@introduceDomain"];
    let mut tree: Tree = private.map(|path| (path.to_owned(), node.clone())).into();
    let everybody = Entry { letter: 'r', domain: EVERYBODY.0, life: Some(EVERYBODY.1) };
    let public = Node { value: Vec::new(), perms: vec![owner, everybody] };
    tree.insert("@releaseDomain".to_owned(), public);
    tree
}

/// What a node counts: its value, its permissions and the names of its children.
pub(crate) fn size(tree: &Tree, path: &str) -> usize {
    let names: usize = children(tree, path).iter().map(|name| name.len() + 1).sum();
    16 + 8 * tree[path].perms.len() + tree[path].value.len() + names
}

/// The nodes that a life of a domain owns, and the bytes that they count.
pub(crate) fn owned(tree: &Tree, owner: Caller) -> (usize, usize) {
    let nodes = tree.iter().filter(|(path, _)| path.starts_with('/'));
    let own: Vec<&String> =
        nodes.filter(|(_, node)| owner.is(&node.perms[0])).map(|(path, _)| path).collect();
    (own.len(), own.iter().map(|path| size(tree, path) + path.len()).sum())
}

fn may(caller: Caller, perms: &[Entry], right: Right) -> bool {
    let means = |entry: &Entry| caller.is_meant_by(entry);
    if caller.domain == 0 || perms.first().is_some_and(means) {
        return true;
    }
    let named = perms.iter().skip(1).find(|entry| means(entry));
    let letter = named.or(perms.first()).map_or('n', |entry| entry.letter);
    match right {
        Right::Read => matches!(letter, 'r' | 'b'),
        Right::Write => matches!(letter, 'w' | 'b'),
        Right::Own => false,
    }
}

/// Whether the caller could read the node.
pub(crate) fn is_readable(tree: &Tree, caller: Caller, path: &str) -> bool {
    tree.get(path).is_some_and(|node| may(caller, &node.perms, Right::Read))
}

/// Whether the node is there; what is missing is told only to those who have the right above.
fn find(tree: &Tree, caller: Caller, path: &str, right: Right) -> Result<(), &'static str> {
    let mut nearest = path;
    while !tree.contains_key(nearest) {
        nearest = parent(nearest).unwrap_or("/");
    }
    let perms = &tree[nearest].perms;
    match right {
        _ if nearest == path => may(caller, perms, right).then_some(()).ok_or("EACCES"),
        // Who may write above need not own it to learn that nothing is there to be owned.
        Right::Own if may(caller, perms, Right::Write) => Err("ENOENT"),
        _ if may(caller, perms, right) => Err("ENOENT"),
        _ => Err("EACCES"),
    }
}

/// Makes a node and what is missing above it.
fn create(tree: &mut Tree, caller: Caller, path: &str) {
    if tree.contains_key(path) {
        return;
    }
    let above = parent(path).unwrap_or("/").to_owned();
    create(tree, caller, &above);
    let mut perms = tree[&above].perms.clone();
    if caller.domain != 0 {
        perms[0].domain = caller.domain;
        perms[0].life = Some(caller.life);
    }
    tree.insert(path.to_owned(), Node { value: Vec::new(), perms });
}

/// Removes a tree, leaves first.
pub(crate) fn remove(tree: &mut Tree, path: &str, touched: &mut Vec<Touched>, exact: bool) {
    for child in children(tree, path) {
        remove(tree, &format!("{path}/{child}"), touched, true);
    }
    tree.remove(path);
    touched.push(Touched { path: path.to_owned(), exact });
}

/// Runs one operation.
pub(crate) fn apply(
    tree: &mut Tree,
    around: Around<'_>,
    path: &str,
    op: &Op,
) -> (Answer, Vec<Touched>) {
    let mut touched = Vec::new();
    let mut after = tree.clone();
    let answer = run(&mut after, around, path, op, &mut touched);
    let answer = answer.and_then(|answer| {
        if !touched.is_empty() {
            must_fit(tree, &after, around, path, op)?;
        }
        Ok(answer)
    });
    match answer {
        Ok(answer) => {
            *tree = after;
            (Ok(answer), touched)
        }
        Err(error) => (Err(error), Vec::new()),
    }
}

/// What quotas say of a change.
fn must_fit(
    before: &Tree,
    after: &Tree,
    around: Around<'_>,
    path: &str,
    op: &Op,
) -> Result<(), &'static str> {
    if around.caller.domain == 0 || path.starts_with('@') || matches!(op, Op::Rm) {
        return Ok(());
    }
    let mut here = Some(path);
    while let Some(path) = here {
        let is_old = before.contains_key(path);
        if !allows(around.limits.node_size, size(after, path)) {
            return Err("ENOSPC");
        }
        // Above what was there already nothing becomes larger, nor does it by a new value.
        here = if is_old { None } else { parent(path) };
    }
    let made = owned(after, around.caller).0 > owned(before, around.caller).0;
    let count = owned(after, around.caller).0;
    if made && around.counts_nodes && !allows(around.limits.nodes, count) {
        return Err("ENOSPC");
    }
    Ok(())
}

fn run(
    tree: &mut Tree,
    around: Around<'_>,
    path: &str,
    op: &Op,
    touched: &mut Vec<Touched>,
) -> Answer {
    let caller = around.caller;
    let whole = Touched { path: path.to_owned(), exact: false };
    match op {
        Op::Read => {
            find(tree, caller, path, Right::Read)?;
            return Ok(tree[path].value.clone());
        }
        Op::Directory => {
            find(tree, caller, path, Right::Read)?;
            return Ok(children(tree, path).iter().flat_map(|name| terminated(name)).collect());
        }
        Op::GetPerms => {
            find(tree, caller, path, Right::Read)?;
            return Ok(listed(&tree[path].perms, around.lives));
        }
        Op::Write(value) => {
            refuse_unless_missing(find(tree, caller, path, Right::Write))?;
            create(tree, caller, path);
            tree.entry(path.to_owned()).and_modify(|node| node.value.clone_from(value));
            touched.push(whole);
        }
        Op::Mkdir => match find(tree, caller, path, Right::Write) {
            Ok(()) => {}
            missing => {
                refuse_unless_missing(missing)?;
                create(tree, caller, path);
                touched.push(whole);
            }
        },
        Op::Rm => match find(tree, caller, path, Right::Write) {
            Ok(()) if path == "/" => return Err("EINVAL"),
            Ok(()) => remove(tree, path, touched, false),
            Err("ENOENT") if tree.contains_key(parent(path).unwrap_or("/")) => {}
            Err(error) => return Err(error),
        },
        Op::SetPerms(entries) => {
            if !lives(&entries[0], around.lives) {
                return Err("ENOENT");
            }
            find(tree, caller, path, Right::Own)?;
            let owner = |entry: &Entry| (entry.domain, entry.life);
            if caller.domain != 0 && owner(&tree[path].perms[0]) != owner(&entries[0]) {
                return Err("EPERM");
            }
            tree.entry(path.to_owned()).and_modify(|node| node.perms.clone_from(entries));
            touched.push(whole);
        }
    }
    Ok(b"OK\0".to_vec())
}

/// Whether an entry names a domain in a life that it still has.
fn lives(entry: &Entry, lives: &BTreeMap<u16, u32>) -> bool {
    entry.life.is_some() && lives.get(&entry.domain).copied() == entry.life
}

fn refuse_unless_missing(found: Result<(), &'static str>) -> Result<(), &'static str> {
    found.or_else(|error| if error == "ENOENT" { Ok(()) } else { Err(error) })
}

fn terminated(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

/// A permission list as a reply shows it: without what is about the dead.
pub(crate) fn listed(perms: &[Entry], now: &BTreeMap<u16, u32>) -> Vec<u8> {
    let is_shown = |entry: &&Entry| {
        entry.life.is_none() || entry.life == Some(EVERYBODY.1) || lives(entry, now)
    };
    let shown = perms.iter().filter(is_shown);
    shown.flat_map(|entry| terminated(&format!("{}{}", entry.letter, entry.domain))).collect()
}

/// What one life of a domain leaves behind is removed. Its name in lists means nobody any more.
pub(crate) fn bury(tree: &mut Tree, dead: Caller) -> Vec<Touched> {
    let mut touched = Vec::new();
    // The root outlives everybody, and so do the special nodes: they are the toolstack's again.
    for path in ["/", SPECIALS[0], SPECIALS[1]] {
        if let Some(node) = tree.get_mut(path).filter(|node| dead.is(&node.perms[0])) {
            node.perms = vec![Entry { letter: 'n', domain: 0, life: Some(0) }];
            if path == "/" {
                touched.push(Touched { path: path.to_owned(), exact: false });
            }
        }
    }
    while let Some(root) = tree.iter().find(|(_, node)| dead.is(&node.perms[0])) {
        let root = root.0.clone();
        remove(tree, &root, &mut touched, false);
    }
    touched
}

impl Watch {
    /// The paths that the watch is told for this change.
    pub(crate) fn hears(&self, touched: &Touched, before: &Tree) -> Vec<String> {
        let path = &*touched.path;
        if touched.exact || !is_within(path, &self.path) {
            return if path == self.path { vec![path.to_owned()] } else { Vec::new() };
        }
        if self.reaches(path) {
            return vec![path.to_owned()];
        }
        // Of what is too deep it hears by the new parents that are not.
        let mut above: Vec<String> = Vec::new();
        let mut here = parent(path);
        while let Some(path) = here.filter(|path| !before.contains_key(*path)) {
            above.extend(Some(path.to_owned()).filter(|path| self.reaches(path)));
            here = parent(path);
        }
        above.reverse();
        above
    }

    /// Whether a path within is not too deep.
    pub(crate) fn reaches(&self, path: &str) -> bool {
        let depth = |path: &str| path.split('/').filter(|name| !name.is_empty()).count();
        is_within(path, &self.path)
            && self.depth.is_none_or(|levels| depth(path) <= depth(&self.path) + levels)
    }

    /// The path that it is told when a domain comes or goes, or for `None`, when any does.
    pub(crate) fn hears_of(&self, special: &str, domain: Option<u16>) -> Option<String> {
        let plain = self.path == special;
        let Some(domain) = domain else {
            return (plain && self.depth.is_none()).then(|| special.to_owned());
        };
        let named = format!("{special}/{domain}");
        let hears = self.path == named || plain && self.depth.is_some_and(|levels| levels > 0);
        hears.then_some(named)
    }

    /// The event's payload.
    pub(crate) fn event(&self, path: &str) -> Vec<u8> {
        let home = format!("/local/domain/{}/", self.domain);
        let path = if self.relative { path.strip_prefix(&home).unwrap_or(path) } else { path };
        [path.as_bytes(), &[0], self.token.as_bytes(), &[0]].concat()
    }
}

/// Whether a change of this path may be told: the node or its parent is readable, before or after.
pub(crate) fn is_told(before: &Tree, after: &Tree, caller: Caller, path: &str) -> bool {
    [before, after].into_iter().any(|tree| {
        let above = parent(path).is_some_and(|above| is_readable(tree, caller, above));
        is_readable(tree, caller, path)
            || (above && (before.contains_key(path) || after.contains_key(path)))
    })
}
