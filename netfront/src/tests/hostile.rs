//! A backend that lies.

use core::sync::atomic::Ordering;

use proptest::prelude::*;
use xen_sys::ring::netif::{EXTRA_MORE, ExtraInfo, Flags, Gso, GsoKind};
use xen_sys::ring::shared::Region;

use super::*;
use crate::frame::{LEAST, MOST};
use crate::{SLOTS, Violation};

/// Where in a ring the index of responses stands (`rsp_prod`).
const RSP_PROD: usize = 8;

fn posted() -> (Receiver<OwnPage>, RxBack) {
    let (mut receiver, mut back) = receiver();
    (0..SLOTS).for_each(|page| receiver.post(page, page.into()).unwrap());
    let _ = receiver.publish();
    back.look();
    (receiver, back)
}

/// What a receiver makes of such responses.
fn received(give: impl FnOnce(&mut RxBack)) -> Result<Option<Frame>, Violation> {
    let (mut receiver, mut back) = posted();
    give(&mut back);
    let _ = back.ring.publish();
    receiver.take()
}

fn give(back: &mut RxBack, offset: u16, status: i16, flags: Flags) {
    back.give(offset, status, flags);
}

#[test]
fn what_a_receive_ring_cannot_say_ends_the_device() {
    let outside = received(|back| give(back, 4000, 97, Flags::empty()));
    assert_eq!(outside, Err(Violation::Outside { offset: 4000, len: 97 }));
    let outside = received(|back| give(back, u16::MAX, i16::MAX, Flags::empty()));
    assert_eq!(outside, Err(Violation::Outside { offset: u16::MAX, len: 0x7fff }));
    let foreign = received(|back| {
        back.ring.put(&RxResponse { id: 1, offset: 0, flags: 0, status: 60 });
    });
    assert_eq!(foreign, Err(Violation::Id(1)), "the first response answers the first request");
    let endless = received(|back| (0..19).for_each(|_| give(back, 0, 60, Flags::MORE_DATA)));
    assert_eq!(endless, Err(Violation::Chain));
    let extra = Gso { size: 1448, kind: GsoKind::Tcp4 }.extra();
    let extras = received(|back| {
        back.give(0, 60, Flags::EXTRA_INFO);
        (0..5).for_each(|_| back.give_extra(ExtraInfo { flags: EXTRA_MORE, ..extra }));
    });
    assert_eq!(extras, Err(Violation::Extras));
}

#[test]
fn what_a_transmit_ring_cannot_say_ends_the_device() {
    let answered = |answers: &[(u16, i16)]| {
        let (mut sender, mut back) = sender();
        for page in [5, 6] {
            let pieces = [Piece { page, offset: 0, len: 60 }].into_iter().collect();
            sender.put(&Frame { pieces, ..Frame::default() }, u32::from).unwrap();
        }
        let _ = sender.publish();
        let (first, _) = (back.take().unwrap().ids[0].unwrap(), back.take().unwrap());
        for &(id, status) in answers {
            // The id that was used first is known to the test as 1000.
            back.answer(Some(if id == 1000 { first } else { id }), status);
        }
        let _ = back.ring.publish();
        let results: Vec<_> = (0..answers.len()).map(|_| sender.take()).collect();
        results.into_iter().find_map(Result::err)
    };
    assert_eq!(answered(&[(1000, 0)]), None);
    assert_eq!(answered(&[(0, 0)]), Some(Violation::Id(0)), "an id that names no request");
    assert_eq!(answered(&[(999, 0)]), Some(Violation::Id(999)), "an id that cannot be");
    let twice = answered(&[(1000, 0), (1000, 0)]);
    assert!(matches!(twice, Some(Violation::Id(_))), "a request answered twice: {twice:?}");
    assert_eq!(answered(&[(1000, NULL)]), Some(Violation::NoExtra));
}

#[test]
fn an_index_that_cannot_be_ends_the_device() {
    for ahead in [SLOTS + 1, 0x8000, u16::MAX] {
        let page = own_page();
        let mut receiver = Receiver::set_up(page.clone());
        Region::of(&page).word(RSP_PROD).store(ahead.into(), Ordering::Relaxed);
        assert!(matches!(receiver.take(), Err(Violation::Index(_))), "{ahead}");
        assert!(matches!(receiver.has_more(), Err(Violation::Index(_))), "{ahead}");
        let page = own_page();
        let mut sender = Sender::set_up(page.clone());
        Region::of(&page).word(RSP_PROD).store(ahead.into(), Ordering::Relaxed);
        assert!(matches!(sender.take(), Err(Violation::Index(_))), "{ahead}");
    }
}

/// A response by its fields, more of them likely than chance would have it.
fn response() -> impl Strategy<Value = RxResponse> {
    let id = prop_oneof![9 => Just(None), 1 => any::<u16>().prop_map(Some)];
    let offset = prop_oneof![6 => 0..100_u16, 1 => any::<u16>()];
    let status = prop_oneof![6 => 14..4000_i16, 2 => any::<i16>()];
    (id, offset, 0..16_u16, status).prop_map(|(id, offset, flags, status)| RxResponse {
        id: id.unwrap_or(0xffff),
        offset,
        flags,
        status,
    })
}

proptest! {
    /// Whatever stands in the receive ring, also after it was known to be broken: nothing panics,
    /// what comes out are frames of posted pages, and none of them twice.
    #[test]
    fn any_responses_give_frames_or_a_violation(
        responses in proptest::collection::vec(response(), 0..200),
        turns in 1..5_usize,
    ) {
        let (mut receiver, mut back) = posted();
        let mut with_us = std::collections::BTreeSet::new();
        for part in responses.chunks(responses.len() / turns + 1) {
            for &response in part {
                back.look();
                let Some(request) = back.posted.pop_front() else { break };
                let id = if response.id == 0xffff { request.id } else { response.id };
                back.ring.put(&RxResponse { id, ..response });
            }
            let _ = back.ring.publish();
            for _ in 0..part.len() {
                let Ok(Some(frame)) = receiver.take() else { continue };
                prop_assert!((LEAST..=MOST).contains(&frame.len()));
                for piece in &frame.pieces {
                    prop_assert!(usize::from(piece.offset) + usize::from(piece.len) <= 4096);
                    prop_assert!(with_us.insert(piece.page), "page {} is here twice", piece.page);
                }
            }
            for page in core::mem::take(&mut with_us).into_iter().take(receiver.free()) {
                receiver.post(page, page.into()).unwrap();
            }
            let _ = receiver.publish();
        }
    }

    #[test]
    fn any_answers_give_pages_once_or_a_violation(
        answers in proptest::collection::vec((any::<u8>(), -2..3_i16), 0..250),
        frames in 0..80_u16,
    ) {
        let (mut sender, mut back) = sender();
        for page in 0..frames {
            let pieces = [3 * page, 3 * page + 1].map(|page| Piece { page, offset: 0, len: 60 });
            let gso = Some(Gso { size: 1448, kind: GsoKind::Tcp4 }).filter(|_| page % 2 == 0);
            let pieces = pieces.into_iter().collect();
            sender.put(&Frame { pieces, gso, ..Frame::default() }, u32::from).unwrap();
        }
        let _ = sender.publish();
        while back.take().is_some() {}
        let mut seen = std::collections::BTreeSet::new();
        for &(id, status) in answers.iter().take(back.ring.outstanding() as usize) {
            back.ring.put(&TxResponse { id: id.into(), status });
        }
        let _ = back.ring.publish();
        for _ in 0..answers.len() {
            if let Ok(Some(sent)) = sender.take() {
                prop_assert!(seen.insert(sent.page), "page {} came back twice", sent.page);
            }
        }
    }
}
