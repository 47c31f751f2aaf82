//! What is counted of it all.

use super::world::World;
use crate::broker::Figures;
use crate::frame::{Call, Notice, Slow};

const POLICY: &str = "allow * serve *\nallow * push *\nallow * publish #\nallow * subscribe #";

#[test]
fn what_domains_do_is_counted_also_when_they_are_gone() {
    let mut world = World::new(POLICY);
    let (sender, receiver) = (world.join(1), world.join(5));
    world.say(receiver, Call::Serve { name: "jobs" }, b"");
    world.hears(receiver, Notice::Served { name: "jobs" }, b"");
    let push = Call::Push { id: 1, domain: None, name: "jobs", len: 5, timeout_ms: 0 };
    world.say(sender, push, b"block");
    let slow = Slow::Wait;
    world.say(receiver, Call::Subscribe { id: 3, filter: "#", slow, credit: 9 }, b"");
    world.say(sender, Call::Publish { id: 1, topic: "a", retain: false }, b"news");
    world.say(sender, Call::Publish { id: 2, topic: "a", retain: true }, b"kept news");
    let Figures { channels, services, pushes_open, subscriptions, kept, memory, .. } =
        world.broker.figures();
    assert_eq!((channels, services, pushes_open, subscriptions, kept), (2, 1, 1, 1, 1));
    assert_eq!(memory, world.broker.memory());

    world.write(sender, Call::Status, b"a payload where none may be");
    world.run();
    for front in [sender, receiver] {
        world.leave(front);
    }
    let figures = world.broker.figures();
    let Figures { opened, pushes, push_bytes, published, published_bytes, .. } = figures;
    assert_eq!((opened, pushes, push_bytes, published, published_bytes), (2, 1, 5, 2, 13));
    assert_eq!((figures.channels, figures.services, figures.subscriptions), (0, 0, 0));
    let violations = figures.violations.into_iter().filter(|&(_, count)| count > 0);
    assert_eq!(violations.collect::<Vec<_>>(), [("payload", 1)]);
}

#[test]
fn what_would_take_too_much_memory_is_counted() {
    let mut world = World::new("allow * serve *\nlimit * memory 138K");
    let front = world.join(1);
    let memory = world.broker.memory();
    for number in 0..64 {
        world.say(front, Call::Serve { name: &format!("name{number}") }, b"");
    }
    let figures = world.broker.figures();
    assert!(figures.memory > memory, "some were taken");
    assert!(figures.refused > 0, "{figures:?}");
}
