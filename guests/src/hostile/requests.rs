//! Acts of requests that are well-formed, or nearly so, and cost the server as much as can be.

use alloc::format;
use alloc::vec;

use xenstore_core::wire::{Op, PAYLOAD_MAX};
use zerocopy::IntoBytes;

use super::Attack;
use crate::noise::Noise;
use crate::ring::{frame, header};

/// Levels of a deep path; with what a guest owns from the start, all its nodes.
const LEVELS: usize = 980;

/// Sends frames of every type, known or not, with payloads of noise.
pub(super) fn nonsense(attack: &mut Attack<'_>) {
    let mut noise = Noise::default();
    let mut payload = vec![0; PAYLOAD_MAX];
    while attack.goes_on() {
        let longest = if noise.below(8) == 0 { PAYLOAD_MAX } else { 64 };
        let len = noise.below(u32::try_from(longest).unwrap_or(64) + 1);
        let payload = &mut payload[..len as usize];
        payload.fill_with(|| noise.byte());
        attack.press(header(noise.below(32), noise.below(3), len).as_bytes());
        attack.press(payload);
    }
}

/// Sets 128 watches with long tokens, takes their first events, and no others.
pub(super) fn deaf(attack: &mut Attack<'_>, path: &str) {
    let token = "t".repeat(1500);
    for number in 0..128 {
        let watch = format!("{path}\0{token}{number}\0");
        attack.press(&frame(Op::Watch, 0, watch.as_bytes()));
    }
    log::info!("guest: hears no more");
    while attack.goes_on() {
        attack.platform.wait();
    }
}

/// Makes the deepest path that its quota allows, and removes it.
pub(super) fn deep(attack: &mut Attack<'_>) {
    let path = format!("data{}\0", "/a".repeat(LEVELS));
    let make = frame(Op::Mkdir, 0, path.as_bytes());
    let remove = frame(Op::Rm, 0, b"data/a\0");
    while attack.goes_on() {
        attack.press(&make);
        attack.press(&remove);
    }
}

/// Opens transactions, works in them, and leaves them to be dropped.
pub(super) fn abandon(attack: &mut Attack<'_>) {
    let start = frame(Op::TransactionStart, 0, &[0]);
    let value = [b'v'; 1000];
    while attack.goes_on() {
        for _ in 0..12 {
            attack.press(&start);
        }
        // Ids of the past, the present and the future.
        for id in 0..20 {
            let write = [&b"data/abandoned\0"[..], &value].concat();
            attack.press(&frame(Op::Write, id, &write));
        }
        attack.press(&frame(Op::ResetWatches, 0, &[0]));
    }
}

/// Has as much judged again at the end of a transaction as may be in one: listings of a wide
/// directory that was made anew meanwhile.
pub(super) fn replay(attack: &mut Attack<'_>) {
    let children = || (0..400).map(|number| format!("data/wide/{number:03}\0"));
    let mut id = 0;
    while attack.goes_on() {
        children().for_each(|child| attack.press(&frame(Op::Mkdir, 0, child.as_bytes())));
        attack.press(&frame(Op::TransactionStart, 0, &[0]));
        id += 1;
        attack.press(&frame(Op::Write, id, b"data/word\0"));
        let read = frame(Op::Read, id, b"data/word\0");
        let list = frame(Op::Directory, id, b"data/wide\0");
        // As many requests, levels and names as a transaction may have.
        for _ in 0..30 {
            attack.press(&list);
        }
        for _ in 0..4000 {
            attack.press(&read);
        }
        attack.press(&frame(Op::Rm, 0, b"data/wide\0"));
        children().for_each(|child| attack.press(&frame(Op::Mkdir, 0, child.as_bytes())));
        attack.press(&frame(Op::TransactionEnd, id, b"T\0"));
    }
}
