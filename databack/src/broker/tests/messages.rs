//! Messages: published, subscribed to, kept.

mod kept;
mod slow;

use super::world::{F, World, pattern, sizes};
use crate::broker::{Ended, Limits, Violation};
use crate::frame::{Call, Notice, PAYLOAD_MAX, Reason, Slow};

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

/// Turns that a front's channel takes until there is nothing more to do.
fn turns(world: &mut World, front: F) -> usize {
    let now = world.now;
    world.fronts[front].pump();
    let id = world.fronts[front].id;
    1 + (0..).take_while(|_| world.broker.serve(id, now)).count()
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
