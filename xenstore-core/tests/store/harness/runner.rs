//! Holds a conversation with the store and says where it went wrong.

use std::collections::BTreeMap;

use super::script::{self, Arrival, Case, Expect, Line, Pattern, Request, Step, Tx};
use super::world::{CUTS, Cut, Frame, Open, World};

const WATCH_EVENT: u32 = 15;
const ERROR: u32 = 16;

/// Runs every case of a file, cut in every way; the failures of all cases, one a line.
pub(crate) fn run(name: &str, text: &str) -> Vec<String> {
    let script = match script::parse(text) {
        Ok(script) => script,
        Err(why) => return vec![format!("{name}:{why}")],
    };
    let mut failures = Vec::new();
    for case in &script.cases {
        for cut in CUTS {
            if let Err(failure) = hold(&script.opening, case, cut) {
                failures.push(format!("{name}:{failure}\n    in \"{}\", {cut:?}", case.title));
                break;
            }
        }
    }
    failures
}

fn hold(opening: &[Line], case: &Case, cut: Cut) -> Result<(), String> {
    let mut talk = Conversation { world: World::new(cut), names: BTreeMap::new() };
    for (at, line) in opening.iter().chain(&case.lines).enumerate() {
        // Every line, but of a long loop's only some: a check walks over the whole store.
        let is_checked = at < 200 || at % 16 == 0;
        let check = |talk: &Conversation| talk.world.server.check();
        let checked =
            talk.step(&line.step).and_then(|()| if is_checked { check(&talk) } else { Ok(()) });
        checked.map_err(|why| {
            let choice = line.only_ours.as_ref().map(|why| format!("    only ours: {why}"));
            format!("{}: {why}\n    {}{}", line.number, line.text, choice.unwrap_or_default())
        })?;
    }
    talk.world.server.check()?;
    for (domain, ring) in &talk.world.outside.rings {
        if let Some(frame) = ring.inbox.front() {
            let end = case.lines.last().map_or(0, |line| line.number);
            return Err(format!("{end}: at the end dom{domain} still got {}", show(frame)));
        }
    }
    Ok(())
}

struct Conversation {
    world: World,
    /// Transaction ids and `$` strings by name.
    names: BTreeMap<String, Vec<u8>>,
}

impl Conversation {
    fn step(&mut self, step: &Step) -> Result<(), String> {
        if let Step::Request(request) = step
            && request.queued
        {
            return self.ask(request);
        }
        self.world.settle()?;
        match step {
            Step::Given(domains) => domains.iter().try_for_each(|&domain| self.given(domain)),
            Step::Request(request) => self.request(request),
            Step::Sends(actor, bytes) => {
                self.world.put(*actor, bytes);
                self.world.settle()
            }
            Step::Arrives(actor, arrival) => self.arrives(*actor, arrival),
            Step::Silent(actor) => self.silent(*actor),
            Step::Discards(actor) => {
                let ring = self.world.ring(*actor);
                ring.inbox.clear();
                ring.open.clear();
                Ok(())
            }
            Step::StopsReading(actor) => {
                self.world.ring(*actor).stopped = true;
                Ok(())
            }
            Step::Reads(actor) => self.world.read_again(*actor),
            Step::HeldBack(actor) => {
                let waiting = !self.world.ring(*actor).input.is_empty();
                if waiting { Ok(()) } else { Err("the store took all its requests".to_owned()) }
            }
            Step::Violates(actor, code) => {
                same("error field", self.world.ring(*actor).error, *code)
            }
            Step::SeesFeatures(actor, bits) => {
                same("features", self.world.ring(*actor).features, *bits)
            }
            Step::SeesConnection(actor, state) => {
                same("connection", self.world.ring(*actor).connection, *state)
            }
            Step::BreaksIndex(actor) => {
                self.world.give_up(*actor, 2);
                self.world.settle()
            }
            Step::Reconnects(actor) => {
                self.world.reconnect(*actor);
                self.world.settle()
            }
            step => self.xen(step),
        }
    }

    /// What happens outside of every ring.
    fn xen(&mut self, step: &Step) -> Result<(), String> {
        let outside = &mut self.world.outside;
        match step {
            Step::Creates(domains) => domains.iter().for_each(|&domain| self.world.create(domain)),
            Step::Destroys(domains) => self.world.destroy(domains),
            Step::Replaces(domains) => self.world.replace(domains),
            Step::ShutsDown(domains) => self.world.notice(domains),
            Step::CannotMap(domains) => outside.unmappable.extend(domains),
            Step::CanMap(domains) => {
                outside.unmappable.retain(|domain| !domains.contains(domain));
            }
            Step::MemoryIsLow(is_low) => outside.memory_is_low = *is_low,
            Step::Printed(text) => {
                let text = String::from_utf8_lossy(text);
                if !outside.printed.contains(&*text) {
                    return Err(format!("expected {text:?} printed, got {:?}", outside.printed));
                }
            }
            _ => return Err("a step without a meaning".to_owned()),
        }
        self.world.settle()
    }

    /// A guest as the toolstack makes one: a home, a directory of its own, an introduction.
    fn given(&mut self, domain: u16) -> Result<(), String> {
        self.world.create(domain);
        let home = format!("/local/domain/{domain}");
        for request in [
            format!("dom0 MKDIR {home} -> OK"),
            format!("dom0 SET_PERMS {home} n0 r{domain} -> OK"),
            format!("dom0 MKDIR {home}/data -> OK"),
            format!("dom0 SET_PERMS {home}/data n{domain} -> OK"),
            format!("dom0 INTRODUCE {domain} 1 1 -> OK"),
        ] {
            let mut script = script::parse(&request)?;
            let line = script.opening.pop().ok_or("no line")?;
            self.step(&line.step).map_err(|why| format!("{why}, at {request}"))?;
        }
        Ok(())
    }

    fn ask(&mut self, request: &Request) -> Result<(), String> {
        let actor = request.actor;
        let tx_id = match &request.tx {
            Tx::Number(number) => *number,
            Tx::Named(name) => {
                let id = self.names.get(name).ok_or_else(|| format!("{name} is not bound"))?;
                core::str::from_utf8(id).ok().and_then(|id| id.parse().ok()).unwrap_or(0)
            }
        };
        let req_id = request.req_id.unwrap_or_else(|| self.world.fresh_req_id(actor));
        let len = u32::try_from(request.payload.len()).map_err(|e| e.to_string())?;
        let open = Open { kind: request.kind, req_id, tx_id };
        self.world.ask(actor, open, request.len.unwrap_or(len), &request.payload);
        Ok(())
    }

    fn request(&mut self, request: &Request) -> Result<(), String> {
        self.ask(request)?;
        self.world.settle()?;
        match &request.expect {
            Some(Expect::Silence) => self.silent(request.actor),
            Some(expect) => self.reply(request.actor, expect),
            None => Ok(()),
        }
    }

    fn arrives(&mut self, actor: u16, arrival: &Arrival) -> Result<(), String> {
        let Arrival::Event { path, token } = arrival else {
            let Arrival::Reply(expect) = arrival else { return Ok(()) };
            return self.reply(actor, expect);
        };
        let payload = [&path[..], &[0], &token[..], &[0]].concat();
        let wanted = Frame { kind: WATCH_EVENT, req_id: 0, tx_id: 0, payload };
        match self.world.ring(actor).inbox.pop_front() {
            Some(frame) if frame == wanted => Ok(()),
            Some(frame) => Err(format!("expected {}, got {}", show(&wanted), show(&frame))),
            None => Err(format!("expected {}, got nothing", show(&wanted))),
        }
    }

    fn silent(&mut self, actor: u16) -> Result<(), String> {
        match self.world.ring(actor).inbox.front() {
            Some(frame) => Err(format!("expected silence, got {}", show(frame))),
            None => Ok(()),
        }
    }

    /// The next frame must answer the oldest open request, as expected.
    fn reply(&mut self, actor: u16, expect: &Expect) -> Result<(), String> {
        let ring = self.world.ring(actor);
        let Some(frame) = ring.inbox.pop_front() else {
            return Err("expected an answer, got nothing".to_owned());
        };
        if frame.kind == WATCH_EVENT {
            return Err(format!("expected an answer first, got {}", show(&frame)));
        }
        if let Some(open) = ring.open.pop_front() {
            let echoed = (frame.req_id, frame.tx_id) == (open.req_id, open.tx_id);
            if !echoed || (frame.kind != open.kind && frame.kind != ERROR) {
                return Err(format!("expected an answer to {open:?}, got {frame:?}"));
            }
        }
        self.judge(&frame, expect)
    }

    fn judge(&mut self, frame: &Frame, expect: &Expect) -> Result<(), String> {
        let wrong = |wanted: &str| Err(format!("expected {wanted}, got {}", show(frame)));
        let payload = &frame.payload[..];
        match expect {
            Expect::Any => return Ok(()),
            Expect::Error(name) => {
                let right = frame.kind == ERROR && payload == [name.as_bytes(), &[0]].concat();
                return if right { Ok(()) } else { wrong(&format!("ERROR {name}")) };
            }
            _ if frame.kind == ERROR => return wrong(&wanted(expect)),
            _ => {}
        }
        let right = match expect {
            Expect::Ok => payload == b"OK\0",
            Expect::Bytes(bytes) => payload == bytes,
            Expect::Starts(bytes) => payload.starts_with(bytes),
            Expect::Contains(bytes) => {
                payload.windows(bytes.len().max(1)).any(|part| part == bytes)
            }
            Expect::Transaction(name) => {
                let id = payload.strip_suffix(b"\0").unwrap_or_default();
                self.names.insert(name.clone(), id.to_vec());
                id.iter().all(u8::is_ascii_digit) && !id.is_empty() && id != b"0"
            }
            Expect::Strings(patterns) => self.matches(payload, patterns),
            Expect::Any | Expect::Silence | Expect::Error(_) => false,
        };
        if right { Ok(()) } else { wrong(&wanted(expect)) }
    }

    fn matches(&mut self, payload: &[u8], patterns: &[Pattern]) -> bool {
        let Some(strings) = payload.strip_suffix(b"\0") else {
            return payload.is_empty() && patterns.is_empty();
        };
        let strings: Vec<&[u8]> = strings.split(|&byte| byte == 0).collect();
        strings.len() == patterns.len()
            && strings.iter().zip(patterns).all(|(&string, pattern)| match pattern {
                Pattern::Text(text) => string == text,
                Pattern::Same(name) => {
                    self.names.entry(name.clone()).or_insert_with(|| string.to_vec()) == string
                }
                Pattern::Other(name) => self.names.get(name).is_some_and(|old| old != string),
            })
    }
}

fn same(what: &str, got: u32, wanted: u32) -> Result<(), String> {
    if got == wanted { Ok(()) } else { Err(format!("expected {what} {wanted}, got {got}")) }
}

fn wanted(expect: &Expect) -> String {
    match expect {
        Expect::Ok => "OK".to_owned(),
        Expect::Error(name) => format!("ERROR {name}"),
        Expect::Bytes(bytes) => text(bytes),
        Expect::Starts(bytes) => format!("{} at the start", text(bytes)),
        Expect::Contains(bytes) => format!("{} in it", text(bytes)),
        Expect::Transaction(name) => format!("a transaction id for {name}"),
        Expect::Any => "any answer".to_owned(),
        Expect::Silence => "silence".to_owned(),
        Expect::Strings(patterns) => {
            let shown: Vec<String> = patterns.iter().map(pattern).collect();
            format!("[{}]", shown.join(" "))
        }
    }
}

fn pattern(pattern: &Pattern) -> String {
    match pattern {
        Pattern::Text(bytes) => text(bytes),
        Pattern::Same(name) => format!("${name}"),
        Pattern::Other(name) => format!("!${name}"),
    }
}

fn show(frame: &Frame) -> String {
    format!("{} {}", script::operation_name(frame.kind), text(&frame.payload))
}

/// Bytes for a reader, not too many of them.
fn text(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(200)];
    let more = if shown.len() < bytes.len() {
        format!("… ({} bytes)", bytes.len())
    } else {
        String::new()
    };
    format!("\"{}\"{more}", shown.escape_ascii())
}
