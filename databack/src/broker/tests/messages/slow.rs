//! Subscribers that do not read, or are slow.

use super::super::world::{World, pattern, sizes};
use super::{POLICY, message, publish, subscribe, wake};
use crate::broker::Limits;
use crate::frame::{Call, Notice, Reason, Slow};

#[expect(clippy::cast_possible_truncation, reason = "the low bits of small numbers")]
fn low(number: impl Into<u64>) -> u8 {
    number.into() as u8
}

#[test]
fn a_publisher_waits_for_who_must_not_miss_anything() {
    let mut world = World::new(POLICY);
    let publisher = world.join(1);
    let (careful, other) = (world.join(2), world.join(3));
    subscribe(&mut world, careful, 1, "a", Slow::Wait, 1);
    subscribe(&mut world, other, 1, "a", Slow::Wait, 100);
    for id in 1..4 {
        world.say(publisher, publish(id, "a"), &[low(id)]);
    }
    world.hears(publisher, Notice::Published { id: 1, receivers: 2 }, b"");
    world.hears_nothing(publisher);
    for seq in 1..4 {
        world.hears(other, message(1, seq, "a"), &[low(seq)]);
    }
    world.hears(careful, message(1, 1, "a"), &[1]);
    world.hears_nothing(careful);
    world.say(careful, Call::Credit { id: 1, messages: 1 }, b"");
    world.hears(careful, message(1, 2, "a"), &[2]);
    world.hears(publisher, Notice::Published { id: 2, receivers: 2 }, b"");
    world.leave(careful);
    world.hears(publisher, Notice::Published { id: 3, receivers: 2 }, b"");
}

#[test]
fn publishes_that_wait_are_as_many_as_may_be() {
    let limits = Limits { publishes: 3, ..Limits::default() };
    let mut world = World::with(POLICY, limits);
    let (publisher, front) = (world.join(1), world.join(2));
    subscribe(&mut world, front, 1, "a", Slow::Wait, 0);
    for id in 1..5 {
        world.say(publisher, publish(id, "a"), b"x");
    }
    world.hears(publisher, Notice::NotPublished { id: 4, reason: Reason::TooMany }, b"");
    world.hears_nothing(publisher);
    world.say(front, Call::Unsubscribe { id: 1 }, b"");
    world.hears(front, Notice::Ended { id: 1, reason: Reason::Asked }, b"");
    for id in 1..4 {
        world.hears(publisher, Notice::Published { id, receivers: 1 }, b"");
    }
}

#[test]
fn who_drops_is_told_how_many_and_holds_up_nobody() {
    let mut world = World::new(POLICY);
    let (publisher, front) = (world.join(1), world.join(2));
    subscribe(&mut world, front, 1, "a", Slow::DropOldest, 1);
    for id in 1..=100 {
        world.say(publisher, publish(id, "a"), &[low(id); 100]);
        world.hears(publisher, Notice::Published { id, receivers: 1 }, b"");
    }
    world.hears(front, message(1, 1, "a"), &[1; 100]);
    world.hears_nothing(front);
    world.say(front, Call::Credit { id: 1, messages: 100 }, b"");
    // 64 wait; of the 99 after the first the oldest 35 are lost.
    let first =
        Notice::Message { id: 1, seq: 37, dropped: 35, retained: false, from: 1, topic: "a" };
    world.hears(front, first, &[37; 100]);
    for seq in 38..=100 {
        world.hears(front, message(1, seq, "a"), &[low(seq); 100]);
    }
}

#[test]
fn what_waits_stays_within_the_subscribers_memory() {
    let policy = format!("{POLICY}\nlimit 2 memory 200K");
    let mut world = World::new(&policy);
    let (publisher, front) = (world.join(1), world.join(2));
    subscribe(&mut world, front, 1, "a", Slow::DropOldest, 0);
    for id in 1..10 {
        world.say(publisher, publish(id, "a"), &[low(id); 20_000]);
        world.hears(publisher, Notice::Published { id, receivers: 1 }, b"");
    }
    world.say(publisher, publish(10, "a"), &[0; 100_000]);
    world.hears(publisher, Notice::Published { id: 10, receivers: 1 }, b"");
    world.say(front, Call::Credit { id: 1, messages: 100 }, b"");
    world.hears_nothing(front);
    world.say(publisher, publish(11, "a"), b"small");
    let last =
        Notice::Message { id: 1, seq: 11, dropped: 10, retained: false, from: 1, topic: "a" };
    world.hears(front, last, b"small");
}

#[test]
fn who_is_not_to_fall_behind_is_ended() {
    let mut world = World::new(POLICY);
    let (publisher, front) = (world.join(1), world.join(2));
    subscribe(&mut world, front, 1, "a", Slow::Disconnect, 0);
    for id in 1..=64 {
        world.say(publisher, publish(id, "a"), b"x");
        world.hears(publisher, Notice::Published { id, receivers: 1 }, b"");
    }
    world.hears_nothing(front);
    world.say(publisher, publish(65, "a"), b"x");
    world.hears(publisher, Notice::Published { id: 65, receivers: 0 }, b"");
    world.hears(front, Notice::Ended { id: 1, reason: Reason::Slow }, b"");
    subscribe(&mut world, front, 1, "a", Slow::Disconnect, 1);
    world.say(publisher, publish(66, "a"), b"x");
    world.hears(front, message(1, 66, "a"), b"x");
}

#[test]
fn a_reader_of_a_large_message_that_stops_holds_up_only_its_publisher() {
    let mut world = World::new(POLICY);
    let (publisher, other) = (world.join(1), world.join(4));
    let (sleeper, reader) = (world.join_with(2, sizes(12, 13)), world.join(3));
    subscribe(&mut world, sleeper, 1, "a", Slow::Wait, 10);
    subscribe(&mut world, reader, 1, "#", Slow::Wait, 10);
    world.fronts[sleeper].reads = false;
    world.say(publisher, publish(1, "a"), &pattern(50_000));
    world.hears(reader, message(1, 1, "a"), &pattern(50_000));
    world.hears_nothing(publisher);
    world.say(other, publish(1, "b"), b"x");
    world.hears(other, Notice::Published { id: 1, receivers: 1 }, b"");
    // It is in the middle of a message; what it asks is answered behind that.
    world.say(sleeper, Call::Ping { cookie: 1 }, b"");
    wake(&mut world, sleeper);
    world.hears(sleeper, message(1, 1, "a"), &pattern(50_000));
    world.hears(sleeper, Notice::Pong { cookie: 1 }, b"");
    world.hears(publisher, Notice::Published { id: 1, receivers: 2 }, b"");
}

#[test]
fn what_a_publisher_waits_for_is_charged_to_who_does_not_read() {
    let mut world = World::new(POLICY);
    let (publisher, front) = (world.join(1), world.join(2));
    for id in 0..100 {
        subscribe(&mut world, front, id, "a", Slow::Wait, 0);
    }
    let before = world.waiting_memory();
    for id in 0..10 {
        world.say(publisher, publish(id, "a"), b"");
    }
    let charged = world.waiting_memory() - before;
    assert!(charged >= 10 * 100 * 32, "{charged} bytes for a thousand messages that wait");
    world.leave(front);
    for id in 0..10 {
        world.hears(publisher, Notice::Published { id, receivers: 100 }, b"");
    }
    assert_eq!(world.waiting_memory(), 0);
}
