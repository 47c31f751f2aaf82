//! Paths: parsed once, into types that cannot be wrong.

mod name;

use alloc::vec::Vec;

use crate::host::DomId;
use crate::quota::{Denial, Limits, Quota};
use crate::wire::Error;
use name::domain_of;
pub(crate) use name::{Key, Name, Names};

/// An absolute path: a slash, and names with slashes between them.
///
/// Having one tells that it begins with a slash, not that its names are legal. Where it leads to a
/// node they are, because the names of nodes are; so only a path that leads to none need be
/// [judged](Path::judge), and the usual request is spared that.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path<'a> {
    bytes: &'a [u8],
    /// How many of the bytes its client left out, those of its home; 0 if none. Spares comparing
    /// them with the home.
    implied: u8,
}

impl PartialEq for Path<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Path<'_> {}

impl<'a> Path<'a> {
    /// The path of the root.
    pub(crate) const ROOT: Path<'static> = Path::trusted(b"/");

    /// Takes bytes that were a path before, such as those kept by a transaction.
    pub(crate) const fn trusted(bytes: &'a [u8]) -> Self {
        debug_assert!(matches!(bytes, [b'/', ..]), "a kept path went bad");
        Self { bytes, implied: 0 }
    }

    /// Judges the names.
    ///
    /// # Errors
    /// [`Error::Einval`] if one is empty or has a character that none may have.
    pub(crate) fn judge(self) -> Result<(), Denial> {
        if is_well_formed(self.bytes) { Ok(()) } else { Err(Error::Einval.into()) }
    }

    pub(crate) fn as_bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// Returns how many bytes its client left out, those of its home; 0 if none.
    pub(crate) fn implied(self) -> usize {
        self.implied.into()
    }

    /// Returns the names from the root down; none for the root itself.
    pub(crate) fn names(self) -> Names<'a> {
        Names { path: self.bytes, at: if self.is_root() { 1 } else { 0 } }
    }

    /// Returns the names that follow the slash at a place.
    pub(crate) fn names_from(self, slash: usize) -> Names<'a> {
        Names { path: self.bytes, at: slash.min(self.bytes.len()) }
    }

    pub(crate) fn is_root(self) -> bool {
        self.bytes.len() == 1
    }

    /// Returns how many names the path has; 0 for the root.
    pub(crate) fn depth(self) -> usize {
        if self.is_root() { 0 } else { slashes(self.bytes) }
    }

    /// Returns the path of the ancestor that is `levels` above; the root if there are fewer.
    pub(crate) fn ancestor(self, levels: usize) -> Self {
        let mut end = self.bytes.len();
        for _ in 0..levels {
            end = self.bytes[..end].iter().rposition(|&byte| byte == b'/').unwrap_or(0);
        }
        Path::trusted(&self.bytes[..end.max(1)])
    }

    /// Returns the last name; `None` for the root.
    pub(crate) fn last(self) -> Option<Name<'a>> {
        let start = self.bytes.iter().rposition(|&byte| byte == b'/')? + 1;
        let name = &self.bytes[start..];
        if name.is_empty() { None } else { Some(Name::new(name)) }
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
            Place::Node(path) => path.bytes,
            Place::Special(name) => name,
        }
    }

    /// Returns how many nodes must be gone through to get there.
    pub(crate) fn levels(self) -> usize {
        match self {
            Place::Node(path) => path.depth(),
            Place::Special(_) => 1,
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
    pub(crate) implied: u8,
}

/// Who names a path, and what binds them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Namer<'h> {
    /// The home where relative paths begin, with a slash at its end.
    pub(crate) home: &'h [u8],
    /// The limits that hold for them, if any do.
    pub(crate) limits: Option<&'h Limits>,
}

impl Namer<'_> {
    /// Reads the path of a node of the tree; `scratch` holds it where it was relative.
    ///
    /// # Errors
    /// [`Error::Einval`] if it is empty, too long, or begins with `@`.
    pub(crate) fn node<'a>(
        self,
        raw: &'a [u8],
        scratch: &'a mut Vec<u8>,
    ) -> Result<Path<'a>, Denial> {
        match self.complete(raw, scratch)? {
            WatchPath { full: bytes @ [b'/', ..], implied } => Ok(Path { bytes, implied }),
            _ => Err(Error::Einval.into()),
        }
    }

    /// Reads the path of a node or of a special node.
    ///
    /// # Errors
    /// [`Error::Einval`] if it is empty or too long, or a malformed special name.
    pub(crate) fn place<'a>(
        self,
        raw: &'a [u8],
        scratch: &'a mut Vec<u8>,
    ) -> Result<Place<'a>, Denial> {
        let WatchPath { full, implied } = self.complete(raw, scratch)?;
        match full {
            bytes @ [b'/', ..] => Ok(Place::Node(Path { bytes, implied })),
            name if is_well_formed(name) => Ok(Place::Special(name)),
            _ => Err(Error::Einval.into()),
        }
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
        let path = self.complete(raw, scratch)?;
        if is_well_formed(path.full) { Ok(path) } else { Err(Error::Einval.into()) }
    }

    /// Makes a path absolute, and judges its length.
    fn complete<'a>(
        self,
        raw: &'a [u8],
        scratch: &'a mut Vec<u8>,
    ) -> Result<WatchPath<'a>, Denial> {
        let (full, implied) = match raw {
            [] => return Err(Error::Einval.into()),
            [b'/' | b'@', ..] => (raw, 0),
            _ => {
                scratch.clear();
                scratch.extend_from_slice(self.home);
                scratch.extend_from_slice(raw);
                let implied = u8::try_from(self.home.len()).expect("the path of a home is short");
                (&scratch[..], implied)
            }
        };
        let allowed = |len| self.limits.is_none_or(|limits| limits.allow(Quota::PathMax, len));
        if allowed(full.len()) || allowed(local_len(full)) {
            Ok(WatchPath { full, implied })
        } else {
            Err(Quota::PathMax.into())
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
pub(crate) const HOMES: &[u8] = b"/local/domain/";

/// Returns whose home a path leads to, and where the home's path ends in it.
pub(crate) fn home_of(path: &[u8]) -> Option<(DomId, usize)> {
    let rest = path.strip_prefix(HOMES)?;
    let digits = rest.iter().take(6).position(|&byte| byte == b'/').unwrap_or(rest.len());
    Some((domain_of(&rest[..digits])?, HOMES.len() + digits))
}

/// Counts the slashes: sixteen bytes at a time, see [`is_well_formed`].
fn slashes(bytes: &[u8]) -> usize {
    let (blocks, rest) = bytes.as_chunks::<16>();
    let mut last = [0; 16];
    last[..rest.len()].copy_from_slice(rest);
    let count = |block: &[u8; 16]| {
        usize::from(block.iter().fold(0u8, |count, &byte| count + u8::from(byte == b'/')))
    };
    blocks.iter().map(count).sum::<usize>() + count(&last)
}

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
    // Sixteen at a time and without a branch, which the compiler turns into vector instructions.
    let (blocks, rest) = raw.as_chunks::<16>();
    let mut last = [b'a'; 16];
    last[..rest.len()].copy_from_slice(rest);
    let legal = blocks
        .iter()
        .chain([&last])
        .all(|block| block.iter().fold(true, |legal, &byte| legal & is_legal(byte)));
    let pairs = raw.iter().zip(raw.get(1..).unwrap_or_default());
    let twins = pairs.fold(false, |found, (&a, &b)| found | ((a == b'/') & (b == b'/')));
    legal && !twins && (raw.last() != Some(&b'/') || raw.len() == 1)
}

/// Whether a path may hold the character.
fn is_legal(byte: u8) -> bool {
    let letter = (byte | 0x20).wrapping_sub(b'a') < 26;
    // From `-` to `9` come the slash and the digits, and one that is not allowed.
    let digit = byte.wrapping_sub(b'-') < 13 && byte != b'.';
    letter | digit | (byte == b'_') | (byte == b'@')
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUEST: Namer<'_> = Namer { home: b"/local/domain/7/", limits: Some(&Limits::DEFAULT) };

    fn parse(raw: &str) -> Result<Vec<u8>, Error> {
        let mut scratch = Vec::new();
        let path = GUEST.node(raw.as_bytes(), &mut scratch).and_then(|path| {
            path.judge()?;
            Ok(path.as_bytes().to_vec())
        });
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
        let free = Namer { limits: None, ..GUEST };
        assert!(free.node(format!("/{longest}{longest}").as_bytes(), &mut Vec::new()).is_ok());
    }

    #[test]
    fn only_some_characters_are_legal() {
        for byte in 0..=255u8 {
            let expected = byte.is_ascii_alphanumeric() || b"-/_@".contains(&byte);
            assert_eq!(is_legal(byte), expected, "character {byte:#x}");
        }
    }

    #[test]
    fn ancestors_end_at_the_root() {
        let path = Path::trusted(b"/a/bc/d");
        assert_eq!(path.ancestor(0), path);
        assert_eq!(path.ancestor(1).as_bytes(), b"/a/bc");
        assert_eq!(path.ancestor(3), Path::ROOT);
        assert_eq!(path.ancestor(9), Path::ROOT);
        assert_eq!(path.last(), Some(Name::new(b"d")));
        assert_eq!(Path::ROOT.last(), None);
    }
}
