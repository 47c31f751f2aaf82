//! Paths: parsed once, into types that cannot be wrong.

use alloc::vec::Vec;

use crate::host::DomId;
use crate::quota::{Denial, Limits, Quota};
use crate::wire::Error;

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
        if self.is_root() { 0 } else { self.bytes.iter().filter(|&&byte| byte == b'/').count() }
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

/// The names of a path, from the root down.
#[derive(Clone, Debug)]
pub(crate) struct Names<'a> {
    path: &'a [u8],
    /// Where the slash before the next name is; the path's end if there is none left.
    at: usize,
}

impl<'a> Names<'a> {
    /// Splits any watchable path into its names; `@` names begin without a slash.
    pub(crate) fn of_watch(full: &'a [u8]) -> (Option<Name<'a>>, Self) {
        if full.first() != Some(&b'@') {
            return (None, Path::trusted(full).names());
        }
        let end = full.iter().position(|&byte| byte == b'/').unwrap_or(full.len());
        (Some(Name::new(&full[..end])), Self { path: full, at: end })
    }

    /// How many bytes of the path are not yet taken.
    pub(crate) fn left(&self) -> usize {
        self.path.len() - self.at
    }

    /// Returns the eight bytes from a place on, the first in the lowest bits; zeros follow the end.
    #[inline]
    fn word(&self, start: usize) -> u64 {
        if let Some(chunk) = self.path[start..].first_chunk::<8>() {
            return u64::from_le_bytes(*chunk);
        }
        let missing = 8 - (self.path.len() - start);
        match self.path.last_chunk::<8>() {
            Some(_) if missing == 8 => 0,
            Some(chunk) => u64::from_le_bytes(*chunk) >> (8 * missing),
            None => {
                let bytes = self.path[start..].iter().rev();
                bytes.fold(0, |word, &byte| word << 8 | u64::from(byte))
            }
        }
    }

    /// Returns the name from a place on, which has eight bytes or more.
    fn long(&mut self, start: usize, word: u64) -> Name<'a> {
        let names = &self.path[start..];
        let more = names[8..].iter().position(|&byte| byte == b'/');
        let end = more.map_or(names.len(), |more| 8 + more);
        self.at = start + end;
        Name { key: Key::of(word, 8), tail: &names[8..end] }
    }
}

impl<'a> Iterator for Names<'a> {
    type Item = Name<'a>;

    #[inline]
    fn next(&mut self) -> Option<Name<'a>> {
        let start = self.at + 1;
        if start > self.path.len() {
            return None;
        }
        // Most names are shorter than eight bytes: those are found, and made a key, at once.
        let word = self.word(start);
        let slashes = zero_bytes(word ^ u64::from_le_bytes([b'/'; 8]));
        let rest = self.path.len() - start;
        let len = if slashes != 0 {
            slashes.trailing_zeros() as usize / 8
        } else if rest < 8 {
            rest
        } else {
            return Some(self.long(start, word));
        };
        self.at = start + len;
        Some(Name { key: Key::of(word & !(u64::MAX << (8 * len)), len), tail: &[] })
    }
}

/// Returns a word whose lowest set bit is the highest bit of the lowest byte that is zero; 0 if none
/// is.
fn zero_bytes(word: u64) -> u64 {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    word.wrapping_sub(ONES) & !word & (ONES << 7)
}

/// The first eight bytes of a name as a number that sorts as the bytes do.
///
/// Most names are no longer than this, and then comparing two names is comparing two integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key(u64);

impl Key {
    /// The key of no name.
    pub(crate) const NONE: Self = Self(0);

    /// The keys of the names that every home's path begins with.
    pub(crate) const LOCAL: Self = Self(u64::from_be_bytes(*b"local\0\0\0"));
    pub(crate) const DOMAIN: Self = Self(u64::from_be_bytes(*b"domain\0\0"));

    /// A key that no legal name has, for one that ends in NUL: such a one would look like the same
    /// without.
    const ILLEGAL: Self = Self(1);

    /// Returns the key of a name that has `len` bytes in this word, the first in the lowest bits.
    #[inline]
    fn of(word: u64, len: usize) -> Self {
        let ends_in_nul = len > 0 && word >> (8 * (len - 1)) == 0;
        if ends_in_nul { Self::ILLEGAL } else { Self(word.swap_bytes()) }
    }

    /// Appends the bytes that the key stands for.
    pub(crate) fn extend(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes()[..self.len()]);
    }

    /// Returns the bytes that the key stands for; zeros follow them.
    pub(crate) fn bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }

    /// Whether the key is all of any name that has it.
    pub(crate) fn is_whole(self) -> bool {
        self.0 & 0xff == 0
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
            return Name { key: Key::of(u64::from_le_bytes(*head), 8), tail };
        }
        let mut chunk = [0; 8];
        chunk[..bytes.len()].copy_from_slice(bytes);
        Name { key: Key::of(u64::from_le_bytes(chunk), bytes.len()), tail: &[] }
    }

    /// Returns the domain whose number the name is.
    pub(crate) fn domain(self) -> Option<DomId> {
        let bytes = self.key.bytes();
        let digits = bytes.get(..self.key.len()).filter(|_| self.tail.is_empty())?;
        domain_of(digits)
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

/// Reads a domain's number as it is spelled in paths: no zero in front.
fn domain_of(digits: &[u8]) -> Option<DomId> {
    if digits.len() > 5 || digits.is_empty() || (digits[0] == b'0' && digits.len() > 1) {
        return None;
    }
    let number = digits.iter().try_fold(0u32, |number, byte| {
        byte.is_ascii_digit().then(|| number * 10 + u32::from(byte - b'0'))
    })?;
    u16::try_from(number).ok().map(DomId)
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
    fn names_split_into_key_and_tail() {
        let names: Vec<_> = Path::trusted(b"/a/backend-id/12345678").names().collect();
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
    fn only_some_characters_are_legal() {
        for byte in 0..=255u8 {
            let expected = byte.is_ascii_alphanumeric() || b"-/_@".contains(&byte);
            assert_eq!(is_legal(byte), expected, "character {byte:#x}");
        }
    }

    #[test]
    fn both_ways_to_split_agree() {
        for path in
            ["/a", "/abcdefg/b", "/abcdefgh", "/abcdefghi/x", "/a/b-c_d@e/ffffffffffffffff/g"]
        {
            let split: Vec<_> = Path::trusted(path.as_bytes()).names().collect();
            let naive: Vec<_> =
                path[1..].split('/').map(|name| Name::new(name.as_bytes())).collect();
            assert_eq!(split, naive, "{path}");
        }
    }

    #[test]
    fn a_name_with_a_nul_is_like_no_other() {
        for path in ["/a\0", "/a\0/b", "/a\0b", "/abcdefg\0", "/abcdefg\0x", "/\0"] {
            let legal = path.replace('\0', "");
            let names = |path: &'static str| Path::trusted(path.as_bytes()).names().next();
            let name = names(path).expect("there is a name");
            assert_ne!(Some(name), Path::trusted(legal.as_bytes()).names().next(), "{path:?}");
            assert!(
                name.key == Key::ILLEGAL
                    || name.tail.contains(&0)
                    || name.key.0.to_be_bytes()[..name.key.len()].contains(&0)
            );
        }
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
        let path = Path::trusted(b"/a/bc/d");
        assert_eq!(path.ancestor(0), path);
        assert_eq!(path.ancestor(1).as_bytes(), b"/a/bc");
        assert_eq!(path.ancestor(3), Path::ROOT);
        assert_eq!(path.ancestor(9), Path::ROOT);
        assert_eq!(path.last(), Some(Name::new(b"d")));
        assert_eq!(Path::ROOT.last(), None);
    }
}
