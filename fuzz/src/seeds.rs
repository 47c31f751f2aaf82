//! Seeds: what the conversations of `tests/conversations` say, in the form of each target's input;
//! for data channels, of which they do not tell, steps and rules of our own.
//!
//! Nothing of them is kept anywhere: they are made anew where they are wanted.

use std::fs;
use std::io;
use std::path::Path;

use conversations::script::{self, Case, Line, Request, Tx};

use crate::steps::{DOMAINS, Deed, Step, Transaction};

/// Writes the seeds of `target` made of all the files in `conversations` into `folder`; returns
/// how many.
///
/// # Errors
/// If a file cannot be read, understood or written.
pub fn write(target: &str, conversations: &Path, folder: &Path) -> io::Result<usize> {
    fs::create_dir_all(folder)?;
    let mut seeds = match target {
        "broker" => (0..40).map(plays).collect(),
        "policy" => RULES.iter().map(|rules| rules.as_bytes().to_vec()).collect(),
        _ => Vec::new(),
    };
    let mut files: Vec<_> = fs::read_dir(conversations)?.collect::<Result<_, _>>()?;
    files.sort_by_key(fs::DirEntry::file_name);
    for file in files {
        let text = fs::read_to_string(file.path())?;
        let script = script::parse(&text).map_err(io::Error::other)?;
        for case in &script.cases {
            seeds.extend(seeds_of(target, &script.opening, case));
        }
    }
    seeds.sort();
    seeds.dedup();
    for (number, seed) in seeds.iter().enumerate() {
        fs::write(folder.join(format!("seed-{number:04}")), seed)?;
    }
    Ok(seeds.len())
}

fn seeds_of(target: &str, opening: &[Line], case: &Case) -> Vec<Vec<u8>> {
    let lines = || opening.iter().chain(&case.lines).map(|line| &line.step);
    let requests = || {
        lines().filter_map(|step| match step {
            script::Step::Request(request) => Some(request),
            _ => None,
        })
    };
    match target {
        "server" => (0..3).map(|cut| conversation(cut, lines())).collect(),
        "frames" => vec![frames(requests(), 2), frames(requests(), 16)],
        // Of the loops' hundreds the first are enough.
        "requests" => requests().take(60).map(one_request).collect(),
        // Nothing that anybody says tells of a ring.
        _ => Vec::new(),
    }
}

/// Rules for data channels, each word of the language in some.
const RULES: [&str; 4] = [
    "allow dom0 push */jobs\nallow guest serve jobs*\n",
    "allow \"my guest\" publish a/+/b\nallow 5 subscribe a/# # comment\n",
    "allow * stream video\nallow * echo\n",
    "limit * channels 8\nlimit 5 memory 4M\nlimit guest memory 512K\nlimit * subscriptions 64\n",
];

/// Steps of fronts, drawn by number: long ones, which are slow to be found.
fn plays(number: u32) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9e37_79b9) | 1;
    let bytes = core::iter::repeat_with(|| {
        // Xorshift, whose upper bits are good enough.
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_be_bytes()[0]
    });
    bytes.take(1 + 4 * (20 + 2 * number as usize)).collect()
}

/// A conversation as the target `server` reads it.
fn conversation<'s>(cut: u8, lines: impl Iterator<Item = &'s script::Step>) -> Vec<u8> {
    let mut seed = vec![b'0' + cut];
    let mut steps = Vec::new();
    for line in lines {
        steps_of(line, &mut steps);
    }
    // Loops of hundreds of lines are no better seeds than their beginnings.
    steps.truncate(120);
    steps.iter().for_each(|step| step.extend(&mut seed));
    seed
}

fn steps_of(line: &script::Step, steps: &mut Vec<Step>) {
    let mut each = |domains: &[u16], deed| {
        steps.extend(domains.iter().map(|&domain| Step::Do { deed, domain: domain % DOMAINS }));
    };
    match line {
        script::Step::Given(domains) => each(domains, Deed::Give),
        script::Step::Creates(domains) => each(domains, Deed::Create),
        script::Step::Destroys(domains) => each(domains, Deed::Destroy),
        script::Step::Replaces(domains) => each(domains, Deed::Replace),
        script::Step::ShutsDown(domains) => each(domains, Deed::ShutDown),
        script::Step::CannotMap(domains) => each(domains, Deed::Unmap),
        script::Step::CanMap(domains) => each(domains, Deed::Map),
        script::Step::StopsReading(domain) => each(&[*domain], Deed::Pause),
        script::Step::Reads(domain) => each(&[*domain], Deed::Resume),
        script::Step::BreaksIndex(domain) => each(&[*domain], Deed::BreakIndex),
        script::Step::Reconnects(domain) => each(&[*domain], Deed::Reconnect),
        script::Step::MemoryIsLow(_) => each(&[0], Deed::LackMemory),
        script::Step::Sends(by, bytes) => {
            steps.push(Step::Bytes { by: *by % DOMAINS, bytes: bytes.clone() });
        }
        script::Step::Request(request) => steps.push(Step::Request {
            by: request.actor % DOMAINS,
            kind: request.kind,
            queued: request.queued,
            transaction: match request.tx {
                Tx::Number(number) => Transaction::Number(u8::try_from(number).unwrap_or(9)),
                Tx::Named(_) => Transaction::Latest(0),
            },
            payload: request.payload.clone(),
        }),
        // What is expected is no step.
        _ => {}
    }
}

/// All that is asked in a conversation, as one guest's bytes.
fn frames<'s>(requests: impl Iterator<Item = &'s Request>, cut: u8) -> Vec<u8> {
    let mut seed = vec![cut, cut];
    for request in requests {
        let len = u32::try_from(request.payload.len()).unwrap_or(u32::MAX);
        let tx_id = if let Tx::Number(number) = request.tx { number } else { 1 };
        for word in [request.kind, request.req_id.unwrap_or(1), tx_id, request.len.unwrap_or(len)] {
            seed.extend(word.to_le_bytes());
        }
        seed.extend(&request.payload);
        if seed.len() > 4096 {
            break;
        }
    }
    seed
}

fn one_request(request: &Request) -> Vec<u8> {
    let kind = u8::try_from(request.kind).unwrap_or(u8::MAX);
    [&[kind], &request.payload[..]].concat()
}
