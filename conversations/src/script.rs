//! Conversations as text: the words of a file become steps, nothing is executed here.
//!
//! A file holds lines, `#` begins a comment. Lines before the first `case:` are repeated at the
//! start of every case; each case starts with a fresh store. The lines are:
//!
//! ```text
//! ACTOR [t1] [tx=N] [req=N] [len=N] [type=N] OP ARGUMENTS [-> EXPECTATION]
//! ACTOR queue OP ARGUMENTS          the request waits in the ring until the next other line
//! ACTOR sends WORDS                 raw bytes, no frame around them
//! ACTOR <- EVENT PATH TOKEN         the next frame that ACTOR receives
//! ACTOR <- EXPECTATION              the next frame answers ACTOR's oldest open request
//! ACTOR silent | discards           nothing has arrived | forget what has arrived
//! ACTOR stops reading | reads
//! ACTOR held back                   the store leaves its requests in the ring
//! ACTOR violates N                  the ring's error field now says N
//! ACTOR breaks an index             its ring indexes became nonsense
//! ACTOR reconnects                  it asks for a fresh connection (feature 1)
//! ACTOR connection N                the ring's connection field now says N
//! ACTOR sees features N             what INTRODUCE published in its ring page
//! xen creates|destroys|replaces|shuts down|cannot map|can map N...
//! xen is short of memory | has memory
//! xen printed WORDS
//! given N...                        guests with a home directory, introduced
//! for i in A..B  ...  end           the lines between, `{i}` replaced, B included
//! @only ours: reason                the next line's expectation is this store's own choice; where
//!                                   another store chooses otherwise, the case ends there
//! differs SERVER: reason            right below `case:`, the whole case is not held against
//!                                   SERVER (`c` or `ocaml`), because of the reason; against that
//!                                   of one release alone if it is named so: `c-4.17`
//! needs dom0's own ring: reason     there too; not held where dom0 speaks through its kernel
//! host only: reason                 there too; held with the store in memory alone
//! ```
//!
//! An actor is `domN`. Words are bare, or quoted with `\0 \n \\ \" \xNN`, or `"a"*4080`; pieces
//! without a space between them are one word. A request's words each get a NUL, except that the
//! second of WRITE gets none; after `raw` they are joined as they stand. Expectations: `OK`,
//! `ERROR NAME`, `[a b]` (strings, each with its NUL), words (exact bytes), `t1` (binds a
//! transaction id), `starts WORD`, `contains WORD`, `any`, `silence`. In `[...]`, `$x` binds or
//! repeats a string and `!$x` must differ from it.

mod grammar;
mod words;

use alloc::{borrow::ToOwned, format, string::String, vec::Vec};
use core::str::FromStr;

use grammar::step;
use words::words;

/// One file.
pub struct Script {
    /// Repeated at the start of every case.
    pub opening: Vec<Line>,
    /// In the order of the file.
    pub cases: Vec<Case>,
}

/// A conversation with a fresh store.
pub struct Case {
    /// What it is about.
    pub title: String,
    /// The line that names it.
    pub number: usize,
    /// The stores that answer otherwise.
    pub differs: Vec<Difference>,
    /// Why dom0's kernel cannot stand between dom0 and the store.
    pub needs_own_ring: Option<String>,
    /// Why it cannot be held on a Xen host.
    pub host_only: Option<String>,
    /// What is said, loops unrolled.
    pub lines: Vec<Line>,
}

/// Another store that a case is not held against, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The store.
    pub server: Server,
    /// The only release of Xen whose store does so; none if each does that was tried.
    pub release: Option<String>,
    /// What it does instead.
    pub reason: String,
}

/// Another store that conversations are held with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Which one.
    pub server: Server,
    /// Of which release of Xen.
    pub release: String,
}

/// The other stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// Xen's xenstored, written in C.
    C,
    /// oxenstored.
    Ocaml,
}

/// One line, loops unrolled.
#[derive(Clone)]
pub struct Line {
    /// From 1, in the file.
    pub number: usize,
    /// As it stands there, `{i}` replaced.
    pub text: String,
    /// Why another store may answer otherwise.
    pub only_ours: Option<String>,
    /// What it means.
    pub step: Step,
}

/// What a line says, in the order of the table above.
#[derive(Clone)]
#[expect(missing_docs, reason = "the table of lines describes each")]
pub enum Step {
    Given(Vec<u16>),
    Request(Request),
    Sends(u16, Vec<u8>),
    Arrives(u16, Arrival),
    Silent(u16),
    Discards(u16),
    StopsReading(u16),
    Reads(u16),
    HeldBack(u16),
    Violates(u16, u32),
    BreaksIndex(u16),
    Reconnects(u16),
    SeesFeatures(u16, u32),
    SeesConnection(u16, u32),
    Creates(Vec<u16>),
    Destroys(Vec<u16>),
    Replaces(Vec<u16>),
    ShutsDown(Vec<u16>),
    CannotMap(Vec<u16>),
    CanMap(Vec<u16>),
    MemoryIsLow(bool),
    Printed(Vec<u8>),
}

/// A request and what is to come back.
#[derive(Clone)]
pub struct Request {
    /// Who asks.
    pub actor: u16,
    /// The type field.
    pub kind: u32,
    /// The transaction field.
    pub tx: Tx,
    /// The request id, where it matters.
    pub req_id: Option<u32>,
    /// A length to claim instead of the payload's.
    pub len: Option<u32>,
    /// What follows the header.
    pub payload: Vec<u8>,
    /// Leave it in the ring, let the store run later.
    pub queued: bool,
    /// The answer; a later line has it where this is `None`.
    pub expect: Option<Expect>,
}

/// How a line names a transaction.
#[derive(Clone)]
pub enum Tx {
    /// By its id.
    Number(u32),
    /// By the name that its start was given.
    Named(String),
}

/// A frame that comes.
#[derive(Clone)]
pub enum Arrival {
    /// A watch event.
    #[expect(missing_docs, reason = "the two strings of a watch event")]
    Event { path: Vec<u8>, token: Vec<u8> },
    /// The answer to the oldest open request.
    Reply(Expect),
}

/// What an answer is to be.
#[derive(Clone)]
#[expect(missing_docs, reason = "the words of expectations, described above")]
pub enum Expect {
    Ok,
    Error(String),
    Strings(Vec<Pattern>),
    Bytes(Vec<u8>),
    Starts(Vec<u8>),
    Contains(Vec<u8>),
    Transaction(String),
    Any,
    Silence,
}

/// What one string of an answer is to be.
#[derive(Clone)]
#[expect(missing_docs, reason = "a word, `$x` and `!$x`, described above")]
pub enum Pattern {
    Text(Vec<u8>),
    Same(String),
    Other(String),
}

/// The operations of xen/include/public/io/xs_wire.h by their numbers.
const OPERATIONS: [&str; 27] = [
    "CONTROL",
    "DIRECTORY",
    "READ",
    "GET_PERMS",
    "WATCH",
    "UNWATCH",
    "TRANSACTION_START",
    "TRANSACTION_END",
    "INTRODUCE",
    "RELEASE",
    "GET_DOMAIN_PATH",
    "WRITE",
    "MKDIR",
    "RM",
    "SET_PERMS",
    "WATCH_EVENT",
    "ERROR",
    "IS_DOMAIN_INTRODUCED",
    "RESUME",
    "SET_TARGET",
    "RESTRICT",
    "RESET_WATCHES",
    "DIRECTORY_PART",
    "GET_FEATURE",
    "SET_FEATURE",
    "GET_QUOTA",
    "SET_QUOTA",
];

/// The name of operation `kind`, for messages.
#[must_use]
pub fn operation_name(kind: u32) -> &'static str {
    OPERATIONS.get(kind as usize).copied().unwrap_or("(unknown operation)")
}

/// Parses a whole file.
///
/// # Errors
/// What is wrong, with the number of its line.
pub fn parse(text: &str) -> Result<Script, String> {
    let mut script = Script { opening: Vec::new(), cases: Vec::new() };
    let mut only_ours = None;
    let mut source = text.lines().enumerate().map(|(at, text)| (at + 1, text.trim()));
    while let Some((number, text)) = source.next() {
        if let Some(title) = text.strip_prefix("case:") {
            script.cases.push(Case::new(number, title.trim()));
            continue;
        }
        if is_mark(text) {
            let case = script.cases.last_mut().filter(|case| case.lines.is_empty());
            case.ok_or("this stands right below `case:`")
                .map_err(str::to_owned)
                .and_then(|case| case.mark(text))
                .map_err(|why| format!("{number}: {why}: {text}"))?;
            continue;
        }
        let block = match text.strip_prefix("for i in ") {
            Some(range) => unrolled(range, source.by_ref()).ok_or(format!("{number}: no range"))?,
            None => vec![(number, text.to_owned())],
        };
        for (number, text) in block {
            if let Some(reason) = text.strip_prefix("@only ours:") {
                only_ours = Some(reason.trim().to_owned());
                continue;
            }
            let words = words(&text).map_err(|why| format!("{number}: {why}"))?;
            if words.is_empty() {
                continue;
            }
            let step = step(&words).map_err(|why| format!("{number}: {why}: {text}"))?;
            let line = Line { number, text, only_ours: only_ours.take(), step };
            match script.cases.last_mut() {
                Some(case) => case.lines.push(line),
                None => script.opening.push(line),
            }
        }
    }
    Ok(script)
}

/// The lines up to `end`, once for each number of the range.
fn unrolled<'a>(
    range: &str,
    lines: impl Iterator<Item = (usize, &'a str)>,
) -> Option<Vec<(usize, String)>> {
    let body: Vec<_> = lines.take_while(|(_, text)| *text != "end").collect();
    let (first, last) = bounds(range)?;
    let turn =
        |i: u32| body.iter().map(move |(at, text)| (*at, text.replace("{i}", &i.to_string())));
    Some((first..=last).flat_map(turn).collect())
}

/// What begins the lines that say where a case is not held.
const DIFFERS: &str = "differs ";
const NEEDS_OWN_RING: &str = "needs dom0's own ring";
const HOST_ONLY: &str = "host only";

fn is_mark(text: &str) -> bool {
    [DIFFERS, NEEDS_OWN_RING, HOST_ONLY].iter().any(|mark| text.starts_with(mark))
}

impl Case {
    fn new(number: usize, title: &str) -> Self {
        let (title, differs, lines) = (title.to_owned(), Vec::new(), Vec::new());
        Self { title, number, differs, needs_own_ring: None, host_only: None, lines }
    }

    /// Why the case is not held against `server`, if it is not.
    #[must_use]
    pub fn differs_for(&self, peer: &Peer) -> Option<&str> {
        let is_told = |told: &&Difference| {
            let release = told.release.as_ref();
            told.server == peer.server && release.is_none_or(|release| *release == peer.release)
        };
        self.differs.iter().find(is_told).map(|told| &told.reason[..])
    }

    /// Takes in a line that says where the case is not held.
    fn mark(&mut self, text: &str) -> Result<(), String> {
        let (what, reason) = text.split_once(':').ok_or("no reason")?;
        let reason = reason.trim().to_owned();
        if reason.is_empty() {
            return Err("no reason".to_owned());
        }
        match what.trim_end() {
            NEEDS_OWN_RING => self.needs_own_ring = Some(reason),
            HOST_ONLY => self.host_only = Some(reason),
            what => {
                let (server, release) = server_and_release(what.trim_start_matches(DIFFERS))?;
                self.differs.push(Difference { server, release, reason });
            }
        }
        Ok(())
    }
}

/// The releases of Xen whose stores conversations are held with.
const RELEASES: [&str; 2] = ["4.17", "4.20"];

/// `c` or `ocaml`, and what follows it after a `-`.
fn server_and_release(name: &str) -> Result<(Server, Option<String>), String> {
    let (server, release) = match name.split_once('-') {
        Some((server, release)) => (server, Some(release)),
        None => (name, None),
    };
    let server = match server {
        "c" => Server::C,
        "ocaml" => Server::Ocaml,
        _ => return Err(format!("unknown server {name}")),
    };
    match release {
        Some(release) if !RELEASES.contains(&release) => Err(format!("unknown release {release}")),
        release => Ok((server, release.map(str::to_owned))),
    }
}

impl FromStr for Peer {
    type Err = String;

    /// Reads `c-4.17` and the like.
    fn from_str(name: &str) -> Result<Self, String> {
        let (server, release) = server_and_release(name)?;
        Ok(Self { server, release: release.ok_or("a store is of a release")? })
    }
}

fn bounds(range: &str) -> Option<(u32, u32)> {
    let (first, last) = range.trim().split_once("..")?;
    Some((first.parse().ok()?, last.parse().ok()?))
}
