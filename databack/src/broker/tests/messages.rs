//! Messages: published, subscribed to, kept.

use super::world::{F, World, pattern, sizes};
use crate::broker::{Ended, Limits, Violation};
use crate::frame::{Call, Notice, PAYLOAD_MAX, Reason, Slow};

#[expect(clippy::cast_possible_truncation, reason = "the low bits of small numbers")]
fn low(number: impl Into<u64>) -> u8 {
    number.into() as u8
}

const POLICY: &str = "allow * publish #\nallow * subscribe #";

fn publish(id: u32, topic: &str) -> Call<'_> {
    Call::Publish { id, topic, retain: false }
}

fn retain(id: u32, topic: &str) -> Call<'_> {
    Call::Publish { id, topic, retain: true }
}

fn subscribe(world: &mut World, front: F, id: u32, filter: &str, slow: Slow, credit: u32) {
    world.say(front, Call::Subscribe { id, filter, slow, credit }, b"");
    world.hears(front, Notice::Subscribed { id }, b"");
}

fn message(id: u32, seq: u64, topic: &str) -> Notice<'_> {
    Notice::Message { id, seq, dropped: 0, retained: false, from: 1, topic }
}

fn kept(id: u32, seq: u64, topic: &str) -> Notice<'_> {
    Notice::Message { id, seq, dropped: 0, retained: true, from: 1, topic }
}

fn wake(world: &mut World, front: F) {
    world.fronts[front].reads = true;
    world.fronts[front].awake = true;
    world.run();
}

#[test]
fn a_message_goes_to_all_whose_filter_matches() {
    let mut world = World::new(POLICY);
    let publisher = world.join(1);
    let fronts: Vec<F> = (2..10).map(|domain| world.join(domain)).collect();
    let filters = ["a/b", "a/+", "#", "a/#", "+/b", "a", "b/#", "a/b/+"];
    for (&front, filter) in fronts.iter().zip(filters) {
        subscribe(&mut world, front, 7, filter, Slow::Wait, 10);
    }
    world.say(publisher, publish(1, "a/b"), b"news");
    world.hears(publisher, Notice::Published { id: 1, receivers: 5 }, b"");
    for &front in &fronts[..5] {
        world.hears(front, message(7, 1, "a/b"), b"news");
    }
    for &front in &fronts[5..] {
        world.hears_nothing(front);
    }
    world.say(publisher, publish(2, "c"), b"");
    world.hears(publisher, Notice::Published { id: 2, receivers: 1 }, b"");
    world.hears(fronts[2], message(7, 2, "c"), b"");
    world.say(publisher, publish(3, "b/c"), b"x");
    world.hears(publisher, Notice::Published { id: 3, receivers: 2 }, b"");
}

#[test]
fn what_all_have_room_for_needs_no_memory() {
    let mut world = World::new(POLICY);
    let publisher = world.join(1);
    let fronts: Vec<F> = (2..10).map(|domain| world.join(domain)).collect();
    for &front in &fronts {
        subscribe(&mut world, front, 1, "a", Slow::Wait, 10);
    }
    let before = world.waiting_memory();
    for &front in &fronts {
        world.fronts[front].reads = false;
    }
    world.say(publisher, publish(1, "a"), &pattern(60_000));
    world.hears(publisher, Notice::Published { id: 1, receivers: 8 }, b"");
    assert_eq!(world.waiting_memory(), before, "it went from ring to rings");
    for &front in &fronts {
        wake(&mut world, front);
        world.hears(front, message(1, 1, "a"), &pattern(60_000));
    }
}

#[test]
fn a_message_may_be_larger_than_every_ring() {
    for (left, right) in [(10, 13), (16, 16), (20, 13), (20, 20)] {
        let mut world = World::new(POLICY);
        let publisher = world.join_with(1, sizes(left, 13));
        let front = world.join_with(2, sizes(12, right));
        subscribe(&mut world, front, 1, "#", Slow::Wait, 100);
        let base = world.waiting_memory();
        let lengths = [0, 1, 7_000, 8_000, 100_000, PAYLOAD_MAX as usize];
        for (seq, len) in (1..).zip(lengths) {
            world.say(publisher, publish(1, "a"), &pattern(len));
            world.hears(publisher, Notice::Published { id: 1, receivers: 1 }, b"");
            world.hears(front, message(1, seq, "a"), &pattern(len));
        }
        assert_eq!(world.waiting_memory(), base);
    }
}

#[test]
fn who_subscribes_later_gets_the_last_message_of_each_topic() {
    let mut world = World::new(POLICY);
    let publisher = world.join(1);
    for (id, topic, text) in [(1, "a/x", "old"), (2, "a/x", "new"), (3, "a", "A"), (4, "ab", "AB")]
    {
        world.say(publisher, retain(id, topic), text.as_bytes());
        world.hears(publisher, Notice::Published { id, receivers: 0 }, b"");
    }
    world.leave(publisher);
    let front = world.join(2);
    subscribe(&mut world, front, 1, "a/#", Slow::Wait, 10);
    world.hears(front, kept(1, 3, "a"), b"A");
    world.hears(front, kept(1, 2, "a/x"), b"new");
    world.hears_nothing(front);
    let publisher = world.join(1);
    world.say(publisher, retain(5, "a/x"), b"newer");
    world.hears(front, message(1, 5, "a/x"), b"newer");
    world.say(publisher, retain(6, "a/x"), b"");
    world.hears(front, message(1, 6, "a/x"), b"");
    let late = world.join(3);
    subscribe(&mut world, late, 1, "+", Slow::Wait, 10);
    world.hears(late, kept(1, 3, "a"), b"A");
    world.hears(late, kept(1, 4, "ab"), b"AB");
    world.hears_nothing(late);
}

#[test]
fn what_was_kept_comes_by_credit_and_before_what_is_new() {
    let mut world = World::new(POLICY);
    let publisher = world.join(1);
    for (id, topic) in [(1, "t/1"), (2, "t/2"), (3, "t/3")] {
        world.say(publisher, retain(id, topic), topic.as_bytes());
    }
    let front = world.join(2);
    subscribe(&mut world, front, 1, "t/+", Slow::DropOldest, 1);
    world.hears(front, kept(1, 1, "t/1"), b"t/1");
    world.say(publisher, retain(4, "t/2"), b"again");
    world.hears_nothing(front);
    world.say(front, Call::Credit { id: 1, messages: 10 }, b"");
    // The one of t/2 that was kept when it subscribed is no more; the new one is not kept for it.
    world.hears(front, kept(1, 3, "t/3"), b"t/3");
    world.hears(front, message(1, 4, "t/2"), b"again");
    world.hears_nothing(front);
}

#[test]
fn many_kept_messages_come_in_parts() {
    let limits = Limits { memory: 16 << 20, ..Limits::default() };
    let mut world = World::with(POLICY, limits);
    let publisher = world.join(1);
    for number in 0..2000 {
        let topic = format!("sensors/{number:04}/value");
        world.write(publisher, retain(number, &topic), b"value");
        world.run();
    }
    let front = world.join(2);
    subscribe(&mut world, front, 1, "sensors/+/else", Slow::Wait, 5000);
    subscribe(&mut world, front, 2, "sensors/#", Slow::Wait, 5000);
    let mut count = 0;
    while let Some(topic) = world.next(front, |notice, _| match notice {
        Notice::Message { topic, retained: true, .. } => topic.to_owned(),
        other => panic!("{other:?}"),
    }) {
        assert_eq!(topic, format!("sensors/{count:04}/value"));
        count += 1;
    }
    assert_eq!(count, 2000);
}

#[test]
fn a_turn_is_bounded_by_what_it_gives_to_others() {
    let mut world = World::new(POLICY);
    let publisher = world.join_with(1, sizes(20, 16));
    for domain in 2..10 {
        let front = world.join_with(domain, sizes(12, 20));
        subscribe(&mut world, front, 1, "a", Slow::DropOldest, 1000);
    }
    for id in 0..30 {
        world.write(publisher, publish(id, "a"), &pattern(30_000));
    }
    world.fronts[publisher].pump();
    let id = world.fronts[publisher].id;
    assert!(world.broker.serve(id, world.now), "there is more to do");
    world.fronts[publisher].pump();
    // What 8 fronts get of one message is nearly all that a turn may move.
    world.hears(publisher, Notice::Published { id: 0, receivers: 8 }, b"");
    world.hears_nothing(publisher);
    world.serve(id);
    world.run();
    for id in 1..30 {
        world.hears(publisher, Notice::Published { id, receivers: 8 }, b"");
    }
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
fn one_front_may_have_many_subscriptions_that_meet() {
    let mut world = World::new(POLICY);
    let (publisher, front) = (world.join(1), world.join(2));
    for (id, filter) in [(1, "a/#"), (2, "a/b"), (3, "+/b")] {
        subscribe(&mut world, front, id, filter, Slow::Wait, 10);
    }
    world.say(publisher, publish(1, "a/b"), &pattern(30_000));
    world.hears(publisher, Notice::Published { id: 1, receivers: 3 }, b"");
    let mut heard = Vec::new();
    while let Some(id) = world.next(front, |notice, bytes| {
        assert!(bytes == pattern(30_000));
        match notice {
            Notice::Message { id, seq: 1, .. } => id,
            other => panic!("{other:?}"),
        }
    }) {
        heard.push(id);
    }
    heard.sort_unstable();
    assert_eq!(heard, [1, 2, 3]);
}

#[test]
fn a_publisher_may_hear_itself() {
    let mut world = World::new(POLICY);
    let front = world.join(1);
    subscribe(&mut world, front, 1, "a", Slow::Wait, 10);
    world.say(front, publish(1, "a"), &pattern(70_000));
    world.hears(front, message(1, 1, "a"), &pattern(70_000));
    world.hears(front, Notice::Published { id: 1, receivers: 1 }, b"");
}

#[test]
fn what_cannot_be_is_refused() {
    let limits = Limits { subscriptions: 2, ..Limits::default() };
    let mut world =
        World::with("allow * publish a/#\nallow * subscribe a/#\nlimit 3 memory 160K", limits);
    let (one, three) = (world.join(1), world.join(3));
    for (topic, reason) in [("b", Reason::Denied), ("a/+", Reason::BadName), ("", Reason::BadName)]
    {
        world.say(one, publish(1, topic), b"payload");
        world.hears(one, Notice::NotPublished { id: 1, reason }, b"");
    }
    for (filter, reason) in
        [("b", Reason::Denied), ("#", Reason::Denied), ("a/#/b", Reason::BadName)]
    {
        world.say(one, Call::Subscribe { id: 1, filter, slow: Slow::Wait, credit: 1 }, b"");
        world.hears(one, Notice::Ended { id: 1, reason }, b"");
    }
    subscribe(&mut world, one, 1, "a/b", Slow::Wait, 1);
    world.say(one, Call::Subscribe { id: 1, filter: "a", slow: Slow::Wait, credit: 1 }, b"");
    world.hears(one, Notice::Ended { id: 1, reason: Reason::Taken }, b"");
    subscribe(&mut world, one, 2, "a/c", Slow::Wait, 1);
    world.say(one, Call::Subscribe { id: 3, filter: "a", slow: Slow::Wait, credit: 1 }, b"");
    world.hears(one, Notice::Ended { id: 3, reason: Reason::TooMany }, b"");
    world.say(three, retain(1, "a/large"), &pattern(100_000));
    world.hears(three, Notice::NotPublished { id: 1, reason: Reason::NoMemory }, b"");
    let mut world = World::new(POLICY);
    let (bad, slow) = (world.join(1), world.join(2));
    subscribe(&mut world, slow, 1, "a", Slow::Wait, 0);
    world.say(bad, publish(1, "a"), b"x");
    world.say(bad, publish(1, "a"), b"x");
    assert_eq!(world.fronts[bad].ended, Some(Ended::Violation(Violation::Id)));
}

#[test]
fn what_is_no_longer_allowed_ends_and_is_told() {
    let mut world = World::new("allow * publish #\nallow * subscribe #\nallow * serve *");
    let front = world.join(2);
    subscribe(&mut world, front, 1, "a/b", Slow::Wait, 1);
    subscribe(&mut world, front, 2, "c", Slow::Wait, 1);
    for name in ["jobs", "mail"] {
        world.say(front, Call::Serve { name }, b"");
        world.hears(front, Notice::Served { name }, b"");
    }
    world.set_policy("allow * subscribe a/#\nallow * serve mail");
    world.serve(world.fronts[front].id);
    world.run();
    world.hears(front, Notice::NotServed { name: "jobs", reason: Reason::Denied }, b"");
    world.hears(front, Notice::Ended { id: 2, reason: Reason::Denied }, b"");
    world.hears_nothing(front);
}

#[test]
fn what_a_departed_domain_left_makes_room_for_others() {
    let limits = Limits { kept_memory: 100_000, ..Limits::default() };
    let mut world = World::with(POLICY, limits);
    let one = world.join(1);
    world.say(one, retain(1, "one"), &pattern(60_000));
    world.hears(one, Notice::Published { id: 1, receivers: 0 }, b"");
    let two = world.join(2);
    world.say(two, retain(1, "two"), &pattern(60_000));
    world.hears(two, Notice::NotPublished { id: 1, reason: Reason::NoMemory }, b"");
    world.leave(one);
    world.say(two, retain(1, "two"), &pattern(60_000));
    world.hears(two, Notice::Published { id: 1, receivers: 0 }, b"");
    let three = world.join(3);
    subscribe(&mut world, three, 1, "#", Slow::Wait, 10);
    let topic = world.next(three, |notice, _| match notice {
        Notice::Message { topic, .. } => topic.to_owned(),
        other => panic!("{other:?}"),
    });
    assert_eq!(topic.as_deref(), Some("two"));
    world.hears_nothing(three);
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

/// Turns that a front's channel takes until there is nothing more to do.
fn turns(world: &mut World, front: F) -> usize {
    let now = world.now;
    world.fronts[front].pump();
    let id = world.fronts[front].id;
    1 + (0..).take_while(|_| world.broker.serve(id, now)).count()
}

#[test]
fn a_search_through_what_was_kept_takes_many_turns() {
    let mut world = World::new(POLICY);
    let publisher = world.join(1);
    for number in 0..4000 {
        world.say(publisher, retain(1, &format!("a/{number}")), b"x");
        world.hears(publisher, Notice::Published { id: 1, receivers: 0 }, b"");
    }
    let front = world.join(2);
    let vain = Call::Subscribe { id: 1, filter: "a/+/b", slow: Slow::DropOldest, credit: 1 };
    world.write(front, vain, b"");
    let turns = turns(&mut world, front);
    assert!(turns >= 4, "4000 topics were looked at in {turns} turns");
}

#[test]
fn a_search_for_receivers_takes_its_part_of_a_turn() {
    let mut world = World::new(POLICY);
    let front = world.join(2);
    // All filters of seven levels with `a` or `+` at each: a topic leads to all their nodes but the
    // last, and to no subscription.
    for id in 0..128 {
        let level = |at: u32| if id >> at & 1 == 0 { "a/" } else { "+/" };
        let filter = (0..7).map(level).collect::<String>() + "end";
        subscribe(&mut world, front, id, &filter, Slow::DropOldest, 1);
    }
    for id in 0..64 {
        world.write(front, publish(id, "a/a/a/a/a/a/a/a"), b"");
    }
    let turns = turns(&mut world, front);
    assert!(turns >= 16, "64 searches of 255 nodes each took {turns} turns");
}
