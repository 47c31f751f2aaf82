//! How much a front may ask for, and what is no longer a front.

use super::super::world::{World, pattern, sizes};
use super::{POLICY, delivery, done, ended, pair, push, serve};
use crate::broker::{Ended, Limits, Refusal, Violation};
use crate::frame::{Call, Malformed, NAME_MAX, Notice, Outcome, Reason};

#[test]
fn names_that_are_served_are_charged() {
    let mut world = World::new("allow * serve *");
    let front = world.join(1);
    let names: Vec<_> = (0..10).map(|number| format!("name{number}")).collect();
    for name in &names {
        serve(&mut world, front, name);
    }
    let charged = world.waiting_memory();
    assert!(charged >= 10 * 2 * NAME_MAX, "{charged} bytes for ten names, each kept twice");
    world.say(front, Call::Unserve { name: "name3" }, b"");
    assert_eq!(world.waiting_memory(), charged / 10 * 9);
    world.set_policy("allow * serve name5");
    assert_eq!(world.waiting_memory(), charged / 10);
    world.leave(front);
    assert_eq!(world.waiting_memory(), 0);
}

#[test]
fn names_are_served_once_a_domain_and_within_limits() {
    let limits = Limits { services: 2, ..Limits::default() };
    let mut world = World::with("allow 5 serve jobs*", limits);
    let (one, two) = (world.join(5), world.join(5));
    let refused = |name, reason| Notice::NotServed { name, reason };
    serve(&mut world, one, "jobs");
    world.say(two, Call::Serve { name: "jobs" }, b"");
    world.hears(two, refused("jobs", Reason::Taken), b"");
    world.say(two, Call::Serve { name: "mail" }, b"");
    world.hears(two, refused("mail", Reason::Denied), b"");
    world.say(two, Call::Serve { name: "a/b" }, b"");
    world.hears(two, refused("", Reason::BadName), b"");
    world.say(one, Call::Unserve { name: "jobs" }, b"");
    world.hears(one, refused("jobs", Reason::Asked), b"");
    serve(&mut world, two, "jobs");
    serve(&mut world, two, "jobs2");
    world.say(two, Call::Serve { name: "jobs3" }, b"");
    world.hears(two, refused("jobs3", Reason::TooMany), b"");
    world.leave(two);
    serve(&mut world, one, "jobs");
}

#[test]
fn pushes_within_limits_or_later() {
    let limits = Limits { pushes: 2, ..Limits::default() };
    let mut world = World::with(POLICY, limits);
    let (sender, receiver) = (world.join(1), world.join(5));
    serve(&mut world, receiver, "jobs");
    for id in 1..4 {
        world.say(sender, push(id, "jobs", 1), b"x");
    }
    world.hears(sender, ended(3, Outcome::Busy), b"");
    let id = delivery(&mut world, receiver);
    world.say(receiver, Call::Done { id, flag: 0 }, b"");
    world.hears(sender, done(1, 0), b"");
    world.say(sender, push(3, "jobs", 1), b"x");
    world.hears_nothing(sender);
}

#[test]
fn what_waits_is_charged_to_who_does_not_read() {
    let policy = format!("{POLICY}\nlimit 5 memory 250K");
    let mut world = World::new(&policy);
    let (sender, receiver) = (world.join(1), world.join(5));
    serve(&mut world, receiver, "jobs");
    world.fronts[receiver].reads = false;
    for id in 1..4 {
        world.say(sender, push(id, "jobs", 65_536), &pattern(65_536));
    }
    // 140 KB are the channel's own; the ring takes the first block, memory the second.
    let mut outcomes = Vec::new();
    while let Some(outcome) = world.next(sender, |notice, _| match notice {
        Notice::PushDone { id, outcome } => (id, outcome),
        other => panic!("{other:?}"),
    }) {
        outcomes.push(outcome);
    }
    assert_eq!(outcomes, [(3, Outcome::Busy)]);
    world.fronts[receiver].reads = true;
    world.fronts[receiver].awake = true;
    world.run();
    world.say(sender, push(3, "jobs", 65_536), &pattern(65_536));
    let mut whole = 0;
    while let Some(count) = world.next(receiver, |_, bytes| bytes.len()) {
        whole += count;
    }
    assert_eq!(whole, 3 * 65_536);
}

#[test]
fn rings_that_are_still_mapped_are_charged() {
    let mut world = World::new(&format!("{POLICY}\nlimit 5 memory 300K"));
    let receiver = world.join(5);
    let channel = world.fronts[receiver].id;
    let domain = world.broker.owner(channel).unwrap().domain;
    let end = world.broker.close(channel).unwrap();
    // A channel takes 134 KiB, so there is room for two.
    let second = world.ask(5, "services", sizes(16, 16));
    assert!(second.is_ok(), "there is room for two");
    let third = world.ask(5, "services", sizes(16, 16));
    assert_eq!(third.err(), Some(Refusal::NoMemory), "the first is in use as before");
    world.broker.freed(domain, end.sizes());
    assert!(world.ask(5, "services", sizes(16, 16)).is_ok(), "what is free is not charged");
}

#[test]
fn a_front_that_breaks_the_rules_is_shut_out_and_nobody_else() {
    let hello = Call::Hello { version: 1, features: 0 };
    type Said<'a> = &'a [(Call<'a>, &'a [u8])];
    let cases: &[(Said<'_>, Violation)] = &[
        (&[(hello, b"")], Violation::Greeting),
        (&[(Call::Status, b"payload")], Violation::Payload),
        (&[(Call::Done { id: 0, flag: 0 }, &[0; 4097])], Violation::Payload),
        (&[(push(1, "jobs", 1), b"too much")], Violation::Overrun),
        (&[(push(1, "jobs", 3), b"xx"), (Call::PushData { id: 1 }, b"xx")], Violation::Overrun),
        (&[(push(1, "jobs", 1 << 30), &[0; 65_537])], Violation::Overrun),
        (&[(push(1, "jobs", 3), b""), (push(1, "jobs", 3), b"")], Violation::Id),
    ];
    for (calls, violation) in cases {
        let (mut world, sender, receiver) = pair();
        let bad = world.join(2);
        world.say(sender, push(1, "jobs", 1), b"x");
        let id = delivery(&mut world, receiver);
        for (call, payload) in *calls {
            world.write(bad, *call, payload);
        }
        world.run();
        assert_eq!(world.fronts[bad].ended, Some(Ended::Violation(*violation)));
        world.say(receiver, Call::Done { id, flag: 0 }, b"");
        world.hears(sender, done(1, 0), b"");
    }
}

#[test]
fn bytes_that_are_no_frame_end_the_channel() {
    let mut world = World::new(POLICY);
    let front = world.join(1);
    world.send(front, b"GET / HTTP/1.1\r\n");
    world.run();
    let length = u32::from_le_bytes(*b"GET ");
    let violation = Violation::Frame(Malformed::Length(length));
    assert_eq!(world.fronts[front].ended, Some(Ended::Violation(violation)));
    let silent = world.ask(1, "services", sizes(16, 16)).unwrap();
    world.say(silent, Call::Ping { cookie: 1 }, b"");
    assert_eq!(world.fronts[silent].ended, Some(Ended::Violation(Violation::Greeting)));
    let ancient = world.ask(1, "services", sizes(16, 16)).unwrap();
    world.say(ancient, Call::Hello { version: 0, features: 0 }, b"");
    assert_eq!(world.fronts[ancient].ended, Some(Ended::Violation(Violation::Greeting)));
    let modern = world.ask(1, "services", sizes(16, 16)).unwrap();
    world.say(modern, Call::Hello { version: 9, features: u32::MAX }, b"");
    let spoken = world.next(modern, |notice, _| match notice {
        Notice::Hello { version, features, domain, .. } => (version, features, domain),
        other => panic!("{other:?}"),
    });
    assert_eq!(spoken, Some((1, 0, 1)));
}

#[test]
fn more_than_the_credit_ends_the_channel() {
    let (mut world, sender, receiver) = pair();
    world.fronts[receiver].reads = false;
    world.say(sender, push(1, "jobs", 1 << 30), &pattern(65_536));
    let look = |notice: Notice<'_>, _: &[u8]| match notice {
        Notice::PushCredit { bytes, .. } => bytes as usize,
        other => panic!("{other:?}"),
    };
    let credit = world.next(sender, look).unwrap();
    world.say(sender, Call::PushData { id: 1 }, &pattern(credit));
    world.hears_nothing(sender);
    assert_eq!(world.fronts[sender].ended, None);
    world.say(sender, Call::PushData { id: 1 }, b"x");
    assert_eq!(world.fronts[sender].ended, Some(Ended::Violation(Violation::Overrun)));
}

#[test]
fn a_front_that_never_stops_has_its_turn_and_no_more() {
    let mut world = World::new(POLICY);
    let front = world.join_with(1, sizes(20, 20));
    for cookie in 0..1000 {
        world.write(front, Call::Ping { cookie }, b"");
    }
    world.fronts[front].pump();
    let id = world.fronts[front].id;
    assert!(world.broker.serve(id, world.now), "there is more to do");
    world.fronts[front].pump();
    let mut answered = 0;
    while let Some(()) = world.next(front, |_, _| ()) {
        answered += 1;
    }
    assert_eq!(answered, 64);
    world.serve(id);
    world.run();
    while let Some(()) = world.next(front, |_, _| ()) {
        answered += 1;
    }
    assert_eq!(answered, 1000);
}
