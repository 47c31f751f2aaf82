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
    ["/", "/tool", "/tool/xenstored"].map(|path| (path.to_owned(), node.clone())).into()
}

fn may(caller: Caller, perms: &[Entry], right: Right) -> bool {
    let means = |entry: &Entry| (entry.domain, entry.life) == (caller.domain, Some(caller.life));
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
    caller: Caller,
    path: &str,
    op: &Op,
) -> (Answer, Vec<Touched>) {
    let mut touched = Vec::new();
    let answer = run(tree, caller, path, op, &mut touched);
    (answer, touched)
}

fn run(tree: &mut Tree, caller: Caller, path: &str, op: &Op, touched: &mut Vec<Touched>) -> Answer {
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
            return Ok(listed(&tree[path].perms));
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
            if entries[0].life.is_none() {
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

fn refuse_unless_missing(found: Result<(), &'static str>) -> Result<(), &'static str> {
    found.or_else(|error| if error == "ENOENT" { Ok(()) } else { Err(error) })
}

fn terminated(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

/// A permission list as a reply shows it.
pub(crate) fn listed(perms: &[Entry]) -> Vec<u8> {
    let shown = perms.iter().map(|entry| format!("{}{}\0", entry.letter, entry.domain));
    shown.collect::<String>().into_bytes()
}

/// What one life of a domain leaves behind is removed: its nodes, and its name in every list.
pub(crate) fn bury(tree: &mut Tree, dead: Caller) -> Vec<Touched> {
    let means = |entry: &Entry| (entry.domain, entry.life) == (dead.domain, Some(dead.life));
    let mut touched = Vec::new();
    // The root outlives everybody, and is the toolstack's again.
    if let Some(root) = tree.get_mut("/").filter(|root| means(&root.perms[0])) {
        root.perms = vec![Entry { letter: 'n', domain: 0, life: Some(0) }];
        touched.push(Touched { path: "/".to_owned(), exact: false });
    }
    while let Some(root) = tree.iter().find(|(_, node)| means(&node.perms[0])) {
        let root = root.0.clone();
        remove(tree, &root, &mut touched, false);
    }
    for node in tree.values_mut() {
        node.perms.retain(|entry| !means(entry));
    }
    touched
}

impl Watch {
    /// Whether the watch hears of this.
    pub(crate) fn hears(&self, touched: &Touched) -> bool {
        let above = !touched.exact && is_within(&touched.path, &self.path);
        above || touched.path == self.path
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
