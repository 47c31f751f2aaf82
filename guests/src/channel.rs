//! A guest's end of a channel to a domain in the data role: asked for in its Xenstore, mapped, and
//! bound.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use databack::ask::{ANSWER, ASK};
use databack::frame::{self, Call, HEAD_MAX, Notice};
use databack::vchan::{self, End, Sizes};
use embedded_io::{Read, Write};
use stubdom::platform::Platform;
use xen_sys::event;
use xen_sys::grant::GrantRange;
use xen_sys::ids::{DomId, GrantRef, Port};
use xenstore_core::client::{Client, Nodes};

use crate::nap;

/// How often it is looked whether an answer is there.
const LOOK: Duration = Duration::from_millis(2);

/// What to ask for: rings of 16 KiB each.
pub(crate) const SERVICES: &str = "services left=14 right=14";

/// A channel.
pub(crate) struct Channel {
    pub(crate) end: End<GrantRange>,
    line: event::Channel,
    /// How many bytes of a block may be sent ahead of credit.
    pub(crate) window: usize,
}

impl Channel {
    /// Asks domain `backend` for a channel and takes it, or tells what the answer was instead.
    pub(crate) fn open<T: Read + Write>(
        platform: &Platform,
        store: &mut Client<T>,
        backend: DomId,
        name: &str,
        what: &str,
    ) -> Result<Self, String> {
        let home = format!("/local/domain/{}", backend.raw());
        let own = store.read("domid").map_err(|_| "who am I?")?;
        let own = String::from_utf8(own).expect("a number");
        let ask = format!("{home}/{ASK}/{name}");
        store.write(&ask, what.as_bytes()).map_err(|_| "may not ask")?;
        let answer = format!("{home}/{ANSWER}/{own}/{name}");
        loop {
            if let Ok(error) = store.read(&format!("{answer}/error")) {
                return Err(String::from_utf8_lossy(&error).into_owned());
            }
            if let Ok(port) = store.read(&format!("{answer}/event-channel")) {
                let ring = store.read(&format!("{answer}/ring-ref")).map_err(|_| "no ring")?;
                return Self::take(platform, backend, number(&ring), number(&port));
            }
            nap(platform, LOOK);
        }
    }

    fn take(platform: &Platform, backend: DomId, ring: u32, port: u32) -> Result<Self, String> {
        let line = platform.events.borrow_mut().bind_interdomain(backend, Port(port));
        let line = line.map_err(|error| format!("no port: {error}"))?;
        let map = |references: &[GrantRef]| {
            let mapped = GrantRange::map(platform.window, backend, references);
            mapped.map_err(|error| format!("no page: {error}"))
        };
        let first = map(&[GrantRef(ring)])?;
        let sizes = Sizes::announced(&first).ok_or("impossible sizes")?;
        let others = vchan::grants(&first, sizes).map(GrantRef);
        let all: Vec<GrantRef> = [GrantRef(ring)].into_iter().chain(others).collect();
        let end = End::connect(map(&all)?, sizes);
        line.notify();
        Ok(Self { end, line, window: 0 })
    }

    /// Wakes the other end, with a reason or without.
    pub(crate) fn notify(&self) {
        self.line.notify();
    }

    /// Sends all of the bytes.
    pub(crate) fn send(&mut self, platform: &Platform, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let count = self.end.write(bytes).expect("an honest index");
            bytes = &bytes[count..];
            self.tell();
            if count == 0 && !self.end.await_room(0).expect("an honest index") {
                platform.wait();
            }
        }
    }

    /// Says something to the broker, with a payload.
    pub(crate) fn say(&mut self, platform: &Platform, call: &Call<'_>, payload: &[u8]) {
        let len = u32::try_from(payload.len()).expect("a payload");
        let head = frame::encode(call, len).expect("short names");
        self.send(platform, head.bytes());
        self.send(platform, payload);
    }

    /// Waits for the next notice, hands it to `look`, and reads its payload over. Tells what `look`
    /// made of it, and how long the payload was.
    pub(crate) fn hear<R>(
        &mut self,
        platform: &Platform,
        look: impl Fn(&Notice<'_>) -> R,
    ) -> (R, usize) {
        loop {
            let mut bytes = [0; HEAD_MAX];
            let there = self.end.peek(&mut bytes).expect("an honest index");
            if let Some(frame) = frame::decode(&bytes[..there]).expect("an honest frame") {
                let heard = look(&frame.header);
                let (head, payload) = (frame.head, frame.payload as usize);
                self.end.consume(head);
                self.skip(platform, payload);
                return (heard, payload);
            }
            self.wait(platform, there);
        }
    }

    fn skip(&mut self, platform: &Platform, mut rest: usize) {
        while rest > 0 {
            let there = self.end.available().expect("an honest index").min(rest);
            self.end.consume(there);
            rest -= there;
            if there == 0 {
                self.wait(platform, 0);
            }
        }
        self.tell();
    }

    fn wait(&mut self, platform: &Platform, seen: usize) {
        self.tell();
        if !self.end.await_bytes(seen).expect("an honest index") {
            platform.wait();
        }
    }

    fn tell(&mut self) {
        if self.end.take_notify() {
            self.line.notify();
        }
    }
}

fn number(text: &[u8]) -> u32 {
    str::from_utf8(text).ok().and_then(|text| text.parse().ok()).expect("a number")
}

/// Which domain an act names.
pub(crate) fn domain(text: &str) -> DomId {
    text.parse().ok().and_then(DomId::new).expect("a domain's number")
}

/// A channel of services on which both have said hello. All guests that do the same may have one: its
/// name ends in this domain's number.
pub(crate) fn services<T: Read + Write>(
    platform: &Platform,
    store: &mut Client<T>,
    backend: DomId,
    what: &str,
) -> Channel {
    let own = store.read("domid").expect("who am I?");
    let name = &format!("{what}-{}", str::from_utf8(&own).expect("a number"));
    let mut channel =
        Channel::open(platform, store, backend, name, SERVICES).expect("a channel of services");
    channel.say(platform, &Call::Hello { version: frame::VERSION, features: 0 }, &[]);
    let (window, _) = channel.hear(platform, |notice| match notice {
        Notice::Hello { limits, .. } => limits.window,
        other => panic!("no hello but {other:?}"),
    });
    channel.window = window as usize;
    channel
}

/// Bytes to send.
pub(crate) fn block(len: usize) -> Vec<u8> {
    (0u8..=255).cycle().take(len).collect()
}
