//! The target `switch`: two honest guests, and one that writes what it likes into its rings.
//!
//! No step panics, and no copy crosses a page. The honest are never accused; what one sends to the
//! other comes whole, in order and once, unless the sender was told that it was dropped; and in the
//! end every slot of theirs has come back.

use core::sync::atomic::Ordering;
use core::time::Duration;
use std::collections::VecDeque;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use netback::Mac;
use netback::port::{Config, PortId, QueueId, Rings};
use xen_sys::ids::DomId;
use xen_sys::page::{OwnPage, OwnPages};
use xen_sys::ring::netif::{Flags, Gso, GsoKind, OKAY};
use xen_sys::ring::shared::Region;

use crate::network::{ALL, EVERYTHING, Guest, World, frame};

/// One run.
#[derive(Arbitrary, Debug)]
pub struct Input {
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
enum Step {
    /// An honest guest sends to the other, in pieces.
    Send { second: bool, len: u16, cuts: [u16; 3], blank: bool, gso: u16 },
    /// Or to all.
    Call { second: bool },
    /// An honest guest posts pages.
    Post { second: bool, count: u8 },
    /// The hostile one grants a page that begins like a frame.
    Grant { to: u8, len: u16 },
    /// Takes one back.
    Revoke { reference: u8 },
    /// Writes a slot of its transmit ring that is nearly right.
    Slot { at: u8, reference: u8, offset: u16, flags: u8, size: u16 },
    /// Or of its receive ring.
    Page { at: u8, reference: u8 },
    /// Writes anything anywhere.
    Lie { rx: bool, at: u16, value: u32 },
    /// Moves an index on.
    Nudge { rx: bool, word: u8, by: i8 },
    /// It comes back after it was ended.
    Return,
    /// The switch works.
    Turn,
    /// Time passes.
    Wait { millis: u16 },
}

/// A hostile guest's half.
struct Hostile {
    domain: DomId,
    rings: [OwnPage; 2],
    port: PortId,
}

/// Runs the steps, and panics where the switch breaks a promise.
pub fn run(input: &Input) {
    let mut world = World::new();
    let honest = [(); 2].map(|()| world.guest());
    let hostile = attach(&mut world);
    let mut play = Play { world, honest, hostile, sent: Default::default(), ended: false };
    for step in &input.steps {
        play.step(step);
        play.look();
    }
    play.end();
}

const HOSTILE: Mac = Mac([2, 0, 0, 0, 0, 0x66]);

fn attach(world: &mut World) -> Hostile {
    let mut pages = OwnPages::zeroed(2).expect("memory").split();
    let [tx, rx] = [(); 2].map(|()| pages.next().expect("two pages"));
    let domain = DomId::new(66).expect("an ordinary domain");
    let config = Config { domain: Some(domain), mac: Some(HOSTILE), rate: None, takes: EVERYTHING };
    let rings = Rings { tx: tx.clone(), rx: rx.clone() };
    let port = world.switch.attach(config, [rings].into_iter()).expect("a port");
    Hostile { domain, rings: [tx, rx], port }
}

impl Hostile {
    /// Writes words into its transmit ring (0) or its receive ring (1).
    fn write(&self, ring: usize, at: usize, words: &[u32]) {
        let region = Region::of(&self.rings[ring]);
        for (number, &word) in words.iter().enumerate() {
            region.word(at + number * 4).store(word, Ordering::Relaxed);
        }
    }
}

struct Play {
    world: World,
    honest: [Guest; 2],
    hostile: Hostile,
    /// What each honest guest sent to the other and was not yet received.
    sent: [VecDeque<Vec<u8>>; 2],
    ended: bool,
}

impl Play {
    fn step(&mut self, step: &Step) {
        match *step {
            Step::Send { second, len, cuts, blank, gso } => {
                self.send(second.into(), len, cuts, blank, gso);
            }
            Step::Call { second } => {
                let guest = &mut self.honest[usize::from(second)];
                if guest.tx.free() > 0 {
                    guest.send(&mut self.world.memory, &frame(ALL, guest.mac, 60));
                }
            }
            Step::Post { second, count } => {
                let guest = &mut self.honest[usize::from(second)];
                let count = usize::from(count).min(guest.room());
                guest.post(&mut self.world.memory, count);
            }
            Step::Grant { to, len } => {
                let to = self.honest.get(usize::from(to)).map_or(ALL, |guest| guest.mac);
                let len = usize::from(len % 4096).max(14);
                self.world.memory.grant(
                    self.hostile.domain,
                    len as u32 % 8,
                    &frame(to, HOSTILE, len),
                );
            }
            Step::Revoke { reference } => {
                self.world.memory.revoke(self.hostile.domain, u32::from(reference % 8));
            }
            Step::Slot { at, reference, offset, flags, size } => {
                let first = u32::from(offset) | u32::from(flags) << 16;
                let words = [u32::from(reference % 8), first, u32::from(size) << 16];
                self.hostile.write(0, 64 + usize::from(at) * 12, &words);
            }
            Step::Page { at, reference } => {
                let at = 64 + usize::from(at) * 8 + 4;
                self.hostile.write(1, at, &[u32::from(reference % 8)]);
            }
            Step::Lie { rx, at, value } => {
                self.hostile.write(rx.into(), usize::from(at % 1024) * 4, &[value]);
            }
            Step::Nudge { rx, word, by } => {
                let region = Region::of(&self.hostile.rings[usize::from(rx)]);
                let word = region.word(usize::from(word % 4) * 4);
                word.fetch_add(i32::from(by).cast_unsigned(), Ordering::Relaxed);
            }
            Step::Return if self.ended => {
                self.hostile = attach(&mut self.world);
                self.ended = false;
            }
            Step::Return => {}
            Step::Turn => self.turn(),
            Step::Wait { millis } => {
                self.world.now += Duration::from_millis(millis.into());
                self.turn();
            }
        }
    }

    fn send(&mut self, from: usize, len: u16, cuts: [u16; 3], blank: bool, gso: u16) {
        let to = self.honest[1 - from].mac;
        let guest = &mut self.honest[from];
        let len = usize::from(len % 12_000).max(14);
        let bytes = frame(to, guest.mac, len);
        let pages = (1..3).map(|page| page * 4096);
        let mut cuts: Vec<usize> = cuts
            .into_iter()
            .map(usize::from)
            .chain(pages)
            .filter(|&cut| cut > 0 && cut < len)
            .collect();
        cuts.sort_unstable();
        cuts.dedup();
        if (guest.tx.free() as usize) < cuts.len() + 2 {
            return;
        }
        let flags = if blank { Flags::CSUM_BLANK | Flags::DATA_VALIDATED } else { Flags::empty() };
        let gso = (gso > 0).then_some(Gso { size: gso, kind: GsoKind::Tcp4 });
        guest.send_as(&mut self.world.memory, &bytes, &cuts, flags, gso);
        self.sent[from].push_back(bytes);
    }

    fn turn(&mut self) {
        self.world.switch.hear(QueueId { port: self.hostile.port, number: 0 });
        let [a, b] = &self.honest;
        self.world.run(&[a, b]);
        for (port, _) in self.world.violations.drain(..) {
            assert_eq!(port, self.hostile.port, "an honest guest was accused");
            self.ended = true;
        }
    }

    /// What the honest see is what they may expect.
    fn look(&mut self) {
        for (to, guest) in self.honest.iter_mut().enumerate() {
            let from = 1 - to;
            for received in guest.receive(&self.world.memory) {
                let source = &received.bytes[6..12];
                if source == HOSTILE.0 || received.bytes[..6] == ALL.0 {
                    continue;
                }
                // Those before it were dropped, or it would not be the next.
                let place = self.sent[from].iter().position(|sent| *sent == received.bytes);
                let place = place.expect("nobody sent this, or it came twice, or out of order");
                self.sent[from].drain(..=place);
            }
        }
    }

    /// In the end nothing waits any more.
    fn end(&mut self) {
        for _ in 0..3 {
            for guest in &mut self.honest {
                let room = guest.room();
                guest.post(&mut self.world.memory, room);
            }
            self.world.now += Duration::from_secs(2);
            self.turn();
            self.look();
        }
        self.world.switch.detach(self.hostile.port);
        self.turn();
        for (from, guest) in self.honest.iter_mut().enumerate() {
            guest.settle();
            assert_eq!(guest.tx.free(), 256, "slots did not come back");
            let dropped = guest.statuses.iter().any(|&status| status != OKAY);
            assert!(dropped || self.sent[from].is_empty(), "a frame is lost without a word");
        }
    }
}
