use core::sync::atomic::Ordering;
use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::page::{OwnPage, OwnPages};

/// Of netif's transmit ring: 12 bytes against 4.
type Req = [u8; 12];
type Rsp = [u8; 4];

fn request(number: u32) -> Req {
    let mut request = [0xaa; 12];
    request[..4].copy_from_slice(&number.to_le_bytes());
    request
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes[..4].try_into().unwrap())
}

fn pair() -> (Front<OwnPage, Req, Rsp>, Back<OwnPage, Req, Rsp>) {
    pair_at(0)
}

/// Both ends of an empty ring whose indexes stand at `start`.
fn pair_at(start: u32) -> (Front<OwnPage, Req, Rsp>, Back<OwnPage, Req, Rsp>) {
    let mut front = Front::set_up(OwnPages::zeroed(1).unwrap().split().next().unwrap());
    let region = Region::of(&front.memory);
    for (offset, value) in [(REQ_PROD, 0), (REQ_EVENT, 1), (RSP_PROD, 0), (RSP_EVENT, 1)] {
        region.word(offset).store(start.wrapping_add(value), Ordering::Relaxed);
    }
    (front.put, front.shown, front.taken, front.seen) = (start, start, start, start);
    let back = Back::attach(front.memory.clone());
    (front, back)
}

fn set(front: &Front<OwnPage, Req, Rsp>, offset: usize, value: u32) {
    Region::of(&front.memory).word(offset).store(value, Ordering::Relaxed);
}

#[test]
fn the_ring_is_laid_out_as_the_header_has_it() {
    let (mut front, mut back) = pair();
    assert_eq!((front.size(), back.size()), (256, 256), "netif's transmit ring has 256 slots");
    let blkif = Back::<_, [u8; 112], [u8; 16]>::attach(OwnPages::zeroed(16).unwrap());
    assert_eq!(blkif.size(), 512, "blkif's ring of 16 pages has 512 slots");
    front.put(&request(1)).unwrap();
    front.put(&request(2)).unwrap();
    let _ = front.publish();
    let mut head = [0; 64 + 24];
    Region::of(&front.memory).copy_out(0, &mut head);
    let words: Vec<u32> = (0..4).map(|i| number(&head[4 * i..])).collect();
    assert_eq!(words, [2, 1, 0, 1], "req_prod, req_event, rsp_prod, rsp_event");
    assert_eq!((number(&head[64..]), number(&head[76..])), (1, 2));
    assert_eq!(back.take().unwrap().map(|request| number(&request)), Some(1));
    back.put(&7u32.to_le_bytes());
    let _ = back.publish();
    Region::of(&front.memory).copy_out(0, &mut head);
    assert_eq!((number(&head[8..]), number(&head[64..])), (1, 7));
}

#[test]
fn a_busy_peer_is_left_alone() {
    let (mut front, mut back) = pair();
    front.put(&request(1)).unwrap();
    assert!(front.publish(), "the first request is announced");
    assert!(!front.publish(), "nothing new, no event");
    front.put(&request(2)).unwrap();
    assert!(!front.publish(), "the back end is at work and did not ask");
    while back.take().unwrap().is_some() {}
    assert!(!back.has_more().unwrap());
    front.put(&request(3)).unwrap();
    assert!(front.publish(), "now it waits");
}

#[test]
fn looking_once_more_finds_what_came_meanwhile() {
    let (mut front, mut back) = pair();
    assert_eq!(back.take(), Ok(None));
    front.put(&request(1)).unwrap();
    let _ = front.publish();
    assert_eq!(back.has_more(), Ok(true), "it came before the threshold was set");
    assert!(back.take().unwrap().is_some());
}

#[test]
fn a_full_ring_refuses_and_a_response_makes_room() {
    let (mut front, mut back) = pair_at(u32::MAX - 100);
    for i in 0..front.size() {
        front.put(&request(i)).unwrap();
    }
    assert_eq!(front.put(&request(0)), Err(Full));
    let _ = front.publish();
    for i in 0..back.size() {
        assert_eq!(back.take().unwrap().map(|request| number(&request)), Some(i));
    }
    assert_eq!(back.take(), Ok(None), "all slots are taken");
    assert_eq!(back.outstanding(), 256);
    back.put(&0u32.to_le_bytes());
    let _ = back.publish();
    assert_eq!(front.put(&request(0)), Err(Full), "the response is there but not taken");
    assert!(front.take().unwrap().is_some());
    assert!(front.put(&request(0)).is_ok());
}

#[test]
fn a_new_back_end_takes_what_has_no_response() {
    let (mut front, mut back) = pair();
    (0..3).for_each(|i| assert!(front.put(&request(i)).is_ok()));
    let _ = front.publish();
    back.take().unwrap();
    back.take().unwrap();
    back.put(&0u32.to_le_bytes());
    let _ = back.publish();
    let mut back: Back<_, Req, Rsp> = Back::attach(front.memory.clone());
    let rest: Vec<u32> =
        core::iter::from_fn(|| back.take().unwrap()).map(|request| number(&request)).collect();
    assert_eq!(rest, [1, 2]);
}

#[test]
#[should_panic = "a response without a request"]
fn a_response_too_many_is_our_mistake() {
    pair().1.put(&[0; 4]);
}

#[test]
fn requests_for_which_there_are_no_slots_are_hostile() {
    let (front, mut back) = pair();
    for (prod, taken) in [(257, 0), (u32::MAX, 0), (1 << 31, 0)] {
        set(&front, REQ_PROD, prod);
        assert_eq!(back.take(), Err(BadIndex { prod, cons: taken }));
        assert_eq!(back.has_more(), Err(BadIndex { prod, cons: taken }));
    }
    set(&front, REQ_PROD, 256);
    for _ in 0..256 {
        assert!(back.take().unwrap().is_some());
    }
    set(&front, REQ_PROD, 257);
    assert!(back.take().is_err(), "no slot is free: nothing was answered");
    set(&front, REQ_PROD, 255);
    assert!(back.take().is_err(), "an index that goes back");
    back.put(&[0; 4]);
    set(&front, REQ_PROD, 257);
    assert!(back.take().unwrap().is_some(), "one slot was answered");
}

#[test]
fn answers_to_what_was_never_asked_are_hostile() {
    let (mut front, _back) = pair();
    front.put(&request(1)).unwrap();
    set(&front, RSP_PROD, 1);
    assert_eq!(front.take(), Err(BadIndex { prod: 1, cons: 0 }), "not shown yet");
    let _ = front.publish();
    assert!(front.take().unwrap().is_some());
    set(&front, RSP_PROD, 2);
    assert!(front.take().is_err());
    assert!(front.has_more().is_err());
}

proptest! {
    /// Both ends in any order around the wrap of the indexes: every request arrives once and
    /// in order, every response comes back, and nobody sleeps over work.
    #[test]
    fn is_a_queue_each_way_and_nobody_sleeps_over_work(
        start in prop_oneof![Just(0), (u32::MAX - 50)..=u32::MAX],
        steps in prop::collection::vec((0..6u8, 1..40u32), 0..150),
    ) {
        let (mut front, mut back) = pair_at(start);
        let (mut asked, mut due, mut done) = (VecDeque::new(), VecDeque::new(), VecDeque::new());
        let (mut next, mut hidden, mut back_sleeps, mut front_sleeps) = (0, 0, false, false);
        for (step, times) in steps {
            match step {
                0 => for _ in 0..times {
                    if front.put(&request(next)).is_ok() {
                        asked.push_back(next);
                        next += 1;
                    }
                },
                1 => {
                    let new = front.put != front.shown;
                    let notify = front.publish();
                    prop_assert!(notify || !(back_sleeps && new), "the back end sleeps on");
                    if notify { back_sleeps = false; }
                }
                2 => for _ in 0..times {
                    if let Some(request) = back.take().unwrap() {
                        prop_assert_eq!(Some(number(&request)), asked.pop_front());
                        due.push_back(number(&request));
                        back_sleeps = false;
                    }
                },
                3 => for _ in 0..times {
                    if let Some(number) = due.pop_front() {
                        back.put(&number.to_le_bytes());
                        done.push_back(number);
                        hidden += 1;
                    }
                },
                4 => {
                    let notify = back.publish();
                    prop_assert!(notify || !(front_sleeps && hidden > 0), "the front end sleeps on");
                    hidden = 0;
                    if notify { front_sleeps = false; }
                }
                _ => {
                    while let Some(response) = front.take().unwrap() {
                        prop_assert_eq!(Some(number(&response)), done.pop_front());
                    }
                    front_sleeps = !front.has_more().unwrap();
                    prop_assert!(done.len() == hidden, "what was shown was not all taken");
                    back_sleeps = !back.has_more().unwrap();
                }
            }
        }
    }

    /// A front end that writes anything anywhere between every two steps of the back end.
    #[test]
    fn a_hostile_front_end_moves_nothing_of_ours(
        start: u32,
        steps in prop::collection::vec((0..4u8, any::<bool>(), any::<u32>(), any::<u32>()), 1..100),
    ) {
        let (front, mut back) = pair_at(start);
        let (mut taken, mut put) = (start, start);
        for (step, far, index, event) in steps {
            let prod = if far { index } else { taken.wrapping_add(index % 4).wrapping_sub(1) };
            set(&front, REQ_PROD, prod);
            set(&front, RSP_PROD, index);
            set(&front, RSP_EVENT, event);
            match step {
                0 | 1 => if let Ok(Some(_)) = back.take() { taken = taken.wrapping_add(1) },
                2 if back.outstanding() > 0 => {
                    back.put(&[0; 4]);
                    put = put.wrapping_add(1);
                    let _ = back.publish();
                }
                _ => { let _ = back.has_more(); }
            }
            prop_assert_eq!((back.taken, back.put), (taken, put));
            prop_assert!(taken.wrapping_sub(put) <= back.size(), "more taken than there are slots");
        }
    }
}
