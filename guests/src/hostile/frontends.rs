//! Acts of a network frontend, on the first interface of this guest. Those that break a rule do so
//! again whenever the backend lets them connect anew, and tell of it in `data/rounds` and
//! `data/reason`.

use alloc::format;
use alloc::string::String;
use core::sync::atomic::Ordering;
use core::time::Duration;

use embedded_io::{Read, Write};
use stubdom::platform::Platform;
use xen_sys::event::Channel;
use xen_sys::grant::{Access, GrantTable, Granted};
use xen_sys::ids::DomId;
use xen_sys::page::OwnPages;
use xen_sys::ring::netif::{EXTRA_MORE, ExtraInfo, Flags, RxRequest, TxRequest};
use xen_sys::ring::shared::Region;
use xen_sys::ring::slots::Front;
use xen_sys::xenbus::State;
use xenstore_core::client::{Client, Nodes};

use super::Attack;
use crate::nap;

/// How often it is looked whether the backend has moved.
const LOOK: Duration = Duration::from_millis(2);

/// How long it has to.
const PATIENCE: Duration = Duration::from_secs(10);

const FRONT: &str = "device/vif/0";

/// A reference beyond all that are granted.
const NOT_OURS: u32 = 400;

/// Where a ring's index of requests is.
const REQ_PROD: usize = 0;

/// A frame to everybody, from an address.
fn frame(source: [u8; 6]) -> [u8; 64] {
    let mut frame = [0; 64];
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&source);
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    frame
}

/// The frontend's half.
struct Interface<'p> {
    platform: &'p Platform,
    backend: String,
    tx: Front<Granted, TxRequest, [u8; 4]>,
    rx: Front<Granted, RxRequest, [u8; 8]>,
    /// A page of frames.
    frames: Granted,
    line: Channel,
}

/// Does the act of this name for as long as the attack goes on.
pub(super) fn run<T: Read + Write>(attack: &Attack<'_>, store: &mut Client<T>, act: &str) {
    let grants = GrantTable::open(attack.platform.window).expect("a grant table");
    let mut rounds = 0_u32;
    while attack.goes_on() {
        let mut interface = connect(attack.platform, store, grants, act);
        let ends = interface.misuse(attack, store, act);
        let reason = if ends { interface.reason(store) } else { "it goes on".into() };
        rounds += 1;
        for (node, value) in [("data/reason", reason), ("data/rounds", format!("{rounds}"))] {
            store.write(node, value.as_bytes()).expect("data/ is ours to write");
        }
        interface.leave(store);
    }
}

/// Connects as an honest frontend does, but for what the act is about.
fn connect<'p, T: Read + Write>(
    platform: &'p Platform,
    store: &mut Client<T>,
    grants: &'static GrantTable,
    act: &str,
) -> Interface<'p> {
    let backend = text(store, &format!("{FRONT}/backend"));
    let domain = text(store, &format!("{FRONT}/backend-id")).parse().ok();
    let domain = domain.and_then(DomId::new).expect("a backend's domain");
    wait_for(platform, store, &backend, State::InitWait);
    let page = || {
        let page = OwnPages::zeroed(1).expect("memory");
        grants.grant(domain, page, Access::ReadWrite).expect("a grant")
    };
    let (tx, rx, frames) = (page(), page(), page());
    let line = platform.events.borrow_mut().alloc_unbound(domain).expect("a port");
    let name = |ring: &Granted| ring.references()[0].0;
    let tx_name = if act == "ring" { NOT_OURS } else { name(&tx) };
    for (leaf, value) in [
        ("tx-ring-ref", tx_name),
        ("rx-ring-ref", name(&rx)),
        ("event-channel", line.port().0),
        ("request-rx-copy", 1),
        ("feature-rx-notify", 1),
        ("feature-sg", 1),
    ] {
        say(store, leaf, value);
    }
    let (tx, rx) = (Front::set_up(tx), Front::set_up(rx));
    say(store, "state", State::Connected as u32);
    Interface { platform, backend, tx, rx, frames, line }
}

impl Interface<'_> {
    /// Breaks a rule, or wears the switch out; tells whether the backend ends it.
    fn misuse<T: Read + Write>(
        &mut self,
        attack: &Attack<'_>,
        store: &mut Client<T>,
        act: &str,
    ) -> bool {
        let reference = self.frames.references()[0].0;
        let mac = address(&text(store, &format!("{FRONT}/mac")));
        Region::of(&self.frames).copy_in(0, &frame(mac));
        let slot = TxRequest { reference, offset: 0, flags: 0, id: 1, size: 64 };
        let more = TxRequest { flags: Flags::MORE_DATA.bits(), ..slot };
        let extra = TxRequest { flags: Flags::EXTRA_INFO.bits(), ..slot };
        let endless = ExtraInfo { kind: 1, flags: EXTRA_MORE, data: [0, 5, 1, 0, 0, 0] };
        match act {
            "ring" => {}
            "chain" => self.send(&[TxRequest { size: 0, ..more }; 40]),
            "cut" => self.send(&[more]),
            "outside" => self.send(&[TxRequest { offset: 4090, ..slot }]),
            "sizes" => self.send(&[more, TxRequest { size: 4000, ..slot }]),
            "extra" => self.send(&[extra, endless.into(), endless.into(), endless.into()]),
            "grant" => self.send(&[TxRequest { reference: NOT_OURS, ..slot }]),
            "index" => {
                Region::of(self.tx.memory()).word(REQ_PROD).store(1000, Ordering::Release);
                self.line.notify();
            }
            "page" => self.post(NOT_OURS),
            "storm" => {
                while attack.goes_on() {
                    say(store, "state", State::Connected as u32);
                }
                return false;
            }
            "deaf" | "flood" | "spoof" => {
                let source = if act == "spoof" { [0, 0x16, 0x3e, 0, 0, 1] } else { mac };
                Region::of(&self.frames).copy_in(0, &frame(source));
                self.go_on(attack, act, &slot);
                return false;
            }
            other => panic!("no act of a frontend is called {other:?}"),
        }
        true
    }

    /// Keeps no rule of politeness, but breaks none.
    fn go_on(&mut self, attack: &Attack<'_>, act: &str, slot: &TxRequest) {
        while attack.goes_on() {
            if act == "deaf" {
                self.platform.wait();
                continue;
            }
            while let Ok(Some(_)) = self.tx.take() {}
            while self.tx.put(slot).is_ok() {}
            let _ = self.tx.publish();
            self.line.notify();
            nap(self.platform, Duration::from_micros(50));
        }
    }

    fn send(&mut self, slots: &[TxRequest]) {
        for slot in slots {
            let _ = self.tx.put(slot);
        }
        let _ = self.tx.publish();
        self.line.notify();
    }

    /// Posts pages to receive in, all by this reference.
    fn post(&mut self, reference: u32) {
        for id in 0..200 {
            let _ = self.rx.put(&RxRequest { id, pad: 0, reference });
        }
        let _ = self.rx.publish();
        self.line.notify();
    }

    /// Waits until the backend ends the interface; gives its reason.
    fn reason<T: Read + Write>(&self, store: &mut Client<T>) -> String {
        wait_for(self.platform, store, &self.backend, State::Closed);
        text(store, &format!("{}/error", self.backend))
    }

    /// Begins anew, as the next frontend.
    fn leave<T: Read + Write>(self, store: &mut Client<T>) {
        say(store, "state", State::Closed as u32);
        wait_for(self.platform, store, &self.backend, State::Closed);
        say(store, "state", State::Initialising as u32);
    }
}

fn say<T: Read + Write>(store: &mut Client<T>, leaf: &str, value: u32) {
    let written = store.write(&format!("{FRONT}/{leaf}"), format!("{value}").as_bytes());
    written.expect("a node of this guest's");
}

fn text<T: Read + Write>(store: &mut Client<T>, path: &str) -> String {
    let value = store.read(path).unwrap_or_default();
    String::from_utf8_lossy(&value).into_owned()
}

fn wait_for<T: Read + Write>(
    platform: &Platform,
    store: &mut Client<T>,
    backend: &str,
    state: State,
) {
    let end = platform.clock.now().after(PATIENCE);
    let path = format!("{backend}/state");
    while text(store, &path).parse() != Ok(state) {
        assert!(platform.clock.now() < end, "the backend does not come to state {state}");
        nap(platform, LOOK);
    }
}

fn address(text: &str) -> [u8; 6] {
    let mut bytes = [0; 6];
    for (byte, part) in bytes.iter_mut().zip(text.split(':')) {
        *byte = u8::from_str_radix(part, 16).expect("an address");
    }
    bytes
}
