//! What commits, and what does not.

use super::*;
use crate::server::answering::LARGE;

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
fn others_come_between_two_long_commits() {
    let mut lab = Lab::new(&[1, 2]);
    let open = [lab.start(1), lab.start(1)];
    for (number, open) in open.into_iter().cycle().take(2 * (LARGE + 1)).enumerate() {
        lab.ok(1, Op::Write, open, &format!("data/{}|", number / 2));
    }
    let ends = open.map(|open| Lab::frame(Op::TransactionEnd, open, b"T\0"));
    let both = ends.concat();
    assert_eq!(lab.send(1, &both), Ok(ends[0].len()), "the first commit ends the turn");
    assert!(!lab.server.is_stalled(lab.clients[&1]), "it need not read, or be named, to go on");
    lab.ok(2, Op::Write, 0, "data/k|other");
    assert_eq!(lab.send(1, &both[ends[0].len()..]), Ok(ends[1].len()));
    assert_eq!(lab.read(1), ["OK|", "OK|"]);

    let short = lab.start(1);
    lab.ok(1, Op::Write, short, "data/k|value");
    let read = Lab::frame(Op::Read, 0, b"data/k\0");
    let both = [Lab::frame(Op::TransactionEnd, short, b"T\0"), read].concat();
    assert_eq!(lab.send(1, &both), Ok(both.len()), "a short one does not");
    assert_eq!(lab.read(1), ["OK|", "value"]);
}
