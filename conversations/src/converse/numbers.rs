//! The numbers of domains: a script's on one side, Xen's on the other.
//!
//! A script says `dom1`; on the host that guest has the number that Xen gave it. Every place of
//! the protocol where a number of a domain can stand is known here, in requests and in what is
//! expected of answers, so that the store hears and says real numbers only.

use alloc::collections::BTreeMap;
use alloc::{format, vec::Vec};

use conversations::script::{Arrival, Expect, Pattern, Request, Step};

/// The number that scripts have for the domain of the store.
const STORE: u16 = 31;
/// From here on numbers stand for themselves: no host of a test has as many domains.
const FAR: u16 = 1000;
/// What is added to a small number that is no domain's in the conversation, so that it is none on
/// the host either.
const NOBODY: u16 = 10_000;

/// Where a guest's ring is, as INTRODUCE is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) domid: u16,
    pub(crate) gfn: u64,
    pub(crate) port: u32,
}

/// Who has which number.
#[derive(Debug)]
pub(crate) struct Numbers {
    /// The store's domain, if it is one.
    store: Option<u16>,
    guests: BTreeMap<u16, Address>,
}

/// How a word of a request holds a domain's number.
type Spelling = fn(&Numbers, &[u8]) -> Vec<u8>;

impl Numbers {
    /// Nobody's numbers but the store's.
    pub(crate) fn new(store: Option<u16>) -> Self {
        Self { store, guests: BTreeMap::new() }
    }

    /// Gives a script's number to a guest.
    pub(crate) fn give(&mut self, script: u16, address: Address) {
        self.guests.insert(script, address);
    }

    /// Forgets all guests.
    pub(crate) fn clear(&mut self) {
        self.guests.clear();
    }

    /// Xen's number for a script's.
    pub(crate) fn real(&self, script: u16) -> u16 {
        match script {
            0 => 0,
            STORE if self.store.is_some() => self.store.unwrap_or(STORE),
            FAR.. => script,
            _ => self.guests.get(&script).map_or(script + NOBODY, |guest| guest.domid),
        }
    }

    /// The step with real numbers; the actors keep those of the script. `kind` is what the oldest
    /// open request of the actor asked, for lines that only say what comes.
    pub(crate) fn translate(&self, step: &Step, kind: Option<u32>) -> Step {
        match step {
            Step::Request(request) => Step::Request(self.request(request)),
            Step::Arrives(actor, Arrival::Event { path, token }) => {
                let path = self.path(path);
                Step::Arrives(*actor, Arrival::Event { path, token: token.clone() })
            }
            Step::Arrives(actor, Arrival::Reply(expect)) => {
                Step::Arrives(*actor, Arrival::Reply(self.expect(kind, expect)))
            }
            Step::Printed(text) => Step::Printed(self.text(text)),
            other => other.clone(),
        }
    }

    fn request(&self, request: &Request) -> Request {
        let mut words: Vec<Vec<u8>> =
            request.payload.split(|&byte| byte == 0).map(<[u8]>::to_vec).collect();
        // What follows the last NUL is a word too, mostly an empty one.
        let count = words.len() - 1;
        for (at, word) in words.iter_mut().enumerate() {
            if let Some(spelling) = spelling(request.kind, at, count) {
                *word = spelling(self, word);
            }
        }
        if request.kind == INTRODUCE {
            self.point(&mut words);
        }
        let expect = request.expect.as_ref().map(|expect| self.expect(Some(request.kind), expect));
        Request { payload: words.join(&0), expect, ..request.clone() }
    }

    /// Puts the ring of the guest to be introduced in place of the script's frame and port, whose
    /// port 0 stays what it is: none.
    fn point(&self, words: &mut [Vec<u8>]) {
        let [domain, gfn, port, ..] = words else { return };
        let mut guests = self.guests.values();
        let Some(guest) = guests.find(|guest| guest.domid.to_string().as_bytes() == domain) else {
            return;
        };
        *gfn = guest.gfn.to_string().into_bytes();
        let asked: Result<u32, _> = String::from_utf8_lossy(port).parse();
        if asked.is_ok_and(|asked| asked != 0) {
            *port = guest.port.to_string().into_bytes();
        }
    }

    fn expect(&self, kind: Option<u32>, expect: &Expect) -> Expect {
        let spelling: Spelling = match kind {
            Some(GET_PERMS) => Self::perm,
            _ => Self::path,
        };
        let pattern = |pattern: &Pattern| match pattern {
            Pattern::Text(text) => Pattern::Text(spelling(self, text)),
            other => other.clone(),
        };
        match expect {
            Expect::Strings(patterns) => Expect::Strings(patterns.iter().map(pattern).collect()),
            Expect::Starts(bytes) if kind == Some(CONTROL) => Expect::Starts(self.text(bytes)),
            Expect::Contains(bytes) if kind == Some(CONTROL) => Expect::Contains(self.text(bytes)),
            Expect::Bytes(bytes) if kind == Some(CONTROL) => Expect::Bytes(self.text(bytes)),
            other => other.clone(),
        }
    }

    /// `/local/domain/N...` and `@name/N`.
    fn path(&self, path: &[u8]) -> Vec<u8> {
        for before in [&b"/local/domain/"[..], b"@introduceDomain/", b"@releaseDomain/"] {
            if let Some(rest) = path.strip_prefix(before) {
                let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
                let (number, after) = rest.split_at(digits);
                return [before, &self.domid(number), after].concat();
            }
        }
        path.to_vec()
    }

    /// A number in decimal, with what strtoul(3) allows before it.
    fn domid(&self, word: &[u8]) -> Vec<u8> {
        let number = |byte: &u8| (b'1'..=b'9').contains(byte);
        let before = word.iter().position(number).unwrap_or(word.len());
        let (before, digits) = word.split_at(before);
        let lead = before.iter().all(|byte| b" +0".contains(byte));
        match core::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()) {
            Some(script) if lead => [before, self.real(script).to_string().as_bytes()].concat(),
            _ => word.to_vec(),
        }
    }

    /// A letter and a number as strtol(3) takes it with base 0.
    fn perm(&self, word: &[u8]) -> Vec<u8> {
        let Some((letter, number)) =
            word.split_first().filter(|(letter, _)| b"rwbn".contains(letter))
        else {
            return word.to_vec();
        };
        let text = core::str::from_utf8(number).unwrap_or("");
        let real = |script: Result<u16, _>| script.map(|script| self.real(script)).ok();
        let spelled = if let Some(digits) = text.strip_prefix("0x") {
            real(u16::from_str_radix(digits, 16)).map(|real| format!("0x{real:x}"))
        } else if text.len() > 1 && text.starts_with('0') {
            real(u16::from_str_radix(text, 8)).map(|real| format!("0{real:o}"))
        } else if text.bytes().all(|byte| byte.is_ascii_digit()) {
            real(text.parse()).map(|real| real.to_string())
        } else {
            None
        };
        spelled.map_or_else(|| word.to_vec(), |text| [&[*letter], text.as_bytes()].concat())
    }

    /// Lines for an operator: `domain N` in a sentence, or `N` in a column of its own before a
    /// colon, which keeps its width.
    fn text(&self, text: &[u8]) -> Vec<u8> {
        let lines = text.split_inclusive(|&byte| byte == b'\n').map(|line| {
            let digits = line.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let (number, rest) = line.split_at(digits);
            let blanks = rest.iter().take_while(|&&byte| byte == b' ').count();
            if digits > 0 && rest.get(blanks) == Some(&b':') {
                let mut number = self.domid(number);
                number.resize(number.len().max(digits + blanks), b' ');
                return [&number, &rest[blanks..]].concat();
            }
            self.sentence(line)
        });
        lines.collect::<Vec<_>>().concat()
    }

    fn sentence(&self, line: &[u8]) -> Vec<u8> {
        const BEFORE: &[u8] = b"omain ";
        let Some(at) = line.windows(BEFORE.len()).position(|part| part == BEFORE) else {
            return line.to_vec();
        };
        let (before, rest) = line.split_at(at + BEFORE.len());
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (number, after) = rest.split_at(digits);
        [before, &self.domid(number), &self.sentence(after)].concat()
    }
}

/// `XS_CONTROL` of xen/include/public/io/xs_wire.h.
const CONTROL: u32 = 0;
/// `XS_INTRODUCE`.
pub(crate) const INTRODUCE: u32 = 8;
/// `XS_RELEASE`.
pub(crate) const RELEASE: u32 = 9;
/// `XS_SET_TARGET`.
pub(crate) const SET_TARGET: u32 = 19;
/// `XS_GET_PERMS`.
const GET_PERMS: u32 = 3;

/// How word `at` of the `count` words of a request spells a domain, if it can name one.
fn spelling(kind: u32, at: usize, count: usize) -> Option<Spelling> {
    match (kind, at, count) {
        // DIRECTORY to UNWATCH, WRITE to SET_PERMS, DIRECTORY_PART
        (1..=5 | 11..=14 | 22, 0, _) => Some(Numbers::path),
        // SET_PERMS
        (14, _, _) => Some(Numbers::perm),
        // INTRODUCE to GET_DOMAIN_PATH, IS_DOMAIN_INTRODUCED, RESUME, GET_FEATURE, SET_FEATURE
        (8..=10 | 17 | 18 | 23 | 24, 0, _)
        // SET_TARGET
        | (SET_TARGET, 0 | 1, _)
        // CONTROL quota DOMID, CONTROL quota refused DOMID
        | (CONTROL, 1, 2)
        | (CONTROL, 2, 3)
        // GET_QUOTA DOMID QUOTA, SET_QUOTA DOMID QUOTA VALUE
        | (25, 0, 2)
        | (26, 0, 3) => Some(Numbers::domid),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use conversations::script;

    use super::*;

    fn numbers() -> Numbers {
        let mut numbers = Numbers::new(Some(1));
        numbers.give(1, Address { domid: 12, gfn: 77, port: 5 });
        numbers.give(2, Address { domid: 7, gfn: 78, port: 6 });
        numbers
    }

    fn payload(line: &str) -> String {
        let script = script::parse(line).unwrap();
        let Step::Request(request) = numbers().translate(&script.opening[0].step, None) else {
            panic!("{line} is no request");
        };
        request.payload.escape_ascii().to_string()
    }

    #[test]
    fn requests_name_the_domains_of_the_host() {
        for (line, said) in [
            ("dom1 READ data", r"data\x00"),
            ("dom0 READ /local/domain/1/data", r"/local/domain/12/data\x00"),
            ("dom0 READ /local/domain/", r"/local/domain/\x00"),
            ("dom0 WRITE /local/domain/2 /local/domain/1", r"/local/domain/7\x00/local/domain/1"),
            ("dom0 SET_PERMS /a n1 r2 b0 w32757", r"/a\x00n12\x00r7\x00b0\x00w32757\x00"),
            ("dom0 SET_PERMS /a n0x1 r02 r3 x", r"/a\x00n0xc\x00r07\x00r10003\x00x\x00"),
            ("dom0 WATCH @releaseDomain/2 1", r"@releaseDomain/7\x001\x00"),
            ("dom0 INTRODUCE 1 1 2", r"12\x0077\x005\x00"),
            ("dom0 INTRODUCE 1 1 0", r"12\x0077\x000\x00"),
            ("dom0 INTRODUCE 4 1 1", r"10004\x001\x001\x00"),
            ("dom0 INTRODUCE 31 1", r"1\x001\x00"),
            ("dom0 RELEASE raw 1", "12"),
            ("dom0 RELEASE 65536", r"65536\x00"),
            ("dom1 GET_DOMAIN_PATH \" 2\"", r" 7\x00"),
            ("dom1 GET_DOMAIN_PATH 001", r"0012\x00"),
            ("dom1 GET_DOMAIN_PATH 0x1", r"0x1\x00"),
            ("dom1 GET_DOMAIN_PATH 4711", r"4711\x00"),
            ("dom0 SET_TARGET 1 2", r"12\x007\x00"),
            ("dom0 SET_QUOTA 1 nodes 2", r"12\x00nodes\x002\x00"),
            ("dom0 SET_QUOTA nodes 2", r"nodes\x002\x00"),
            ("dom0 CONTROL quota 1", r"quota\x0012\x00"),
            ("dom0 CONTROL quota refused 1", r"quota\x00refused\x0012\x00"),
            ("dom0 INTRODUCE 1 junk junk", r"12\x0077\x00junk\x00"),
            ("dom0 CONTROL quota set nodes 1", r"quota\x00set\x00nodes\x001\x00"),
        ] {
            assert_eq!(payload(line), said, "{line}");
        }
    }

    #[test]
    fn answers_are_expected_with_the_numbers_of_the_host() {
        let expected = |line: &str, kind| {
            let script = script::parse(line).unwrap();
            match numbers().translate(&script.opening[0].step, kind) {
                Step::Request(Request { expect: Some(Expect::Strings(texts)), .. })
                | Step::Arrives(_, Arrival::Reply(Expect::Strings(texts))) => {
                    let text = |pattern: &Pattern| match pattern {
                        Pattern::Text(text) => String::from_utf8_lossy(text).into_owned(),
                        _ => "?".to_owned(),
                    };
                    texts.iter().map(text).collect::<Vec<_>>().join(" ")
                }
                Step::Request(Request { expect: Some(Expect::Starts(text)), .. }) => {
                    String::from_utf8_lossy(&text).into_owned()
                }
                Step::Printed(text) => String::from_utf8_lossy(&text).into_owned(),
                Step::Arrives(_, Arrival::Event { path, .. }) => {
                    String::from_utf8_lossy(&path).into_owned()
                }
                _ => panic!("{line}"),
            }
        };
        assert_eq!(expected("dom0 GET_PERMS /a -> [n1 r2 r0]", None), "n12 r7 r0");
        assert_eq!(expected("dom0 DIRECTORY /a -> [n1 2]", None), "n1 2");
        assert_eq!(expected("dom0 <- [n1 $x]", Some(GET_PERMS)), "n12 ?");
        assert_eq!(
            expected("dom0 GET_DOMAIN_PATH 1 -> [/local/domain/1]", None),
            "/local/domain/12"
        );
        assert_eq!(
            expected("dom0 CONTROL quota 1 -> starts \"Domain 1:\\n\"", None),
            "Domain 12:\n"
        );
        assert_eq!(
            expected("dom0 CONTROL domains -> starts \"Domains:\\n1    : nodes 1\\n\"", None),
            "Domains:\n12   : nodes 1\n"
        );
        let printed = "xen printed \"domain 1 is here, domain 2 is not\"";
        assert_eq!(expected(printed, None), "domain 12 is here, domain 7 is not");
        assert_eq!(expected("dom0 <- EVENT @introduceDomain/2 t", None), "@introduceDomain/7");
    }
}
