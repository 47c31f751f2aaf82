//! Domains end, and leave nothing.

use super::*;

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
fn the_privileged_domain_does_not_die() {
    let mut lab = Lab::new(&[1]);
    lab.server.gone(DomId(0), &mut lab.host);
    lab.server.gone(DomId(31), &mut lab.host);
    lab.server.shut_down(DomId(31));
    lab.check();
    assert_eq!(lab.one(0, Op::IsDomainIntroduced, 0, "0|"), "T|");
    assert_eq!(lab.one(0, Op::Read, 0, "/local/domain/1/data|"), "");
}
