//! Echoes and streams.

use core::sync::atomic::Ordering;

use xen_sys::ring::shared::Region;

use super::world::{World, pattern, sizes};
use crate::broker::admission::{ECHO, SERVICES, STREAM};
use crate::broker::{Ended, Limits, Refusal, Violation};

#[test]
fn an_echo_gives_back_what_came() {
    let mut world = World::new("allow 5 echo");
    let front = world.ask(5, "echo", sizes(10, 11)).unwrap();
    let bytes = pattern(100_000);
    world.send(front, &bytes);
    world.run();
    assert!(world.fronts[front].inbox == bytes, "a ring of 1 KiB carries it all");
    world.leave(front);
    assert_eq!(world.fronts[front].ended, Some(Ended::Closed));
    assert_eq!(world.waiting_memory(), 0);
}

#[test]
fn who_may_not_is_told_so() {
    let mut world =
        World::new("allow 5 echo\nallow 6 stream v*\nallow 7 serve jobs\nlimit 5 channels 1");
    assert_eq!(world.ask(6, "echo", sizes(16, 16)), Err(Refusal::Denied(ECHO)));
    assert_eq!(world.ask(6, "stream audio", sizes(16, 16)), Err(Refusal::Denied(STREAM)));
    assert_eq!(world.ask(6, "services", sizes(16, 16)), Err(Refusal::Denied(SERVICES)));
    assert_eq!(world.ask(7, "services", sizes(16, 12)), Err(Refusal::TooSmall));
    world.ask(5, "echo", sizes(16, 16)).unwrap();
    assert_eq!(world.ask(5, "echo", sizes(16, 16)), Err(Refusal::TooMany));
    world.set_policy("allow 5 echo\nlimit 5 memory 200K");
    assert_eq!(world.ask(5, "echo", sizes(16, 16)), Err(Refusal::NoMemory));
    world.ask(5, "echo", sizes(10, 11)).unwrap();
}

#[test]
fn all_together_get_no_more_than_there_is() {
    let limits = Limits::within(1 << 20);
    let mut world = World::with("allow * echo", limits);
    let mut refused = None;
    for domain in 1..20 {
        if let Err(refusal) = world.ask(domain, "echo", sizes(16, 16)) {
            refused.get_or_insert((domain, refusal));
        }
    }
    // 768 KiB are to be had; a channel with 64 KiB each way takes 134.
    assert_eq!(refused, Some((6, Refusal::NoMemory)));
    assert!(world.broker.memory() <= limits.total_memory);
    world.leave(0);
    world.ask(20, "echo", sizes(16, 16)).unwrap();
}

#[test]
fn a_stream_joins_the_two_who_ask_for_the_same() {
    let mut world = World::new("allow * stream *");
    let one = world.ask(1, "stream video", sizes(12, 13)).unwrap();
    let lonely = world.ask(3, "stream audio", sizes(12, 12)).unwrap();
    let bytes = pattern(300_000);
    world.send(one, &bytes);
    world.run();
    let two = world.ask(2, "stream video", sizes(16, 10)).unwrap();
    world.send(two, &bytes[..777]);
    world.run();
    assert!(world.fronts[two].inbox == bytes, "what waited before it came, and the rest");
    assert!(world.fronts[one].inbox == bytes[..777]);
    assert!(world.fronts[lonely].inbox.is_empty());
    world.leave(one);
    assert_eq!(world.fronts[one].ended, Some(Ended::Closed));
    assert_eq!(world.fronts[two].ended, Some(Ended::Partner));
    assert_eq!(world.fronts[lonely].ended, None);
    world.leave(lonely);
    assert_eq!(world.waiting_memory(), 0);
}

#[test]
fn what_was_written_before_the_end_still_arrives() {
    let mut world = World::new("allow * stream *");
    let one = world.ask(1, "stream video", sizes(16, 16)).unwrap();
    let two = world.ask(2, "stream video", sizes(16, 12)).unwrap();
    world.fronts[two].reads = false;
    let bytes = pattern(50_000);
    world.send(one, &bytes);
    world.run();
    world.leave(one);
    assert_eq!(world.fronts[one].ended, None, "46 KB of it are still to go");
    world.fronts[two].reads = true;
    world.fronts[two].awake = true;
    world.run();
    assert!(world.fronts[two].inbox == bytes);
    assert_eq!(world.fronts[one].ended, Some(Ended::Closed));
    assert_eq!(world.fronts[two].ended, Some(Ended::Partner));
}

#[test]
fn a_third_waits_for_a_fourth() {
    let mut world = World::new("allow * stream *");
    let all: Vec<_> = (1..5).map(|d| world.ask(d, "stream x", sizes(12, 12)).unwrap()).collect();
    for (front, text) in all.iter().zip([b"1", b"2", b"3", b"4"]) {
        world.send(*front, text);
    }
    world.run();
    let heard: Vec<_> = all.iter().map(|&front| world.fronts[front].inbox.clone()).collect();
    assert_eq!(heard, [b"2", b"1", b"4", b"3"]);
}

#[test]
fn a_bad_index_ends_the_stream_and_blames_its_own_side() {
    for (word, about) in [(4, "what it wrote"), (8, "what it read")] {
        let mut world = World::new("allow * stream *");
        let one = world.ask(1, "stream video", sizes(16, 16)).unwrap();
        let two = world.ask(2, "stream video", sizes(16, 16)).unwrap();
        let bad = world.fronts[one].id;
        Region::of(world.fronts[one].end.memory()).word(word).store(70_000, Ordering::Relaxed);
        world.send(two, b"bytes");
        world.run();
        world.serve(bad);
        let ended = [one, two].map(|front| world.fronts[front].ended);
        assert!(matches!(ended[0], Some(Ended::Violation(Violation::Index(_)))), "{about}");
        assert_eq!(ended[1], Some(Ended::Partner), "{about}");
    }
}

#[test]
fn what_is_no_longer_allowed_ends() {
    let mut world = World::new("allow * stream *\nallow * echo");
    let one = world.ask(1, "stream video", sizes(12, 12)).unwrap();
    let two = world.ask(2, "stream video", sizes(12, 12)).unwrap();
    let echo = world.ask(3, "echo", sizes(12, 12)).unwrap();
    world.set_policy("allow 1 stream *\nallow 3 echo");
    world.serve(world.fronts[echo].id);
    assert_eq!(world.fronts[two].ended, Some(Ended::Denied));
    assert_eq!(world.fronts[one].ended, Some(Ended::Partner));
    assert_eq!(world.fronts[echo].ended, None);
}
