//! What guests can rely on, whatever others do.
#![expect(clippy::cast_possible_truncation, reason = "test data is small")]

mod world;

use core::sync::atomic::Ordering;
use core::time::Duration;

use netback::port::{Drop, Rate, Takes};
use netback::switch::Side;
use netback::{Mac, Violation};
use proptest::prelude::*;
use world::{ALL, EVERYTHING, World, frame};
use xen_sys::grant::Status;
use xen_sys::ring::BadIndex;
use xen_sys::ring::netif::{DROPPED, ERROR, Flags, Gso, GsoKind, OKAY, TxRequest};

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
    let of = |world: &World, guest: &world::Guest, side| {
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

/// What a hostile guest puts into its ring, and what it is called.
fn attacks() -> Vec<(&'static str, Vec<TxRequest>, Violation)> {
    let slot = TxRequest { reference: 1, offset: 0, flags: 0, id: 1, size: 100 };
    let more = TxRequest { flags: Flags::MORE_DATA.bits(), ..slot };
    let extra = TxRequest { flags: Flags::EXTRA_INFO.bits(), ..slot };
    let gso = Gso { size: 1000, kind: GsoKind::Tcp4 }.extra();
    vec![
        ("a chain that is cut", vec![more], Violation::CutChain),
        ("a chain without end", vec![TxRequest { size: 0, ..more }; 40], Violation::LongChain),
        ("a slot over the page", vec![TxRequest { offset: 4000, ..slot }], Violation::OutsidePage),
        (
            "a later slot over the page",
            vec![TxRequest { size: 1000, ..more }, TxRequest { offset: 4090, ..slot }],
            Violation::OutsidePage,
        ),
        (
            "a frame smaller than its slots",
            vec![more, TxRequest { size: 101, ..slot }],
            Violation::Sizes,
        ),
        ("extra information that is cut", vec![extra], Violation::CutChain),
        ("extra information of no kind", vec![extra, netback_extra(9, gso)], Violation::Extra),
        (
            "extra information without end",
            vec![extra, endless(gso), endless(gso), endless(gso)],
            Violation::Extra,
        ),
        (
            "a page that is not granted",
            vec![TxRequest { reference: 77, ..slot }],
            Violation::Page(Status::BadReference),
        ),
    ]
}

fn netback_extra(kind: u8, extra: xen_sys::ring::netif::ExtraInfo) -> TxRequest {
    xen_sys::ring::netif::ExtraInfo { kind, ..extra }.into()
}

fn endless(extra: xen_sys::ring::netif::ExtraInfo) -> TxRequest {
    xen_sys::ring::netif::ExtraInfo { flags: 1, ..extra }.into()
}

#[test]
fn whoever_breaks_a_rule_ends_alone() {
    for (what, slots, violation) in attacks() {
        let mut world = World::new();
        let [mut hostile, mut a, mut b] = [(); 3].map(|()| world.guest());
        let page = frame(b.mac, hostile.mac, 100);
        assert_eq!(hostile.grant(&mut world.memory, &page), 1);
        slots.into_iter().for_each(|slot| hostile.put(slot));
        let _ = hostile.tx.publish();
        b.post(&mut world.memory, 8);
        a.send(&mut world.memory, &frame(b.mac, a.mac, 60));
        world.run(&[&hostile, &a]);
        assert_eq!(world.violations, [(hostile.port, violation)], "{what}");
        assert_eq!(b.receive(&world.memory).len(), 1, "{what}: others go on");
        assert_eq!((a.settle(), &a.statuses[..]), (1, &[OKAY][..]), "{what}");
    }
}

#[test]
fn indices_that_lie_end_the_interface() {
    let mut world = World::new();
    let a = world.guest();
    let mut pages = xen_sys::page::OwnPages::zeroed(2).unwrap().split();
    let [tx, rx] = [(); 2].map(|()| pages.next().unwrap());
    let region = xen_sys::ring::shared::Region::of(&tx);
    region.word(0).store(1000, Ordering::Relaxed);
    let rings = netback::port::Rings { tx: tx.clone(), rx };
    let config =
        netback::port::Config { domain: Some(a.domain), mac: None, rate: None, takes: EVERYTHING };
    let port = world.switch.attach(config, [rings].into_iter()).unwrap();
    world.run(&[&a]);
    let index = BadIndex { prod: 1000, cons: 0 };
    assert_eq!(world.violations, [(port, Violation::Index(index))]);
}

#[test]
fn whose_page_vanished_is_found_out() {
    for by_receiver in [false, true] {
        let mut world = World::new();
        let [mut a, mut b, mut c] = [(); 3].map(|()| world.guest());
        b.post(&mut world.memory, 2);
        let bytes = frame(b.mac, a.mac, 1000);
        a.send_as(&mut world.memory, &bytes, &[500], Flags::empty(), None);
        for guest in [&mut a, &mut c] {
            guest.post(&mut world.memory, 8);
        }
        // Reference 1 of each: the page to receive in, or the head; reference 2 is the rest.
        let (guilty, reference) = if by_receiver { (&b, 1) } else { (&a, 2) };
        world.memory.revoke(guilty.domain, reference);
        let (port, mut honest) = (guilty.port, c);
        honest.send(&mut world.memory, &frame(ALL, honest.mac, 60));
        world.run(&[&a, &honest]);
        assert_eq!(world.violations, [(port, Violation::Page(Status::BadReference))]);
        assert_eq!(honest.settle(), 1);
        if !by_receiver {
            assert!(b.receive(&world.memory).iter().all(|frame| frame.bytes.len() == 60));
        }
    }
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

/// A frame of TCP over IPv4 with that much data and no checksum.
fn tcp(to: Mac, from: Mac, data: usize) -> Vec<u8> {
    let mut bytes = [to.0, from.0].concat();
    bytes.extend([8, 0, 0x45, 0]);
    bytes.extend((40 + data as u16).to_be_bytes());
    bytes.extend([0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    bytes.extend([0, 80, 4, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x18, 1, 0, 0, 0, 0, 0]);
    bytes.extend((0..data).map(|at| (at * 31) as u8));
    bytes
}

/// Whether TCP's checksum is right: with it all words add up to nothing.
fn is_right(bytes: &[u8]) -> bool {
    let mut words = bytes[26..].to_vec();
    words.extend([0, 6]);
    words.extend((bytes.len() as u16 - 34).to_be_bytes());
    let (odd, mut sum) = ((bytes.len() - 26) % 2 == 1, 0_u32);
    if odd {
        words.insert(bytes.len() - 26, 0);
    }
    for word in words.chunks(2) {
        sum += u32::from(u16::from_be_bytes([word[0], word[1]]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum == 0xffff
}

#[test]
fn a_frontend_that_takes_no_blank_checksums_gets_whole_ones() {
    let mut world = World::new();
    let mut a = world.guest();
    let mut b = world.guest_as(true, None, Takes { blank4: false, ..EVERYTHING });
    b.post(&mut world.memory, 10);
    let blank = Flags::CSUM_BLANK | Flags::DATA_VALIDATED;
    for (data, cuts) in [(100, &[][..]), (1001, &[54, 60][..]), (9000, &[54, 4000, 8000])] {
        a.send_as(&mut world.memory, &tcp(b.mac, a.mac, data), cuts, blank, None);
        world.run(&[&a, &b]);
        let received = b.receive(&world.memory);
        assert_eq!(received.len(), 1);
        let frame = &received[0];
        assert_eq!((frame.flags, frame.bytes.len()), (Flags::DATA_VALIDATED, data + 54));
        assert!(is_right(&frame.bytes), "{data} bytes");
    }
    assert_eq!((a.settle(), &a.statuses[..]), (8, &[OKAY; 8][..]));
}

#[test]
fn a_frontend_that_cuts_nothing_gets_segments() {
    let mut world = World::new();
    let mut a = world.guest();
    let mut b = world.guest_as(true, None, Takes { blank4: true, ..Takes::default() });
    let gso = Gso { size: 1448, kind: GsoKind::Tcp4 };
    let blank = Flags::CSUM_BLANK | Flags::DATA_VALIDATED;
    let bytes = tcp(b.mac, a.mac, 20_000);
    let cuts: Vec<usize> = [54].into_iter().chain((1..5).map(|n| n * 4096)).collect();
    a.send_as(&mut world.memory, &bytes, &cuts, blank, Some(gso));
    b.post(&mut world.memory, 5);
    world.run(&[&a, &b]);
    assert!(b.receive(&world.memory).is_empty(), "all or nothing");
    b.post(&mut world.memory, 30);
    world.run(&[&b]);
    let segments = b.receive(&world.memory);
    assert_eq!(segments.len(), 14);
    assert!(segments.iter().all(|segment| segment.gso.is_none() && is_right(&segment.bytes)));
    let together: Vec<u8> =
        segments.iter().flat_map(|segment| segment.bytes[54..].to_vec()).collect();
    assert_eq!(together, bytes[54..]);
    assert_eq!((a.settle(), &a.statuses[..]), (7, &[OKAY; 6][..]), "six pieces, one extra slot");
    // What cannot be cut is told apart.
    a.send_as(&mut world.memory, &frame(b.mac, a.mac, 9000), &[4000, 8000], Flags::empty(), None);
    world.run(&[&a]);
    assert_eq!(world.dropped(&b, Drop::Form), 1);
    let tiny = Gso { size: 1, kind: GsoKind::Tcp4 };
    a.send_as(&mut world.memory, &tcp(b.mac, a.mac, 4000), &[], blank, Some(tiny));
    world.run(&[&a]);
    assert_eq!(world.dropped(&b, Drop::Form), 2, "4,000 segments are no frame");
}

#[test]
fn pieces_are_gathered_for_a_frontend_that_takes_one_page() {
    let mut world = World::new();
    let mut a = world.guest();
    let mut b = world.guest_as(true, None, Takes::default());
    b.post(&mut world.memory, 10);
    let bytes = frame(b.mac, a.mac, 1514);
    let cuts: Vec<usize> = (1..18).map(|n| n * 80).collect();
    a.send_as(&mut world.memory, &bytes, &cuts, Flags::empty(), None);
    world.run(&[&a, &b]);
    assert_eq!(b.receive(&world.memory)[0].bytes, bytes);
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
