//! Holds a conversation with a store and says where it went wrong.

use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::{format, string::String, vec::Vec};

use crate::script::{self, Arrival, Case, Expect, Line, Pattern, Peer, Request, Step, Tx};
use crate::world::{ERROR, Field, Frame, Open, WATCH_EVENT, Wanted, World};

/// How far a conversation came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// To its end.
    Held,
    /// To a line with an expectation that is only ours, where this store answered otherwise.
    UntilChoice {
        /// The line.
        number: usize,
        /// Why another store may answer otherwise.
        reason: String,
    },
}

/// Holds one case of a script in a world that has just begun; `peer` is the store, if it is not
/// this project's.
///
/// # Errors
/// The first line that went wrong, and how.
pub fn hold(
    world: &mut impl World,
    opening: &[Line],
    case: &Case,
    peer: Option<&Peer>,
) -> Result<Outcome, String> {
    let mut talk = Conversation { world, names: BTreeMap::new() };
    for (at, line) in opening.iter().chain(&case.lines).enumerate() {
        let said = match (&line.only_ours, peer) {
            (Some(reason), Some(_)) => match talk.choice(&line.step) {
                Ok(true) => Ok(()),
                Ok(false) => {
                    return Ok(Outcome::UntilChoice {
                        number: line.number,
                        reason: reason.clone(),
                    });
                }
                Err(why) => Err(why),
            },
            _ => talk.step(&line.step),
        };
        // Every line, but of a long loop's only some: a check walks over the whole store.
        let is_checked = at < 200 || at % 16 == 0;
        let checked = said.and_then(|()| if is_checked { talk.world.check() } else { Ok(()) });
        checked.map_err(|why| {
            let choice = line.only_ours.as_ref().map(|why| format!("    only ours: {why}"));
            format!("{}: {why}\n    {}{}", line.number, line.text, choice.unwrap_or_default())
        })?;
    }
    talk.world.check()?;
    let end = case.lines.last().map_or(0, |line| line.number);
    talk.nothing_more().map_err(|why| format!("{end}: {why}"))?;
    Ok(Outcome::Held)
}

struct Conversation<'a, W> {
    world: &'a mut W,
    /// Transaction ids and `$` strings by name.
    names: BTreeMap<String, Vec<u8>>,
}

impl<W: World> Conversation<'_, W> {
    fn nothing_more(&mut self) -> Result<(), String> {
        for domain in self.world.domains() {
            self.world.rest(domain)?;
            if let Some(frame) = self.world.mailbox(domain).inbox.front() {
                return Err(format!("at the end dom{domain} still got {}", show(frame)));
            }
        }
        Ok(())
    }

    /// A line whose expectation is one store's own: whether this store shares it. Unlike elsewhere
    /// it is no failure if the expectation is not met.
    fn choice(&mut self, step: &Step) -> Result<bool, String> {
        let here = self.world.translate(step).into_owned();
        let (actor, wanted, expect) = match here {
            Step::Request(Request { expect: Some(Expect::Silence), .. }) => {
                return Ok(self.step(step).is_ok());
            }
            Step::Request(mut request) => {
                let expect = request.expect.take();
                self.ask(&request)?;
                self.world.settle()?;
                self.world.wait(request.actor, Wanted::Answer)?;
                (request.actor, Wanted::Answer, expect)
            }
            Step::Arrives(actor, Arrival::Event { path, token }) => {
                self.world.rest(actor)?;
                let next = self.world.mailbox(actor).inbox.front();
                if next.is_none_or(|frame| *frame != event(&path, &token)) {
                    return Ok(false);
                }
                (actor, Wanted::Event, None)
            }
            Step::Arrives(actor, Arrival::Reply(expect)) => {
                self.world.wait(actor, Wanted::Answer)?;
                (actor, Wanted::Answer, Some(expect))
            }
            _ => return Ok(self.step(step).is_ok()),
        };
        match expect {
            Some(expect) => Ok(self.reply(actor, &expect).is_ok()),
            None => Ok(self.world.mailbox(actor).take(wanted).is_some()),
        }
    }

    fn step(&mut self, step: &Step) -> Result<(), String> {
        let step = &*self.world.translate(step);
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
                self.world.send(*actor, bytes)?;
                self.world.settle()
            }
            Step::Arrives(actor, arrival) => self.arrives(*actor, arrival),
            Step::Silent(actor) => self.silent(*actor),
            Step::Discards(actor) => {
                self.world.rest(*actor)?;
                let mailbox = self.world.mailbox(*actor);
                mailbox.inbox.clear();
                mailbox.open.clear();
                Ok(())
            }
            Step::StopsReading(actor) => self.world.stop_reading(*actor),
            Step::Reads(actor) => self.world.read_again(*actor),
            Step::HeldBack(actor) => {
                let waiting = self.world.is_held_back(*actor)?;
                if waiting { Ok(()) } else { Err("the store took all its requests".to_owned()) }
            }
            Step::Violates(actor, code) => self.says("error", Field::Error, *actor, *code),
            Step::SeesFeatures(actor, bits) => {
                self.says("features", Field::Features, *actor, *bits)
            }
            Step::SeesConnection(actor, state) => {
                self.says("connection", Field::Connection, *actor, *state)
            }
            Step::BreaksIndex(actor) => {
                self.world.break_index(*actor)?;
                self.world.settle()
            }
            Step::Reconnects(actor) => {
                self.world.reconnect(*actor)?;
                self.world.settle()
            }
            step => self.xen(step),
        }
    }

    /// A word in the ring's page is as expected.
    fn says(&mut self, name: &str, field: Field, actor: u16, wanted: u32) -> Result<(), String> {
        let got = self.world.field(actor, field)?;
        let wrong = || format!("expected {name} field {wanted}, got {got}");
        if got == wanted { Ok(()) } else { Err(wrong()) }
    }

    /// What happens outside of every ring.
    fn xen(&mut self, step: &Step) -> Result<(), String> {
        let world = &mut *self.world;
        match step {
            Step::Creates(domains) => {
                domains.iter().try_for_each(|&domain| world.create(domain))?;
            }
            Step::Destroys(domains) => world.destroy(domains)?,
            Step::Replaces(domains) => world.replace(domains)?,
            Step::ShutsDown(domains) => world.shut_down(domains)?,
            Step::CannotMap(domains) => world.let_map(domains, false)?,
            Step::CanMap(domains) => world.let_map(domains, true)?,
            Step::MemoryIsLow(is_low) => world.let_grow(!is_low)?,
            Step::Printed(text) => {
                let text = String::from_utf8_lossy(text);
                if !world.has_printed(&text)? {
                    return Err(format!("the store did not print {text:?}"));
                }
            }
            _ => return Err("a step without a meaning".to_owned()),
        }
        world.settle()
    }

    /// A guest as the toolstack makes one: a home, a directory of its own, an introduction.
    fn given(&mut self, domain: u16) -> Result<(), String> {
        self.world.create(domain)?;
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
        let mailbox = self.world.mailbox(actor);
        let req_id = request.req_id.unwrap_or_else(|| mailbox.fresh_req_id());
        let len = u32::try_from(request.payload.len()).map_err(|e| e.to_string())?;
        let open = Open { kind: request.kind, req_id, tx_id };
        mailbox.open.push_back(open);
        let header = open.header(request.len.unwrap_or(len));
        self.world.send(actor, &[&header[..], &request.payload].concat())
    }

    fn request(&mut self, request: &Request) -> Result<(), String> {
        self.ask(request)?;
        match &request.expect {
            Some(Expect::Silence) => self.silent(request.actor),
            Some(expect) => self.reply(request.actor, expect),
            None => self.world.settle(),
        }
    }

    fn arrives(&mut self, actor: u16, arrival: &Arrival) -> Result<(), String> {
        let Arrival::Event { path, token } = arrival else {
            let Arrival::Reply(expect) = arrival else { return Ok(()) };
            return self.reply(actor, expect);
        };
        let wanted = event(path, token);
        self.world.wait(actor, Wanted::Event)?;
        match self.world.mailbox(actor).take(Wanted::Event) {
            Some(frame) if frame == wanted => Ok(()),
            Some(frame) => Err(format!("expected {}, got {}", show(&wanted), show(&frame))),
            None => Err(format!("expected {}, got nothing", show(&wanted))),
        }
    }

    fn silent(&mut self, actor: u16) -> Result<(), String> {
        self.world.rest(actor)?;
        match self.world.mailbox(actor).inbox.front() {
            Some(frame) => Err(format!("expected silence, got {}", show(frame))),
            None => Ok(()),
        }
    }

    /// The next frame must answer the oldest open request, as expected.
    fn reply(&mut self, actor: u16, expect: &Expect) -> Result<(), String> {
        self.world.wait(actor, Wanted::Answer)?;
        let mailbox = self.world.mailbox(actor);
        let Some(frame) = mailbox.take(Wanted::Answer) else {
            return Err("expected an answer, got nothing".to_owned());
        };
        if frame.kind == WATCH_EVENT {
            return Err(format!("expected an answer first, got {}", show(&frame)));
        }
        if let Some(open) = mailbox.open.pop_front() {
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

fn event(path: &[u8], token: &[u8]) -> Frame {
    let payload = [path, &[0], token, &[0]].concat();
    Frame { kind: WATCH_EVENT, req_id: 0, tx_id: 0, payload }
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
