//! The input of the target `server`: what everybody does, one step a line.
//!
//! Lines, because a fuzzer that swaps, drops and splices them still has a conversation, and
//! because a finding can be read. A line is one of:
//!
//! ```text
//! <domain><kind><transaction><payload>   a request; the kind is a letter, `@` is 0, `A` is 1, ...;
//!                                        in lower case it waits in the ring until a later step
//! <domain>*<bytes>                       bytes without a frame around them
//! !<deed><domain>                        something that is no request, see `Deed`
//! ```
//!
//! The transaction is `a` to `h` for one of the domain's latest, or a digit. In payloads and bytes
//! `|` is a NUL, `~x` is 255 times `x`, `^x` is the control character, and `\x` is `x` itself.

/// The domains that take part; 0 is the toolstack.
pub(crate) const DOMAINS: u16 = 5;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Request { by: u16, kind: u32, queued: bool, transaction: Transaction, payload: Vec<u8> },
    Bytes { by: u16, bytes: Vec<u8> },
    Do { deed: Deed, domain: u16 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transaction {
    /// The one that began last, the one before that, and so on.
    Latest(u8),
    Number(u8),
}

/// What happens besides requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    /// `g`: the toolstack makes a guest as it should.
    Give,
    /// `c`: Xen makes a domain.
    Create,
    /// `d`: Xen ends a domain.
    Destroy,
    /// `r`: another domain has its number before anybody looked.
    Replace,
    /// `s`: it shuts down.
    ShutDown,
    /// `p`: it reads nothing any more.
    Pause,
    /// `q`: it reads again.
    Resume,
    /// `t`: it takes a few bytes.
    Trickle,
    /// `n`: it asks for a fresh connection.
    Reconnect,
    /// `x`: its ring indexes become nonsense.
    BreakIndex,
    /// `u`: its ring cannot be mapped.
    Unmap,
    /// `v`: its ring can be mapped again.
    Map,
    /// `m`: memory runs low, or no longer.
    LackMemory,
}

const DEEDS: [(u8, Deed); 13] = [
    (b'g', Deed::Give),
    (b'c', Deed::Create),
    (b'd', Deed::Destroy),
    (b'r', Deed::Replace),
    (b's', Deed::ShutDown),
    (b'p', Deed::Pause),
    (b'q', Deed::Resume),
    (b't', Deed::Trickle),
    (b'n', Deed::Reconnect),
    (b'x', Deed::BreakIndex),
    (b'u', Deed::Unmap),
    (b'v', Deed::Map),
    (b'm', Deed::LackMemory),
];

impl Step {
    /// Reads one line; `None` if it is no step.
    pub(crate) fn parse(line: &[u8]) -> Option<Self> {
        match line {
            [b'!', letter, domain, ..] => {
                let (_, deed) = DEEDS.into_iter().find(|(known, _)| known == letter)?;
                Some(Self::Do { deed, domain: domain_of(*domain) })
            }
            [domain @ b'0'..=b'9', b'*', bytes @ ..] => {
                Some(Self::Bytes { by: domain_of(*domain), bytes: unescaped(bytes) })
            }
            [domain @ b'0'..=b'9', kind @ 0x40..=0xff, transaction, payload @ ..] => {
                let transaction = match transaction {
                    b'a'..=b'h' => Transaction::Latest(transaction - b'a'),
                    other => Transaction::Number(other.wrapping_sub(b'0')),
                };
                Some(Self::Request {
                    by: domain_of(*domain),
                    kind: u32::from(kind & 0x1f),
                    queued: kind & 0x20 != 0,
                    transaction,
                    payload: unescaped(payload),
                })
            }
            _ => None,
        }
    }

    /// Appends the line, with its end.
    pub(crate) fn extend(&self, out: &mut Vec<u8>) {
        match self {
            Self::Request { by, kind, queued, transaction, payload } => {
                out.push(letter_of(*by));
                let kind = u8::try_from(*kind & 0x1f).unwrap_or(0);
                out.push(kind | if *queued { 0x60 } else { 0x40 });
                out.push(match transaction {
                    Transaction::Latest(back) => b'a' + back,
                    Transaction::Number(number) => b'0'.wrapping_add(*number),
                });
                escape(payload, out);
            }
            Self::Bytes { by, bytes } => {
                out.extend([letter_of(*by), b'*']);
                escape(bytes, out);
            }
            Self::Do { deed, domain } => {
                let letter = DEEDS.into_iter().find(|(_, known)| known == deed);
                out.extend([b'!', letter.map_or(b'?', |(letter, _)| letter), letter_of(*domain)]);
            }
        }
        out.push(b'\n');
    }
}

fn domain_of(letter: u8) -> u16 {
    u16::from(letter.wrapping_sub(b'0')) % DOMAINS
}

fn letter_of(domain: u16) -> u8 {
    b'0' + u8::try_from(domain % DOMAINS).unwrap_or(0)
}

fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(&byte) = rest.next() {
        match byte {
            b'|' => bytes.push(0),
            b'~' => {
                let byte = rest.next().copied().unwrap_or(b'~');
                bytes.extend([if byte == b'|' { 0 } else { byte }; 255]);
            }
            b'^' => bytes.push(rest.next().map_or(b'^', |byte| byte & 0x1f)),
            b'\\' => bytes.extend(rest.next()),
            other => bytes.push(other),
        }
    }
    bytes
}

fn escape(bytes: &[u8], out: &mut Vec<u8>) {
    let mut rest = bytes;
    while let Some(&byte) = rest.first() {
        let run = rest.iter().take(255).take_while(|&&other| other == byte).count();
        if run == 255 && byte != b'\n' {
            out.extend([b'~', if byte == 0 { b'|' } else { byte }]);
            rest = &rest[255..];
            continue;
        }
        match byte {
            0 => out.push(b'|'),
            1..0x20 => out.extend([b'^', byte | 0x40]),
            b'|' | b'~' | b'^' | b'\\' => out.extend([b'\\', byte]),
            other => out.push(other),
        }
        rest = &rest[1..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let all: Vec<u8> =
            (0..=255).chain([b'x'; 700]).chain([0; 256]).chain(*b"|~^\\\n").collect();
        let steps = [
            Step::Request {
                by: 3,
                kind: 26,
                queued: true,
                transaction: Transaction::Latest(1),
                payload: all.clone(),
            },
            Step::Request {
                by: 0,
                kind: 0,
                queued: false,
                transaction: Transaction::Number(0),
                payload: Vec::new(),
            },
            Step::Bytes { by: 1, bytes: all },
            Step::Do { deed: Deed::Replace, domain: 4 },
        ];
        let mut text = Vec::new();
        steps.iter().for_each(|step| step.extend(&mut text));
        let read: Vec<_> = text
            .split_inclusive(|&byte| byte == b'\n')
            .map(|line| Step::parse(&line[..line.len() - 1]))
            .collect();
        assert_eq!(read, steps.map(Some));
    }
}
