//! When memory is short.

use super::*;

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

/// Nodes that are no more count for nobody, but their memory is freed in parts.
#[test]
fn what_was_removed_is_freed_in_parts_or_when_memory_is_short() {
    let fill = |lab: &mut Lab| {
        for number in 0..6_000 {
            let write = format!("/big/{}/{number}\0x", number % 60);
            let frame = Lab::frame(Op::Write, 0, write.as_bytes());
            // Not by `send`, which has everything checked.
            let taken = lab.server.receive(lab.clients[&0], &frame, &mut lab.host);
            assert_eq!((taken, lab.read(0)), (Ok(frame.len()), vec!["OK|".to_owned()]));
        }
    };
    let mut lab = Lab::new(&[1]);
    fill(&mut lab);
    let few = lab.server.stats().nodes - 6_061;
    lab.ok(0, Op::Rm, 0, "/big|");
    assert_eq!(lab.server.stats().nodes, few, "the accounts know at once");
    lab.server.check().expect("the accounts are right");
    let mut rounds = 1;
    while lab.server.clear_away() {
        rounds += 1;
    }
    // Chunks of 16 nodes and more, 64 of them a round.
    assert!((2..=6).contains(&rounds), "{rounds} rounds");
    fill(&mut lab);
    lab.ok(0, Op::Rm, 0, "/big|");
    lab.host.memory_missing = RESERVE;
    assert_eq!(lab.one(0, Op::Mkdir, 0, "/more|"), "ENOMEM|", "there is no memory for it");
    assert!(!lab.server.clear_away(), "all that was left was freed for it");
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
