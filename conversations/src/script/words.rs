//! A line's words: bare or quoted, in pieces and repeated.

use alloc::{borrow::ToOwned, format, string::String, vec::Vec};

/// A word and whether it may be a keyword (no part of it was quoted).
pub(super) struct Word {
    pub(super) bytes: Vec<u8>,
    bare: bool,
}

impl Word {
    pub(super) fn keyword(&self) -> &str {
        if self.bare { core::str::from_utf8(&self.bytes).unwrap_or("") } else { "" }
    }
}

/// The words of a line, up to a comment.
pub(super) fn words(line: &str) -> Result<Vec<Word>, String> {
    let mut rest = line.as_bytes();
    let mut words = Vec::new();
    let mut open: Option<Word> = None;
    while let Some((&byte, after)) = rest.split_first() {
        match byte {
            b'#' if open.is_none() => break,
            b' ' | b'\t' => words.extend(open.take()),
            b'[' | b']' => {
                words.extend(open.take());
                words.push(Word { bytes: alloc::vec![byte], bare: true });
            }
            b'"' => {
                let (piece, after) = quoted(after)?;
                let word = open.get_or_insert(Word { bytes: Vec::new(), bare: false });
                word.bare = false;
                word.bytes.extend(piece);
                rest = after;
                continue;
            }
            _ => open.get_or_insert(Word { bytes: Vec::new(), bare: true }).bytes.push(byte),
        }
        rest = after;
    }
    words.extend(open);
    Ok(words)
}

/// The piece after an opening quote, and what follows its end and its `*count`.
fn quoted(mut rest: &[u8]) -> Result<(Vec<u8>, &[u8]), String> {
    let mut piece = Vec::new();
    loop {
        let (&byte, after) = rest.split_first().ok_or("a quote is not closed")?;
        rest = after;
        match byte {
            b'"' => break,
            b'\\' => {
                let (&escape, after) = rest.split_first().ok_or("a quote is not closed")?;
                rest = after;
                piece.push(match escape {
                    b'0' => 0,
                    b'n' => b'\n',
                    b'\\' | b'"' => escape,
                    b'x' => {
                        let (digits, after) = rest.split_at_checked(2).ok_or("\\x needs two")?;
                        rest = after;
                        let digits = core::str::from_utf8(digits).map_err(|e| format!("{e}"))?;
                        u8::from_str_radix(digits, 16).map_err(|e| format!("{e}"))?
                    }
                    _ => return Err("unknown escape".to_owned()),
                });
            }
            _ => piece.push(byte),
        }
    }
    let Some(count) = rest.strip_prefix(b"*") else { return Ok((piece, rest)) };
    let digits = count.iter().take_while(|b| b.is_ascii_digit()).count();
    let (count, rest) = count.split_at(digits);
    let count = core::str::from_utf8(count).ok().and_then(|n| n.parse().ok());
    Ok((piece.repeat(count.ok_or("`*` needs a count")?), rest))
}
