//! Nobody sleeps for ever: every way in which a producer and a consumer can take their steps.
//!
//! A model of what [`databack::vchan::End`] does between two sleeps, one access to shared memory a
//! step, and of what libxenvchan's blocking calls do, which is the same. All states that can be
//! reached are visited; in each, somebody can go on, or everything has arrived. That the steps of
//! one end are seen by the other in their order is what the fences of the real thing are for.

use std::collections::HashSet;

/// Places in the ring.
const SIZE: u8 = 2;

/// Where an end is in its loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum At {
    /// Looks at the other's index.
    Look,
    /// Has moved something, and looks whether the other asked for an event.
    Tell,
    /// Shows only now what it has moved, by mistake.
    Show,
    /// Found nothing to do, and asks for an event.
    Ask,
    /// Has asked, and looks again.
    LookAgain,
    /// Waits for an event.
    Sleep,
    /// Has moved all there was to move.
    End,
}

/// What is shared, and where both are. The event channels are bits that stay until they are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct State {
    /// Places that were filled and emptied since the start.
    prod: u8,
    cons: u8,
    /// Who asked for an event.
    consumer_asks: bool,
    producer_asks: bool,
    /// Who has one pending.
    consumer_event: bool,
    producer_event: bool,
    producer: At,
    consumer: At,
}

/// A deliberate mistake, to see that it would be found.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// Sleeps without looking again after it asked.
    NoSecondLook,
    /// Looks whether it was asked before it shows what it moved.
    TellsTooEarly,
}

const TOTAL: u8 = 6;

impl State {
    /// As after the connect: each end has asked for bytes, and an event is on its way.
    fn start(consumer_event: bool) -> Self {
        Self {
            prod: 0,
            cons: 0,
            consumer_asks: true,
            producer_asks: false,
            consumer_event,
            producer_event: false,
            producer: At::Look,
            consumer: At::Look,
        }
    }

    /// One step of the producer, which may fill one place or as many as there are.
    fn produce(mut self, fault: Fault, count: u8) -> Option<Self> {
        let room = SIZE - (self.prod - self.cons);
        let count = count.min(TOTAL - self.prod);
        self.producer = match self.producer {
            At::Look if self.prod == TOTAL => At::End,
            At::Look | At::LookAgain if room > 0 => {
                if fault != Fault::TellsTooEarly {
                    self.prod += count.min(room);
                }
                At::Tell
            }
            At::Tell => {
                self.consumer_event |= core::mem::take(&mut self.consumer_asks);
                if fault == Fault::TellsTooEarly { At::Show } else { At::Look }
            }
            At::Show => {
                self.prod += count.min(room);
                At::Look
            }
            At::Look => At::Ask,
            At::Ask => {
                self.producer_asks = true;
                if fault == Fault::NoSecondLook { At::Sleep } else { At::LookAgain }
            }
            At::LookAgain => At::Sleep,
            At::Sleep if core::mem::take(&mut self.producer_event) => At::Look,
            At::Sleep | At::End => return None,
        };
        Some(self)
    }

    /// One step of the consumer.
    fn consume(mut self, fault: Fault, count: u8) -> Option<Self> {
        let waiting = self.prod - self.cons;
        self.consumer = match self.consumer {
            At::Look if self.cons == TOTAL => At::End,
            At::Look | At::LookAgain if waiting > 0 => {
                self.cons += count.min(waiting);
                At::Tell
            }
            At::Tell => {
                self.producer_event |= core::mem::take(&mut self.producer_asks);
                At::Look
            }
            At::Look | At::Show => At::Ask,
            At::Ask => {
                self.consumer_asks = true;
                if fault == Fault::NoSecondLook { At::Sleep } else { At::LookAgain }
            }
            At::LookAgain => At::Sleep,
            At::Sleep if core::mem::take(&mut self.consumer_event) => At::Look,
            At::Sleep | At::End => return None,
        };
        Some(self)
    }
}

/// Visits every state; gives those in which nobody can go on though something is left to do.
fn stuck(fault: Fault) -> (usize, Vec<State>) {
    let mut known = HashSet::new();
    let mut open = vec![State::start(true), State::start(false)];
    let mut stuck = Vec::new();
    while let Some(state) = open.pop() {
        if !known.insert(state) {
            continue;
        }
        let next: Vec<State> = (1..=SIZE)
            .flat_map(|count| [state.produce(fault, count), state.consume(fault, count)])
            .flatten()
            .collect();
        if next.is_empty() && (state.producer, state.consumer) != (At::End, At::End) {
            stuck.push(state);
        }
        open.extend(next);
    }
    (known.len(), stuck)
}

#[test]
fn nobody_sleeps_for_ever_whoever_is_how_fast() {
    let (states, stuck) = stuck(Fault::None);
    assert!(states > 200, "only {states} states were reached");
    assert!(stuck.is_empty(), "{} of {states} states lead nowhere: {:#?}", stuck.len(), stuck[0]);
}

#[test]
fn without_the_second_look_somebody_would() {
    assert!(!stuck(Fault::NoSecondLook).1.is_empty(), "the model would not find that mistake");
}

#[test]
fn looking_who_asked_before_showing_what_moved_would_lose_an_event() {
    assert!(!stuck(Fault::TellsTooEarly).1.is_empty(), "the model would not find that mistake");
}
