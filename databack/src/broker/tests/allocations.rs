//! What the broker allocates for what goes from ring to ring: nothing. The first of its kind may make
//! room in a table, which stays.

use allocation_counter::measure;

use super::world::{F, World, pattern, sizes};
use crate::frame::{Call, Notice, Outcome, Slow};

/// How often something is done; but for the first time it must not allocate.
const ROUNDS: u32 = 100;

/// Bytes of a block that are sent in a frame.
const PART: usize = 30_000;

/// Lets everybody do what there is to do, until nobody is told of anything more; how often the broker
/// allocated for that.
fn run(world: &mut World) -> u64 {
    let mut made = 0;
    while world.fronts.iter().any(|front| front.awake) {
        let awake = world.fronts.iter_mut().filter(|front| front.awake);
        let events: Vec<_> = awake.filter_map(|front| front.pump().then_some(front.id)).collect();
        for id in events {
            let World { broker, now, .. } = &mut *world;
            made += measure(|| while broker.serve(id, *now) {}).count_total;
            world.after();
        }
    }
    made
}

/// Does something again and again that tells how often it allocated.
fn expect_none(what: &str, mut round: impl FnMut(u32) -> u64) {
    round(0);
    let made: u64 = (1..=ROUNDS).map(round).sum();
    assert_eq!(made, 0, "allocations for {what}, {ROUNDS} times");
}

/// Takes all that a front heard; how many bytes that was.
fn forget(world: &mut World, front: F) -> usize {
    let inbox = &mut world.fronts[front].inbox;
    let len = inbox.len();
    inbox.clear();
    len
}

/// Sends a block in parts, each when the one before has been taken.
fn push(world: &mut World, sender: F, id: u32, block: &[u8]) -> u64 {
    let mut parts = block.chunks(PART);
    let first = parts.next().unwrap_or_default();
    let len = block.len() as u64;
    let call = Call::Push { id, domain: None, name: "jobs", len, timeout_ms: 1000 };
    world.write(sender, call, first);
    let mut made = run(world);
    for part in parts {
        world.write(sender, Call::PushData { id }, part);
        made += run(world);
    }
    made
}

#[test]
fn blocks_and_what_comes_back_take_none() {
    for (len, back) in [(0, 0), (5, 3), (4000, 4000), (50_000, 1), (1_000_000, 0)] {
        let mut world = World::new("allow 1 push *\nallow * serve *");
        let (sender, receiver) = (world.join(1), world.join(5));
        world.say(receiver, Call::Serve { name: "jobs" }, b"");
        forget(&mut world, receiver);
        let (block, reply) = (pattern(len), pattern(back));
        expect_none(&format!("a block of {len} bytes and {back} back"), |id| {
            let made = push(&mut world, sender, id, &block);
            let delivery = world.next(receiver, |notice, _| match notice {
                Notice::Deliver { id, .. } => id,
                other => panic!("{other:?} instead of a delivery"),
            });
            forget(&mut world, receiver);
            // Of credit nobody here makes use.
            forget(&mut world, sender);
            let call = Call::Done { id: delivery.expect("a delivery"), flag: id };
            world.write(receiver, call, &reply);
            let made = made + run(&mut world);
            let outcome = Outcome::Done { flag: id };
            world.hears(sender, Notice::PushDone { id, outcome }, &reply);
            made
        });
    }
}

#[test]
fn messages_that_all_have_room_for_take_none() {
    for len in [0, 100, 50_000] {
        let mut world = World::new("allow * publish #\nallow * subscribe #");
        let publisher = world.join(1);
        let fronts: Vec<F> = (2..10).map(|domain| world.join(domain)).collect();
        for (&front, filter) in fronts.iter().zip(["a/b", "a/+", "#", "a/#"].iter().cycle()) {
            let call = Call::Subscribe { id: 1, filter, slow: Slow::Wait, credit: 1000 };
            world.say(front, call, b"");
            forget(&mut world, front);
        }
        let bytes = pattern(len);
        expect_none(&format!("a message of {len} bytes to eight"), |id| {
            world.write(publisher, Call::Publish { id, topic: "a/b", retain: false }, &bytes);
            let made = run(&mut world);
            world.hears(publisher, Notice::Published { id, receivers: 8 }, b"");
            for &front in &fronts {
                assert!(forget(&mut world, front) > len, "the message and its head");
            }
            made
        });
    }
}

#[test]
fn streams_and_echoes_take_none() {
    let mut world = World::new("allow * stream *\nallow 5 echo");
    let one = world.ask(1, "stream video", sizes(12, 13)).unwrap();
    let two = world.ask(2, "stream video", sizes(16, 10)).unwrap();
    let echo = world.ask(5, "echo", sizes(10, 11)).unwrap();
    let bytes = pattern(20_000);
    expect_none("20,000 bytes each way of a stream, and to an echo", |_| {
        for front in [one, two, echo] {
            world.send(front, &bytes);
        }
        let made = run(&mut world);
        for front in [one, two, echo] {
            assert_eq!(forget(&mut world, front), bytes.len());
        }
        made
    });
}
