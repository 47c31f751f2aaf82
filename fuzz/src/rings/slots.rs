//! A ring of slots.

use std::collections::VecDeque;

use xen_sys::page::OwnPage;
use xen_sys::ring::slots::{Back, Front};

use super::{Input, Step};

type Request = [u8; 20];
type Response = [u8; 12];

/// Both ends of a ring of slots.
pub(super) struct Slots {
    page: OwnPage,
    front: Front<OwnPage, Request, Response>,
    back: Back<OwnPage, Request, Response>,
    /// Requests put and not taken, taken and not answered, answered and not read.
    asked: VecDeque<u8>,
    taken: VecDeque<u8>,
    answered: VecDeque<u8>,
    next: u8,
    honest: bool,
}

impl Slots {
    pub(super) fn new(page: &OwnPage, input: &Input) -> Self {
        let front = Front::set_up(page.clone());
        let back = Back::attach(page.clone());
        let none = VecDeque::new;
        let (asked, taken, answered) = (none(), none(), none());
        Self {
            page: page.clone(),
            front,
            back,
            asked,
            taken,
            answered,
            next: 0,
            honest: input.storm.is_empty(),
        }
    }

    pub(super) fn run(mut self, steps: &[Step]) {
        for step in steps {
            match step {
                Step::Put(count) => {
                    (0..count % 300).for_each(|_| self.put());
                    let _ = self.front.publish();
                }
                Step::Take(count) => (0..count % 300).for_each(|_| self.read()),
                Step::Answer(count) => {
                    (0..count % 300).for_each(|_| self.answer());
                    let _ = self.back.publish();
                }
                Step::Fetch { see, .. } => (0..see % 300).for_each(|_| self.take()),
                Step::Reset => {
                    let more = (self.front.has_more(), self.back.has_more());
                    assert!(!self.honest || more.0.is_ok() && more.1.is_ok(), "{more:?}");
                }
                Step::Lie(lie) => {
                    lie.tell(&self.page);
                    self.honest = false;
                }
            }
            assert!(self.back.outstanding() <= self.back.size(), "more requests than slots");
            assert!(self.front.free() <= self.front.size(), "more free slots than slots");
        }
    }

    fn put(&mut self) {
        let put = self.front.put(&[self.next; 20]);
        let count = self.asked.len() + self.taken.len() + self.answered.len();
        if self.honest {
            assert_eq!(put.is_ok(), count < self.front.size() as usize, "whether a slot is free");
        }
        if put.is_ok() {
            self.asked.push_back(self.next);
            self.next = self.next.wrapping_add(1);
        }
    }

    fn take(&mut self) {
        let _ = self.front.publish();
        let taken = self.back.take();
        if self.honest {
            let expected = self.asked.pop_front();
            assert_eq!(taken, Ok(expected.map(|number| [number; 20])), "a request");
            self.taken.extend(expected);
        } else if let Ok(Some(_)) = taken {
            self.taken.push_back(0);
        }
    }

    fn answer(&mut self) {
        if let Some(number) = self.taken.pop_front() {
            self.back.put(&[number; 12]);
            self.answered.push_back(number);
        }
    }

    fn read(&mut self) {
        let _ = self.back.publish();
        let read = self.front.take();
        if self.honest {
            let expected = self.answered.pop_front();
            assert_eq!(read, Ok(expected.map(|number| [number; 12])), "a response");
        }
    }
}
