//! The server as its owner sees it; every step ends with the server's own check.

mod connections;
mod counts;
mod faults;
mod lives;
mod memory;
mod requests;
mod transactions;
mod watches;

use core::convert::Infallible;
use std::collections::{BTreeMap, BTreeSet};

use zerocopy::IntoBytes;

use super::*;
use crate::host::Unreachable;
use crate::wire::Op;

/// A Xen host in memory: which domains exist, and what the server asked for.
#[derive(Default)]
struct Fake {
    domains: BTreeMap<u16, u64>,
    unreachable: BTreeSet<u16>,
    /// How many bytes are missing from more than the server ever asks for.
    memory_missing: usize,
    log: Vec<String>,
}

impl Host for Fake {
    fn identify(&mut self, domain: DomId) -> Option<UniqueId> {
        self.domains.get(&domain.0).map(|id| UniqueId(*id))
    }

    fn introduce(
        &mut self,
        _: ConnId,
        domain: DomId,
        _: u64,
        port: u32,
        features: u32,
    ) -> Result<(), Unreachable> {
        self.log.push(format!("introduce {domain} port {port} features {features}"));
        if self.unreachable.contains(&domain.0) { Err(Unreachable) } else { Ok(()) }
    }

    fn reintroduce(
        &mut self,
        _: ConnId,
        domain: DomId,
        port: u32,
        features: u32,
    ) -> Result<(), Unreachable> {
        self.log.push(format!("reintroduce {domain} port {port} features {features}"));
        if self.unreachable.contains(&domain.0) { Err(Unreachable) } else { Ok(()) }
    }

    fn release(&mut self, _: ConnId, domain: DomId) {
        self.log.push(format!("release {domain}"));
    }

    fn has_memory(&self, bytes: usize) -> bool {
        bytes + self.memory_missing <= RESERVE
    }

    fn print(&mut self, text: &str) {
        self.log.push(format!("print {text}"));
    }
}

/// A server with its host and its clients.
struct Lab {
    server: Server,
    host: Fake,
    clients: BTreeMap<u16, ConnId>,
}

impl Lab {
    /// Boots with dom0, and with guests that have a home of their own and a directory in it.
    fn new(guests: &[u16]) -> Self {
        let config = Config { privileged: DomId(0), store: DomId(99), version: "test" };
        let mut server = Server::new(config);
        let dom0 = server.connect(DomId(0), UniqueId(1000));
        let clients = BTreeMap::from([(0, dom0)]);
        let mut lab = Self { server, host: Fake::default(), clients };
        lab.host.domains.insert(0, 1000);
        for &guest in guests {
            lab.boot(guest, u64::from(guest));
            let home = format!("/local/domain/{guest}");
            lab.ok(0, Op::Write, 0, &format!("{home}/data|"));
            lab.ok(0, Op::SetPerms, 0, &format!("{home}|n0|r{guest}|"));
            lab.ok(0, Op::SetPerms, 0, &format!("{home}/data|n{guest}|"));
        }
        lab
    }

    /// Has Xen create a domain, and dom0 introduce it.
    fn boot(&mut self, domain: u16, identity: u64) {
        self.host.domains.insert(domain, identity);
        self.ok(0, Op::Introduce, 0, &format!("{domain}|1|7|"));
        let conn = self.server.store.domains.find(DomId(domain)).and_then(|known| known.conn);
        self.clients.insert(domain, conn.expect("it was just introduced"));
    }

    /// Has Xen destroy a domain.
    fn destroy(&mut self, domain: u16) {
        self.host.domains.remove(&domain);
        self.server.gone(DomId(domain), &mut self.host);
        self.server.settle();
        self.check();
    }

    fn check(&self) {
        if let Err(difference) = self.server.check() {
            panic!("the check fails: {difference}");
        }
    }

    fn frame(op: Op, tx: u32, payload: &[u8]) -> Vec<u8> {
        let len = u32::try_from(payload.len()).expect("a test's payload");
        [Header::new(op.to_wire(), 42, tx, len).as_bytes(), payload].concat()
    }

    fn send(&mut self, from: u16, bytes: &[u8]) -> Result<usize, Violation> {
        let taken = self.server.receive(self.clients[&from], bytes, &mut self.host);
        self.check();
        taken
    }

    /// Takes all bytes that wait for a connection, a thousand at a time.
    fn take(&mut self, conn: ConnId) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            let before = bytes.len();
            let drained = self.server.transmit(conn, |chunk| {
                let chunk = &chunk[..chunk.len().min(1000)];
                bytes.extend_from_slice(chunk);
                Ok::<_, Infallible>(chunk.len())
            });
            assert!(drained.is_ok());
            if bytes.len() == before {
                return bytes;
            }
        }
    }

    /// Takes all that waits for a client: events as `!path token`, replies as their payload, with
    /// `|` for NUL.
    fn read(&mut self, client: u16) -> Vec<String> {
        let conn = self.clients[&client];
        let bytes = self.take(conn);
        let mut frames = Vec::new();
        let mut rest = &bytes[..];
        while let Ok((header, after)) = Header::read_from_prefix(rest) {
            let (payload, next) = after.split_at(header.len.get() as usize);
            rest = next;
            let text = String::from_utf8_lossy(payload).replace('\0', "|");
            frames.push(match Op::from_wire(header.kind.get()) {
                Some(Op::WatchEvent) => {
                    let mut strings = text.split('|');
                    let (path, token) = (strings.next(), strings.next());
                    format!("!{} {}", path.unwrap_or_default(), token.unwrap_or_default())
                }
                _ => text,
            });
        }
        assert!(rest.is_empty(), "a frame is cut short");
        frames
    }

    /// Sends a request with `|` for NUL and returns all that the client then reads.
    fn ask(&mut self, from: u16, op: Op, tx: u32, payload: &str) -> Vec<String> {
        let frame = Self::frame(op, tx, payload.replace('|', "\0").as_bytes());
        let mut sent = 0;
        while sent < frame.len() {
            let taken = self.send(from, &frame[sent..]).expect("no violation");
            let cleared = taken == 0 && self.server.clear_away(&mut self.host);
            self.check();
            assert!(taken > 0 || cleared, "the server takes nothing of {op:?} {payload}");
            sent += taken;
        }
        self.read(from)
    }

    /// Sends a request and returns its reply alone.
    fn one(&mut self, from: u16, op: Op, tx: u32, payload: &str) -> String {
        let mut replies = self.ask(from, op, tx, payload);
        replies.retain(|reply| !reply.starts_with('!'));
        assert_eq!(replies.len(), 1, "{op:?} {payload} has one reply, not {replies:?}");
        replies.remove(0)
    }

    #[track_caller]
    fn ok(&mut self, from: u16, op: Op, tx: u32, payload: &str) {
        let reply = self.one(from, op, tx, payload);
        assert_eq!(reply, "OK|", "domain {from}: {op:?} {payload}");
    }

    fn start(&mut self, from: u16) -> u32 {
        let reply = self.one(from, Op::TransactionStart, 0, "|");
        reply.trim_end_matches('|').parse().expect("a transaction's number")
    }
}
