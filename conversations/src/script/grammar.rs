//! What the words of a line mean.

use alloc::{borrow::ToOwned, format, string::String, vec::Vec};

use super::words::Word;
use super::{Arrival, Expect, OPERATIONS, Pattern, Request, Step, Tx};

/// What a line says; it has one word at least.
pub(super) fn step(words: &[Word]) -> Result<Step, String> {
    let keywords: Vec<&str> = words.iter().map(Word::keyword).collect();
    match keywords.as_slice() {
        ["given", domains @ ..] => Ok(Step::Given(numbers(domains)?)),
        ["xen", "creates", domains @ ..] => Ok(Step::Creates(numbers(domains)?)),
        ["xen", "destroys", domains @ ..] => Ok(Step::Destroys(numbers(domains)?)),
        ["xen", "replaces", domains @ ..] => Ok(Step::Replaces(numbers(domains)?)),
        ["xen", "shuts", "down", domains @ ..] => Ok(Step::ShutsDown(numbers(domains)?)),
        ["xen", "cannot", "map", domains @ ..] => Ok(Step::CannotMap(numbers(domains)?)),
        ["xen", "can", "map", domains @ ..] => Ok(Step::CanMap(numbers(domains)?)),
        ["xen", "is", "short", "of", "memory"] => Ok(Step::MemoryIsLow(true)),
        ["xen", "has", "memory"] => Ok(Step::MemoryIsLow(false)),
        ["xen", "printed", ..] => Ok(Step::Printed(joined(&words[2..]))),
        [actor, ..] => {
            let actor = actor.strip_prefix("dom").and_then(|n| n.parse().ok());
            actor_step(actor.ok_or("no such actor")?, &words[1..], &keywords[1..])
        }
        [] => Err("an empty step".to_owned()),
    }
}

fn actor_step(actor: u16, words: &[Word], keywords: &[&str]) -> Result<Step, String> {
    match keywords {
        ["silent"] => Ok(Step::Silent(actor)),
        ["discards"] => Ok(Step::Discards(actor)),
        ["stops", "reading"] => Ok(Step::StopsReading(actor)),
        ["reads"] => Ok(Step::Reads(actor)),
        ["held", "back"] => Ok(Step::HeldBack(actor)),
        ["reconnects"] => Ok(Step::Reconnects(actor)),
        ["breaks", "an", "index"] => Ok(Step::BreaksIndex(actor)),
        ["violates", code] => Ok(Step::Violates(actor, number(code)?)),
        ["connection", state] => Ok(Step::SeesConnection(actor, number(state)?)),
        ["sees", "features", bits] => Ok(Step::SeesFeatures(actor, number(bits)?)),
        ["sends", ..] => Ok(Step::Sends(actor, joined(&words[1..]))),
        ["<-", "EVENT", _, _] => {
            let (path, token) = (words[2].bytes.clone(), words[3].bytes.clone());
            Ok(Step::Arrives(actor, Arrival::Event { path, token }))
        }
        ["<-", ..] => Ok(Step::Arrives(actor, Arrival::Reply(expectation(&words[1..])?))),
        _ => Ok(Step::Request(request(actor, words)?)),
    }
}

fn request(actor: u16, words: &[Word]) -> Result<Request, String> {
    let (words, expect) = match words.iter().position(|word| word.keyword() == "->") {
        Some(at) => (&words[..at], Some(expectation(&words[at + 1..])?)),
        None => (words, None),
    };
    let (kind, tx) = (u32::MAX, Tx::Number(0));
    let (req_id, len, payload) = (None, None, Vec::new());
    let mut request = Request { actor, kind, tx, req_id, len, payload, queued: false, expect };
    // Whether the type is told by its number: then the payload follows, and no operation.
    let mut numbered = false;
    for (at, word) in words.iter().enumerate() {
        let keyword = word.keyword();
        if let Some(kind) = OPERATIONS.iter().position(|name| *name == keyword) {
            request.kind = u32::try_from(kind).map_err(|e| format!("{e}"))?;
            request.payload = payload_of(keyword, &words[at + 1..]);
            return Ok(request);
        }
        match keyword.split_once('=') {
            Some(("tx", n)) => request.tx = Tx::Number(number(n)?),
            Some(("req", n)) => request.req_id = Some(number(n)?),
            Some(("len", n)) => request.len = Some(number(n)?),
            Some(("type", n)) => {
                request.kind = number(n)?;
                numbered = true;
            }
            _ if is_transaction(keyword) => request.tx = Tx::Named(keyword.to_owned()),
            _ if keyword == "queue" => request.queued = true,
            _ if numbered => {
                request.payload = joined(&words[at..]);
                return Ok(request);
            }
            _ => return Err(format!("unknown word {keyword}")),
        }
    }
    if numbered { Ok(request) } else { Err("no operation".to_owned()) }
}

fn payload_of(operation: &str, words: &[Word]) -> Vec<u8> {
    match (operation, words) {
        (_, [raw, bytes @ ..]) if raw.keyword() == "raw" => joined(bytes),
        ("TRANSACTION_START", []) => alloc::vec![0],
        ("WRITE", [path, value @ ..]) => [&path.bytes[..], &[0], &joined(value)].concat(),
        _ => words.iter().flat_map(|word| [&word.bytes[..], &[0]].concat()).collect(),
    }
}

fn expectation(words: &[Word]) -> Result<Expect, String> {
    let keywords: Vec<&str> = words.iter().map(Word::keyword).collect();
    match keywords.as_slice() {
        [] => Err("nothing is expected".to_owned()),
        ["OK"] => Ok(Expect::Ok),
        ["any"] => Ok(Expect::Any),
        ["silence"] => Ok(Expect::Silence),
        ["ERROR", name] => Ok(Expect::Error((*name).to_owned())),
        ["starts", ..] => Ok(Expect::Starts(joined(&words[1..]))),
        ["contains", ..] => Ok(Expect::Contains(joined(&words[1..]))),
        ["[", .., "]"] => {
            Ok(Expect::Strings(words[1..words.len() - 1].iter().map(pattern).collect()))
        }
        [name] if is_transaction(name) => Ok(Expect::Transaction((*name).to_owned())),
        _ => Ok(Expect::Bytes(joined(words))),
    }
}

fn pattern(word: &Word) -> Pattern {
    let keyword = word.keyword();
    if let Some(name) = keyword.strip_prefix("!$") {
        Pattern::Other(name.to_owned())
    } else if let Some(name) = keyword.strip_prefix('$') {
        Pattern::Same(name.to_owned())
    } else {
        Pattern::Text(word.bytes.clone())
    }
}

fn is_transaction(word: &str) -> bool {
    word.strip_prefix('t').is_some_and(|n| n.parse::<u32>().is_ok())
}

fn joined(words: &[Word]) -> Vec<u8> {
    words.iter().flat_map(|word| word.bytes.iter().copied()).collect()
}

fn numbers(words: &[&str]) -> Result<Vec<u16>, String> {
    words.iter().map(|word| word.parse().map_err(|e| format!("{word}: {e}"))).collect()
}

fn number(word: &str) -> Result<u32, String> {
    let parsed = match word.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => word.parse(),
    };
    parsed.map_err(|e| format!("{word}: {e}"))
}
