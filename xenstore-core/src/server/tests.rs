//! The server as its owner sees it; every step ends with the server's own check.

use std::collections::{BTreeMap, BTreeSet};

use zerocopy::IntoBytes;

use super::*;
use crate::host::Unreachable;

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

    /// Takes all that waits for a client: events as `!path token`, replies as their payload, with
    /// `|` for NUL.
    fn read(&mut self, client: u16) -> Vec<String> {
        let conn = self.clients[&client];
        let mut bytes = Vec::new();
        while let Some(chunk) = self.server.transmit(conn) {
            let chunk = chunk[..chunk.len().min(1000)].to_vec();
            self.server.sent(conn, chunk.len());
            bytes.extend(chunk);
        }
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
            assert_ne!(taken, 0, "the server takes nothing of {op:?} {payload}");
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

#[test]
fn a_frame_may_come_in_any_pieces() {
    let mut lab = Lab::new(&[]);
    let frame = Lab::frame(Op::Write, 0, b"/a\0value");
    for byte in &frame {
        assert_eq!(lab.send(0, core::slice::from_ref(byte)), Ok(1));
    }
    assert_eq!(lab.read(0), ["OK|"]);
    let two = [Lab::frame(Op::Read, 0, b"/a\0"), Lab::frame(Op::Read, 0, b"/b\0")].concat();
    assert_eq!(lab.send(0, &two[..two.len() - 1]), Ok(two.len() - 1));
    assert_eq!(lab.read(0), ["value"]);
    assert_eq!(lab.send(0, &two[two.len() - 1..]), Ok(1));
    assert_eq!(lab.read(0), ["ENOENT|"]);
}

#[test]
fn rules_come_before_arguments() {
    let mut lab = Lab::new(&[1]);
    for op in [Op::Restrict, Op::WatchEvent, Op::Error] {
        assert_eq!(lab.ask(1, op, 9, "x"), ["ENOSYS|"], "{op:?}");
    }
    for op in [Op::Control, Op::Introduce, Op::Release, Op::SetQuota, Op::GetQuota] {
        assert_eq!(lab.ask(1, op, 9, "x"), ["EACCES|"], "{op:?}");
    }
    assert_eq!(lab.ask(0, Op::Read, 77, "x"), ["ENOENT|"], "the transaction before the path");
    assert_eq!(lab.ask(0, Op::Watch, 77, "/a|t|"), ["OK|", "!/a t"]);
}

#[test]
fn a_violation_ends_service_until_the_next_introduction() {
    let mut lab = Lab::new(&[1]);
    lab.ok(1, Op::Watch, 0, "data|t|");
    let oversize = Header::new(2, 0, 0, 4097);
    assert_eq!(lab.send(1, oversize.as_bytes()), Err(Violation::Oversize(4097)));
    assert_eq!(lab.send(1, &Lab::frame(Op::Read, 0, b"data\0")), Ok(0));
    lab.ok(0, Op::Write, 0, "/local/domain/1/data/x|");
    assert!(lab.read(1).is_empty(), "an ignored client is sent nothing");
    assert_eq!(lab.one(0, Op::IsDomainIntroduced, 0, "1|"), "T|");
    lab.ok(0, Op::Introduce, 0, "1|1|8|");
    assert_eq!(lab.ask(1, Op::Read, 0, "data|"), [""]);
    assert_eq!(lab.start(1), 1);
}

#[test]
fn an_own_change_is_told_before_it_is_acknowledged() {
    let mut lab = Lab::new(&[1]);
    assert_eq!(lab.ask(1, Op::Watch, 0, "data|t|"), ["OK|", "!data t"]);
    assert_eq!(lab.ask(1, Op::Write, 0, "data/a/b|x"), ["!data/a/b t", "OK|"]);
    assert_eq!(lab.ask(1, Op::Unwatch, 0, "/local/domain/1/data|t|"), ["OK|"]);
    assert_eq!(lab.ask(1, Op::Write, 0, "data/a/b|x"), ["OK|"]);
}

#[test]
fn a_removal_is_told_from_below_and_only_where_nodes_were() {
    let mut lab = Lab::new(&[]);
    lab.ok(0, Op::Write, 0, "/t/a/b/c|");
    for path in ["/t", "/t/a", "/t/a/b", "/t/a/b/c", "/t/a/b/c/none", "/t/a/nope", "/"] {
        lab.ok(0, Op::Watch, 0, &format!("{path}|{path}|"));
    }
    let events =
        ["!/t/a/b/c /t/a/b/c", "!/t/a/b /t/a/b", "!/t/a /t", "!/t/a /t/a", "!/t/a /", "OK|"];
    assert_eq!(lab.ask(0, Op::Rm, 0, "/t/a|"), events);
}

#[test]
fn a_depth_limited_watch_hears_of_new_parents() {
    let mut lab = Lab::new(&[]);
    lab.ok(0, Op::Mkdir, 0, "/a|");
    lab.ok(0, Op::Watch, 0, "/a|one|1|");
    assert_eq!(lab.ask(0, Op::Write, 0, "/a/b/c/d|x"), ["!/a/b one", "OK|"]);
    assert_eq!(lab.ask(0, Op::Write, 0, "/a/b/c/d|x"), ["OK|"]);
    assert_eq!(lab.ask(0, Op::Write, 0, "/a/b|x"), ["!/a/b one", "OK|"]);
}

#[test]
fn watches_with_one_token_are_told_as_one() {
    let mut lab = Lab::new(&[1]);
    for path in ["data", "/local", "/local/domain/1/data/a"] {
        lab.ok(1, Op::Watch, 0, &format!("{path}|t|"));
    }
    let events = ["!data/a t", "!/local/domain/1/data/a t", "OK|"];
    assert_eq!(lab.ask(1, Op::Write, 0, "data/a|"), events, "one for each spelling of the path");
}

#[test]
fn long_tokens_are_told_apart_by_their_bytes() {
    let mut lab = Lab::new(&[1]);
    // FNV-1a, by which long tokens are compared first, has one value for two of these.
    let mark = |token: &str| {
        token
            .bytes()
            .fold(0x811c_9dc5_u32, |mark, byte| (mark ^ u32::from(byte)).wrapping_mul(0x0100_0193))
    };
    let mut seen = BTreeMap::new();
    let (one, other) = (0..1_000_000)
        .map(|number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
        .map(|number| format!("a token that is rather long: {number:016x}"))
        .find_map(|token| seen.insert(mark(&token), token.clone()).map(|first| (first, token)))
        .expect("a million tokens have at least two marks that agree");
    for (path, token) in [("data/a", &one), ("data/a", &other), ("data", &one), ("data", &other)] {
        lab.ask(1, Op::Watch, 0, &format!("{path}|{token}|"));
    }
    lab.read(1);
    lab.ok(0, Op::Write, 0, "/local/domain/1/data/a|v");
    let told = [format!("!data/a {one}"), format!("!data/a {other}")];
    assert_eq!(lab.read(1), told, "each once, though two watches of each hear of it");
}

#[test]
fn who_may_not_read_is_not_told() {
    let mut lab = Lab::new(&[1]);
    lab.ok(0, Op::Write, 0, "/secret/a|");
    assert_eq!(lab.ask(1, Op::Watch, 0, "/secret|t|"), ["OK|", "!/secret t"]);
    lab.ok(0, Op::Write, 0, "/secret/a|");
    assert!(lab.read(1).is_empty());
    lab.ok(0, Op::SetPerms, 0, "/secret|n0|r1|");
    assert_eq!(lab.read(1), ["!/secret t"]);
    lab.ok(0, Op::Write, 0, "/secret/a|");
    assert_eq!(lab.read(1), ["!/secret/a t"], "the parent is readable");
    lab.ok(0, Op::SetPerms, 0, "/secret|n0|");
    assert_eq!(lab.read(1), ["!/secret t"], "who could read before is told of the change");
    lab.ok(0, Op::Write, 0, "/secret/a|");
    assert!(lab.read(1).is_empty());
}

#[test]
fn siblings_made_in_two_transactions_do_not_conflict() {
    let mut lab = Lab::new(&[]);
    lab.ok(0, Op::Mkdir, 0, "/a|");
    let (first, second) = (lab.start(0), lab.start(0));
    lab.ok(0, Op::Write, first, "/a/k1|1");
    lab.ok(0, Op::Write, second, "/a/k2|2");
    assert_eq!(lab.one(0, Op::Read, 0, "/a/k1|"), "ENOENT|", "not before the end");
    lab.ok(0, Op::TransactionEnd, first, "T|");
    lab.ok(0, Op::TransactionEnd, second, "T|");
    assert_eq!(lab.one(0, Op::Directory, 0, "/a|"), "k1|k2|");
}

#[test]
fn a_stale_read_never_commits_and_an_equal_one_does() {
    let mut lab = Lab::new(&[]);
    lab.ok(0, Op::Write, 0, "/a|1");
    let open = lab.start(0);
    assert_eq!(lab.one(0, Op::Read, open, "/a|"), "1");
    lab.ok(0, Op::Write, open, "/b|2");
    lab.ok(0, Op::Write, 0, "/a|other");
    assert_eq!(lab.one(0, Op::TransactionEnd, open, "T|"), "EAGAIN|");
    assert_eq!(lab.one(0, Op::Read, 0, "/b|"), "ENOENT|", "nothing is applied");
    let open = lab.start(0);
    assert_eq!(lab.one(0, Op::Read, open, "/a|"), "other");
    lab.ok(0, Op::Write, open, "/b|2");
    lab.ok(0, Op::Write, 0, "/a|other");
    lab.ok(0, Op::TransactionEnd, open, "T|");
}

#[test]
fn a_missing_read_conflicts_only_with_its_own_creation() {
    let mut lab = Lab::new(&[]);
    for (path, reply) in [("/x", "EAGAIN|"), ("/y", "OK|")] {
        let open = lab.start(0);
        assert_eq!(lab.one(0, Op::Read, open, "/x|"), "ENOENT|");
        lab.ok(0, Op::Write, open, "/b|2");
        lab.ok(0, Op::Write, 0, &format!("{path}|"));
        assert_eq!(lab.one(0, Op::TransactionEnd, open, "T|"), reply, "{path} was made outside");
        lab.ok(0, Op::Rm, 0, &format!("{path}|"));
    }
}

#[test]
fn a_commit_tells_each_path_once_in_the_order_of_first_use() {
    let mut lab = Lab::new(&[]);
    lab.ok(0, Op::Write, 0, "/e/2|");
    lab.ok(0, Op::Write, 0, "/r/c|");
    for path in ["/e", "/r", "/r/c"] {
        lab.ok(0, Op::Watch, 0, &format!("{path}|{path}|"));
    }
    let open = lab.start(0);
    lab.one(0, Op::Read, open, "/e/2|");
    for payload in ["/e/1|x", "/e/2|x", "/e/2|y", "/e/3|z"] {
        lab.ok(0, Op::Write, open, payload);
    }
    lab.ok(0, Op::Rm, open, "/e/3|");
    lab.ok(0, Op::Rm, open, "/r|");
    let events = ["!/e/2 /e", "!/e/1 /e", "!/r /r", "!/r/c /r/c", "OK|"];
    assert_eq!(lab.ask(0, Op::TransactionEnd, open, "T|"), events);
}

#[test]
fn a_replayed_commit_accounts_for_what_it_did() {
    let mut lab = Lab::new(&[1, 2]);
    let open = lab.start(1);
    lab.ok(1, Op::Write, open, "data/a/b|x");
    lab.ok(1, Op::Rm, open, "data/a|");
    lab.ok(1, Op::Write, open, "data/c/d|x");
    lab.ok(2, Op::Write, 0, "data/x|x");
    lab.ok(1, Op::TransactionEnd, open, "T|");
    assert_eq!(lab.one(1, Op::Directory, 0, "data|"), "c|");
    assert_eq!(lab.one(1, Op::GetPerms, 0, "data/c/d|"), "n1|");
}

#[test]
fn too_many_paths_doom_a_transaction() {
    let mut lab = Lab::new(&[1]);
    lab.ok(0, Op::SetQuota, 0, "1|transaction-nodes|3|");
    let open = lab.start(1);
    for name in ["a", "b", "b", "a"] {
        lab.ok(1, Op::Write, open, &format!("data/{name}|"));
    }
    assert_eq!(lab.one(1, Op::Write, open, "data/c/d|"), "ENOSPC|");
    assert_eq!(lab.one(1, Op::TransactionEnd, open, "T|"), "ENOMEM|");
    assert_eq!(lab.one(1, Op::Directory, 0, "data|"), "", "nothing is applied");
}

#[test]
fn the_node_quota_is_judged_at_the_end_of_a_transaction() {
    let mut lab = Lab::new(&[1]);
    lab.ok(0, Op::SetQuota, 0, "1|nodes|3|");
    let open = lab.start(1);
    for name in ["a", "b", "c"] {
        lab.ok(1, Op::Write, open, &format!("data/{name}|"));
    }
    assert_eq!(lab.one(1, Op::TransactionEnd, open, "T|"), "ENOSPC|");
    assert_eq!(lab.one(1, Op::Directory, 0, "data|"), "");
    lab.ok(1, Op::Write, 0, "data/a/b|");
    assert_eq!(lab.one(1, Op::Write, 0, "data/c|"), "ENOSPC|");
    assert_eq!(
        lab.one(0, Op::Control, 0, "quota|refused|1|").lines().nth(1),
        Some("nodes            :        2")
    );
}

#[test]
fn death_removes_what_a_domain_owned_wherever_it_is() {
    let mut lab = Lab::new(&[1, 4]);
    lab.ok(4, Op::Write, 0, "data/a/b|");
    lab.ok(0, Op::Write, 0, "/shared/x|");
    lab.ok(0, Op::SetPerms, 0, "/shared|n0|b4|r1|");
    lab.ok(4, Op::Write, 0, "/shared/of4|");
    lab.ok(0, Op::SetPerms, 0, "/shared/of4|n4|w1|");
    lab.ok(1, Op::Write, 0, "/shared/of4/of1|");
    for path in ["/shared", "@releaseDomain"] {
        lab.ok(0, Op::Watch, 0, &format!("{path}|t|"));
    }
    lab.ok(0, Op::Watch, 0, "@releaseDomain|deep|1|");
    lab.destroy(4);
    let events = ["!/shared/of4 t", "!@releaseDomain t", "!@releaseDomain/4 deep"];
    assert_eq!(lab.read(0), events);
    assert_eq!(lab.one(0, Op::Directory, 0, "/shared|"), "x|");
    assert_eq!(lab.one(0, Op::GetPerms, 0, "/shared|"), "n0|r1|", "the dead are not listed");
    assert_eq!(lab.host.log.last().map(String::as_str), Some("release 4"));
    lab.boot(4, 1004);
    assert_eq!(lab.one(4, Op::Read, 0, "/shared|"), "EACCES|", "the next life has no rights");
}

#[test]
fn a_permission_for_a_domain_that_is_not_grants_never() {
    let mut lab = Lab::new(&[1]);
    assert_eq!(lab.one(0, Op::SetPerms, 0, "/tool|n77|"), "ENOENT|");
    assert_eq!(lab.one(0, Op::SetPerms, 0, "//|n77|"), "ENOENT|", "the owner before the path");
    assert_eq!(lab.one(0, Op::SetPerms, 0, "//|n0|"), "EINVAL|");
    lab.ok(0, Op::SetPerms, 0, "/tool|n0|r77|");
    assert_eq!(lab.one(0, Op::GetPerms, 0, "/tool|"), "n0|r77|");
    lab.boot(77, 77);
    assert_eq!(lab.one(77, Op::Read, 0, "/tool|"), "EACCES|");
}

#[test]
fn a_transaction_gives_nothing_to_a_domain_that_took_a_dead_ones_number() {
    let mut lab = Lab::new(&[4]);
    lab.ok(0, Op::Write, 0, "/n|v");
    lab.ok(0, Op::Write, 0, "/m|v");
    lab.ok(0, Op::SetPerms, 0, "/n|n0|r4|");
    let open = lab.start(0);
    assert_eq!(lab.one(0, Op::Read, open, "/n|"), "v");
    lab.ok(0, Op::SetPerms, open, "/m|n0|r4|");
    lab.destroy(4);
    lab.boot(4, 2004);
    lab.one(0, Op::TransactionEnd, open, "T|");
    for path in ["/n|", "/m|"] {
        assert_eq!(lab.one(4, Op::Read, 0, path), "EACCES|", "{path} is open to the new domain");
    }
}

#[test]
fn shutdowns_are_told_by_domain_and_then_once() {
    let mut lab = Lab::new(&[4, 5]);
    lab.ok(0, Op::Watch, 0, "@releaseDomain|plain|");
    lab.ok(0, Op::Watch, 0, "@releaseDomain|deep|1|");
    lab.ok(0, Op::Watch, 0, "@releaseDomain/4|four|");
    for (resumed, events) in [
        (
            false,
            vec![
                "!@releaseDomain/4 deep",
                "!@releaseDomain/4 four",
                "!@releaseDomain/5 deep",
                "!@releaseDomain plain",
            ],
        ),
        (false, vec![]),
        (true, vec!["!@releaseDomain/4 deep", "!@releaseDomain/4 four", "!@releaseDomain plain"]),
    ] {
        if resumed {
            lab.ok(0, Op::Resume, 0, "4|");
        }
        lab.server.shut_down(DomId(4));
        lab.server.shut_down(DomId(5));
        lab.server.settle();
        lab.check();
        assert_eq!(lab.read(0), events, "resumed: {resumed}");
    }
}

#[test]
fn introductions_are_refused_where_they_cannot_be() {
    let mut lab = Lab::new(&[]);
    for payload in ["0|1|7|", "99|1|7|", "5|1|7|", "5|1|0|", "x|1|7|"] {
        assert_eq!(lab.one(0, Op::Introduce, 0, payload), "EINVAL|", "{payload}");
    }
    lab.host.domains.insert(6, 6);
    lab.host.unreachable.insert(6);
    assert_eq!(lab.one(0, Op::Introduce, 0, "6|1|7|"), "EINVAL|");
    assert_eq!(lab.one(0, Op::IsDomainIntroduced, 0, "6|"), "F|");
    assert_eq!(lab.one(0, Op::Release, 0, "6|"), "ENOENT|");
    assert_eq!(lab.one(0, Op::Release, 0, "0|"), "EINVAL|");
}

#[test]
fn features_are_masked_before_introduction() {
    let mut lab = Lab::new(&[]);
    assert_eq!(lab.one(0, Op::SetFeature, 0, "6|3|"), "ENOENT|");
    lab.host.domains.insert(6, 6);
    assert_eq!(lab.one(0, Op::SetFeature, 0, "6|16|"), "EINVAL|");
    lab.ok(0, Op::SetFeature, 0, "6|3|");
    lab.boot(6, 6);
    assert_eq!(lab.host.log.last().map(String::as_str), Some("introduce 6 port 7 features 3"));
    assert_eq!(lab.one(0, Op::SetFeature, 0, "6|15|"), "EBUSY|");
    assert_eq!(lab.one(6, Op::GetFeature, 0, ""), "3|");
    assert_eq!(lab.one(6, Op::GetFeature, 0, "0|"), "EACCES|");
    assert_eq!(lab.one(6, Op::Watch, 0, "/a|t|1|"), "EINVAL|", "depth is not offered");
}

#[test]
fn a_client_that_does_not_read_is_not_read_either() {
    let mut lab = Lab::new(&[1]);
    lab.server.next_ready();
    while lab.server.next_ready().is_some() {}
    let frame = Lab::frame(Op::Read, 0, b"data\0");
    for _ in 0..20 {
        assert_eq!(lab.send(1, &frame), Ok(frame.len()));
    }
    assert_eq!(lab.send(1, &frame), Ok(0), "twenty replies wait");
    while lab.server.next_ready().is_some() {}
    assert_eq!(lab.read(1).len(), 20);
    assert_eq!(lab.server.next_ready(), Some(lab.clients[&1]), "it can go on");
    assert_eq!(lab.send(1, &frame), Ok(frame.len()));
}

#[test]
fn a_writer_never_waits_for_a_reader() {
    let mut lab = Lab::new(&[1, 2]);
    lab.ok(0, Op::SetPerms, 0, "/local/domain/1/data|n1|r2|");
    lab.ok(2, Op::Watch, 0, "/local/domain/1/data|t|");
    for number in 0..500 {
        lab.ok(1, Op::Write, 0, &format!("data/{number}|"));
        lab.ok(1, Op::Rm, 0, &format!("data/{number}|"));
    }
    let waiting = lab.server.transmit(lab.clients[&2]).map_or(0, <[u8]>::len);
    assert!(waiting < 4096, "{waiting} bytes wait for who does not read");
    assert_eq!(lab.read(2).last().map(String::as_str), Some("!/local/domain/1/data t"));
}

#[test]
fn a_guest_that_was_pushed_over_its_memory_waits_for_a_higher_limit() {
    let mut lab = Lab::new(&[1]);
    lab.ok(1, Op::Write, 0, "data/a|x");
    lab.ok(0, Op::SetQuota, 0, "1|memory|200|");
    let (old, long) = (lab.one(1, Op::Read, 0, "data/a|"), "y".repeat(500));
    assert_eq!(lab.one(1, Op::Write, 0, &format!("data/a|{long}")), "ENOMEM|");
    assert_eq!(lab.one(1, Op::Write, 0, &format!("data/b|{long}")), "EIO|");
    assert_eq!(lab.one(1, Op::Read, 0, "data/a|"), old, "the old value stays");
    lab.ok(0, Op::Write, 0, &format!("/local/domain/1/data/b|{long}"));
    let frame = Lab::frame(Op::Read, 0, b"data/a\0");
    assert_eq!(lab.send(1, &frame), Ok(0), "it is over its limit");
    while lab.server.next_ready().is_some() {}
    lab.ok(0, Op::SetQuota, 0, "1|memory|0|");
    let mut ready = Vec::new();
    while let Some(conn) = lab.server.next_ready() {
        ready.push(conn);
    }
    assert!(ready.contains(&lab.clients[&1]), "it can go on");
    assert_eq!(lab.send(1, &frame), Ok(frame.len()));
}

#[test]
fn without_memory_the_store_serves_but_does_not_grow() {
    let mut lab = Lab::new(&[1]);
    lab.ok(1, Op::Watch, 0, "data|t|");
    let open = lab.start(1);
    lab.host.memory_missing = 1;
    for (op, payload) in [
        (Op::Write, "data|x"),
        (Op::Mkdir, "data/x|"),
        (Op::SetPerms, "data|n1|"),
        (Op::Watch, "data|u|"),
        (Op::TransactionStart, "|"),
    ] {
        assert_eq!(lab.one(1, op, 0, payload), "ENOMEM|", "{op:?}");
    }
    assert_eq!(lab.one(1, Op::Read, 0, "data|"), "");
    assert_eq!(lab.one(1, Op::Read, open, "data|"), "ENOMEM|", "its answer would have to be kept");
    lab.ok(1, Op::TransactionEnd, open, "F|");
    lab.ok(1, Op::Unwatch, 0, "data|t|");
    lab.ok(1, Op::Rm, 0, "data|");
}

#[test]
fn what_a_transaction_builds_is_charged_before_it_commits() {
    let mut lab = Lab::new(&[1]);
    let deep = format!("data{}|", "/a".repeat(990));
    let mut answers = Vec::new();
    for _ in 0..10 {
        let open = lab.start(1);
        answers.push(lab.one(1, Op::Write, open, &deep));
        // Beyond the quota of paths, where every path is counted.
        for number in 0..40 {
            lab.one(1, Op::Read, open, &format!("data/r{number}|"));
        }
    }
    // A thousand paths of a thousand bytes: the memory quota of 2.5 MiB holds two of them.
    assert_eq!(answers[..2], ["OK|", "OK|"]);
    assert!(answers[2..].iter().all(|answer| answer == "ENOMEM|"), "{answers:?}");
}

#[test]
fn who_waits_for_memory_is_looked_at_once_there_is_some() {
    let mut lab = Lab::new(&[1]);
    lab.ok(0, Op::SetQuota, 0, "1|memory|5000|");
    for node in ["a", "b", "c", "d"] {
        let value = "x".repeat(1900);
        lab.ok(0, Op::Write, 0, &format!("/local/domain/1/data/{node}|{value}"));
    }
    let frame = Lab::frame(Op::Read, 0, b"data\0");
    assert_eq!(lab.send(1, &frame), Ok(0), "over its quota, it is not read");
    while lab.server.next_ready().is_some() {}
    lab.ok(0, Op::Rm, 0, "/local/domain/1/data/a|");
    lab.ok(0, Op::Rm, 0, "/local/domain/1/data/b|");
    let mut ready = core::iter::from_fn(|| lab.server.next_ready());
    let guest = lab.clients[&1];
    assert!(ready.any(|conn| conn == guest), "it can go on");
    assert_eq!(lab.send(1, &frame), Ok(frame.len()));
}

#[test]
fn a_transaction_of_a_guest_has_an_end() {
    let mut lab = Lab::new(&[1]);
    let open = lab.start(1);
    for _ in 0..4096 {
        assert_eq!(lab.one(1, Op::Read, open, "data|"), "");
    }
    assert_eq!(lab.one(1, Op::Read, open, "data|"), "ENOSPC|");
    assert_eq!(lab.one(1, Op::TransactionEnd, open, "T|"), "ENOMEM|");
}

#[test]
fn listings_in_a_transaction_of_a_guest_have_an_end() {
    let mut lab = Lab::new(&[1]);
    for number in 0..300 {
        lab.ok(1, Op::Mkdir, 0, &format!("data/{number}|"));
    }
    let open = lab.start(1);
    let listed =
        (0..4096).take_while(|_| !lab.one(1, Op::Directory, open, "data|").starts_with('E'));
    // 32,768 names and levels; each listing goes through 300 of the one and 4 of the other.
    assert_eq!(listed.count(), 107);
    assert_eq!(lab.one(1, Op::Directory, open, "data|"), "ENOSPC|");
    assert_eq!(lab.one(1, Op::TransactionEnd, open, "T|"), "ENOMEM|");
    let open = lab.start(0);
    for _ in 0..200 {
        lab.one(0, Op::Directory, open, "/local/domain/1/data|");
    }
    lab.ok(0, Op::Write, open, "/local/domain/1/data|");
    lab.ok(0, Op::TransactionEnd, open, "T|");
}

#[test]
fn a_dead_guest_leaves_no_permissions() {
    let mut lab = Lab::new(&[1, 2]);
    let before = lab.server.stats();
    lab.boot(3, 3);
    lab.ok(0, Op::Write, 0, "/local/domain/3|");
    lab.ok(0, Op::SetPerms, 0, "/local/domain/3|n3|");
    for number in 1000..1300 {
        lab.ok(3, Op::Write, 0, &format!("node|{number}"));
        lab.ok(3, Op::SetPerms, 0, &format!("node|n3|r{number}|w2|"));
        lab.ok(3, Op::Mkdir, 0, &format!("{number}|"));
        lab.ok(3, Op::SetPerms, 0, &format!("{number}|n3|r{number}|"));
    }
    lab.destroy(3);
    let after = lab.server.stats();
    assert_eq!(after.permission_lists, before.permission_lists, "lists that only it used are gone");
    assert_eq!(after.nodes, before.nodes);
}

#[test]
fn snapshots_of_guests_are_given_up_for_memory() {
    let mut lab = Lab::new(&[1]);
    lab.ok(1, Op::Write, 0, "data/k|old");
    let (guest, tools) = (lab.start(1), lab.start(0));
    lab.ok(1, Op::Write, guest, "data/k|new");
    lab.ok(0, Op::Write, tools, "/k|new");
    lab.host.memory_missing = 1;
    assert_eq!(lab.one(1, Op::Write, 0, "data/x|"), "ENOMEM|");
    lab.host.memory_missing = 0;
    assert_eq!(lab.one(1, Op::Read, guest, "data/k|"), "old", "it began anew");
    assert_eq!(lab.one(1, Op::TransactionEnd, guest, "T|"), "EAGAIN|", "and must be repeated");
    lab.ok(0, Op::TransactionEnd, tools, "T|");
}

#[test]
fn a_wide_directory_is_read_in_parts() {
    let mut lab = Lab::new(&[]);
    for number in 0..1000 {
        lab.ok(0, Op::Mkdir, 0, &format!("/wide/{number:04}|"));
    }
    assert_eq!(lab.one(0, Op::Directory, 0, "/wide|"), "E2BIG|");
    let (mut names, mut generation) = (String::new(), None);
    while !names.ends_with("||") {
        let part = lab.one(0, Op::DirectoryPart, 0, &format!("/wide|{}|", names.len()));
        let (count, rest) = part.split_once('|').expect("a generation");
        assert_eq!(generation.get_or_insert(count.to_string()), count);
        assert!(part.len() <= 4096);
        names.push_str(rest);
    }
    assert_eq!(names.split_terminator('|').count(), 1001, "a thousand names and an empty one");
    assert_eq!(
        lab.one(0, Op::DirectoryPart, 0, "/wide|99999|").split_once('|').map(|(_, rest)| rest),
        Some("|")
    );
}

#[test]
fn a_reset_forgets_watches_transactions_and_numbers() {
    let mut lab = Lab::new(&[1]);
    lab.ok(1, Op::Watch, 0, "data|t|");
    assert_eq!((lab.start(1), lab.start(1)), (1, 2));
    assert_eq!(lab.send(1, b"half a frame"), Ok(12));
    lab.server.reset(lab.clients[&1]);
    lab.check();
    lab.ok(0, Op::Write, 0, "/local/domain/1/data|x");
    assert!(lab.read(1).is_empty());
    assert_eq!(lab.start(1), 1);
    assert_eq!(lab.server.stats().watches, 0);
}

#[test]
fn the_root_and_the_special_nodes_outlive_their_owners() {
    let mut lab = Lab::new(&[4]);
    lab.ok(0, Op::SetPerms, 0, "/|n4|");
    lab.ok(0, Op::SetPerms, 0, "@releaseDomain|n4|");
    lab.ok(4, Op::Write, 0, "/of4|x");
    lab.destroy(4);
    assert_eq!(lab.one(0, Op::GetPerms, 0, "/|"), "n0|");
    assert_eq!(lab.one(0, Op::GetPerms, 0, "@releaseDomain|"), "n0|");
    assert_eq!(lab.one(0, Op::Directory, 0, "/|"), "local|tool|", "what it owned is gone");
}

#[test]
fn a_guest_waits_where_even_an_answer_needs_memory() {
    let mut lab = Lab::new(&[1, 2]);
    let read = Lab::frame(Op::Read, 0, b"data\0");
    lab.host.memory_missing = RESERVE - FINAL_RESERVE;
    assert_eq!(lab.send(1, &read), Ok(read.len()), "who has no answer waiting gets one");
    assert_eq!(lab.send(1, &read), Ok(0), "and the next one when it took that");
    assert!(lab.server.is_stalled(lab.clients[&1]));
    while lab.server.next_ready().is_some() {}
    assert_eq!(lab.read(1), [""]);
    assert_eq!(lab.server.next_ready(), Some(lab.clients[&1]), "it may go on");
    lab.host.memory_missing += 1;
    for guest in [1, 2] {
        assert_eq!(lab.send(guest, &read), Ok(0), "nothing of guest {guest} is taken");
    }
    assert_eq!(lab.one(0, Op::Read, 0, "/tool|"), "", "dom0 goes on");
    while lab.server.next_ready().is_some() {}
    lab.host.memory_missing = 0;
    assert_eq!(lab.one(0, Op::Read, 0, "/tool|"), "");
    let ready: BTreeSet<_> =
        core::iter::from_fn(|| lab.server.next_ready()).map(ConnId::slot).collect();
    let guests = [1, 2].map(|guest| lab.clients[&guest].slot());
    assert!(guests.iter().all(|slot| ready.contains(slot)), "those who waited are looked at");
    assert_eq!(lab.one(1, Op::Read, 0, "data|"), "");
}

#[test]
fn events_that_wait_are_small_however_long_their_tokens() {
    let mut lab = Lab::new(&[1]);
    lab.ok(0, Op::SetQuota, 0, "1|memory|0|");
    let token = "t".repeat(3900);
    for number in 0..128 {
        lab.ok(1, Op::Watch, 0, &format!("data|{number}{token}|"));
    }
    for number in 0..40 {
        lab.ok(0, Op::Write, 0, &format!("/local/domain/1/data/{number}|x"));
    }
    let connection = lab.server.audience.connections.find(lab.clients[&1]).expect("it lives");
    let (held, waiting) = (connection.outbox.held(), connection.outbox.len());
    assert!(waiting > 128 * 4000, "every watch was told: {waiting} bytes");
    assert!(held < 48 << 10, "{held} bytes are held for {waiting}");
    let events = lab.read(1);
    assert!(events.len() >= 128, "{} events", events.len());
}

/// A check that finds nothing wrong proves something only if it would find what is.
#[test]
fn the_check_finds_each_fault() {
    fn guest(server: &mut Server) -> &mut crate::domain::Domain {
        server.store.domains.find_mut(DomId(1)).expect("a guest")
    }
    fn watches(server: &mut Server) -> &mut Vec<crate::watch::WatchId> {
        let conn = guest(server).conn.expect("it is connected");
        &mut server.audience.connections.find_mut(conn).expect("its connection").watches
    }
    type Fault = fn(&mut Server);
    let faults: [(&str, Fault); 9] = [
        ("nodes and bytes, charged", |server| guest(server).usage.nodes += 1),
        ("nodes and bytes, charged", |server| guest(server).usage.memory += 1),
        ("watches and transactions, charged", |server| guest(server).usage.watches += 1),
        ("watches and transactions, charged", |server| guest(server).usage.transactions += 1),
        ("owns subtrees", |server| guest(server).roots.clear()),
        ("which is not its", |server| guest(server).conn = None),
        ("belongs to a dead domain", |server| drop(server.store.domains.remove(DomId(1)))),
        ("watch 0 of", |server| {
            let id = watches(server)[0];
            server.audience.watches.remove(id);
        }),
        ("connections list 0 watches, 1 exist", |server| {
            watches(server).clear();
            let usage = &mut guest(server).usage;
            (usage.watches, usage.memory) = (0, usage.memory - "/local/domain/1/data".len() - 1);
        }),
    ];
    for (told, fault) in faults {
        let mut lab = Lab::new(&[1]);
        lab.ok(1, Op::Watch, 0, "data|t|");
        fault(&mut lab.server);
        let difference = lab.server.check().expect_err(told);
        assert!(difference.contains(told), "expected {told:?}, got {difference:?}");
        let request = Lab::frame(Op::Control, 0, b"check\0");
        let taken = lab.server.receive(lab.clients[&0], &request, &mut lab.host);
        assert_eq!(taken, Ok(request.len()));
        assert_eq!(lab.read(0), ["OK|"], "the tool is told on the console");
        assert_eq!(lab.host.log.last(), Some(&format!("print {difference}")));
    }
}

#[test]
fn an_introduction_notices_another_domain_by_itself() {
    let mut lab = Lab::new(&[1]);
    lab.ok(1, Op::Write, 0, "data/x|v");
    lab.ok(0, Op::Write, 0, "/acl|v");
    lab.ok(0, Op::SetPerms, 0, "/acl|n0|r1|");
    lab.host.log.clear();
    lab.boot(1, 77);
    assert_eq!(lab.host.log, ["release 1", "introduce 1 port 7 features 15"]);
    assert_eq!(lab.one(0, Op::Read, 0, "/local/domain/1/data|"), "ENOENT|");
    assert_eq!(lab.one(1, Op::Read, 0, "/acl|"), "EACCES|", "the number alone grants nothing");
}

#[test]
fn a_connection_that_cannot_begin_anew_rests_until_it_can() {
    let mut lab = Lab::new(&[1]);
    lab.ok(1, Op::Watch, 0, "data|t|");
    lab.host.unreachable.insert(1);
    assert_eq!(lab.one(0, Op::Introduce, 0, "1|1|8|"), "EINVAL|");
    assert_eq!(lab.send(1, &Lab::frame(Op::Read, 0, b"data\0")), Ok(0), "nobody serves it");
    assert_eq!(lab.one(0, Op::IsDomainIntroduced, 0, "1|"), "T|", "it is known all the same");
    lab.host.unreachable.clear();
    lab.ok(0, Op::Introduce, 0, "1|1|8|");
    assert_eq!(lab.one(1, Op::Unwatch, 0, "data|t|"), "ENOENT|", "it began anew");
}

#[test]
fn a_domain_connected_by_the_owner_begins_anew_or_is_another() {
    let mut lab = Lab::new(&[1]);
    let first = lab.server.connect(DomId(5), UniqueId(50));
    lab.clients.insert(5, first);
    assert_eq!(lab.server.identity(DomId(5)), Some(UniqueId(50)));
    assert_eq!(lab.server.features(first), Features::all());
    lab.ok(5, Op::Watch, 0, "data|t|");
    assert_eq!(lab.server.connect(DomId(5), UniqueId(50)), first, "the same domain");
    lab.check();
    assert_eq!(lab.one(5, Op::Unwatch, 0, "data|t|"), "ENOENT|", "it began anew");
    let second = lab.server.connect(DomId(5), UniqueId(51));
    assert_ne!(second, first, "another domain has the number");
    assert_eq!(lab.server.identity(DomId(5)), Some(UniqueId(51)));
    assert_eq!(lab.server.features(first), Features::empty(), "the connection is no more");
    assert_eq!(lab.server.transmit(first), None);
    let request = Lab::frame(Op::Read, 0, b"/\0");
    assert_eq!(lab.server.receive(first, &request, &mut lab.host), Ok(0));
    lab.server.sent(first, 1);
    lab.check();
}

#[test]
fn the_privileged_domain_does_not_die() {
    let mut lab = Lab::new(&[1]);
    lab.server.gone(DomId(0), &mut lab.host);
    lab.server.gone(DomId(31), &mut lab.host);
    lab.server.shut_down(DomId(31));
    lab.check();
    assert_eq!(lab.one(0, Op::IsDomainIntroduced, 0, "0|"), "T|");
    assert_eq!(lab.one(0, Op::Read, 0, "/local/domain/1/data|"), "");
}
