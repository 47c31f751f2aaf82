//! Frames that wait, and those who wait for an event.

use core::time::Duration;

use netback::port::{QueueId, Rate, Takes};
use netback::switch::Side;
use xen_sys::ring::netif::{DROPPED, Flags};

use crate::conversion::tcp;
use crate::world::{EVERYTHING, Guest, World, frame};

#[test]
fn frames_wait_for_pages_and_stay_in_order() {
    let mut world = World::new();
    let [mut a, mut b] = [(); 2].map(|()| world.guest());
    for len in 100..150 {
        a.send(&mut world.memory, &frame(b.mac, a.mac, len));
    }
    world.run(&[&a, &b]);
    assert_eq!(a.settle(), 0, "nothing was delivered");
    let mut lens = Vec::new();
    while lens.len() < 50 {
        b.post(&mut world.memory, 3);
        world.run(&[&b]);
        lens.extend(b.receive(&world.memory).iter().map(|frame| frame.bytes.len()));
    }
    assert_eq!(lens, (100..150).collect::<Vec<_>>());
    assert_eq!(a.settle(), 50);
}

#[test]
fn whoever_does_not_receive_stalls_nobody_else() {
    let mut world = World::new();
    let [mut a, mut deaf, mut b] = [(); 3].map(|()| world.guest());
    // As many as the ring has, all for the deaf one.
    for _ in 0..256 {
        a.send(&mut world.memory, &frame(deaf.mac, a.mac, 60));
    }
    world.run(&[&a]);
    assert!(a.settle() >= 31, "some slots are kept for those who receive");
    b.post(&mut world.memory, 100);
    for _ in 0..20 {
        a.send(&mut world.memory, &frame(b.mac, a.mac, 60));
    }
    world.run(&[&a]);
    assert_eq!(b.receive(&world.memory).len(), 20);
    // Some time later nothing waits any more.
    let due = world.switch.due().expect("somebody waits");
    assert_eq!(due, world.now + Duration::from_secs(1));
    world.now = due;
    world.run(&[]);
    a.settle();
    assert_eq!(a.tx.free(), 256, "all slots came back");
    a.send(&mut world.memory, &frame(deaf.mac, a.mac, 60));
    world.run(&[&a]);
    assert_eq!(a.settle(), 1, "the deaf one is not waited for");
    // Until it listens again.
    deaf.post(&mut world.memory, 4);
    a.send(&mut world.memory, &frame(deaf.mac, a.mac, 61));
    world.run(&[&a, &deaf]);
    assert_eq!(deaf.receive(&world.memory).len(), 1);
}

#[test]
fn a_rate_holds_back_and_loses_nothing() {
    let mut world = World::new();
    let rate = Rate { bytes: 1000, period: Duration::from_millis(50) };
    let mut a = world.guest_as(true, Some(rate), EVERYTHING);
    let mut b = world.guest();
    b.post(&mut world.memory, 200);
    for _ in 0..100 {
        a.send(&mut world.memory, &frame(b.mac, a.mac, 100));
    }
    let mut periods = 0;
    let mut received = 0;
    world.run(&[&a]);
    loop {
        let now = b.receive(&world.memory).len();
        assert!(now <= 10, "{now} frames of 100 bytes in a period");
        received += now;
        if received == 100 {
            break;
        }
        periods += 1;
        world.now = world.switch.due().expect("it goes on");
        world.run(&[]);
    }
    assert!((9..=10).contains(&periods), "{periods}");
}

#[test]
fn only_whoever_asks_is_notified() {
    let mut world = World::new();
    let [mut a, mut b] = [(); 2].map(|()| world.guest());
    b.post(&mut world.memory, 100);
    for _ in 0..10 {
        a.send(&mut world.memory, &frame(b.mac, a.mac, 60));
    }
    world.run(&[&a]);
    let of = |world: &World, guest: &Guest, side| {
        world.notified.iter().filter(|&&(id, which)| id.port == guest.port && which == side).count()
    };
    assert_eq!((of(&world, &b, Side::Rx), of(&world, &a, Side::Tx)), (1, 1), "once for ten");
    // Neither has looked since: each has an event that it has not yet seen.
    a.send(&mut world.memory, &frame(b.mac, a.mac, 60));
    world.run(&[&a]);
    assert_eq!((of(&world, &b, Side::Rx), of(&world, &a, Side::Tx)), (1, 1));
}

#[test]
fn a_lone_frames_sender_is_told_a_little_later_or_sees_for_itself() {
    let mut world = World::new();
    let [mut a, mut b] = [(); 2].map(|()| world.guest());
    b.post(&mut world.memory, 100);
    for looks in [false, true] {
        world.notified.clear();
        a.send(&mut world.memory, &frame(b.mac, a.mac, 60));
        world.run(&[&a]);
        assert!(world.notified.iter().all(|&(_, side)| side == Side::Rx), "at once");
        if looks {
            assert_eq!((a.settle(), a.tx.has_more()), (1, Ok(false)), "it was shown the response");
        }
        let due = world.switch.due().expect("an event is owed");
        assert_eq!(due, world.now + Duration::from_millis(1));
        world.now = due;
        world.run(&[]);
        let told = world.notified.iter().any(|&(id, side)| id.port == a.port && side == Side::Tx);
        assert_eq!(told, !looks);
        assert_eq!(world.switch.due(), None);
        assert_eq!((a.settle(), a.tx.has_more()), (usize::from(!looks), Ok(false)));
    }
    // However slowly, it does not run out of slots without an event.
    world.notified.clear();
    for _ in 0..16 {
        a.send(&mut world.memory, &frame(b.mac, a.mac, 60));
        world.run(&[&a]);
    }
    assert!(world.notified.iter().any(|&(_, side)| side == Side::Tx));
}

#[test]
fn a_port_that_goes_leaves_nothing_behind() {
    let mut world = World::new();
    let [mut a, mut b, mut c] = [(); 3].map(|()| world.guest());
    for _ in 0..10 {
        a.send(&mut world.memory, &frame(b.mac, a.mac, 60));
        a.send(&mut world.memory, &frame(c.mac, a.mac, 60));
        b.send(&mut world.memory, &frame(c.mac, b.mac, 60));
    }
    world.run(&[&a, &b]);
    world.switch.detach(b.port);
    assert_eq!((a.settle(), &a.statuses[..]), (10, &[DROPPED; 10][..]), "those for it");
    c.post(&mut world.memory, 40);
    world.run(&[&c]);
    let from_a = c.receive(&world.memory);
    assert_eq!(from_a.len(), 10, "its own went with it");
    assert!(from_a.iter().all(|frame| frame.bytes[6..12] == a.mac.0));
    // Whoever gets its number has nothing to do with it.
    let d = world.guest();
    assert_eq!(d.port.index(), b.port.index());
    assert_ne!(d.port, b.port);
}

#[test]
fn whose_frames_are_much_work_keeps_nobody_waiting() {
    let mut world = World::new();
    let [mut busy, mut a, mut b] = [(); 3].map(|()| world.guest());
    let mut slow = world.guest_as(true, None, Takes { blank4: false, ..EVERYTHING });
    slow.post(&mut world.memory, 250);
    b.post(&mut world.memory, 10);
    let blank = Flags::CSUM_BLANK | Flags::DATA_VALIDATED;
    for turn in 0..20 {
        // Each of these is to be read as a whole, and there are always more.
        while busy.tx.free() > 0 {
            let bytes = tcp(slow.mac, busy.mac, 1000);
            busy.send_as(&mut world.memory, &bytes, &[], blank, None);
        }
        if turn == 10 {
            a.send(&mut world.memory, &frame(b.mac, a.mac, 60));
            world.switch.hear(QueueId { port: a.port, number: 0 });
        }
        world.switch.hear(QueueId { port: busy.port, number: 0 });
        world.switch.turn(&mut world.memory, world.now);
        busy.settle();
        let taken = slow.receive(&world.memory).len();
        slow.post(&mut world.memory, taken);
        assert!(taken > 0, "it is work, but it is done");
    }
    assert_eq!(b.receive(&world.memory).len(), 1, "ten turns for one frame");
}
