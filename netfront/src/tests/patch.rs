//! Two devices joined, each with a backend of its own.

use proptest::prelude::*;
use xen_sys::ring::netif::{ERROR, Flags, GsoKind};

use super::*;
use crate::patch::{Broken, Count, Page, Patch};
use crate::{SLOTS, Violation};

/// Pages of a direction: where they are filled they are known by other numbers than where they are
/// sent to.
fn pages(count: u32, filled: u32, sent: u32) -> Box<[Page]> {
    (0..count).map(|n| Page { filled_as: filled + n, sent_as: sent + n }).collect()
}

/// Two backends, and the patch between them.
fn joined(inward: u32, outward: u32) -> (Patch<OwnPage, OwnPage>, Backend, Backend) {
    let ((outer, outer_back), (inner, inner_back)) = (vif(), vif());
    let patch = Patch::new(outer, inner, pages(inward, 1000, 2000), pages(outward, 3000, 4000));
    (patch, outer_back, inner_back)
}

/// The frame, as it is known where it is sent to.
fn sent(mut frame: Frame) -> Frame {
    frame.pieces.iter_mut().for_each(|piece| piece.page += 1000);
    frame
}

#[test]
fn a_frame_goes_on_in_the_pages_in_which_it_came() {
    let (mut patch, mut outer, mut inner) = joined(8, 8);
    let turn = patch.carry().unwrap();
    assert!(turn.notify_outer && turn.notify_inner, "both are given pages");
    assert_eq!((outer.receive.look(), inner.receive.look()), (8, 8));

    let gso = Some(Gso { size: 1448, kind: GsoKind::Tcp4 });
    let flags = Flags::CSUM_BLANK | Flags::DATA_VALIDATED;
    let inward = outer.receive.give_frame(&[4096, 4096, 100], flags, gso);
    let outward = inner.receive.give_frame(&[60], Flags::empty(), None);
    assert_eq!((inward.pieces[0].page, outward.pieces[0].page), (1000, 3000));
    let (_, _) = (outer.receive.ring.publish(), inner.receive.ring.publish());
    let turn = patch.carry().unwrap();
    assert!(turn.notify_outer && turn.notify_inner && !turn.has_more, "{turn:?}");

    let (to_inner, to_outer) = (inner.transmit.take().unwrap(), outer.transmit.take().unwrap());
    assert_eq!(to_inner.frame, sent(inward), "flags and segments stay with it");
    assert_eq!(to_outer.frame, sent(outward));
    assert_eq!(outer.receive.look(), 8 - 4 + 1, "only the page of the extra slot is posted again");

    inner.transmit.answer_all(&to_inner);
    outer.transmit.answer(to_outer.ids[0], ERROR);
    let _ = outer.transmit.ring.publish();
    patch.carry().unwrap();
    assert_eq!((outer.receive.look(), inner.receive.look()), (8, 8), "the pages are back");
    let inward = Count { frames: 1, bytes: 8292, ..Count::default() };
    assert_eq!(patch.inward(), inward);
    let outward = Count { frames: 1, bytes: 60, refused: 1, ..Count::default() };
    assert_eq!(patch.outward(), outward);
}

#[test]
fn a_side_that_takes_nothing_costs_frames_but_no_pages() {
    let (mut patch, mut outer, mut inner) = joined(200, 1);
    patch.carry().unwrap();
    let mut given = 0;
    for _ in 0..30 {
        // Of 200 pages 150 are in frames to a backend that is asleep.
        for _ in 0..outer.receive.look().min(50) {
            let gso = Some(Gso { size: 1448, kind: GsoKind::Tcp4 });
            if outer.receive.look() < 2 {
                break;
            }
            outer.receive.give_frame(&[60], Flags::empty(), gso);
            given += 1;
        }
        let _ = outer.receive.ring.publish();
        patch.carry().unwrap();
    }
    let Count { frames, full, lost, .. } = patch.inward();
    assert_eq!((frames, lost), (128, 0), "two slots for each of them");
    assert_eq!(full, given - 128);
    assert_eq!(outer.receive.look(), 200 - 128, "whatever was dropped can be filled again");
    while let Some(asked) = inner.transmit.take() {
        inner.transmit.answer_all(&asked);
    }
    patch.carry().unwrap();
    assert_eq!(outer.receive.look(), 200);
}

#[test]
fn a_turn_is_bounded_and_says_so() {
    let (mut patch, mut outer, mut inner) = joined(256, 256);
    patch.carry().unwrap();
    for _ in 0..outer.receive.look() {
        outer.receive.give_frame(&[60], Flags::empty(), None);
    }
    let _ = outer.receive.ring.publish();
    let mut turns = 1;
    while patch.carry().unwrap().has_more {
        turns += 1;
    }
    assert!(turns > 1, "256 frames in one turn");
    let frames = core::iter::from_fn(|| inner.transmit.take()).count();
    assert_eq!(frames, usize::from(SLOTS));
}

#[test]
fn a_device_whose_backend_lies_is_named() {
    let lie = TxResponse { id: 7, status: 0 };
    let (mut patch, mut outer, mut inner) = joined(8, 8);
    patch.carry().unwrap();
    inner.receive.look();
    inner.receive.give_frame(&[60], Flags::empty(), None);
    let _ = inner.receive.ring.publish();
    patch.carry().unwrap();
    outer.transmit.take().unwrap();
    outer.transmit.ring.put(&lie);
    let _ = outer.transmit.ring.publish();
    assert_eq!(patch.carry(), Err(Broken::Outer(Violation::Id(7))));

    let (mut patch, _outer, mut inner) = joined(8, 8);
    patch.carry().unwrap();
    inner.receive.look();
    inner.receive.give(4000, 4000, Flags::empty());
    let _ = inner.receive.ring.publish();
    let outside = Violation::Outside { offset: 4000, len: 4000 };
    assert_eq!(patch.carry(), Err(Broken::Inner(outside)));
}

proptest! {
    /// Whatever goes either way, with whatever delay it is answered: frames arrive in order, and in
    /// the end every page is where it can be filled.
    #[test]
    fn frames_arrive_in_order_and_pages_return(
        deeds in proptest::collection::vec(
            (any::<bool>(), proptest::collection::vec(14..=3000_u16, 1..=18), 0..6_usize),
            1..100,
        ),
    ) {
        let (mut patch, mut outer, mut inner) = joined(120, 90);
        patch.carry().unwrap();
        let (mut given, mut asked) = ([VecDeque::new(), VecDeque::new()], [vec![], vec![]]);
        for (is_inward, lens, answers) in deeds {
            let (from, to, way) = match is_inward {
                true => (&mut outer, &mut inner, 0),
                false => (&mut inner, &mut outer, 1),
            };
            if from.receive.look() >= lens.len() {
                given[way].push_back(sent(from.receive.give_frame(&lens, Flags::empty(), None)));
                let _ = from.receive.ring.publish();
            }
            patch.carry().unwrap();
            while let Some(one) = to.transmit.take() {
                prop_assert_eq!(Some(one.frame.clone()), given[way].pop_front());
                asked[way].push(one);
            }
            for one in asked[way].drain(..answers.min(asked[way].len())) {
                to.transmit.answer_all(&one);
            }
            patch.carry().unwrap();
        }
        let (counts, [inward, outward]) = ((patch.inward(), patch.outward()), asked);
        prop_assert_eq!(counts.0.full + counts.1.full, 0, "there are more slots than pages");
        inward.iter().for_each(|one| inner.transmit.answer_all(one));
        outward.iter().for_each(|one| outer.transmit.answer_all(one));
        patch.carry().unwrap();
        prop_assert_eq!((outer.receive.look(), inner.receive.look()), (120, 90));
    }
}
