//! Paths: parsed once, into types that cannot be wrong.

use alloc::vec::Vec;

use crate::host::DomId;
use crate::quota::{Denial, Quota};
use crate::wire::Error;

/// The absolute path of a node: `/`, or `/name` one or more times.
///
/// Every name is one or more of the characters that Xenstore allows (docs/misc/xenstore.txt).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Path<'a>(&'a [u8]);

impl<'a> Path<'a> {
    /// The path of the root.
    pub(crate) const ROOT: Path<'static> = Path(b"/");

    /// Takes bytes that were a path before, such as those kept by a transaction.
    pub(crate) fn trusted(bytes: &'a [u8]) -> Self {
        debug_assert!(is_well_formed(bytes) && bytes[0] == b'/', "a kept path went bad");
        Path(bytes)
    }

    pub(crate) fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// Returns the names from the root down; none for the root itself.
    pub(crate) fn names(self) -> Names<'a> {
        Names { rest: if self.0.len() == 1 { &[] } else { self.0 } }
    }

    pub(crate) fn is_root(self) -> bool {
        self.0.len() == 1
    }

    /// Returns how many names the path has; 0 for the root.
    pub(crate) fn depth(self) -> usize {
        self.names().count()
    }

    /// Returns the path of the ancestor that is `levels` above; the root if there are fewer.
    pub(crate) fn ancestor(self, levels: usize) -> Self {
        let mut end = self.0.len();
        for _ in 0..levels {
            end = self.0[..end].iter().rposition(|&byte| byte == b'/').unwrap_or(0);
        }
        Path(&self.0[..end.max(1)])
    }

    /// Returns the last name; `None` for the root.
    pub(crate) fn last(self) -> Option<Name<'a>> {
        let start = self.0.iter().rposition(|&byte| byte == b'/')? + 1;
        let name = &self.0[start..];
        if name.is_empty() { None } else { Some(Name::new(name)) }
    }
}

/// The names of a path, from the root down.
#[derive(Clone, Debug)]
pub(crate) struct Names<'a> {
    /// What is left: empty, or a slash and more.
    rest: &'a [u8],
}

impl<'a> Names<'a> {
    /// Splits any watchable path into its names; `@` names begin without a slash.
    pub(crate) fn of_watch(full: &'a [u8]) -> (Option<Name<'a>>, Self) {
        if full.first() != Some(&b'@') {
            return (None, Path(full).names());
        }
        let end = full.iter().position(|&byte| byte == b'/').unwrap_or(full.len());
        (Some(Name::new(&full[..end])), Self { rest: &full[end..] })
    }

    /// How many bytes of the path are not yet taken.
    pub(crate) fn left(&self) -> usize {
        self.rest.len()
    }
}

impl<'a> Iterator for Names<'a> {
    type Item = Name<'a>;

    fn next(&mut self) -> Option<Name<'a>> {
        let tail = self.rest.get(1..)?;
        let end = tail.iter().position(|&byte| byte == b'/').unwrap_or(tail.len());
        let (name, rest) = tail.split_at(end);
        self.rest = rest;
        Some(Name::new(name))
    }
}

/// The first eight bytes of a name as a number that sorts as the bytes do.
///
/// Most names are no longer than this, and then comparing two names is comparing two integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key(u64);

impl Key {
    /// The key of no name.
    pub(crate) const NONE: Self = Self(0);

    /// Appends the bytes that the key stands for.
    pub(crate) fn extend(self, out: &mut Vec<u8>) {
        let bytes = self.0.to_be_bytes();
        out.extend_from_slice(&bytes[..self.len()]);
    }

    /// Returns how many bytes the key stands for: no name holds a NUL.
    pub(crate) fn len(self) -> usize {
        8 - self.0.trailing_zeros() as usize / 8
    }
}

/// One name of a path, split where its [`Key`] ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Name<'a> {
    pub(crate) key: Key,
    pub(crate) tail: &'a [u8],
}

impl<'a> Name<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        if let Some((head, tail)) = bytes.split_first_chunk::<8>() {
            return Name { key: Key(u64::from_be_bytes(*head)), tail };
        }
        let mut key = 0;
        for &byte in bytes {
            key = key << 8 | u64::from(byte);
        }
        let unused = 8 * (8 - bytes.len());
        Name { key: Key(key.checked_shl(unused.try_into().unwrap_or(0)).unwrap_or(0)), tail: &[] }
    }

    /// Returns how many bytes the name has.
    pub(crate) fn len(self) -> usize {
        self.key.len() + self.tail.len()
    }
}

/// What a path may name where special nodes are allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place<'a> {
    /// A node of the tree.
    Node(Path<'a>),
    /// A name that begins with `@`; only two of them have permissions.
    Special(&'a [u8]),
}

impl<'a> Place<'a> {
    pub(crate) fn as_bytes(self) -> &'a [u8] {
        match self {
            Place::Node(path) => path.0,
            Place::Special(name) => name,
        }
    }

    /// Takes back what [`as_bytes`](Self::as_bytes) gave.
    pub(crate) fn trusted(bytes: &'a [u8]) -> Self {
        if bytes.first() == Some(&b'@') {
            Place::Special(bytes)
        } else {
            Place::Node(Path::trusted(bytes))
        }
    }
}

/// A path to watch, and how its owner spelled it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WatchPath<'a> {
    /// The canonical path, absolute or beginning with `@`.
    pub(crate) full: &'a [u8],
    /// How many bytes of it the owner left out, and every event leaves out.
    pub(crate) implied: usize,
}

/// Who names a path, and what binds them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Namer {
    /// The domain whose home relative paths begin at.
    pub(crate) home: DomId,
    /// The most bytes that a path may have below `/local/domain/N/`; `None` for no limit.
    pub(crate) longest: Option<u32>,
}

impl Namer {
    /// Reads the path of a node of the tree; `scratch` holds it where it was relative.
    ///
    /// # Errors
    /// [`Error::Einval`] if it is malformed, too long, or begins with `@`.
    pub(crate) fn node<'a>(
        self,
        raw: &'a [u8],
        scratch: &'a mut Vec<u8>,
    ) -> Result<Path<'a>, Denial> {
        match self.place(raw, scratch)? {
            Place::Node(path) => Ok(path),
            Place::Special(_) => Err(Error::Einval.into()),
        }
    }

    /// Reads the path of a node or of a special node.
    ///
    /// # Errors
    /// [`Error::Einval`] if it is malformed or too long.
    pub(crate) fn place<'a>(
        self,
        raw: &'a [u8],
        scratch: &'a mut Vec<u8>,
    ) -> Result<Place<'a>, Denial> {
        let WatchPath { full, .. } = self.watch(raw, scratch)?;
        Ok(if full[0] == b'@' { Place::Special(full) } else { Place::Node(Path(full)) })
    }

    /// Reads a path to watch.
    ///
    /// # Errors
    /// [`Error::Einval`] if it is malformed or too long.
    pub(crate) fn watch<'a>(
        self,
        raw: &'a [u8],
        scratch: &'a mut Vec<u8>,
    ) -> Result<WatchPath<'a>, Denial> {
        if !is_well_formed(raw) {
            return Err(Error::Einval.into());
        }
        let (full, implied) = if matches!(raw[0], b'/' | b'@') {
            (raw, 0)
        } else {
            scratch.clear();
            extend_home(scratch, self.home);
            scratch.push(b'/');
            let implied = scratch.len();
            scratch.extend_from_slice(raw);
            (&scratch[..], implied)
        };
        let local = if implied > 0 { raw.len() } else { local_len(full) };
        match self.longest {
            Some(longest) if local > longest as usize => Err(Quota::PathMax.into()),
            _ => Ok(WatchPath { full, implied }),
        }
    }
}

/// Appends the path of a domain's home, `/local/domain/N`.
pub(crate) fn extend_home(out: &mut Vec<u8>, domain: DomId) {
    out.extend_from_slice(HOMES);
    extend_decimal(out, domain.0.into());
}

/// Appends a number in decimal.
pub(crate) fn extend_decimal(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = DIGITS[(number % 10) as usize];
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

const DIGITS: [u8; 10] = *b"0123456789";
const HOMES: &[u8] = b"/local/domain/";

/// Returns the length that the path limit counts: without a leading `/local/domain/N/`, so that a
/// relative path and its absolute spelling are judged alike.
fn local_len(full: &[u8]) -> usize {
    let Some(rest) = full.strip_prefix(HOMES) else { return full.len() };
    let digits = rest.iter().take(5).take_while(|byte| byte.is_ascii_digit()).count();
    match &rest[digits..] {
        [b'/', local @ ..] if digits > 0 => local.len(),
        _ => full.len(),
    }
}

/// Whether the bytes are some path: only legal characters, no empty name, no slash at the end.
fn is_well_formed(raw: &[u8]) -> bool {
    let mut previous = 0;
    for &byte in raw {
        if !LEGAL[usize::from(byte)] || (byte == b'/' && previous == b'/') {
            return false;
        }
        previous = byte;
    }
    previous != 0 && (previous != b'/' || raw.len() == 1)
}

/// The characters that a path may hold.
const LEGAL: [bool; 256] = {
    let mut legal = [false; 256];
    let mut byte = 0u8;
    while byte < 128 {
        legal[byte as usize] =
            byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'/' | b'_' | b'@');
        byte += 1;
    }
    legal
};

#[cfg(test)]
mod tests {
    use super::*;

    const GUEST: Namer = Namer { home: DomId(7), longest: Some(2048) };

    fn parse(raw: &str) -> Result<Vec<u8>, Error> {
        let path = GUEST.node(raw.as_bytes(), &mut Vec::new()).map(|path| path.as_bytes().to_vec());
        path.map_err(|denial| denial.error)
    }

    #[test]
    fn absolute_paths_stay_and_relative_ones_begin_at_home() {
        assert_eq!(parse("/").as_deref(), Ok(&b"/"[..]));
        assert_eq!(parse("/a/b").as_deref(), Ok(&b"/a/b"[..]));
        assert_eq!(parse("/@x").as_deref(), Ok(&b"/@x"[..]), "an ordinary node");
        assert_eq!(parse("data/x").as_deref(), Ok(&b"/local/domain/7/data/x"[..]));
    }

    #[test]
    fn malformed_paths_are_refused() {
        for raw in ["", "/a/", "//", "/a//b", "/a.b", "a/", "/local/domain/", "@releaseDomain"] {
            assert_eq!(parse(raw), Err(Error::Einval), "{raw:?}");
        }
    }

    #[test]
    fn both_spellings_of_a_path_have_the_same_limit() {
        let longest = "x".repeat(2048);
        for prefix in ["", "/local/domain/7/", "/local/domain/65535/"] {
            assert!(parse(&format!("{prefix}{longest}")).is_ok(), "2048 bytes after {prefix:?}");
            assert!(parse(&format!("{prefix}{longest}x")).is_err(), "2049 bytes after {prefix:?}");
        }
        assert!(parse(&format!("/{}", &longest[1..])).is_ok(), "2048 bytes elsewhere");
        assert!(parse(&format!("/{longest}")).is_err(), "2049 bytes elsewhere");
        let free = Namer { home: DomId(0), longest: None };
        assert!(free.node(format!("/{longest}{longest}").as_bytes(), &mut Vec::new()).is_ok());
    }

    #[test]
    fn names_split_into_key_and_tail() {
        let names: Vec<_> = Path(b"/a/backend-id/12345678").names().collect();
        assert_eq!(names[0], Name::new(b"a"));
        assert_eq!((names[0].len(), names[1].len(), names[2].len()), (1, 10, 8));
        assert_eq!(names[1].tail, b"id");
        assert!(names[2].tail.is_empty());
        let mut bytes = Vec::new();
        names[1].key.extend(&mut bytes);
        assert_eq!(bytes, b"backend-");
        assert_eq!(Path::ROOT.names().count(), 0);
    }

    #[test]
    fn keys_sort_as_the_names_do() {
        let names = ["-", "1", "10", "2", "A", "a", "aa", "abcdefgh", "b"];
        for pair in names.windows(2) {
            let (low, high) = (Name::new(pair[0].as_bytes()), Name::new(pair[1].as_bytes()));
            assert!(low.key < high.key, "{pair:?}");
        }
    }

    #[test]
    fn ancestors_end_at_the_root() {
        let path = Path(b"/a/bc/d");
        assert_eq!(path.ancestor(0), path);
        assert_eq!(path.ancestor(1).as_bytes(), b"/a/bc");
        assert_eq!(path.ancestor(3), Path::ROOT);
        assert_eq!(path.ancestor(9), Path::ROOT);
        assert_eq!(path.last(), Some(Name::new(b"d")));
        assert_eq!(Path::ROOT.last(), None);
    }
}
