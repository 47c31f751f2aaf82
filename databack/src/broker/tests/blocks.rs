//! Blocks: pushed, delivered, answered for.

mod ends;
mod limits;

use super::world::{F, World, pattern, sizes};
use crate::broker::services::SERVICE_COST;
use crate::frame::{Call, Notice, Outcome, PAYLOAD_MAX};

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
