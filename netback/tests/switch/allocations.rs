//! What frames make the switch allocate: nothing. All that it needs for a port is there when the port
//! is attached.

use core::time::Duration;

use allocation_counter::{measure, opt_out};
use netback::place::{Copier, Copy};
use netback::port::{Config, Drop, QueueId, Rate, Rings, Takes};
use netback::switch::memory;
use netback::{Mac, Switch};
use xen_sys::page::{OwnPage, OwnPages};
use xen_sys::ring::netif::{Flags, Gso, GsoKind};

use crate::conversion::tcp;
use crate::world::{ALL, EVERYTHING, Guest, Memory, World, frame};

/// More queues than anything has room for that grows from nothing by doubling.
const MANY: usize = 100;

/// A Xen whose own allocations are not counted.
struct Xen<'a>(&'a mut Memory);

impl Copier for Xen<'_> {
    fn copy(&mut self, copies: &mut [Copy]) {
        opt_out(|| self.0.copy(copies));
    }

    fn read(&self, at: u32, bytes: &mut [u8]) {
        self.0.read(at, bytes);
    }

    fn write(&mut self, at: u32, bytes: &[u8]) {
        self.0.write(at, bytes);
    }
}

/// Tells the switch of an event of each, and has it work until it has nothing to do; it must not
/// allocate for that. `what` is what it does.
fn run(world: &mut World, guests: &[Guest], what: &str) {
    let made = measure(|| {
        for guest in guests {
            world.switch.hear(QueueId { port: guest.port, number: 0 });
        }
        while world.switch.turn(&mut Xen(&mut world.memory), world.now) {}
        while world.switch.next_notification().is_some() {}
        assert_eq!(world.switch.next_violation(), None);
    });
    assert_eq!(made.count_total, 0, "allocations for {what}: {made:?}");
}

/// The same; then the guests take what came, and post as many pages again. Tells how many frames
/// came.
fn round(world: &mut World, guests: &mut [Guest], what: &str) -> usize {
    run(world, guests, what);
    let mut received = 0;
    for guest in guests {
        guest.settle();
        received += guest.receive(&world.memory).len();
        guest.post(&mut world.memory, guest.room());
    }
    received
}

#[test]
fn a_frame_from_guest_to_guest_takes_none() {
    let mut world = World::new();
    let mut guests = [(); 2].map(|()| world.guest());
    round(&mut world, &mut guests, "guests that come");
    for (len, cuts) in [(60, &[][..]), (1514, &[]), (1514, &[54]), (9000, &[54, 4000, 8000])] {
        let what = format!("a frame of {len} bytes in {} pieces", cuts.len() + 1);
        for _ in 0..100 {
            let [a, b] = &mut guests;
            a.send_as(&mut world.memory, &frame(b.mac, a.mac, len), cuts, Flags::empty(), None);
            b.send(&mut world.memory, &frame(a.mac, b.mac, 60));
            assert_eq!(round(&mut world, &mut guests, &what), 2);
        }
    }
}

#[test]
fn frames_to_be_cut_in_many_slots_take_none() {
    let mut world = World::new();
    let mut guests = [(); 2].map(|()| world.guest());
    round(&mut world, &mut guests, "guests that come");
    let gso = Gso { size: 1448, kind: GsoKind::Tcp4 };
    let flags = Flags::CSUM_BLANK | Flags::DATA_VALIDATED;
    let cuts: Vec<usize> = [54].into_iter().chain((1..16).map(|n| n * 4096)).collect();
    for _ in 0..20 {
        let [a, b] = &mut guests;
        for _ in 0..10 {
            a.send_as(&mut world.memory, &tcp(b.mac, a.mac, 65_000), &cuts, flags, Some(gso));
        }
        let what = "frames of 65,054 bytes in 17 pieces, with extra information";
        assert_eq!(round(&mut world, &mut guests, what), 10);
    }
}

#[test]
fn frames_to_all_from_many_at_once_take_none() {
    let mut world = World::new();
    let mut guests: Vec<_> = (0..MANY).map(|_| world.guest()).collect();
    for guest in &mut guests {
        guest.post(&mut world.memory, 200);
    }
    for _ in 0..3 {
        for guest in &mut guests {
            guest.send(&mut world.memory, &frame(ALL, guest.mac, 60));
        }
        let received = round(&mut world, &mut guests, "a frame of each to all");
        assert_eq!(received, MANY * (MANY - 1));
    }
}

#[test]
fn frames_through_a_port_with_many_behind_it_take_none() {
    let mut world = World::new();
    let uplink = world.guest_as(false, None, EVERYTHING);
    let mut guests = [uplink, world.guest(), world.guest()];
    round(&mut world, &mut guests, "guests that come");
    for number in 0..2000_u16 {
        let [high, low] = number.to_be_bytes();
        let far = Mac([2, 0, 0, 0, high, low]);
        let [uplink, a, b] = &mut guests;
        a.send(&mut world.memory, &frame(far, a.mac, 60));
        uplink.send(&mut world.memory, &frame(b.mac, far, 60));
        b.send(&mut world.memory, &frame(far, b.mac, 60));
        assert_eq!(round(&mut world, &mut guests, "an address that is learned"), 3);
    }
}

#[test]
fn frames_that_go_nowhere_take_none() {
    let mut world = World::new();
    let mut guests: Vec<_> = (0..MANY).map(|_| world.guest()).collect();
    for _ in 0..10 {
        // The first one posts no pages: the others wait for it, and give it up.
        for number in 1..MANY {
            let (deaf, other) = (guests[0].mac, guests[number].mac);
            let guest = &mut guests[number];
            for to in [deaf, deaf, other, Mac([2; 6])] {
                guest.send(&mut world.memory, &frame(to, other, 60));
            }
            guest.send(&mut world.memory, &frame(deaf, Mac([2; 6]), 60));
            guest.send(&mut world.memory, &[0; 13]);
        }
        round(&mut world, &mut guests[1..], "frames that wait for pages, or are refused");
        world.now += Duration::from_secs(1);
        round(&mut world, &mut guests[1..], "frames that have waited too long");
    }
    assert!(world.dropped(&guests[0], Drop::NoRoom) > 0, "nothing waited");
}

#[test]
fn events_of_a_guest_that_has_sent_all_it_may_take_none() {
    let mut world = World::new();
    let rate = Rate { bytes: 1000, period: Duration::from_secs(1) };
    let mut guests = [world.guest_as(true, Some(rate), EVERYTHING), world.guest()];
    round(&mut world, &mut guests, "guests that come");
    let [a, b] = &mut guests;
    for _ in 0..100 {
        a.send(&mut world.memory, &frame(b.mac, a.mac, 100));
    }
    for _ in 0..1000 {
        run(&mut world, &guests[..1], "an event of a guest without credit");
    }
    while let Some(due) = world.switch.due() {
        world.now = due;
        round(&mut world, &mut guests, "credit that comes back");
    }
    let sent = world.switch.counters(guests[0].port).expect("a port").sent_frames;
    assert_eq!(sent, 100, "frames that were sent, some in each period");
}

#[test]
fn frames_that_are_made_fit_take_none() {
    let mut world = World::new();
    let a = world.guest();
    let mut guests = [a, world.guest_as(true, None, Takes::default())];
    let gso = Gso { size: 1448, kind: GsoKind::Tcp4 };
    let flags = Flags::CSUM_BLANK | Flags::DATA_VALIDATED;
    let cuts: Vec<usize> = [54].into_iter().chain((1..5).map(|n| n * 4096)).collect();
    round(&mut world, &mut guests, "guests that come");
    for _ in 0..50 {
        let [a, b] = &mut guests;
        a.send_as(&mut world.memory, &tcp(b.mac, a.mac, 20_000), &cuts, flags, Some(gso));
        a.send_as(&mut world.memory, &tcp(b.mac, a.mac, 1000), &[54], flags, None);
        let what = "frames that are cut or filled here";
        assert_eq!(round(&mut world, &mut guests, what), 15);
    }
}

#[test]
fn what_is_noted_of_ports_that_went_leaves_room_for_others() {
    let mut world = World::new();
    let mut guests: Vec<_> = (0..10).map(|_| world.guest()).collect();
    for _ in 0..100 {
        for guest in &mut guests {
            guest.send(&mut world.memory, &frame(ALL, guest.mac, 60));
        }
        run(&mut world, &guests, "a frame of each to all, beside ports that come and go");
        let gone = guests.remove(0);
        world.switch.detach(gone.port);
        guests.push(world.guest());
    }
}

#[test]
fn a_port_takes_no_more_memory_than_is_asked_for_first() {
    for takes in [EVERYTHING, Takes::default()] {
        let mut switch = Switch::<OwnPage>::new();
        for number in 1..=MANY {
            let mut pages = OwnPages::zeroed(8).unwrap().split();
            let rings: Vec<_> = (0..4)
                .map(|_| Rings { tx: pages.next().unwrap(), rx: pages.next().unwrap() })
                .collect();
            let config = Config { domain: None, mac: None, rate: None, takes };
            let made = measure(|| {
                switch.attach(config, rings.into_iter()).expect("a port");
            });
            let (taken, asked) = (made.bytes_current, memory::<OwnPage>(4) as i64);
            assert!(taken <= asked, "port {number} takes {taken} bytes, {asked} were asked for");
            assert!(number > 1 || taken > asked / 4, "of {asked} bytes only {taken} are needed");
        }
    }
}
