//! Frames for those who do not take them as they were sent.

use netback::Mac;
use netback::port::{Drop, Takes};
use xen_sys::ring::netif::{Flags, Gso, GsoKind, OKAY};

use crate::world::{EVERYTHING, World, frame};

/// A frame of TCP over IPv4 with that much data and no checksum.
pub(crate) fn tcp(to: Mac, from: Mac, data: usize) -> Vec<u8> {
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
fn a_blank_checksum_is_filled_behind_tags() {
    let mut world = World::new();
    let mut a = world.guest();
    let mut b = world.guest_as(true, None, Takes { blank4: false, ..EVERYTHING });
    b.post(&mut world.memory, 10);
    for tags in [&[0x81, 0, 0, 5][..], &[0x81, 0, 0, 5, 0x81, 0, 0, 6]] {
        let mut bytes = tcp(b.mac, a.mac, 100);
        bytes.splice(12..12, tags.iter().copied());
        a.send_as(&mut world.memory, &bytes, &[], Flags::CSUM_BLANK, None);
        world.run(&[&a, &b]);
        let mut received = b.receive(&world.memory).remove(0);
        assert_eq!(received.bytes.drain(12..12 + tags.len()).as_slice(), tags);
        assert!(is_right(&received.bytes), "behind {} bytes of tags", tags.len());
    }
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
fn what_is_made_fit_and_was_to_be_cut_is_cut() {
    let gso = Gso { size: 1448, kind: GsoKind::Tcp4 };
    let blank = Flags::CSUM_BLANK | Flags::DATA_VALIDATED;
    // They would cut it themselves, but cannot have it as it is.
    for takes in [Takes { blank4: false, ..EVERYTHING }, Takes { chains: false, ..EVERYTHING }] {
        let mut world = World::new();
        let mut a = world.guest();
        let mut b = world.guest_as(true, None, takes);
        b.post(&mut world.memory, 30);
        for data in [3000, 20_000] {
            let bytes = tcp(b.mac, a.mac, data);
            let cuts: Vec<usize> =
                [54].into_iter().chain((1..5).map(|n| n * 4096).filter(|&n| n < data)).collect();
            a.send_as(&mut world.memory, &bytes, &cuts, blank, Some(gso));
            world.run(&[&a, &b]);
            let mut together = Vec::new();
            for segment in b.receive(&world.memory) {
                assert!(segment.bytes.len() <= 1502 && segment.gso.is_none());
                assert!(is_right(&segment.bytes));
                together.extend_from_slice(&segment.bytes[54..]);
            }
            assert_eq!(together, bytes[54..]);
        }
    }
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
