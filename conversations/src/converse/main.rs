//! Holds conversations with the Xenstore of the host that it runs on, as a program in its dom0:
//!
//! ```text
//! converse stubdom|c-RELEASE|ocaml-RELEASE [--case WORDS] FILE...
//! ```
//!
//! `RELEASE` is that of the Xen whose store it is, as `4.17`.
//!
//! Guests of the conversations are domains that relay bytes between their rings and this program.
//! dom0's lines go through its kernel where the store is a domain, through the socket where it is
//! a daemon. It ends with counts of what was held and of what was not, and why; its status is 1 if
//! a line went wrong.

extern crate alloc;

mod connection;
mod guest;
mod host;
mod numbers;
mod scene;

use core::fmt::Write as _;
use core::time::Duration;
use std::env;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use conversations::runner::{self, Outcome};
use conversations::script::{self, Case, Peer, Script, Server};

use connection::Door;
use host::{Releases, XenHost};

const USAGE: &str = "stubdom|c-RELEASE|ocaml-RELEASE [--case WORDS] FILE...";

/// After so many failures the rest says nothing new.
const ENOUGH: u32 = 25;

/// A case that takes longer is named with its time.
const LONG: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    match run() {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(why) => {
            println!("FAILED: {why}");
            ExitCode::FAILURE
        }
    }
}

/// What was asked for.
struct Wish {
    /// The store, if it is another than ours.
    peer: Option<Peer>,
    /// Only the cases with this in their titles.
    case: Option<String>,
    files: Vec<String>,
}

impl Wish {
    fn read() -> Result<Self, String> {
        Self::of_words(env::args().skip(1)).map_err(|why| format!("{why}\nusage: converse {USAGE}"))
    }

    fn of_words(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let peer = match words.next().as_deref() {
            Some("stubdom") => None,
            Some(name) => Some(name.parse()?),
            None => return Err("no store is named".to_owned()),
        };
        let mut wish = Self { peer, case: None, files: Vec::new() };
        while let Some(word) = words.next() {
            match word.as_str() {
                "--case" => wish.case = Some(words.next().ok_or("--case wants WORDS")?),
                _ if word.starts_with("--") => return Err(format!("{word} is no option")),
                _ => wish.files.push(word),
            }
        }
        if wish.files.is_empty() { Err("no file is named".to_owned()) } else { Ok(wish) }
    }
}

/// How many cases ended how.
#[derive(Debug, Default)]
struct Counts {
    held: u32,
    until_choice: u32,
    differs: u32,
    own_ring: u32,
    host_only: u32,
    failed: u32,
}

/// Holds what was asked for; tells how many cases failed.
fn run() -> Result<u32, String> {
    let wish = Wish::read()?;
    let (door, store) = match wish.peer {
        None => (Door::Kernel, Some(store_domain()?)),
        Some(_) => (Door::Socket, None),
    };
    let releases = match wish.peer.as_ref().map(|peer| peer.server) {
        Some(Server::Ocaml) => Releases::ForGood,
        _ => Releases::UntilIntroduced,
    };
    let mut host = XenHost::new(door, releases, store)?;
    let mut counts = Counts::default();
    let mut went_well = true;
    for file in &wish.files {
        let text = fs::read_to_string(file).map_err(|e| format!("{file}: {e}"))?;
        let name = Path::new(file).file_name().map_or(file.into(), |name| name.to_string_lossy());
        let script = script::parse(&text).map_err(|why| format!("{name}:{why}"))?;
        let began = Instant::now();
        let fits = |case: &&Case| wish.case.as_ref().is_none_or(|part| case.title.contains(part));
        for case in script.cases.iter().filter(fits) {
            if let Some(why) = reason_against(case, wish.peer.as_ref(), door, &mut counts) {
                println!("{name}:{}: {why}", case.number);
                continue;
            }
            went_well = hold(&mut host, &script, case, &wish, &name, &mut counts, went_well)?;
            if counts.failed >= ENOUGH {
                return Err(format!("{ENOUGH} cases went wrong; enough"));
            }
        }
        println!("{name}: {:.1} s", began.elapsed().as_secs_f32());
    }
    host.end()?;
    println!("{}", summary(&counts));
    Ok(counts.failed)
}

/// Holds one case; says whether its guests can be taken for another.
fn hold(
    host: &mut XenHost,
    script: &Script,
    case: &Case,
    wish: &Wish,
    name: &str,
    counts: &mut Counts,
    went_well: bool,
) -> Result<bool, String> {
    host.begin(&script.opening, case, went_well)
        .map_err(|why| format!("{name}:{}: cannot prepare: {why}", case.number))?;
    let began = Instant::now();
    let outcome = runner::hold(host, &script.opening, case, wish.peer.as_ref());
    let took = began.elapsed();
    if took > LONG {
        println!("{name}:{}: {:.1} s", case.number, took.as_secs_f32());
    }
    match outcome {
        Ok(Outcome::Held) => counts.held += 1,
        Ok(Outcome::UntilChoice { number, reason }) => {
            println!("{name}:{number}: another choice, held up to here: {reason}");
            counts.until_choice += 1;
        }
        Err(why) => {
            println!("FAILED: {name}:{why}\n    in \"{}\"", case.title);
            counts.failed += 1;
            return Ok(false);
        }
    }
    Ok(true)
}

/// Why a case is not held here, if it is not; counted.
fn reason_against(
    case: &Case,
    peer: Option<&Peer>,
    door: Door,
    counts: &mut Counts,
) -> Option<String> {
    if let Some(why) = &case.host_only {
        counts.host_only += 1;
        return Some(format!("held in memory only: {why}"));
    }
    if let Some(why) = peer.and_then(|peer| case.differs_for(peer)) {
        counts.differs += 1;
        return Some(format!("differs: {why}"));
    }
    if let (Some(why), Door::Kernel) = (&case.needs_own_ring, door) {
        counts.own_ring += 1;
        return Some(format!("needs dom0's own ring: {why}"));
    }
    None
}

fn summary(counts: &Counts) -> String {
    let mut text = format!("{} held", counts.held);
    for (count, words) in [
        (counts.until_choice, "held up to another choice"),
        (counts.differs, "differ"),
        (counts.own_ring, "need dom0's own ring"),
        (counts.host_only, "held in memory only"),
        (counts.failed, "failed"),
    ] {
        // A String takes whatever there is memory for.
        let _ = write!(text, ", {count} {words}");
    }
    text
}

/// The number of the domain that is the store, as init-xenstore-domain left it.
fn store_domain() -> Result<u16, String> {
    let path = b"/tool/xenstored/domid";
    let domid = connection::Toolstack::open(Door::Kernel)?.read(path)?;
    let domid = domid.ok_or("no domain says that it is the store")?;
    String::from_utf8_lossy(&domid).parse().map_err(|_| "the store's number is none".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_that_makes_no_sense_is_told_with_what_does() {
        let wish = |line: &str| Wish::of_words(line.split_whitespace().map(str::to_owned));
        assert!(wish("stubdom a.txt --case b").is_ok_and(|wish| wish.case.is_some()));
        for (line, why) in [
            ("", "no store is named"),
            ("stubdom", "no file is named"),
            ("stubdom a.txt --case", "--case wants WORDS"),
            ("stubdom --cases b a.txt", "--cases is no option"),
        ] {
            assert_eq!(wish(line).err().as_deref(), Some(why), "{line:?}");
        }
    }
}
