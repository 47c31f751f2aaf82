//! Introductions, resets, and what a guest is offered.

use super::*;

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
    assert_eq!(lab.take(first), b"");
    let request = Lab::frame(Op::Read, 0, b"/\0");
    assert_eq!(lab.server.receive(first, &request, &mut lab.host), Ok(0));
    lab.check();
}
