//! Frames in, answers out.

use super::*;
use crate::server::answering::LARGE;

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
    let mut waiting = 0;
    let drained = lab.server.transmit(lab.clients[&2], |bytes| {
        waiting = bytes.len();
        Ok::<_, Infallible>(0)
    });
    assert_eq!(drained, Ok(false), "nothing was taken");
    assert!(waiting < 4096, "{waiting} bytes wait for who does not read");
    assert_eq!(lab.read(2).last().map(String::as_str), Some("!/local/domain/1/data t"));
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
fn others_come_between_two_large_edits() {
    let mut lab = Lab::new(&[1]);
    let path = |levels| format!("data{}\0", "/a".repeat(levels));
    let remove = Lab::frame(Op::Rm, 0, b"data/a\0");
    for (levels, ends) in [(LARGE + 1, true), (LARGE, false)] {
        let make = Lab::frame(Op::Mkdir, 0, path(levels).as_bytes());
        let all = [&make[..], &remove, &remove].concat();
        let first = if ends { make.len() } else { make.len() + remove.len() };
        assert_eq!(lab.send(1, &all), Ok(first), "{levels} levels, then their removal");
        let mut rest = &all[first..];
        while !rest.is_empty() {
            assert!(!lab.server.is_stalled(lab.clients[&1]), "nobody must name it to go on");
            let taken = lab.send(1, rest).expect("well-formed requests");
            rest = &rest[taken..];
        }
        assert_eq!(lab.read(1), ["OK|", "OK|", "OK|"]);
    }
}
