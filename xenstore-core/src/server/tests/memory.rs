//! When memory is short.

use super::*;
use crate::server::waiting::FINAL_RESERVE;

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

/// Makes a tree of 6,061 nodes.
fn make_big(lab: &mut Lab) {
    for number in 0..6_000 {
        let write = format!("/big/{}/{number}\0x", number % 60);
        let frame = Lab::frame(Op::Write, 0, write.as_bytes());
        // Not by `send`, which has everything checked.
        let taken = lab.server.receive(lab.clients[&0], &frame, &mut lab.host);
        assert_eq!((taken, lab.read(0)), (Ok(frame.len()), vec!["OK|".to_owned()]));
    }
}

/// Returns how often it took, with everything checked after each.
fn clear_away(lab: &mut Lab) -> usize {
    let more = |lab: &mut Lab| {
        let more = lab.server.clear_away(&mut lab.host);
        lab.check();
        more
    };
    (1..).find(|_| !more(lab)).expect("it ends")
}

#[test]
fn what_was_removed_is_unseen_at_once_and_cleared_away_in_parts() {
    let mut lab = Lab::new(&[1]);
    make_big(&mut lab);
    let few = lab.server.stats().nodes - 6_061;
    lab.ok(0, Op::Rm, 0, "/big|");
    assert_eq!(lab.one(0, Op::Directory, 0, "/big|"), "ENOENT|", "nobody sees it");
    assert!(lab.server.stats().nodes > few + 4_000, "most of it still counts");
    let rounds = clear_away(&mut lab);
    // A thousand nodes a round are settled, and then freed.
    assert!((9..=13).contains(&rounds), "{rounds} rounds");
    assert_eq!(lab.server.stats().nodes, few, "all is settled");
    make_big(&mut lab);
    lab.ok(0, Op::Rm, 0, "/big|");
    let said = lab.one(0, Op::Control, 0, "domains|");
    // One is the guest's.
    assert!(
        said.contains(&format!("nodes {} ", few - 1)),
        "who asks waits for the figures: {said}"
    );
}

#[test]
fn who_needs_memory_waits_for_what_was_removed() {
    let mut lab = Lab::new(&[1]);
    make_big(&mut lab);
    lab.ok(0, Op::Rm, 0, "/big|");
    let mkdir = Lab::frame(Op::Mkdir, 0, b"data/more\0");
    lab.host.memory_missing = 1;
    assert_eq!(lab.send(1, &mkdir[..20]), Ok(20), "half a frame");
    assert_eq!(lab.send(1, &mkdir[20..]), Ok(0), "there is no memory for it now");
    assert!(lab.read(1).is_empty() && lab.server.is_stalled(lab.clients[&1]));
    clear_away(&mut lab);
    assert_eq!(lab.server.next_ready(), Some(lab.clients[&1]), "it can go on");
    lab.host.memory_missing = 0;
    assert_eq!(lab.send(1, &mkdir[20..]), Ok(mkdir.len() - 20));
    assert_eq!(lab.read(1), ["OK|"]);
    make_big(&mut lab);
    lab.ok(0, Op::Rm, 0, "/big|");
    lab.host.memory_missing = 1;
    assert_eq!(lab.one(1, Op::Mkdir, 0, "data/none|"), "ENOMEM|", "all is free, and not enough");
    assert!(!lab.server.clear_away(&mut lab.host), "nothing is left");
}

/// Nodes that are removed, but not settled, are nobody's reason to refuse.
#[test]
fn who_is_at_a_quota_waits_for_what_was_removed() {
    let mut lab = Lab::new(&[1]);
    lab.ok(0, Op::SetQuota, 0, "1|nodes|7|");
    let fill = |lab: &mut Lab| {
        for name in ["a", "b", "c", "d", "e"] {
            lab.ok(1, Op::Write, 0, &format!("data/s/{name}|"));
        }
    };
    lab.server.set_pace(0);
    fill(&mut lab);
    assert_eq!(lab.one(1, Op::Write, 0, "data/f|"), "ENOSPC|", "seven nodes are its own");
    lab.ok(1, Op::Rm, 0, "data/s|");
    let open = lab.start(1);
    lab.ok(1, Op::Write, open, "data/t/x|");
    let write = Lab::frame(Op::Write, 0, b"data/s/a\0");
    let end = Lab::frame(Op::TransactionEnd, open, b"T\0");
    for frame in [&write, &end, &write] {
        assert_eq!(lab.send(1, frame), Ok(0), "it waits");
        assert!(lab.read(1).is_empty(), "and is not answered");
    }
    lab.server.set_pace(1);
    clear_away(&mut lab);
    assert_eq!(lab.server.next_ready(), Some(lab.clients[&1]), "it can go on");
    lab.ok(1, Op::TransactionEnd, open, "T|");
    lab.ok(1, Op::Rm, 0, "data/t|");
    fill(&mut lab);
    assert_eq!(lab.one(1, Op::Write, 0, "data/f|"), "ENOSPC|", "all is settled");
}

/// A path that is made anew before what it was is settled stays its owner's.
#[test]
fn what_is_made_again_outlives_the_settling() {
    let mut lab = Lab::new(&[1]);
    lab.server.set_pace(0);
    lab.ok(0, Op::Rm, 0, "/local/domain/1|");
    lab.ok(0, Op::Write, 0, "/local/domain/1/data|");
    lab.ok(0, Op::SetPerms, 0, "/local/domain/1/data|n1|");
    lab.ok(0, Op::Rm, 0, "/tool|");
    lab.server.set_pace(1);
    clear_away(&mut lab);
    lab.ok(1, Op::Write, 0, "data/x|");
    lab.server.set_pace(0);
    lab.ok(0, Op::Rm, 0, "/local/domain/1/data|");
    lab.ok(0, Op::Write, 0, "/local/domain/1/data|dom0's");
    lab.destroy(1);
    assert_eq!(lab.one(0, Op::Read, 0, "/local/domain/1/data|"), "dom0's", "it is not the dead's");
    lab.server.set_pace(1);
    clear_away(&mut lab);
}

/// Guests that make nodes and remove them as fast as they can.
#[test]
fn nobody_removes_faster_than_is_cleared_away() {
    let guests: Vec<u16> = (1..=30).collect();
    let mut lab = Lab::new(&guests);
    let deep = format!("data{}\0", "/a".repeat(490));
    let cycle = [Lab::frame(Op::Mkdir, 0, deep.as_bytes()), Lab::frame(Op::Rm, 0, b"data/a\0")];
    let mut most = 0;
    for _ in 0..50 {
        // What one turn takes of each: a ring's worth.
        for frame in &cycle {
            for guest in &guests {
                let conn = lab.clients[guest];
                let taken = lab.server.receive(conn, frame, &mut lab.host);
                assert_eq!((taken, lab.read(*guest)), (Ok(frame.len()), vec!["OK|".to_owned()]));
            }
            lab.server.clear_away(&mut lab.host);
        }
        most = most.max(lab.server.store.debris.len());
    }
    lab.check();
    assert!(most <= guests.len(), "{most} removals of {} guests wait", guests.len());
    clear_away(&mut lab);
}

/// What an event was for which there was no memory is not known any more; that there was one is.
#[test]
fn events_without_memory_are_made_good_by_one_of_each_watch() {
    fn owe(lab: &mut Lab, first: usize) {
        let connection = lab.server.audience.connections.find_mut(lab.clients[&1]);
        connection.expect("a connection").outbox.owe(Some(first));
    }
    /// Until nothing comes: what is owed is queued when nothing waits, a part at a time.
    fn all(lab: &mut Lab) -> BTreeSet<String> {
        let none = lab.read(1);
        assert!(none.is_empty(), "nothing waited: {none:?}");
        lab.read(1).into_iter().collect()
    }
    let mut lab = Lab::new(&[1]);
    for number in 10..50 {
        lab.ok(1, Op::Watch, 0, &format!("data/{number}|t|"));
    }
    let events = |numbers: core::ops::Range<u32>| -> BTreeSet<String> {
        numbers.map(|number| format!("!data/{number} t")).collect()
    };
    owe(&mut lab, 0);
    assert_eq!(all(&mut lab), events(10..50));
    assert_eq!(lab.read(1), [""; 0], "and no more");
    owe(&mut lab, 38);
    assert_eq!(all(&mut lab), events(48..50), "those before were told");

    // The last takes the place of one that goes, which was told: so it begins again.
    owe(&mut lab, 38);
    let mut heard = lab.ask(1, Op::Unwatch, 0, "data/10|t|");
    assert_eq!(heard.remove(0), "OK|");
    assert_eq!(heard.into_iter().collect::<BTreeSet<_>>(), events(11..50));
}
