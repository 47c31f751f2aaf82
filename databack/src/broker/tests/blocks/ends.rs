//! Blocks that come to no good end.

use core::time::Duration;

use super::super::world::pattern;
use super::{POLICY, delivery, done, ended, pair, push};
use crate::broker::services::SERVICE_COST;
use crate::frame::{Call, Cancel, Notice, Outcome, Reason};

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
