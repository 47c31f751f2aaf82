//! Whom a frame reaches, and how.

use netback::Mac;
use netback::port::Drop;
use proptest::prelude::*;
use xen_sys::ring::netif::{DROPPED, ERROR, Flags, Gso, GsoKind, OKAY};

use crate::world::{ALL, EVERYTHING, World, frame};

#[test]
fn a_frame_reaches_whom_it_is_for_and_nobody_else() {
    let mut world = World::new();
    let [mut a, mut b, mut c] = [(); 3].map(|()| world.guest());
    for guest in [&mut a, &mut b, &mut c] {
        guest.post(&mut world.memory, 8);
    }
    let sent = frame(b.mac, a.mac, 300);
    a.send(&mut world.memory, &sent);
    world.run(&[&a, &b, &c]);
    let received = b.receive(&world.memory);
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].bytes, sent);
    assert!(a.receive(&world.memory).is_empty() && c.receive(&world.memory).is_empty());
    assert_eq!((a.settle(), &a.statuses[..]), (1, &[OKAY][..]));
    assert_eq!(world.memory.calls, 2, "one call for heads, one for frames");
    let counters = world.switch.counters(b.port).unwrap();
    assert_eq!((counters.received_frames, counters.received_bytes), (1, 300));
}

#[test]
fn a_frame_to_all_reaches_all_but_its_sender() {
    let mut world = World::new();
    let [mut a, mut b, mut c] = [(); 3].map(|()| world.guest());
    for guest in [&mut a, &mut b, &mut c] {
        guest.post(&mut world.memory, 8);
    }
    for group in [ALL, Mac([0x33, 0x33, 0, 0, 0, 1])] {
        let sent = frame(group, a.mac, 60);
        a.send(&mut world.memory, &sent);
        world.run(&[&a]);
        for other in [&mut b, &mut c] {
            let received = other.receive(&world.memory);
            assert_eq!(received.iter().map(|frame| &frame.bytes).collect::<Vec<_>>(), [&sent]);
        }
        assert!(a.receive(&world.memory).is_empty(), "it hears itself");
        assert_eq!(a.settle(), 1, "one response for one request, whoever received it");
    }
}

#[test]
fn whoever_is_behind_a_port_is_learned_and_nobody_elses_address() {
    let mut world = World::new();
    let mut uplink = world.guest_as(false, None, EVERYTHING);
    let [mut a, mut b] = [(); 2].map(|()| world.guest());
    for guest in [&mut uplink, &mut a, &mut b] {
        guest.post(&mut world.memory, 16);
    }
    let far = Mac([2, 0, 0, 0, 0, 9]);
    a.send(&mut world.memory, &frame(far, a.mac, 60));
    world.run(&[&a]);
    assert_eq!(uplink.receive(&world.memory).len(), 1, "it can only be there");
    assert!(b.receive(&world.memory).is_empty(), "it cannot be here");
    uplink.send(&mut world.memory, &frame(a.mac, far, 60));
    world.run(&[&uplink]);
    assert_eq!(a.receive(&world.memory).len(), 1);
    // What claims to come from a guest, but comes from outside, is nothing.
    uplink.send(&mut world.memory, &frame(a.mac, b.mac, 60));
    world.run(&[&uplink]);
    assert!(a.receive(&world.memory).is_empty());
    assert_eq!(world.dropped(&uplink, Drop::Source), 1);
}

#[test]
fn nobody_sends_from_anothers_address() {
    let mut world = World::new();
    let [mut a, mut b] = [(); 2].map(|()| world.guest());
    b.post(&mut world.memory, 8);
    for source in [b.mac, Mac([2, 0, 0, 0, 0, 9]), ALL] {
        a.send(&mut world.memory, &frame(b.mac, source, 60));
    }
    world.run(&[&a]);
    assert!(b.receive(&world.memory).is_empty());
    assert_eq!(world.dropped(&a, Drop::Source), 3);
    assert_eq!((a.settle(), &a.statuses[..]), (3, &[DROPPED; 3][..]));
    assert_eq!(world.violations, [], "a guest may run a bridge without knowing better");
}

#[test]
fn frames_too_short_or_for_nobody_are_responded_to() {
    let mut world = World::new();
    let mut a = world.guest();
    a.send(&mut world.memory, &[0; 13]);
    a.send(&mut world.memory, &[]);
    a.send(&mut world.memory, &frame(a.mac, a.mac, 60));
    a.send(&mut world.memory, &frame(Mac([2; 6]), a.mac, 60));
    a.send(&mut world.memory, &frame(ALL, a.mac, 60));
    world.run(&[&a]);
    assert_eq!(a.settle(), 5);
    assert_eq!(a.statuses, [ERROR, ERROR, DROPPED, DROPPED, DROPPED]);
    assert_eq!((world.dropped(&a, Drop::Short), world.dropped(&a, Drop::Nobody)), (2, 3));
}

#[test]
fn several_take_what_several_send() {
    let mut world = World::new();
    let mut guests: Vec<_> = (0..10).map(|_| world.guest()).collect();
    for guest in &mut guests {
        guest.post(&mut world.memory, 200);
    }
    let macs: Vec<Mac> = guests.iter().map(|guest| guest.mac).collect();
    for guest in &mut guests {
        let own = guest.mac;
        for &mac in macs.iter().filter(|&&mac| mac != own) {
            guest.send(&mut world.memory, &frame(mac, own, 60));
        }
    }
    world.run(&guests.iter().collect::<Vec<_>>());
    for guest in &mut guests {
        assert_eq!((guest.settle(), guest.receive(&world.memory).len()), (9, 9));
    }
    assert!(world.memory.calls <= 4, "{} calls for 90 frames", world.memory.calls);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Whatever frames are sent in whatever pieces: they arrive whole, in order, with what was said
    /// of them, and every slot comes back.
    #[test]
    fn frames_arrive_as_they_were_sent(
        frames in prop::collection::vec((14_usize..20_000, prop::collection::vec(any::<prop::sample::Index>(), 0..16), any::<bool>(), any::<bool>()), 1..20),
        posts in prop::collection::vec(0_usize..40, 1..40),
    ) {
        let mut world = World::new();
        let [mut a, mut b] = [(); 2].map(|()| world.guest());
        let mut expected = Vec::new();
        let (mut got, mut posts) = (Vec::new(), posts.into_iter());
        for (len, cuts, blank, cut) in frames {
            let bytes = frame(b.mac, a.mac, len);
            // A page at most in each piece, and no more pieces than a frame may have.
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(len)).chain((1..5).map(|n| n * 4096)).filter(|&cut| cut > 0 && cut < len).collect();
            cuts.sort_unstable();
            cuts.dedup();
            cuts.retain({ let mut last = 0; move |&cut| { let keep = cut % 4096 == 0 || cut - last > 64; if keep { last = cut; } keep } });
            while cuts.len() > 17 { let at = cuts.iter().position(|cut| cut % 4096 != 0).unwrap(); cuts.remove(at); }
            let flags = if blank { Flags::CSUM_BLANK | Flags::DATA_VALIDATED } else { Flags::empty() };
            let gso = cut.then_some(Gso { size: 1400, kind: GsoKind::Tcp4 });
            while (a.tx.free() as usize) < cuts.len() + 2 {
                b.post(&mut world.memory, 20);
                world.run(&[&a, &b]);
                got.extend(b.receive(&world.memory));
                a.settle();
            }
            a.send_as(&mut world.memory, &bytes, &cuts, flags, gso);
            expected.push((bytes, flags, gso));
            if let Some(count) = posts.next() {
                b.post(&mut world.memory, count.min(b.room()));
            }
            world.run(&[&a, &b]);
            got.extend(b.receive(&world.memory));
            a.settle();
        }
        for _ in 0..40 {
            let room = b.room();
            b.post(&mut world.memory, room);
            world.run(&[&a, &b]);
            got.extend(b.receive(&world.memory));
        }
        a.settle();
        let got: Vec<_> = got.into_iter().map(|frame| (frame.bytes, frame.flags, frame.gso)).collect();
        prop_assert_eq!(got, expected);
        prop_assert_eq!(a.tx.free(), 256, "every slot came back");
        prop_assert!(a.statuses.iter().all(|&status| status == OKAY));
        prop_assert_eq!(&world.violations, &[]);
    }
}

#[test]
fn of_two_with_one_address_the_older_has_it_again_when_the_newer_goes() {
    let mut world = World::new();
    let [mut older, mut other] = [(); 2].map(|()| world.guest());
    let newer = world.guest_with_mac_of(&older);
    for guest in [&mut older, &mut other] {
        guest.post(&mut world.memory, 10);
    }
    let sent = frame(older.mac, other.mac, 60);
    other.send(&mut world.memory, &sent);
    world.run(&[&other]);
    assert!(older.receive(&world.memory).is_empty(), "it is the newer one's");
    world.switch.detach(newer.port);
    other.send(&mut world.memory, &sent);
    world.run(&[&other]);
    assert_eq!(older.receive(&world.memory).len(), 1);
}
