//! Frames through either ring, by a backend that keeps the rules.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use xen_sys::ring::netif::{DROPPED, ERROR, EXTRA_MORE, ExtraInfo, Flags, GsoKind, OKAY};

use super::*;
use crate::{SLOTS, Sent};

fn frame_of(pages: impl IntoIterator<Item = u16>, len: u16, gso: bool) -> Frame {
    let pieces = pages.into_iter().map(|page| Piece { page, offset: page % 100, len }).collect();
    let gso = gso.then_some(Gso { size: 1448, kind: GsoKind::Tcp6 });
    Frame { pieces, flags: Flags::DATA_VALIDATED | Flags::CSUM_BLANK, gso }
}

#[test]
fn a_frame_is_a_chain_of_slots_whose_first_has_the_size_of_all() {
    let page = own_page();
    let mut sender = Sender::set_up(page.clone());
    let mut ring = Back::<_, TxRequest, TxResponse>::attach(page);
    let frame = frame_of([3, 5], 1000, true);
    sender.put(&frame, |page| 0x100 + u32::from(page)).unwrap();
    assert_eq!(ring.take(), Ok(None), "nothing is there before it is published");
    assert!(sender.publish(), "the backend waits");
    let first = ring.take().unwrap().unwrap();
    assert_eq!((first.reference, first.offset, first.size), (0x103, 3, 2000));
    assert_eq!(first.flags(), Flags::all(), "checksum blank, validated, more data, extra");
    let extra = ExtraInfo::from(ring.take().unwrap().unwrap());
    assert_eq!(Gso::of(&extra), frame.gso, "the extra slot is the second");
    let second = ring.take().unwrap().unwrap();
    assert_eq!((second.reference, second.offset, second.size), (0x105, 5, 1000));
    assert_eq!(second.flags, 0);
    assert_ne!(first.id, second.id);
}

#[test]
fn a_frame_goes_all_or_not_at_all() {
    let (mut sender, mut back) = sender();
    let frame = frame_of(0..18, 100, false);
    for _ in 0..SLOTS / 18 {
        sender.put(&frame, u32::from).unwrap();
    }
    assert_eq!(sender.free(), 4);
    assert!(sender.put(&frame_of(0..4, 100, true), u32::from).is_err(), "the extra is the fifth");
    assert_eq!(sender.free(), 4, "nothing of it was put");
    sender.put(&frame_of(0..4, 100, false), u32::from).unwrap();
    let _ = sender.publish();
    for _ in 0..SLOTS / 18 {
        assert_eq!(back.take().unwrap().frame, frame);
    }
    assert_eq!(back.take().unwrap().frame.pieces.len(), 4);
    assert_eq!(back.take(), None);
}

#[test]
fn what_became_of_a_page_is_told() {
    let (mut sender, mut back) = sender();
    sender.put(&frame_of([7, 8, 9], 100, true), u32::from).unwrap();
    let _ = sender.publish();
    let asked = back.take().unwrap();
    let statuses =
        [(asked.ids[3], ERROR), (asked.ids[0], OKAY), (None, 0), (asked.ids[2], DROPPED)];
    statuses.into_iter().for_each(|(id, status)| back.answer(id, status));
    assert_eq!(sender.take(), Ok(None), "nothing before it is published");
    assert!(back.ring.publish(), "the frontend wants to know");
    let sent: Vec<_> = core::iter::from_fn(|| sender.take().unwrap()).collect();
    let was = |page, is_ok| Sent { page, is_ok };
    assert_eq!(sent, [was(9, false), was(7, true), was(8, false)], "in the backend's order");
    assert_eq!(sender.free(), usize::from(SLOTS));
    assert!(!sender.has_more().unwrap());
}

#[test]
fn a_page_without_a_part_of_a_frame_is_posted_again() {
    let (mut receiver, mut back) = receiver();
    (0..8).for_each(|page| receiver.post(page, 50 + u32::from(page)).unwrap());
    let _ = receiver.publish();
    assert_eq!(back.look(), 8);
    let gso = Some(Gso { size: 1448, kind: GsoKind::Tcp4 });
    back.give_frame(&[100, 200], Flags::CSUM_BLANK, gso);
    let _ = back.ring.publish();
    let frame = receiver.take().unwrap().expect("a frame");
    let pages: Vec<u16> = frame.pieces.iter().map(|piece| piece.page).collect();
    assert_eq!((pages, frame.gso, frame.flags), (vec![0, 2], gso, Flags::CSUM_BLANK));
    let _ = receiver.publish();
    assert_eq!(back.look(), 6);
    assert_eq!(back.posted.back().unwrap().reference, 51, "the page of the extra slot");
}

#[test]
fn a_frame_with_an_error_is_lost_and_its_pages_are_posted_again() {
    for bad in 0..3 {
        let (mut receiver, mut back) = receiver();
        (0..4).for_each(|page| receiver.post(page, 50 + u32::from(page)).unwrap());
        let _ = receiver.publish();
        back.look();
        for slot in 0..3 {
            let status = if slot == bad { ERROR } else { 100 };
            back.give(0, status, if slot < 2 { Flags::MORE_DATA } else { Flags::empty() });
        }
        back.give(0, 60, Flags::empty());
        let _ = back.ring.publish();
        let frame = receiver.take().unwrap().expect("the frame behind the lost one");
        assert_eq!((frame.pieces[0].page, receiver.lost()), (3, 1), "error in slot {bad}");
        let _ = receiver.publish();
        back.look();
        let posted: Vec<u32> = back.posted.iter().map(|request| request.reference).collect();
        assert_eq!(posted, [50, 51, 52]);
    }
}

#[test]
fn a_frame_without_a_header_or_with_an_extra_that_nobody_asked_for_is_lost() {
    let odd = ExtraInfo { kind: 4, flags: 0, data: [0; 6] };
    let gso = Gso { size: 1448, kind: GsoKind::Tcp4 }.extra();
    let more_gso = ExtraInfo { flags: EXTRA_MORE, ..gso };
    for (what, len, extras) in [
        ("13 bytes", 13, vec![]),
        ("a hash", 100, vec![odd]),
        ("a hash beside the size of segments", 100, vec![more_gso, odd]),
    ] {
        let (mut receiver, mut back) = receiver();
        (0..4).for_each(|page| receiver.post(page, page.into()).unwrap());
        let _ = receiver.publish();
        back.look();
        let flags = if extras.is_empty() { Flags::empty() } else { Flags::EXTRA_INFO };
        back.give(0, len, flags);
        extras.into_iter().for_each(|extra| back.give_extra(extra));
        let _ = back.ring.publish();
        assert_eq!((receiver.take(), receiver.lost()), (Ok(None), 1), "{what}");
        let _ = receiver.publish();
        assert_eq!(back.look(), 4, "{what}: all pages are posted again");
    }
}

#[derive(Clone, Debug)]
enum Deed {
    Send { pieces: u16, gso: bool },
    Serve { frames: usize, shuffle: u32 },
    Answer { slots: usize },
    Take,
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let deed = prop_oneof![
        3 => (1..=18_u16, any::<bool>()).prop_map(|(pieces, gso)| Deed::Send { pieces, gso }),
        2 => (0..8_usize, any::<u32>()).prop_map(|(frames, shuffle)| Deed::Serve { frames, shuffle }),
        2 => (0..100_usize).prop_map(|slots| Deed::Answer { slots }),
        1 => Just(Deed::Take),
    ];
    proptest::collection::vec(deed, 0..150)
}

proptest! {
    /// Frames arrive as they were sent, and each page comes back once, in whatever order and at
    /// whatever moment they are answered.
    #[test]
    fn pages_that_are_sent_come_back_once(deeds in deeds()) {
        let (mut sender, mut back) = sender();
        let mut free: BTreeSet<u16> = (0..400).collect();
        let (mut sent, mut answers) = (VecDeque::new(), Vec::new());
        let mut away = BTreeMap::new();
        let end = [Deed::Serve { frames: 256, shuffle: 7 }, Deed::Answer { slots: 256 }, Deed::Take];
        for deed in deeds.into_iter().chain(end) {
            match deed {
                Deed::Send { pieces, gso } => {
                    let pages: Vec<u16> = free.iter().copied().take(pieces.into()).collect();
                    let frame = frame_of(pages.iter().copied(), 100, gso);
                    let fits = sender.free() >= pages.len() + usize::from(gso);
                    let put = sender.put(&frame, u32::from);
                    prop_assert_eq!(put.is_ok(), fits, "it goes if there are slots");
                    if fits {
                        free.retain(|page| !pages.contains(page));
                        sent.push_back(frame);
                    }
                }
                Deed::Serve { frames, shuffle } => {
                    let _ = sender.publish();
                    for _ in 0..frames {
                        let Some(asked) = back.take() else { break };
                        prop_assert_eq!(Some(asked.frame.clone()), sent.pop_front());
                        let pages = asked.frame.pieces.iter().map(|piece| piece.page);
                        let ids: Vec<u16> = asked.ids.iter().copied().flatten().collect();
                        for (id, page) in ids.iter().zip(pages) {
                            prop_assert!(away.insert(*id, page).is_none(), "an id was used twice");
                        }
                        answers.extend(asked.ids);
                    }
                    let middle = shuffle as usize % answers.len().max(1);
                    answers.rotate_left(middle);
                }
                Deed::Answer { slots } => {
                    for id in answers.drain(..slots.min(answers.len())) {
                        back.answer(id, OKAY);
                    }
                    let _ = back.ring.publish();
                }
                Deed::Take => {
                    while let Some(page) = sender.take().unwrap() {
                        prop_assert!(page.is_ok);
                        prop_assert!(free.insert(page.page), "page {} came back twice", page.page);
                        away.retain(|_, of| *of != page.page);
                    }
                }
            }
        }
        prop_assert_eq!((free.len(), sender.free()), (400, usize::from(SLOTS)));
    }

    /// Frames are received as they were given, whenever their slots become visible; pages of frames
    /// with errors are posted again, so that none is ever lost.
    #[test]
    fn pages_that_are_posted_come_back_or_are_posted_again(
        frames in proptest::collection::vec(
            (proptest::collection::vec(14..=4096_u16, 1..=18), any::<bool>(), 0..40_usize, 0..4_u8),
            1..60,
        ),
    ) {
        let (mut receiver, mut back) = receiver();
        let post = |receiver: &mut Receiver<_>, page: u16| receiver.post(page, page.into()).unwrap();
        (0..256).for_each(|page| post(&mut receiver, page));
        let (mut lost, mut given, mut taken) = (0, VecDeque::new(), 0);
        for (mut lens, gso, bad, publish) in frames {
            while lens.iter().map(|&len| u32::from(len)).sum::<u32>() > 65_535 {
                lens.pop();
            }
            let _ = receiver.publish();
            prop_assert_eq!(back.look(), 256, "all pages are there");
            let gso = gso.then_some(Gso { size: 1448, kind: GsoKind::Tcp4 });
            if bad < lens.len() {
                lost += 1;
                for slot in 0..lens.len() {
                    let more = if slot + 1 < lens.len() { Flags::MORE_DATA } else { Flags::empty() };
                    back.give(0, if slot == bad { ERROR } else { 99 }, more);
                    if slot % 4 == usize::from(publish) {
                        let _ = back.ring.publish();
                        prop_assert!(receiver.take().unwrap().is_none(), "half a frame is none");
                    }
                }
            } else {
                given.push_back(back.give_frame(&lens, Flags::DATA_VALIDATED, gso));
            }
            let _ = back.ring.publish();
            while let Some(frame) = receiver.take().unwrap() {
                prop_assert_eq!(Some(frame.clone()), given.pop_front());
                taken += 1;
                frame.pieces.iter().for_each(|piece| post(&mut receiver, piece.page));
            }
            prop_assert!(given.is_empty(), "{} frames were not received", given.len());
            prop_assert_eq!(receiver.lost(), lost);
        }
        prop_assert_eq!(receiver.free(), 0, "after {} frames some pages are nowhere", taken);
    }
}
