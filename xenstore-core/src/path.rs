//! Paths: parsed once, into types that cannot be wrong.

mod name;

use alloc::vec::Vec;

use crate::host::DomId;
use crate::quota::{Denial, Limits, Quota};
use crate::wire::Error;
pub(crate) use name::{Key, Name, Names, find_nul};
use name::{domain_of, word_at};

/// An absolute path: a slash, and names with slashes between them.
///
/// Having one tells that it begins with a slash, not that its names are legal. Where it leads to a
/// node they are, because the names of nodes are; so only a path that leads to none need be
/// [judged](Path::judge), and the usual request is spared that.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path<'a> {
    bytes: &'a [u8],
    origin: Origin,
}

/// Where the bytes of a path begin.
#[derive(Clone, Copy, Debug)]
enum Origin {
    /// At the root.
    Root,
    /// At the root, and the client left out so many, those of its home: spares comparing them.
    Implied(u8),
    /// At the client's home: what only looks needs no more of the path than its names.
    Home,
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
        Self { bytes, origin: Origin::Root }
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

    /// Returns the names that follow those of a home, which is given with a slash at its end; `None`
    /// if the path does not lead there.
    #[inline]
    pub(crate) fn names_below(self, home: &[u8]) -> Option<Names<'a>> {
        match self.origin {
            Origin::Home => Some(Names { path: self.bytes, start: 0 }),
            Origin::Implied(len) if usize::from(len) == home.len() => {
                Some(self.names_from(home.len() - 1))
            }
            _ => self.bytes.starts_with(home).then(|| self.names_from(home.len() - 1)),
        }
    }

    /// Whether it begins at its client's home.
    pub(crate) fn is_relative(self) -> bool {
        matches!(self.origin, Origin::Home)
    }

    /// Returns the names from where it begins down; none for the root itself.
    pub(crate) fn names(self) -> Names<'a> {
        let start = if self.is_root() { 2 } else { usize::from(!self.is_relative()) };
        Names { path: self.bytes, start }
    }

    /// Returns the names that follow the slash at a place.
    pub(crate) fn names_from(self, slash: usize) -> Names<'a> {
        Names { path: self.bytes, start: slash.min(self.bytes.len()) + 1 }
    }

    pub(crate) fn is_root(self) -> bool {
        self.bytes == b"/"
    }

    /// Returns how many names the path has; 0 for the root.
    pub(crate) fn depth(self) -> usize {
        if self.is_root() { 0 } else { slashes(self.bytes) + usize::from(self.is_relative()) }
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

impl WatchPath<'_> {
    /// Judges the names.
    ///
    /// # Errors
    /// [`Error::Einval`] if one is empty or has a character that none may have.
    pub(crate) fn judge(self) -> Result<(), Denial> {
        if is_well_formed(self.full) { Ok(()) } else { Err(Error::Einval.into()) }
    }
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
    /// Reads the path of a node of the tree. `scratch` holds it where it was relative; without, it
    /// stays so, which is enough for a look.
    ///
    /// # Errors
    /// [`Error::Einval`] if it is empty, too long, or begins with `@`.
    #[inline]
    pub(crate) fn node<'a>(
        self,
        raw: &'a [u8],
        scratch: Option<&'a mut Vec<u8>>,
    ) -> Result<Path<'a>, Denial> {
        let (bytes, origin) = match (raw, scratch) {
            ([] | [b'@', ..], _) => return Err(Error::Einval.into()),
            ([b'/', ..], _) => (raw, Origin::Root),
            (_, None) => (raw, Origin::Home),
            (_, Some(scratch)) => {
                let WatchPath { full, implied } = self.complete(raw, scratch)?;
                return Ok(Path { bytes: full, origin: Origin::Implied(implied) });
            }
        };
        self.must_fit(bytes)?;
        Ok(Path { bytes, origin })
    }

    /// Reads the path of a node, as [`node`](Self::node), or of a special node.
    ///
    /// # Errors
    /// [`Error::Einval`] if it is empty or too long, or a malformed special name.
    pub(crate) fn place<'a>(
        self,
        raw: &'a [u8],
        scratch: Option<&'a mut Vec<u8>>,
    ) -> Result<Place<'a>, Denial> {
        if raw.first() != Some(&b'@') {
            return self.node(raw, scratch).map(Place::Node);
        }
        self.must_fit(raw)?;
        if is_well_formed(raw) { Ok(Place::Special(raw)) } else { Err(Error::Einval.into()) }
    }

    /// Makes a path absolute, and judges its length. What it names may also begin with `@`.
    ///
    /// # Errors
    /// [`Error::Einval`] if it is empty or too long.
    pub(crate) fn complete<'a>(
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
        self.must_fit(full)?;
        Ok(WatchPath { full, implied })
    }

    /// Judges a path's length.
    #[inline]
    fn must_fit(self, path: &[u8]) -> Result<(), Denial> {
        let allowed = |len| self.limits.is_none_or(|limits| limits.allow(Quota::PathMax, len));
        if allowed(path.len()) || allowed(local_len(path)) {
            Ok(())
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

/// Counts the slashes, eight bytes at a time.
fn slashes(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const LOW: u64 = u64::from_le_bytes([0x7f; 8]);
    let count = |start| {
        let others = word_at(bytes, start) ^ (ONES * u64::from(b'/'));
        // The highest bit of each byte that was a slash, and nothing else.
        let slashes = !(((others & LOW) + LOW) | others | LOW);
        (slashes >> 7).count_ones() as usize
    };
    (0..bytes.len()).step_by(8).map(count).sum()
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
        let path = GUEST.node(raw.as_bytes(), Some(&mut scratch)).and_then(|path| {
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
        assert!(free.node(format!("/{longest}{longest}").as_bytes(), None).is_ok());
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
