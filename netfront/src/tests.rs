//! A backend to play with, and what is tested with it.

mod device;
mod hostile;
mod patch;
mod rings;

use std::collections::VecDeque;

use xen_sys::page::{OwnPage, OwnPages};
use xen_sys::ring::netif::{
    CHAIN_MAX, EXTRA_MORE, ExtraInfo, Flags, Gso, NULL, RxRequest, RxResponse, TxRequest,
    TxResponse,
};
use xen_sys::ring::slots::Back;

use crate::frame::{Frame, Piece};
use crate::{Receiver, Sender, Vif};

fn own_page() -> OwnPage {
    OwnPages::zeroed(1).unwrap().split().next().unwrap()
}

/// A frontend and its backend. The frontend's page `n` is the backend's reference `n` and something.
fn vif() -> (Vif<OwnPage>, Backend) {
    let (transmit, receive) = (own_page(), own_page());
    let vif = Vif::set_up(transmit.clone(), receive.clone());
    (vif, Backend { transmit: TxBack::attach(transmit), receive: RxBack::attach(receive) })
}

fn sender() -> (Sender<OwnPage>, TxBack) {
    let page = own_page();
    (Sender::set_up(page.clone()), TxBack::attach(page))
}

fn receiver() -> (Receiver<OwnPage>, RxBack) {
    let page = own_page();
    (Receiver::set_up(page.clone()), RxBack::attach(page))
}

struct Backend {
    transmit: TxBack,
    receive: RxBack,
}

/// Reads the transmit ring by the header's rules, and complains of what it forbids.
struct TxBack {
    ring: Back<OwnPage, TxRequest, TxResponse>,
}

/// A frame as the transmit ring brought it: its pieces are of references, that are pages here.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Asked {
    frame: Frame,
    /// What there is to be answered; `None` for an extra slot.
    ids: Vec<Option<u16>>,
}

impl TxBack {
    fn attach(page: OwnPage) -> Self {
        Self { ring: Back::attach(page) }
    }

    fn take(&mut self) -> Option<Asked> {
        let first = self.ring.take().unwrap()?;
        let mut ids = vec![Some(first.id)];
        let mut frame = Frame { flags: first.flags(), ..Frame::default() };
        let mut next = || self.ring.take().unwrap().expect("a frame is published whole");
        if first.flags().contains(Flags::EXTRA_INFO) {
            let extra = ExtraInfo::from(next());
            assert_eq!(extra.flags & EXTRA_MORE, 0, "one extra slot is all there is to say");
            frame.gso = Some(Gso::of(&extra).expect("it says how to cut"));
            ids.push(None);
        }
        let mut slots = vec![first];
        while slots.last().unwrap().flags().contains(Flags::MORE_DATA) {
            slots.push(next());
            ids.push(Some(slots.last().unwrap().id));
            assert!(slots.len() <= CHAIN_MAX, "a chain that no backend has to take");
        }
        // The first says how large the frame is, not its own piece.
        let rest: u16 = slots[1..].iter().map(|slot| slot.size).sum();
        slots[0].size = slots[0].size.checked_sub(rest).expect("the size of the whole frame");
        for slot in slots {
            let page = u16::try_from(slot.reference).unwrap();
            let piece = Piece { page, offset: slot.offset, len: slot.size };
            assert!(usize::from(piece.offset + piece.len) <= 4096, "{piece:?} leaves its page");
            frame.pieces.push(piece).unwrap();
        }
        frame.flags &= crate::frame::OF_FRAME;
        Some(Asked { frame, ids })
    }

    fn answer(&mut self, id: Option<u16>, status: i16) {
        self.ring.put(&match id {
            Some(id) => TxResponse { id, status },
            // As Linux's, which leaves there what was there.
            None => TxResponse { id: 0xdead, status: NULL },
        });
    }

    fn answer_all(&mut self, asked: &Asked) {
        asked.ids.iter().for_each(|&id| self.answer(id, 0));
        let _ = self.ring.publish();
    }
}

/// Fills the receive ring by the header's rules.
struct RxBack {
    ring: Back<OwnPage, RxRequest, RxResponse>,
    /// Requests that were taken and not answered.
    posted: VecDeque<RxRequest>,
}

impl RxBack {
    fn attach(page: OwnPage) -> Self {
        Self { ring: Back::attach(page), posted: VecDeque::new() }
    }

    /// How many pages there are to be filled.
    fn look(&mut self) -> usize {
        while let Some(request) = self.ring.take().unwrap() {
            self.posted.push_back(request);
        }
        self.posted.len()
    }

    /// Answers the next request with bytes; tells in which page they are.
    fn give(&mut self, offset: u16, status: i16, flags: Flags) -> u32 {
        let request = self.posted.pop_front().expect("a page to fill");
        self.ring.put(&RxResponse { id: request.id, offset, flags: flags.bits(), status });
        request.reference
    }

    fn give_extra(&mut self, extra: ExtraInfo) {
        self.posted.pop_front().expect("a slot to fill");
        self.ring.put(&extra.into());
    }

    /// Gives a frame of pieces of such lengths, each at the offset that is its length; tells where
    /// they are.
    fn give_frame(&mut self, lens: &[u16], flags: Flags, gso: Option<Gso>) -> Frame {
        let mut frame = Frame { flags, gso, ..Frame::default() };
        for (at, &len) in lens.iter().enumerate() {
            let more = if at + 1 < lens.len() { Flags::MORE_DATA } else { Flags::empty() };
            let extra = if at == 0 && gso.is_some() { Flags::EXTRA_INFO } else { Flags::empty() };
            let first = if at == 0 { flags } else { Flags::empty() };
            let offset = len.min(4096 - len);
            let reference = self.give(offset, len.cast_signed(), first | more | extra);
            let page = u16::try_from(reference).unwrap();
            frame.pieces.push(Piece { page, offset, len }).unwrap();
            if at == 0
                && let Some(gso) = gso
            {
                self.give_extra(gso.extra());
            }
        }
        frame
    }
}
