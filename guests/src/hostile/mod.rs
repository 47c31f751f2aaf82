//! Guests that break the protocol or wear the store out, to see what it does about it.
//!
//! Each says hello as it should (`data/hello`), then does its act. An act that ends is followed by
//! a look at the ring: `guest: ring error E, N bytes of answer`. One that does not end goes on
//! until the domain is destroyed, or until `then=` is due.

mod channels;
mod frontends;
mod quotas;
mod requests;
mod rings;

use alloc::vec::Vec;
use core::time::Duration;

use stubdom::own_store;
use stubdom::platform::Platform;
use xen_sys::clock::SystemTime;
use xen_sys::sched::{self, Reason};
use xenstore_core::client::Nodes;

use crate::nap;
use crate::ring::{Ring, Word};

/// How long a server gets to react.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long an act goes on that is to end in the middle.
const MIDDLE: Duration = Duration::from_millis(50);

/// What an act works with.
struct Attack<'p> {
    platform: &'p Platform,
    ring: Ring,
    /// When an act that has no end is to be left.
    until: Option<SystemTime>,
}

impl Attack<'_> {
    /// Whether an act that has no end goes on.
    fn goes_on(&self) -> bool {
        self.until.is_none_or(|until| self.platform.clock.now() < until)
    }

    /// Puts all of the bytes into the ring and forgets what comes back.
    fn press(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.goes_on() {
            let drained = self.ring.drain();
            let sent = self.ring.send(bytes);
            bytes = &bytes[sent..];
            if sent + drained == 0 {
                self.platform.wait();
            }
        }
    }

    /// Makes a request and takes the reply to it, the next that comes.
    fn ask(&mut self, request: &[u8]) -> (u32, Vec<u8>) {
        assert_eq!(self.ring.send(request), request.len(), "the ring is empty");
        self.ring.reply(|| self.platform.wait())
    }
}

/// Does the act of this name, and then what `then` says: `crash`, `poweroff`, or nothing more.
pub(crate) fn run(platform: &Platform, act: &str, then: Option<&str>) -> ! {
    let (name, argument) = act.split_once('=').unwrap_or((act, ""));
    let number = || argument.parse().expect("a number");
    let mut store = own_store::connect(platform).expect("a Xenstore ring");
    store.write("data/hello", b"from a hostile guest").expect("data/ is ours to write");

    let ring = Ring::attach();
    let answered = ring.word(Word::RepliesMade);
    let until = then.map(|_| platform.clock.now().after(MIDDLE));
    let mut attack = Attack { platform, ring, until };
    match name {
        "bad-index" => rings::claim(&attack, number()),
        "bad-reply-index" => rings::take(&attack, number()),
        "oversize" => rings::announce(&mut attack, number()),
        "half" => rings::withhold(&mut attack, number()),
        "garbage" => rings::babble(&mut attack),
        "flip" => rings::flip(&attack),
        "burn" => rings::burn(&attack),
        "storm" => rings::storm(&attack),
        "flood" => rings::flood(&mut attack),
        "unbind" => drop(store),
        "begin-anew" => rings::begin_anew(&mut attack),
        "reconnect" => rings::reconnect(&mut attack),
        "nonsense" => requests::nonsense(&mut attack),
        "deaf" => requests::deaf(&mut attack, argument),
        "deep" => requests::deep(&mut attack),
        "abandon" => requests::abandon(&mut attack),
        "replay" => requests::replay(&mut attack),
        "channel-flip" => channels::flip(&attack, &mut store, argument),
        "channel-halves" => channels::halves(&attack, &mut store, argument),
        "channel-deaf" => channels::deaf(&attack, &mut store, argument),
        "channel-storm" => channels::storm(&attack, &mut store, argument),
        "channel-again" => channels::again(&attack, &mut store, argument),
        "frontend" => frontends::run(&attack, &mut store, argument),
        "quotas" => {
            quotas::fill(&mut store);
            while attack.goes_on() {
                quotas::go_beyond(&mut store);
            }
        }
        other => panic!("no act is called {other:?}"),
    }
    if then.is_some() {
        log::info!("guest: ends as asked");
    }
    match then {
        Some("crash") => panic!("asked to by the command line"),
        Some("poweroff") => sched::shutdown(Reason::Poweroff),
        Some(other) => panic!("then={other} is unknown"),
        None => tell(&attack, answered),
    }
}

/// Waits for an error in the ring, tells what came back, and stays.
fn tell(attack: &Attack<'_>, answered: u32) -> ! {
    let Attack { platform, ring, .. } = attack;
    let deadline = platform.clock.now().after(PATIENCE);
    while platform.clock.now() < deadline && ring.word(Word::Error) == 0 {
        nap(platform, Duration::from_millis(50));
    }
    let error = ring.word(Word::Error);
    let answered = ring.word(Word::RepliesMade).wrapping_sub(answered);
    log::info!("guest: ring error {error}, {answered} bytes of answer");
    loop {
        platform.wait();
    }
}
