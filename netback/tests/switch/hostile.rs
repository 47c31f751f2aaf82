//! Guests that break the rules.

use core::sync::atomic::Ordering;

use netback::Violation;
use netback::port::{Config, Drop, Rings, Takes};
use netback::switch::PAGES;
use xen_sys::grant::Status;
use xen_sys::page::{OwnPages, PAGE_SIZE};
use xen_sys::ring::BadIndex;
use xen_sys::ring::netif::{ERROR, Flags, Gso, GsoKind, OKAY, RxRequest, RxResponse, TxRequest};
use xen_sys::ring::slots::Front;

use crate::conversion::tcp;
use crate::world::{ALL, EVERYTHING, World, frame};

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
    let mut pages = OwnPages::zeroed(2).unwrap().split();
    let [tx, rx] = [(); 2].map(|()| pages.next().unwrap());
    let region = xen_sys::ring::shared::Region::of(&tx);
    region.word(0).store(1000, Ordering::Relaxed);
    let rings = Rings { tx: tx.clone(), rx };
    let config = Config { domain: Some(a.domain), mac: None, rate: None, takes: EVERYTHING };
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

#[test]
fn who_takes_a_page_back_for_a_moment_puts_no_blame_on_another() {
    for by_receiver in [false, true] {
        let mut world = World::new();
        let [mut a, mut b] = [(); 2].map(|()| world.guest());
        let bytes = frame(b.mac, a.mac, 1000);
        a.send_as(&mut world.memory, &bytes, &[500], Flags::empty(), None);
        world.run(&[&a]);
        b.post(&mut world.memory, 2);
        let guilty = if by_receiver { (b.domain, 1) } else { (a.domain, 2) };
        world.memory.flicker(guilty.0, guilty.1);
        world.run(&[&b]);
        assert_eq!(world.violations, [], "nothing tells who it was");
        assert_eq!((a.settle(), &a.statuses[..]), (2, &[ERROR; 2][..]), "that frame is lost");
        assert_eq!(world.dropped(&b, Drop::Copy), 1);
        b.receive(&world.memory);
        a.send(&mut world.memory, &frame(b.mac, a.mac, 60));
        world.run(&[&a]);
        assert_eq!(b.receive(&world.memory).len(), 1, "the next one comes");
    }
}

#[test]
fn a_slot_of_no_bytes_behind_a_full_page_ends_nobody_elses_interface() {
    let mut world = World::new();
    let mut a = world.guest();
    // A port of our own, that receives in the last page there is: nothing is behind that.
    let mut pages = OwnPages::zeroed(2).unwrap().split();
    let [tx, rx] = [(); 2].map(|()| pages.next().unwrap());
    let mut receives = Front::<_, RxRequest, RxResponse>::set_up(rx.clone());
    let config = Config { domain: None, mac: None, rate: None, takes: EVERYTHING };
    world.switch.attach(config, [Rings { tx, rx }].into_iter()).unwrap();
    receives.put(&RxRequest { id: 0, pad: 0, reference: PAGES as u32 - 1 }).unwrap();
    let _ = receives.publish();
    let bytes = frame(ALL, a.mac, PAGE_SIZE);
    a.send_as(&mut world.memory, &bytes, &[PAGE_SIZE], Flags::empty(), None);
    world.run(&[&a]);
    assert_eq!(world.violations, [], "all that there is of the frame could be copied");
    let received = receives.take().unwrap().expect("the frame");
    assert_eq!((received.status, received.flags), (PAGE_SIZE as i16, 0));
    assert_eq!((a.settle(), &a.statuses[..]), (2, &[OKAY; 2][..]));
}

#[test]
fn whoever_changes_a_frame_that_waits_sends_from_its_own_address() {
    for takes in [EVERYTHING, Takes { blank4: false, ..EVERYTHING }] {
        let mut world = World::new();
        let [mut a, c] = [(); 2].map(|()| world.guest());
        let mut b = world.guest_as(true, None, takes);
        let blank = Flags::CSUM_BLANK;
        for (len, cuts) in [(60, &[][..]), (1000, &[]), (1000, &[8, 500])] {
            let mut bytes = tcp(b.mac, a.mac, len);
            let before = a.next();
            a.send_as(&mut world.memory, &bytes, cuts, blank, None);
            world.run(&[&a, &b]);
            // Its head was read, and there is no page for it yet.
            bytes[..12].copy_from_slice(&[b.mac.0, c.mac.0].concat());
            let starts = [0].into_iter().chain(cuts.iter().copied());
            for (reference, start) in (before + 1..).zip(starts) {
                world.memory.grant(a.domain, reference, &bytes[start..]);
            }
            b.post(&mut world.memory, 2);
            world.run(&[&b]);
            let received = b.receive(&world.memory);
            assert_eq!(received.len(), 1);
            assert_eq!(received[0].bytes[..12], [b.mac.0, a.mac.0].concat());
            assert_eq!(received[0].bytes[54..], bytes[54..], "the rest is as it was");
        }
    }
}
