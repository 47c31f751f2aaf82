//! Acts on channels to a domain in the data role, whose number is the argument.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use core::time::Duration;

use databack::ask::ASK;
use databack::frame::{self, Call};
use databack::vchan::Peer;
use embedded_io::{Read, Write};
use xen_sys::ids::DomId;
use xen_sys::ring::shared::Region;
use xenstore_core::client::{Client, Nodes};

use super::Attack;
use crate::channel::{Channel, SERVICES, block, domain, services};
use crate::nap;
use crate::noise::Noise;

/// The words of a ring's page, without the list of grants.
const WORDS: u32 = 24;

/// How many refusals are told of.
const FEW: u32 = 10;

/// How many frames are begun and never ended.
const HALVES: u32 = 20;

/// Writes anything over the words of its ring's page, and wakes the server; when that has had
/// enough, has another channel.
pub(super) fn flip<T: Read + Write>(attack: &Attack<'_>, store: &mut Client<T>, backend: &str) {
    let mut noise = Noise::default();
    each(attack, store, backend, |channel| {
        // The server's word on whether it lives is left alone, to see when it is gone.
        let at = [noise.below(21), 22 + noise.below(2)][noise.below(8) as usize / 7];
        let words = Region::of(channel.end.memory());
        words.byte(at.min(WORDS - 1) as usize).store(noise.byte(), Ordering::Relaxed);
        channel.notify();
    });
}

/// Fills the ring to the server with noise, behind a beginning as it should be.
pub(super) fn halves<T: Read + Write>(attack: &Attack<'_>, store: &mut Client<T>, backend: &str) {
    let mut noise = Noise::default();
    each(attack, store, backend, |channel| {
        let whole = frame::encode(&Call::Ping { cookie: 1 }, HALVES).expect("a short header");
        let bytes = match noise.below(3) {
            0 => whole.bytes().to_vec(),
            1 => whole.bytes()[..noise.below(6) as usize].to_vec(),
            _ => (0..noise.below(400)).map(|_| noise.byte()).collect::<Vec<u8>>(),
        };
        let _ = channel.end.write(&bytes);
        channel.notify();
    });
}

/// Pushes and asks all the time, and never reads an answer.
pub(super) fn deaf<T: Read + Write>(attack: &Attack<'_>, store: &mut Client<T>, backend: &str) {
    let platform = attack.platform;
    let mut channel = services(platform, store, domain(backend), "deaf");
    let text = block(100);
    let mut id = 0;
    while attack.goes_on() {
        id += 1;
        let push = Call::Push { id, domain: None, name: "honest", len: 100, timeout_ms: 0 };
        let calls =
            [(Call::Status, &text[..0]), (Call::Ping { cookie: 1 }, &text[..0]), (push, &text)];
        for (call, payload) in calls {
            let len = u32::try_from(payload.len()).expect("a short payload");
            let head = frame::encode(&call, len).expect("a short header");
            let fits =
                channel.end.room().is_ok_and(|room| room > head.bytes().len() + payload.len());
            if fits {
                channel.say(platform, &call, payload);
            }
        }
        channel.notify();
        nap(platform, Duration::from_micros(50));
    }
}

/// Wakes the server all the time, and has nothing for it.
pub(super) fn storm<T: Read + Write>(attack: &Attack<'_>, store: &mut Client<T>, backend: &str) {
    let channel = services(attack.platform, store, domain(backend), "storm");
    while attack.goes_on() {
        channel.notify();
    }
}

/// Has one channel after the other, and leaves each as soon as it has it: closed, or just so.
pub(super) fn again<T: Read + Write>(attack: &Attack<'_>, store: &mut Client<T>, backend: &str) {
    let mut number = 0;
    while attack.goes_on() {
        number += 1;
        if let Some((mut channel, node)) = another(attack, store, domain(backend), number) {
            if number % 2 == 0 {
                channel.end.close();
                channel.notify();
            }
            let _ = store.rm(&node);
        }
    }
}

/// Has a channel and does that with it until the server is gone; then another, and so on.
fn each<T: Read + Write>(
    attack: &Attack<'_>,
    store: &mut Client<T>,
    backend: &str,
    mut act: impl FnMut(&mut Channel),
) {
    let mut number = 0;
    while attack.goes_on() {
        number += 1;
        if let Some((mut channel, node)) = another(attack, store, domain(backend), number) {
            while attack.goes_on() && channel.end.peer() == Peer::Here {
                act(&mut channel);
                nap(attack.platform, Duration::from_micros(50));
            }
            // The server removes it, too.
            let _ = store.rm(&node);
        }
        if number == 10 {
            log::info!("guest: ten channels were ended");
        }
    }
}

/// A channel, and the node that asked for it; none if it was refused.
fn another<T: Read + Write>(
    attack: &Attack<'_>,
    store: &mut Client<T>,
    backend: DomId,
    number: u32,
) -> Option<(Channel, String)> {
    let name = format!("c{number}");
    let node = format!("/local/domain/{}/{ASK}/{name}", backend.raw());
    match Channel::open(attack.platform, store, backend, &name, SERVICES) {
        Ok(channel) => Some((channel, node)),
        Err(refusal) => {
            if number <= FEW {
                log::info!("guest: channel {number}: {refusal}");
            }
            let _ = store.rm(&node);
            nap(attack.platform, Duration::from_millis(10));
            None
        }
    }
}
