//! Numbers as clients spell them: the C library's readings, which clients rely on.

/// Reads a whole string as an unsigned decimal number, as `strtoul(…, 10)` does.
///
/// White space and a sign may lead; the empty string is 0. `None` if bytes remain or the number is
/// negative or larger than `max`.
pub(crate) fn unsigned(text: &[u8], max: u32) -> Option<u32> {
    let (negative, digits) = sign(text);
    let (value, rest) = accumulate(digits, 10);
    // Without a digit nothing is consumed, not even the sign.
    let consumed = digits.len() != rest.len() || text.is_empty();
    let fits = value <= u64::from(max) && (!negative || value == 0);
    if consumed && rest.is_empty() && fits { u32::try_from(value).ok() } else { None }
}

/// Reads a whole string as `strtol(…, 0)` does: decimal, `0x…` or `0…`; at least one digit.
pub(crate) fn any_base(text: &[u8], max: u32) -> Option<u32> {
    let (negative, digits) = sign(text);
    let (value, rest, read) = match digits {
        [b'0', b'x' | b'X', hex @ ..] if hex.first().is_some_and(u8::is_ascii_hexdigit) => {
            let (value, rest) = accumulate(hex, 16);
            (value, rest, true)
        }
        [b'0', octal @ ..] => {
            let (value, rest) = accumulate(octal, 8);
            (value, rest, true)
        }
        _ => {
            let (value, rest) = accumulate(digits, 10);
            (value, rest, digits.len() != rest.len())
        }
    };
    let fits = value <= u64::from(max) && (!negative || value == 0);
    if read && rest.is_empty() && fits { u32::try_from(value).ok() } else { None }
}

/// Reads the number that a string begins with, as `atoi` does; 0 if it begins with none.
///
/// What does not fit into 32 bits loses its upper bits, so 4294967295 is -1, as clients know it.
pub(crate) fn leading(text: &[u8]) -> i32 {
    let (negative, digits) = sign(text);
    let value = i64::try_from(accumulate(digits, 10).0).unwrap_or(i64::MAX);
    let value = if negative { -value } else { value };
    let [a, b, c, d, ..] = value.to_le_bytes();
    i32::from_le_bytes([a, b, c, d])
}

/// Reads the number that a string begins with as 64 bits; 0 if it begins with none.
pub(crate) fn leading_u64(text: &[u8]) -> u64 {
    match sign(text) {
        (false, digits) => accumulate(digits, 10).0,
        (true, _) => 0,
    }
}

/// Takes white space and one sign off the front; true if the sign was a minus.
fn sign(text: &[u8]) -> (bool, &[u8]) {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r');
    let start = text.iter().position(|byte| !blank(byte)).unwrap_or(text.len());
    match &text[start..] {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] | digits => (false, digits),
    }
}

/// Adds up the digits at the front; returns the sum, saturated, and what follows them.
fn accumulate(digits: &[u8], base: u32) -> (u64, &[u8]) {
    let mut value = 0u64;
    for (at, &byte) in digits.iter().enumerate() {
        let Some(digit) = char::from(byte).to_digit(base) else { return (value, &digits[at..]) };
        value = value.saturating_mul(base.into()).saturating_add(digit.into());
    }
    (value, &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domain_ids_are_read_like_strtoul() {
        let domid = |text: &str| unsigned(text.as_bytes(), 65535);
        for (text, value) in [("", 0), (" 5", 5), ("+5", 5), ("007", 7), ("65535", 65535)] {
            assert_eq!(domid(text), Some(value), "{text:?}");
        }
        for text in ["0x10", "5x", "-1", "65536", "-", "+", " ", "99999999999999999999999"] {
            assert_eq!(domid(text), None, "{text:?}");
        }
    }

    #[test]
    fn permission_ids_are_read_in_any_base() {
        let id = |text: &str| any_base(text.as_bytes(), 65535);
        for (text, value) in [("0", 0), ("0x1f", 31), ("010", 8), ("12", 12), ("0x7FF5", 32757)] {
            assert_eq!(id(text), Some(value), "{text:?}");
        }
        for text in ["", "x", "1x", "0x", "08", "-1", "65536"] {
            assert_eq!(id(text), None, "{text:?}");
        }
    }

    #[test]
    fn other_numbers_are_read_like_atoi() {
        for (text, value) in [("zz", 0), ("-1", -1), ("12ab", 12), ("", 0), ("  7", 7)] {
            assert_eq!(leading(text.as_bytes()), value, "{text:?}");
        }
        assert_eq!(leading(b"4294967295"), -1, "the upper bits are lost");
        assert_eq!(leading_u64(b"4294967295 "), 4_294_967_295);
    }
}
