//! The names of a path, and the keys by which they are compared.

use alloc::vec::Vec;

use super::Path;
use crate::host::DomId;

/// The names of a path, from the root down.
#[derive(Clone, Debug)]
pub(crate) struct Names<'a> {
    pub(super) path: &'a [u8],
    /// Where the next name begins; behind the path's end if there is none left.
    pub(super) start: usize,
}

impl<'a> Names<'a> {
    /// Splits any watchable path into its names; `@` names begin without a slash.
    pub(crate) fn of_watch(full: &'a [u8]) -> (Option<Name<'a>>, Self) {
        if full.first() != Some(&b'@') {
            return (None, Path::trusted(full).names());
        }
        let end = full.iter().position(|&byte| byte == b'/').unwrap_or(full.len());
        (Some(Name::new(&full[..end])), Self { path: full, start: end + 1 })
    }

    /// How many bytes of the path are not yet taken, the slash before the next name among them.
    pub(crate) fn left(&self) -> usize {
        self.path.len() + 1 - self.start
    }

    /// Returns the name from a place on, which has eight bytes or more.
    #[inline(never)]
    fn long(path: &'a [u8], start: usize, word: u64) -> Name<'a> {
        let names = &path[start..];
        let more = names[8..].iter().position(|&byte| byte == b'/');
        let end = more.map_or(names.len(), |more| 8 + more);
        Name { key: Key::of(word, 8), tail: &names[8..end] }
    }
}

impl<'a> Iterator for Names<'a> {
    type Item = Name<'a>;

    #[inline]
    fn next(&mut self) -> Option<Name<'a>> {
        let start = self.start;
        if start > self.path.len() {
            return None;
        }
        // Most names are shorter than eight bytes: those are found, and made a key, at once.
        let word = word_at(self.path, start);
        let slashes = zero_bytes(word ^ u64::from_le_bytes([b'/'; 8]));
        let rest = self.path.len() - start;
        let len = if slashes != 0 {
            slashes.trailing_zeros() as usize / 8
        } else if rest < 8 {
            rest
        } else {
            let name = Self::long(self.path, start, word);
            self.start = start + 8 + name.tail.len() + 1;
            return Some(name);
        };
        self.start = start + len + 1;
        Some(Name { key: Key::of(word & !(u64::MAX << (8 * len)), len), tail: &[] })
    }
}

/// Returns the eight bytes from a place on, the first in the lowest bits; zeros follow the end.
#[inline]
pub(super) fn word_at(path: &[u8], start: usize) -> u64 {
    if let Some(chunk) = path[start..].first_chunk::<8>() {
        return u64::from_le_bytes(*chunk);
    }
    let missing = 8 - (path.len() - start);
    match path.last_chunk::<8>() {
        Some(_) if missing == 8 => 0,
        Some(chunk) => u64::from_le_bytes(*chunk) >> (8 * missing),
        None => {
            let bytes = path[start..].iter().rev();
            bytes.fold(0, |word, &byte| word << 8 | u64::from(byte))
        }
    }
}

/// Returns where the first NUL is, looked for in eight bytes at a time.
#[inline]
pub(crate) fn find_nul(bytes: &[u8]) -> Option<usize> {
    let mut start = 0;
    while start < bytes.len() {
        let zeros = zero_bytes(word_at(bytes, start));
        if zeros != 0 {
            let at = start + zeros.trailing_zeros() as usize / 8;
            // Behind the end there are zeros, too.
            return (at < bytes.len()).then_some(at);
        }
        start += 8;
    }
    None
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

/// Reads a domain's number as it is spelled in paths: no zero in front.
pub(super) fn domain_of(digits: &[u8]) -> Option<DomId> {
    if digits.len() > 5 || digits.is_empty() || (digits[0] == b'0' && digits.len() > 1) {
        return None;
    }
    let number = digits.iter().try_fold(0u32, |number, byte| {
        byte.is_ascii_digit().then(|| number * 10 + u32::from(byte - b'0'))
    })?;
    u16::try_from(number).ok().map(DomId)
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn the_first_nul_is_found_wherever_it_is() {
        for len in 0..40 {
            let mut bytes = vec![b'a'; len];
            assert_eq!(find_nul(&bytes), None, "none among {len}");
            for at in (0..len).rev() {
                bytes[at] = 0;
                assert_eq!(find_nul(&bytes), Some(at), "the first of {len}");
            }
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
}
