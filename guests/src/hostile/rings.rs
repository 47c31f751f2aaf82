//! Acts on the ring itself: impossible indices and lengths, halves of messages, floods and storms.

use alloc::string::String;
use alloc::vec::Vec;
use core::hint::black_box;
use core::time::Duration;

use xenstore_core::wire::Op;
use zerocopy::IntoBytes;

use super::Attack;
use crate::nap;
use crate::noise::Noise;
use crate::ring::{Ring, Word, frame, header};

/// Claims that so many bytes of requests wait in a ring of 1,024; more than 2^31 are fewer than
/// none.
pub(super) fn claim(attack: &Attack<'_>, bytes: u32) {
    let ring = &attack.ring;
    ring.set(Word::RequestsMade, ring.word(Word::RequestsTaken).wrapping_add(bytes));
    ring.notify();
}

/// Claims to have taken so many bytes of replies that were never made; the next request makes the
/// server look.
pub(super) fn take(attack: &Attack<'_>, bytes: u32) {
    let ring = &attack.ring;
    ring.set(Word::RepliesTaken, ring.word(Word::RepliesMade).wrapping_add(bytes));
    Ring::attach().send(&frame(Op::Read, 0, b"data/hello\0"));
}

/// Announces a payload of `len` bytes.
pub(super) fn announce(attack: &mut Attack<'_>, len: u32) {
    attack.ring.send(header(Op::Read.to_wire(), 0, len).as_bytes());
}

/// Sends so many bytes of a request that has 216, and never the rest.
pub(super) fn withhold(attack: &mut Attack<'_>, bytes: u32) {
    let request = frame(Op::Write, 0, &[b'x'; 200]);
    attack.ring.send(&request[..bytes as usize]);
}

/// Fills the ring with noise.
pub(super) fn babble(attack: &mut Attack<'_>) {
    let mut noise = Noise::default();
    let bytes: Vec<u8> = (0..1024).map(|_| noise.byte()).collect();
    attack.ring.send(&bytes);
}

/// Moves its index back and forth for as long as it lasts, possible or not.
pub(super) fn flip(attack: &Attack<'_>) {
    let (ring, mut noise) = (&attack.ring, Noise::default());
    while attack.goes_on() {
        let ahead = noise.below(2048).wrapping_sub(512);
        ring.set(Word::RequestsMade, ring.word(Word::RequestsTaken).wrapping_add(ahead));
        ring.set(Word::RepliesTaken, ring.word(Word::RepliesMade).wrapping_sub(ahead));
        ring.notify();
        nap(attack.platform, Duration::from_micros(50));
    }
}

/// Uses the processor and leaves the store alone: what the scheduler does about such a guest.
pub(super) fn burn(attack: &Attack<'_>) {
    while attack.goes_on() {
        for turn in 0..1000 {
            black_box(turn);
        }
    }
}

/// Wakes the server all the time, and has nothing for it.
pub(super) fn storm(attack: &Attack<'_>) {
    while attack.goes_on() {
        attack.ring.notify();
    }
}

/// Asks and asks, and never takes a reply.
pub(super) fn flood(attack: &mut Attack<'_>) {
    let request = frame(Op::Read, 0, b"data/hello\0");
    let mut rest = &request[..];
    while attack.goes_on() {
        let sent = attack.ring.send(rest);
        rest = if sent < rest.len() { &rest[sent..] } else { &request };
        if sent == 0 {
            nap(attack.platform, Duration::from_micros(50));
        }
    }
}

/// Begins the connection anew, with a watch, a transaction, and half a request behind it, and
/// tells what the new one is like.
pub(super) fn begin_anew(attack: &mut Attack<'_>) {
    let watched = b"data/watched\0";
    attack.ask(&frame(Op::Watch, 0, b"data/watched\0old\0"));
    attack.ring.reply(|| attack.platform.wait());
    for _ in 0..3 {
        attack.ask(&frame(Op::TransactionStart, 0, &[0]));
    }
    attack.ring.send(header(Op::Write.to_wire(), 0, 100).as_bytes());

    reconnect_once(attack);
    let words = [Word::RequestsTaken, Word::RequestsMade, Word::RepliesTaken, Word::RepliesMade];
    let indices = words.map(|word| attack.ring.word(word));
    let (_, id) = attack.ask(&frame(Op::TransactionStart, 0, &[0]));
    let id = String::from_utf8_lossy(&id);
    let (written, _) = attack.ask(&frame(Op::Write, 0, watched));
    let (read, _) = attack.ask(&frame(Op::Read, 0, watched));
    log::info!(
        "guest: anew: indices {indices:?}, transaction {}, answers {written} {read}",
        id.trim_end_matches('\0')
    );
}

/// Begins its connection anew, again and again, leaving half a request behind each time.
pub(super) fn reconnect(attack: &mut Attack<'_>) {
    while attack.goes_on() {
        attack.ring.send(&frame(Op::TransactionStart, 0, &[0]));
        attack.ring.send(header(Op::Write.to_wire(), 0, 100).as_bytes());
        reconnect_once(attack);
    }
}

fn reconnect_once(attack: &mut Attack<'_>) {
    attack.ring.set(Word::Connection, 1);
    attack.ring.notify();
    while attack.ring.word(Word::Connection) != 0 {
        attack.platform.wait();
    }
    attack.ring = Ring::attach();
}
