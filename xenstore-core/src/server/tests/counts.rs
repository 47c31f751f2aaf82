//! What is counted, and what is published of it.

use super::*;

fn of<'a>(mut counts: impl Iterator<Item = (&'a str, u64)>, name: &str) -> u64 {
    counts.find(|(of, _)| *of == name).map(|(_, count)| count).expect("a name that is counted")
}

#[test]
fn requests_are_counted_by_their_type_and_errors_by_their_name() {
    let mut lab = Lab::new(&[1]);
    let before = lab.server.counts().clone();
    lab.ok(1, Op::Write, 0, "data/a|1");
    lab.ask(1, Op::Read, 0, "data/a|");
    lab.ask(1, Op::Read, 0, "data/none|");
    lab.ask(1, Op::Read, 0, "data//|");
    lab.ask(1, Op::Control, 0, "check|");
    lab.ask(1, Op::Restrict, 0, "1|");
    let frame = Header::new(4_000_000_000, 1, 0, 0);
    assert_eq!(lab.send(1, frame.as_bytes()), Ok(HEADER_SIZE));
    lab.read(1);
    let after = lab.server.counts();
    let requests = |name| of(after.requests(), name) - of(before.requests(), name);
    let errors = |name| of(after.errors(), name) - of(before.errors(), name);
    for (name, count) in [("WRITE", 1), ("READ", 3), ("CONTROL", 1), ("none", 2), ("MKDIR", 0)] {
        assert_eq!(requests(name), count, "{name}");
    }
    for (name, count) in [("ENOENT", 1), ("EINVAL", 1), ("EACCES", 1), ("ENOSYS", 2), ("EPERM", 0)]
    {
        assert_eq!(errors(name), count, "{name}");
    }
    assert_eq!(after.all_requests() - before.all_requests(), 7);
    assert_eq!(after.requests().map(|(_, count)| count).sum::<u64>(), after.all_requests());
}

#[test]
fn a_reply_that_is_too_long_is_an_error_that_counts() {
    let mut lab = Lab::new(&[]);
    for number in 0..300 {
        lab.ok(0, Op::Mkdir, 0, &format!("/many/a-name-of-some-length-{number}|"));
    }
    assert_eq!(lab.ask(0, Op::Directory, 0, "/many|"), ["E2BIG|"]);
    assert_eq!(of(lab.server.counts().errors(), "E2BIG"), 1);
}

#[test]
fn bytes_are_counted_both_ways() {
    let mut lab = Lab::new(&[1]);
    let (received, sent) = (lab.server.counts().received_bytes(), lab.server.counts().sent_bytes());
    let frame = Lab::frame(Op::Read, 0, b"data\0");
    lab.send(1, &frame[..5]).expect("half a frame");
    lab.send(1, &frame[5..]).expect("the rest");
    lab.read(1);
    assert_eq!(lab.server.counts().received_bytes() - received, frame.len() as u64);
    assert_eq!(lab.server.counts().sent_bytes() - sent, HEADER_SIZE as u64, "an empty value");
}

#[test]
fn each_transaction_that_is_started_ends_once() {
    let mut lab = Lab::new(&[1, 2]);
    let before = lab.server.counts().clone();
    let of = |counts: &Counts, name| of(counts.transactions_ended(), name);
    let ended = |lab: &Lab| {
        ["committed", "conflict", "refused", "dropped"]
            .map(|name| of(lab.server.counts(), name) - of(&before, name))
    };
    let start = |lab: &mut Lab| lab.start(1);
    let number = start(&mut lab);
    lab.ok(1, Op::Write, number, "data/a|1");
    lab.ok(1, Op::TransactionEnd, number, "T|");
    assert_eq!(ended(&lab), [1, 0, 0, 0]);
    let number = start(&mut lab);
    assert_eq!(lab.ask(1, Op::Read, number, "data/a|"), ["1"]);
    lab.ok(1, Op::Write, 0, "data/a|2");
    lab.ok(1, Op::Write, number, "data/b|1");
    assert_eq!(lab.ask(1, Op::TransactionEnd, number, "T|"), ["EAGAIN|"]);
    assert_eq!(ended(&lab), [1, 1, 0, 0]);
    let number = start(&mut lab);
    lab.ok(1, Op::TransactionEnd, number, "F|");
    assert_eq!(ended(&lab), [1, 1, 0, 1]);
    lab.start(2);
    lab.start(2);
    assert_eq!(lab.server.counts().transactions_open(), 2);
    lab.destroy(2);
    assert_eq!(ended(&lab), [1, 1, 0, 3]);
    let counts = lab.server.counts();
    assert_eq!(counts.transactions_started() - before.transactions_started(), 5);
    assert_eq!(counts.transactions_open(), 0);
}

#[test]
fn refusals_outlive_the_domain_that_was_refused() {
    let mut lab = Lab::new(&[1]);
    lab.ok(0, Op::SetQuota, 0, "1|watches|1|");
    lab.ask(1, Op::Watch, 0, "data|a|");
    assert_eq!(lab.ask(1, Op::Watch, 0, "data|b|"), ["ENOSPC|"]);
    lab.destroy(1);
    assert_eq!(of(lab.server.counts().refusals(), "watches"), 1);
    assert_eq!(of(lab.server.counts().refusals(), "nodes"), 0);
}

#[test]
fn what_is_published_is_the_privileged_domains_alone_to_read_and_write() {
    let mut lab = Lab::new(&[1]);
    lab.ok(0, Op::Watch, 0, "/tool/xenstored|t|");
    lab.read(0);
    lab.server.publish("/tool/xenstored/figures/a", b"1", &lab.host);
    lab.check();
    assert_eq!(lab.read(0), ["!/tool/xenstored/figures/a t"]);
    assert_eq!(lab.ask(0, Op::Read, 0, "/tool/xenstored/figures/a|"), ["1"]);
    assert_eq!(lab.ask(0, Op::GetPerms, 0, "/tool/xenstored/figures/a|"), ["n0|"]);
    assert_eq!(lab.ask(1, Op::Read, 0, "/tool/xenstored/figures/a|"), ["EACCES|"]);
    assert_eq!(lab.ask(1, Op::Write, 0, "/tool/xenstored/figures/a|2"), ["EACCES|"]);
    assert_eq!(lab.ask(1, Op::Write, 0, "/tool/xenstored/figures/b|2"), ["EACCES|"]);
    lab.host.memory_missing = RESERVE;
    lab.server.publish("/tool/xenstored/figures/a", b"2", &lab.host);
    assert_eq!(lab.ask(0, Op::Read, 0, "/tool/xenstored/figures/a|"), ["1"], "no memory for it");
}
