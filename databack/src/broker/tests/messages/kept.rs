//! Messages that are kept for who subscribes later.

use super::super::world::{World, pattern};
use super::{POLICY, message, retain, subscribe, turns};
use crate::broker::Limits;
use crate::frame::{Call, Notice, Reason, Slow};

fn kept(id: u32, seq: u64, topic: &str) -> Notice<'_> {
    Notice::Message { id, seq, dropped: 0, retained: true, from: 1, topic }
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
