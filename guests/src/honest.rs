//! A guest as it should be that measures how long the store keeps it waiting.
//!
//! When dom0 writes a number of rounds to `data/measure`, it makes that many of four small
//! conversations each, and writes to `data/measured`, in nanoseconds of system time:
//!
//! ```text
//! ROUNDS rounds ERRORS errors read MEDIAN SLOWEST write … transaction … watch …
//! ```
//!
//! Before each it sleeps for a while that is never the same, so that the request meets whatever
//! else the store has to do at any moment of it. The time runs from the request to its last
//! answer, the sleep not counted.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write as _;
use core::time::Duration;

use embedded_io::{Read, Write};
use stubdom::own_store;
use stubdom::platform::Platform;
use xen_sys::sched;
use xenstore_core::client::{Client, Failure, Nodes};

use crate::nap;
use crate::noise::Noise;

/// The four kinds of conversation.
const KINDS: [&str; 4] = ["read", "write", "transaction", "watch"];

/// Says hello, and measures whenever it is asked to, until it is asked to end.
pub(crate) fn run(platform: &Platform) -> ! {
    let mut store = own_store::connect(platform).expect("a Xenstore ring");
    store.write("data/word", b"a word").expect("data/ is ours to write");
    own_store::accept_orders(&mut store).expect("control/ is ours to write");
    store.watch("data/measure", "measure").expect("a watch");
    store.write("data/hello", b"from an honest guest").expect("data/ is ours to write");
    loop {
        let event = store.next_event().expect("the store stays");
        if let Some(reason) = own_store::take_order(&mut store).expect("the store stays") {
            sched::shutdown(reason);
        }
        let rounds = store.read("data/measure").unwrap_or_default();
        let rounds = str::from_utf8(&rounds).ok().and_then(|rounds| rounds.parse().ok());
        if let (Some(rounds), "measure") = (rounds, event.token()) {
            let report = measure(platform, &mut store, rounds);
            log::info!("guest: {report}");
            store.write("data/measured", report.as_bytes()).expect("data/ is ours to write");
        }
    }
}

fn measure<T: Read + Write>(platform: &Platform, store: &mut Client<T>, rounds: u32) -> String {
    let (mut errors, mut noise) = (0, Noise::default());
    let mut times = KINDS.map(|_| Vec::new());
    for round in 0..rounds {
        for (kind, times) in KINDS.iter().zip(&mut times) {
            let pause = 50_000 + u64::from(noise.below(400_000));
            nap(platform, Duration::from_nanos(pause));
            let begin = platform.clock.now();
            if let Err(failure) = converse(store, kind, round) {
                log::warn!("guest: {kind} failed: {failure:?}");
                errors += 1;
            }
            times.push(platform.clock.now().since(begin).as_nanos());
        }
    }
    let mut report = alloc::format!("{rounds} rounds {errors} errors");
    for (kind, times) in KINDS.iter().zip(&mut times) {
        times.sort_unstable();
        let median = times.get(times.len() / 2).copied().unwrap_or_default();
        let slowest = times.last().copied().unwrap_or_default();
        let _ = write!(report, " {kind} {median} {slowest}");
    }
    report
}

/// Has one conversation with the store; that it answers something else than it must counts as a
/// failure, too.
fn converse<T: Read + Write>(
    store: &mut Client<T>,
    kind: &str,
    round: u32,
) -> Result<(), Failure<T::Error>> {
    let value = round.to_le_bytes();
    match kind {
        "read" => {
            let value = store.read("data/hello")?;
            assert_eq!(value, b"from an honest guest", "the store reads what was written");
        }
        "write" => store.write("data/word", &value)?,
        "transaction" => store.transact(|t| {
            t.read("data/word")?;
            t.write("data/word", &value)
        })?,
        _ => {
            store.watch("data/word", "word")?;
            await_word(store)?;
            store.write("data/word", &value)?;
            await_word(store)?;
            store.unwatch("data/word", "word")?;
        }
    }
    Ok(())
}

fn await_word<T: Read + Write>(store: &mut Client<T>) -> Result<(), Failure<T::Error>> {
    let event = store.next_event()?;
    assert_eq!((event.path(), event.token()), ("data/word", "word"));
    Ok(())
}
