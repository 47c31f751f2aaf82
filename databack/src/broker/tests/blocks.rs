//! Blocks: pushed, delivered, answered for.

use core::time::Duration;

use super::world::{F, World, pattern, sizes};
use crate::broker::services::SERVICE_COST;
use crate::broker::{Ended, Limits, Refusal, Violation};
use crate::frame::{Call, Cancel, Malformed, NAME_MAX, Notice, Outcome, PAYLOAD_MAX, Reason};

const POLICY: &str = "allow 1 push *\nallow 2 push *\nallow * serve *";

fn push(id: u32, name: &str, len: usize) -> Call<'_> {
    Call::Push { id, domain: None, name, len: len as u64, timeout_ms: 0 }
}

fn done(id: u32, flag: u32) -> Notice<'static> {
    Notice::PushDone { id, outcome: Outcome::Done { flag } }
}

fn ended(id: u32, outcome: Outcome) -> Notice<'static> {
    Notice::PushDone { id, outcome }
}

/// A sender, and a receiver of "jobs".
fn pair() -> (World, F, F) {
    let mut world = World::new(POLICY);
    let (sender, receiver) = (world.join(1), world.join(5));
    serve(&mut world, receiver, "jobs");
    (world, sender, receiver)
}

fn serve(world: &mut World, front: F, name: &str) {
    world.say(front, Call::Serve { name }, b"");
    world.hears(front, Notice::Served { name }, b"");
}

/// The number of the delivery that is announced next.
#[track_caller]
fn delivery(world: &mut World, front: F) -> u64 {
    let look = |notice: Notice<'_>, _: &[u8]| match notice {
        Notice::Deliver { id, .. } => id,
        other => panic!("{other:?} instead of a delivery"),
    };
    world.next(front, look).expect("a delivery")
}

/// All bytes of the one block that comes to a front, and its number.
fn receive(world: &mut World, front: F) -> (u64, Vec<u8>, u64) {
    let (mut block, mut number, mut whole) = (Vec::new(), None, 0);
    while let Some(()) = world.next(front, |notice, bytes| {
        match notice {
            Notice::Deliver { id, len, .. } => (number, whole) = (Some(id), len),
            Notice::DeliverData { id } => assert_eq!(Some(id), number),
            other => panic!("{other:?} in a block"),
        }
        block.extend(bytes);
    }) {}
    (number.expect("a delivery"), block, whole)
}

#[test]
fn a_block_goes_to_who_serves_its_name_and_the_flag_comes_back() {
    let (mut world, sender, receiver) = pair();
    world.say(sender, push(7, "jobs", 5), b"block");
    let id = world.next(receiver, |notice, bytes| match notice {
        Notice::Deliver { id, from: 1, name: "jobs", len: 5 } if bytes == b"block" => id,
        other => panic!("{other:?} with {bytes:?}"),
    });
    let id = id.expect("a delivery");
    world.hears_nothing(sender);
    world.say(receiver, Call::Done { id, flag: 3 }, b"reply");
    world.hears(sender, done(7, 3), b"reply");
    world.say(receiver, Call::Done { id, flag: 4 }, b"once more");
    world.hears_nothing(sender);
    assert_eq!(world.waiting_memory(), SERVICE_COST);
}

#[test]
fn blocks_of_any_length_go_through_rings_of_any_size() {
    for (left, right, to) in [(16, 16, 16), (10, 13, 13), (16, 13, 20), (20, 16, 13)] {
        let mut world = World::new(POLICY);
        let sender = world.join_with(1, sizes(left, right));
        let receiver = world.join_with(5, sizes(12, to));
        serve(&mut world, receiver, "jobs");
        for len in [0, 1, 1023, 4096, 65_536, 65_537, 3_000_000] {
            let block = pattern(len);
            let window = 65_536.max(1 << left);
            let first = len.min(window).min(PAYLOAD_MAX as usize);
            world.say(sender, push(1, "jobs", len), &block[..first]);
            let (mut sent, mut allowed) = (first, window);
            let mut heard: Vec<u8> = Vec::new();
            let mut number = None;
            while heard.len() < len || number.is_none() {
                let part = (allowed.min(len) - sent).min(50_000);
                if part > 0 {
                    world.say(sender, Call::PushData { id: 1 }, &block[sent..sent + part]);
                    sent += part;
                }
                while let Some(bytes) = world.next(sender, |notice, _| match notice {
                    Notice::PushCredit { id: 1, bytes } => bytes,
                    other => panic!("{other:?}"),
                }) {
                    allowed += bytes as usize;
                }
                let before = heard.len();
                while let Some(()) = world.next(receiver, |notice, bytes| {
                    if let Notice::Deliver { id, len: told, .. } = notice {
                        assert_eq!(told, len as u64);
                        assert_eq!(number.replace(id), None, "announced once");
                    }
                    heard.extend(bytes);
                }) {}
                assert!(heard.len() > before || part > 0 || len == 0, "stuck at {before} of {len}");
            }
            assert!(heard == block, "{len} bytes through {left} {right} {to}");
            world.say(receiver, Call::Done { id: number.unwrap(), flag: 0 }, b"");
            world.hears(sender, done(1, 0), b"");
        }
        assert_eq!(world.waiting_memory(), SERVICE_COST);
    }
}

#[test]
fn a_receiver_that_does_not_read_holds_up_nobody() {
    let (mut world, sender, sleeper) = pair();
    let other = world.join(6);
    serve(&mut world, other, "mail");
    world.fronts[sleeper].reads = false;
    let block = pattern(65_536);
    world.say(sender, push(1, "jobs", 1 << 30), &block);
    world.say(sender, push(2, "jobs", 65_536), &block);
    assert!(world.waiting_memory() >= 65_536, "what did not fit waits");
    world.say(sender, push(3, "mail", 6), b"urgent");
    let (id, bytes, _) = receive(&mut world, other);
    assert_eq!(bytes, b"urgent");
    world.say(other, Call::Done { id, flag: 0 }, b"");
    world.hears(sender, Notice::PushCredit { id: 1, bytes: 65_007 }, b"");
    world.hears(sender, done(3, 0), b"");
    // It wakes up, and gets both blocks after all.
    world.fronts[sleeper].reads = true;
    world.fronts[sleeper].awake = true;
    world.run();
    let mut bytes = 0;
    while let Some(count) = world.next(sleeper, |_, payload| payload.len()) {
        bytes += count;
    }
    assert_eq!(bytes, 2 * 65_536);
}

#[test]
fn two_blocks_share_a_slow_receiver() {
    let (mut world, one, receiver) = pair();
    let two = world.join(2);
    world.fronts[receiver].reads = false;
    for (sender, id) in [(one, 1), (two, 2)] {
        world.say(sender, push(id, "jobs", 200_000), &pattern(65_536));
    }
    world.fronts[receiver].reads = true;
    world.fronts[receiver].awake = true;
    world.run();
    let mut got = std::collections::BTreeMap::<u64, Vec<u8>>::new();
    while let Some(()) = world.next(receiver, |notice, bytes| match notice {
        Notice::Deliver { id, .. } | Notice::DeliverData { id } => {
            got.entry(id).or_default().extend(bytes);
        }
        other => panic!("{other:?}"),
    }) {}
    assert!(got.len() == 2 && got.values().all(|bytes| *bytes == pattern(65_536)));
}

#[test]
fn what_cannot_be_delivered_is_told_apart() {
    let mut world = World::new("allow 1 push 5/jobs\nallow 1 push */mail\nallow * serve *");
    let sender = world.join(1);
    let (five, six) = (world.join(5), world.join(6));
    let to = |domain, name| Call::Push { id: 1, domain, name, len: 1, timeout_ms: 0 };
    let outcome = |world: &mut World, domain, name| {
        world.say(sender, to(domain, name), b"x");
        world.next(sender, |notice, _| match notice {
            Notice::PushDone { id: 1, outcome } => Some(outcome),
            other => panic!("{other:?}"),
        })
    };
    assert_eq!(outcome(&mut world, None, "mail"), Some(Some(Outcome::NoReceiver)));
    assert_eq!(outcome(&mut world, None, "else"), Some(Some(Outcome::Denied)));
    assert_eq!(outcome(&mut world, Some(5), "jobs"), Some(Some(Outcome::NoReceiver)));
    assert_eq!(outcome(&mut world, Some(9), "mail"), Some(Some(Outcome::NoReceiver)));
    assert_eq!(outcome(&mut world, Some(0xffff), "mail"), Some(Some(Outcome::NoReceiver)));
    assert_eq!(outcome(&mut world, None, "no name"), Some(Some(Outcome::BadName)));
    for front in [five, six] {
        serve(&mut world, front, "mail");
        serve(&mut world, front, "jobs");
    }
    assert_eq!(outcome(&mut world, None, "mail"), Some(Some(Outcome::Ambiguous)));
    assert_eq!(outcome(&mut world, Some(6), "jobs"), Some(Some(Outcome::Denied)));
    assert_eq!(outcome(&mut world, Some(6), "mail"), None, "it is delivered");
    let id = delivery(&mut world, six);
    world.say(six, Call::Reject { id }, b"not today");
    world.hears(sender, ended(1, Outcome::Rejected), b"not today");
    world.hears_nothing(five);
}

#[test]
fn a_receiver_that_goes_is_told_of_at_once() {
    for closes in [false, true] {
        let (mut world, sender, receiver) = pair();
        world.say(sender, push(1, "jobs", 100_000), &pattern(10_000));
        if closes {
            world.leave(receiver)
        } else {
            world.close(receiver)
        }
        world.hears(sender, ended(1, Outcome::ReceiverGone), b"");
        world.say(sender, Call::PushData { id: 1 }, &pattern(50_000));
        world.say(sender, push(1, "jobs", 1), b"x");
        world.hears(sender, ended(1, Outcome::NoReceiver), b"");
        assert_eq!(world.waiting_memory(), 0);
    }
}

#[test]
fn a_receiver_that_goes_in_its_word_did_not_say_it() {
    let (mut world, sender, receiver) = pair();
    world.say(sender, push(1, "jobs", 1), b"x");
    let id = delivery(&mut world, receiver);
    let head = crate::frame::encode(&Call::Done { id, flag: 0 }, 100).unwrap();
    world.send(receiver, head.bytes());
    world.send(receiver, b"half of a");
    world.run();
    world.leave(receiver);
    world.hears(sender, ended(1, Outcome::ReceiverGone), b"");
}

#[test]
fn a_sender_that_goes_or_gives_up_cancels() {
    let (mut world, sender, receiver) = pair();
    world.say(sender, push(1, "jobs", 100_000), b"begun");
    let first = delivery(&mut world, receiver);
    world.say(sender, Call::PushCancel { id: 1 }, b"");
    world.hears(sender, ended(1, Outcome::Cancelled), b"");
    world.hears(receiver, Notice::DeliverCancel { id: first, reason: Cancel::Cancelled }, b"");
    world.say(sender, push(1, "jobs", 5), b"whole");
    let second = delivery(&mut world, receiver);
    assert_ne!(first, second);
    world.leave(sender);
    world.hears(receiver, Notice::DeliverCancel { id: second, reason: Cancel::SenderGone }, b"");
    world.say(receiver, Call::Done { id: second, flag: 0 }, b"too late");
    world.hears_nothing(receiver);
    assert_eq!(world.waiting_memory(), SERVICE_COST);
}

#[test]
fn a_block_ends_in_the_middle_when_it_is_no_longer_allowed() {
    let without_push = "allow 2 push *\nallow * serve *";
    let without_serve = "allow 1 push *\nallow * publish #";
    for policy in [without_push, without_serve] {
        let (mut world, sender, receiver) = pair();
        world.say(sender, push(7, "jobs", 1 << 30), b"the beginning");
        let id = delivery(&mut world, receiver);
        world.set_policy(POLICY);
        world.say(sender, Call::PushData { id: 7 }, b"more");
        world.hears(receiver, Notice::DeliverData { id }, b"more");
        world.set_policy(policy);
        world.hears(sender, ended(7, Outcome::Denied), b"");
        let told = world.next(receiver, |notice, _| match notice {
            Notice::NotServed { name: "jobs", reason: Reason::Denied } => false,
            other => other == Notice::DeliverCancel { id, reason: Cancel::Cancelled },
        });
        assert_eq!(told, Some(policy == without_push), "by {policy:?}");
        // What was on its way is passed over.
        world.say(sender, Call::PushData { id: 7 }, b"and more");
        assert_eq!(world.fronts[sender].ended, None);
        let served = if policy == without_push { SERVICE_COST } else { 0 };
        assert_eq!(world.waiting_memory(), served);
    }
}

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
fn patience_ends() {
    let (mut world, sender, receiver) = pair();
    for (id, timeout_ms) in [(1, 500), (2, 300), (3, 0)] {
        let call = Call::Push { id, domain: None, name: "jobs", len: 2, timeout_ms };
        world.say(sender, call, b"x");
    }
    let [_, second, third] = [0; 3].map(|_| delivery(&mut world, receiver));
    assert_eq!(world.pass(Duration::from_millis(299)), Some(Duration::from_millis(300)));
    world.hears_nothing(sender);
    assert_eq!(world.pass(Duration::from_millis(1)), Some(Duration::from_millis(500)));
    world.hears(sender, ended(2, Outcome::TimedOut), b"");
    world.hears(receiver, Notice::DeliverCancel { id: second, reason: Cancel::TimedOut }, b"");
    assert_eq!(world.pass(Duration::from_secs(1)), None);
    world.hears(sender, ended(1, Outcome::TimedOut), b"");
    world.say(receiver, Call::Done { id: third, flag: 9 }, b"");
    world.hears(sender, done(3, 9), b"");
}

#[test]
fn a_receiver_may_answer_before_the_block_is_whole() {
    let (mut world, sender, receiver) = pair();
    world.say(sender, push(1, "jobs", 100_000), b"enough");
    let id = delivery(&mut world, receiver);
    world.say(receiver, Call::Done { id, flag: 1 }, b"");
    world.hears(sender, done(1, 1), b"");
    world.say(sender, Call::PushData { id: 1 }, b"on its way already");
    world.hears_nothing(receiver);
}

#[test]
fn a_front_may_push_to_itself() {
    let mut world = World::new("allow 1 push *\nallow 1 serve *");
    let front = world.join(1);
    serve(&mut world, front, "jobs");
    world.say(front, push(1, "jobs", 60_000), &pattern(60_000));
    let (id, block, _) = receive(&mut world, front);
    assert!(block == pattern(60_000));
    world.say(front, Call::Done { id, flag: 0 }, &pattern(4096));
    world.hears(front, done(1, 0), &pattern(4096));
    assert_eq!(world.waiting_memory(), SERVICE_COST);
}

#[test]
fn a_long_reply_waits_for_a_sender_that_does_not_read() {
    let (mut world, _, receiver) = pair();
    let sender = world.join_with(2, sizes(16, 13));
    for id in 0..5 {
        world.say(sender, push(id, "jobs", 1), b"x");
    }
    world.fronts[sender].reads = false;
    for flag in 0..5 {
        let id = delivery(&mut world, receiver);
        world.say(receiver, Call::Done { id, flag }, &pattern(4096));
    }
    world.fronts[sender].reads = true;
    world.fronts[sender].awake = true;
    world.run();
    for id in 0..5 {
        world.hears(sender, done(id, id), &pattern(4096));
    }
    assert_eq!(world.waiting_memory(), SERVICE_COST);
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
fn a_front_gets_what_it_asks_about() {
    let (mut world, sender, _) = pair();
    world.say(sender, Call::Ping { cookie: 77 }, b"");
    world.hears(sender, Notice::Pong { cookie: 77 }, b"");
    world.say(sender, Call::Status, b"");
    let text = world.next(sender, |notice, bytes| {
        assert_eq!(notice, Notice::Status);
        String::from_utf8(bytes.to_vec()).unwrap()
    });
    let text = text.unwrap();
    assert!(text.starts_with("d1: channels 1,") && !text.contains("d5"), "{text}");
    let mut all = String::new();
    world.broker.status(&mut all).unwrap();
    assert!(all.contains("d5: channels 1,") && all.starts_with("channels 2, services 1"), "{all}");
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
