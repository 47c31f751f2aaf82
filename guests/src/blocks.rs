//! An honest pair: one takes blocks, the other pushes them and tells how long that takes.

use alloc::format;
use alloc::vec::Vec;

use databack::frame::{Call, Notice, Outcome};
use stubdom::own_store;
use stubdom::platform::Platform;
use xenstore_core::client::Nodes;

use crate::channel::{Channel, block, domain, services};

/// The service's name.
const NAME: &str = "honest";

/// Bytes in a small block, and in a large one.
const SMALL: usize = 64;
const LARGE: usize = 64 << 10;

/// Takes every block that is pushed to [`NAME`]; its flag is how many there were.
pub(crate) fn take(platform: &Platform, backend: &str) -> ! {
    let mut store = own_store::connect(platform).expect("a Xenstore ring");
    let mut channel = services(platform, &mut store, domain(backend), "honest");
    channel.say(platform, &Call::Serve { name: NAME }, &[]);
    let (mut taken, mut under_way): (u32, Vec<(u64, u64)>) = (0, Vec::new());
    loop {
        let (part, payload) = channel.hear(platform, |notice| match *notice {
            Notice::Deliver { id, len, .. } => Some((id, Some(len))),
            Notice::DeliverData { id } => Some((id, None)),
            Notice::Served { .. } => None,
            ref other => panic!("no block but {other:?}"),
        });
        let Some((id, begins)) = part else {
            store.write("data/hello", b"takes blocks").expect("data/ is ours to write");
            continue;
        };
        if let Some(len) = begins {
            under_way.push((id, len));
        }
        let at = under_way.iter().position(|(known, _)| *known == id).expect("it has begun");
        under_way[at].1 -= payload as u64;
        if under_way[at].1 == 0 {
            under_way.swap_remove(at);
            taken += 1;
            channel.say(platform, &Call::Done { id, flag: taken }, &[]);
        }
    }
}

/// Waits until it is told how often by `data/measure`; answers in `data/measured`:
/// `COUNT pushes, small MEDIAN SLOWEST large MEDIAN SLOWEST` in nanoseconds.
pub(crate) fn push(platform: &Platform, backend: &str) -> ! {
    let mut store = own_store::connect(platform).expect("a Xenstore ring");
    let mut channel = services(platform, &mut store, domain(backend), "pusher");
    store.watch("data/measure", "measure").expect("data/ is ours to watch");
    store.write("data/hello", b"pushes blocks").expect("data/ is ours to write");
    let mut id = 0;
    loop {
        store.next_event().expect("the store stays");
        let Some(count) = store.read("data/measure").ok().and_then(|count| {
            str::from_utf8(&count).ok().and_then(|count| count.parse::<usize>().ok())
        }) else {
            continue;
        };
        let mut report = format!("{count} pushes,");
        for (kind, len) in [("small", SMALL), ("large", LARGE)] {
            let block = block(len);
            let mut times: Vec<u128> = (0..count)
                .map(|_| {
                    id += 1;
                    let began = platform.clock.now();
                    push_one(platform, &mut channel, id, &block);
                    platform.clock.now().since(began).as_nanos()
                })
                .collect();
            times.sort_unstable();
            let (median, slowest) = (times[times.len() / 2], times[times.len() - 1]);
            report = format!("{report} {kind} {median} {slowest}");
        }
        store.write("data/measured", report.as_bytes()).expect("data/ is ours to write");
    }
}

fn push_one(platform: &Platform, channel: &mut Channel, id: u32, block: &[u8]) {
    let len = block.len() as u64;
    let mut credit = channel.window;
    let mut rest = block;
    let mut call = Call::Push { id, domain: None, name: NAME, len, timeout_ms: 0 };
    loop {
        let part = rest.len().min(credit).min(PART);
        if part > 0 || rest.len() == block.len() {
            channel.say(platform, &call, &rest[..part]);
            (rest, credit) = (&rest[part..], credit - part);
            call = Call::PushData { id };
        }
        if !rest.is_empty() && credit > 0 {
            continue;
        }
        let (more, _) = channel.hear(platform, |notice| match *notice {
            Notice::PushCredit { bytes, .. } => Some(bytes as usize),
            Notice::PushDone { outcome: Outcome::Done { .. }, .. } => None,
            ref other => panic!("a push ended with {other:?}"),
        });
        match more {
            Some(bytes) => credit += bytes,
            None => return,
        }
    }
}

/// Bytes of a block that go in one frame.
const PART: usize = 16 << 10;
