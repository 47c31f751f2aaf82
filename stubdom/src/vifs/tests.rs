use core::cell::RefCell;
use std::rc::Rc;

use xen_sys::ids::GrantRef;
use xenstore_core::Server;
use xenstore_core::client::{Access, Permission};

use super::*;
use crate::store_in_memory::{self, Wire};

const OWN: DomId = DomId(5);
const GUEST: DomId = DomId(7);
const OTHER: DomId = DomId(8);

const BACK: &str = "/local/domain/5/backend/vif/7/0";
const FRONT: &str = "/local/domain/7/device/vif/0";

/// Interfaces that are only noted.
#[derive(Default)]
struct Notes {
    made: u32,
    connected: Vec<(u32, DomId, Settings, GrantRef)>,
    refuses: bool,
}

impl Interfaces for Notes {
    type Id = u32;
    type Refusal = &'static str;

    fn connect(
        &mut self,
        guest: DomId,
        settings: &Settings,
        wanted: &Wanted,
    ) -> Result<u32, &'static str> {
        if self.refuses {
            return Err("not today");
        }
        self.made += 1;
        self.connected.push((self.made, guest, *settings, wanted.queues[0].rings[0]));
        Ok(self.made)
    }

    fn disconnect(&mut self, id: u32) {
        let before = self.connected.len();
        self.connected.retain(|&(connected, ..)| connected != id);
        assert_eq!(self.connected.len() + 1, before, "{id} was not connected");
    }
}

/// A host: the domain of the switch, a guest and another, and dom0 with its toolstack.
struct Scene {
    server: Rc<RefCell<Server>>,
    own: Client<Wire>,
    dom0: Client<Wire>,
    guest: Client<Wire>,
    other: Client<Wire>,
    notes: Notes,
    vifs: Vifs<u32>,
}

impl Scene {
    fn new() -> Self {
        let server = store_in_memory::server();
        let [mut own, mut dom0, guest, other] =
            [OWN, DomId(0), GUEST, OTHER].map(|domain| store_in_memory::connect(&server, domain));
        let home = [Permission::new(Access::None, DomId(0)), Permission::new(Access::Read, OWN)];
        dom0.mkdir("/local/domain/5").unwrap();
        dom0.set_perms("/local/domain/5", &home).unwrap();
        let vifs = Vifs::begin(&mut own).unwrap();
        Self { server, own, dom0, guest, other, notes: Notes::default(), vifs }
    }

    /// Does what libxl does for `vif=["backend=..."]`.
    fn create(&mut self) {
        let both = |owner, reader| {
            [Permission::new(Access::None, owner), Permission::new(Access::Read, reader)]
        };
        let transaction = self.dom0.transact(|t| {
            for (directory, owner, reader) in [(FRONT, GUEST, OWN), (BACK, OWN, GUEST)] {
                t.mkdir(directory)?;
                t.set_perms(directory, &both(owner, reader))?;
            }
            for (leaf, value) in [
                ("frontend", FRONT),
                ("frontend-id", "7"),
                ("online", "1"),
                ("state", "1"),
                ("script", "/etc/xen/scripts/vif-bridge"),
                ("mac", "00:16:3e:01:02:03"),
                ("rate", "52428,50000"),
                ("handle", "0"),
            ] {
                t.write(&format!("{BACK}/{leaf}"), value.as_bytes())?;
                t.set_perms(&format!("{BACK}/{leaf}"), &both(OWN, GUEST))?;
            }
            for (leaf, value) in [("backend", BACK), ("backend-id", "5"), ("state", "1")] {
                t.write(&format!("{FRONT}/{leaf}"), value.as_bytes())?;
                t.set_perms(&format!("{FRONT}/{leaf}"), &both(GUEST, OWN))?;
            }
            Ok(())
        });
        transaction.unwrap();
        self.hear();
    }

    /// As the toolstack does it.
    fn detach(&mut self) {
        self.dom0.write(&format!("{BACK}/online"), b"0").unwrap();
        self.dom0.write(&format!("{BACK}/state"), b"5").unwrap();
        self.hear();
    }

    /// Does what Linux does when it finds a backend that waits.
    fn come(&mut self) {
        for (leaf, value) in [
            ("tx-ring-ref", "768"),
            ("rx-ring-ref", "769"),
            ("event-channel-tx", "9"),
            ("event-channel-rx", "10"),
            ("request-rx-copy", "1"),
            ("feature-rx-notify", "1"),
        ] {
            self.say(leaf, value);
        }
        self.guest_is(4);
    }

    fn say(&mut self, leaf: &str, value: &str) {
        self.guest.write(&format!("{FRONT}/{leaf}"), value.as_bytes()).unwrap();
    }

    fn guest_is(&mut self, state: u8) {
        self.say("state", &state.to_string());
        self.hear();
    }

    /// Has the domain of the switch look at all that it was told.
    fn hear(&mut self) {
        while let Some(event) = self.own.poll_event().unwrap() {
            assert!(Vifs::<u32>::concerns(event.token()), "{}", event.token());
            self.vifs.heard(&mut self.own, &mut self.notes, event.path(), event.token()).unwrap();
        }
        self.server.borrow().check().expect("the accounts agree");
    }

    /// Begins anew, as when the domain of the switch has started.
    fn begin_anew(&mut self) {
        while self.own.poll_event().unwrap().is_some() {}
        for (path, token) in [(BACKEND, "vif"), (&format!("{FRONT}/state"), "vif/7/0")] {
            self.own.unwatch(path, token).unwrap();
        }
        self.vifs = Vifs::begin(&mut self.own).unwrap();
        self.notes = Notes::default();
    }

    /// Has what is to go by then removed; the times are milliseconds.
    fn remove_left(&mut self, now: u64) -> Option<SystemTime> {
        let due = self.vifs.remove_left(&mut self.own, SystemTime(now * 1_000_000)).unwrap();
        due.map(|SystemTime(due)| SystemTime(due / 1_000_000))
    }

    fn node(&mut self, leaf: &str) -> Option<String> {
        let value = self.dom0.read(&format!("{BACK}/{leaf}")).ok()?;
        Some(String::from_utf8(value).unwrap())
    }

    fn state(&mut self) -> Option<String> {
        self.node("state")
    }

    fn connected(&self) -> usize {
        self.notes.connected.len()
    }
}

fn is(state: &str) -> Option<String> {
    Some(state.into())
}

#[test]
fn an_interface_comes_as_the_toolstack_and_linux_expect() {
    let mut scene = Scene::new();
    scene.hear();
    scene.create();
    assert_eq!(scene.state(), is("2"), "the toolstack waits for this");
    assert_eq!(scene.node("feature-rx-copy"), is("1"));
    assert_eq!(scene.guest.read(&format!("{BACK}/feature-sg")).unwrap(), b"1");
    scene.come();
    assert_eq!(scene.state(), is("4"));
    let mac = "00:16:3e:01:02:03".parse().unwrap();
    let rate = Rate::parse("52428,50000");
    let expected = [(1, GUEST, Settings { mac, rate }, GrantRef(768))];
    assert_eq!(scene.notes.connected, expected);
}

#[test]
fn what_was_there_before_is_found() {
    let mut scene = Scene::new();
    // It was not looked at before the first event, which is that of the watch itself.
    scene.create();
    assert_eq!(scene.state(), is("2"));
}

#[test]
fn what_was_closed_for_ever_before_is_removed() {
    let mut scene = Scene::new();
    scene.hear();
    scene.create();
    scene.come();
    scene.dom0.write(&format!("{BACK}/online"), b"0").unwrap();
    scene.dom0.write(&format!("{BACK}/state"), b"6").unwrap();
    scene.begin_anew();
    for _ in 0..3 {
        scene.hear();
        scene.vifs.look_at_all(&mut scene.own, &mut scene.notes).unwrap();
    }
    assert_eq!(scene.remove_left(0), Some(SystemTime(1_000)));
    assert_eq!(scene.state(), is("6"), "the toolstack may not have looked yet");
    assert_eq!((scene.remove_left(1_000), scene.state()), (None, None));
    // One that the toolstack still wants stays, for its reason to be read.
    scene.create();
    scene.dom0.write(&format!("{BACK}/state"), b"6").unwrap();
    scene.begin_anew();
    scene.hear();
    assert_eq!((scene.remove_left(2_000), scene.state()), (None, is("6")));
}

#[test]
fn a_detached_interface_leaves_nothing() {
    let mut scene = Scene::new();
    scene.create();
    scene.come();
    scene.detach();
    assert_eq!((scene.state(), scene.connected()), (is("6"), 0), "the toolstack waits for this");
    assert_eq!(scene.remove_left(10), Some(SystemTime(1_010)));
    scene.guest_is(6);
    assert_eq!(scene.remove_left(1_009), Some(SystemTime(1_010)));
    assert_eq!(scene.state(), is("6"), "it may not have looked yet");
    assert_eq!((scene.remove_left(1_010), scene.state()), (None, None), "and then for this");
    assert!(scene.dom0.directory("/local/domain/5/backend/vif/7").unwrap().is_empty());
    // It is not watched any more: the next of this number is a new one.
    scene.create();
    scene.come();
    assert_eq!((scene.state(), scene.connected()), (is("4"), 1));
}

#[test]
fn the_next_interface_of_a_number_is_not_removed_for_the_last() {
    let mut scene = Scene::new();
    scene.create();
    scene.come();
    scene.detach();
    scene.remove_left(0);
    // A toolstack that does not wait.
    scene.dom0.rm(BACK).unwrap();
    scene.hear();
    scene.create();
    scene.come();
    assert_eq!(scene.remove_left(1_000), None);
    assert_eq!((scene.state(), scene.connected()), (is("4"), 1));
}

#[test]
fn a_guest_that_died_is_left_before_the_toolstack_says_so() {
    let mut scene = Scene::new();
    scene.create();
    scene.come();
    scene.dom0.rm("/local/domain/7").unwrap();
    scene.hear();
    assert_eq!((scene.state(), scene.connected()), (is("6"), 0));
    scene.dom0.write(&format!("{BACK}/online"), b"0").unwrap();
    scene.hear();
    assert_eq!(scene.state(), None);
}

#[test]
fn a_driver_that_is_loaded_again_connects_again() {
    let mut scene = Scene::new();
    scene.create();
    for _ in 0..3 {
        scene.come();
        assert_eq!((scene.state(), scene.connected()), (is("4"), 1));
        scene.guest_is(5);
        assert_eq!((scene.state(), scene.connected()), (is("5"), 0));
        scene.guest_is(6);
        assert_eq!(scene.state(), is("6"));
        scene.guest_is(1);
        assert_eq!(scene.state(), is("2"));
    }
    // A kernel that was started by another one says nothing before it begins.
    scene.come();
    scene.guest_is(1);
    assert_eq!(scene.connected(), 0);
    scene.hear();
    assert_eq!(scene.state(), is("2"));
}

#[test]
fn whoever_breaks_a_rule_is_told_and_stays_out() {
    let mut scene = Scene::new();
    scene.create();
    scene.come();
    scene
        .vifs
        .broken(&mut scene.own, &mut scene.notes, 1, "a slot reaches beyond its page")
        .unwrap();
    scene.hear();
    assert_eq!((scene.state(), scene.connected()), (is("6"), 0));
    assert_eq!(scene.node("error"), is("a slot reaches beyond its page"));
    scene.guest_is(4);
    assert_eq!((scene.state(), scene.connected()), (is("6"), 0));
    scene.guest_is(6);
    scene.guest_is(1);
    scene.come();
    assert_eq!((scene.state(), scene.connected(), scene.node("error")), (is("4"), 1, None));
}

#[test]
fn what_cannot_be_had_is_refused_with_a_reason() {
    for (leaf, value, reason) in [
        ("tx-ring-ref", "-1", "the frontend's tx-ring-ref is not a number"),
        ("request-rx-copy", "0", "the frontend's request-rx-copy is not 1"),
        (
            "multi-queue-num-queues",
            "9",
            "the frontend's multi-queue-num-queues is not a number from 1 to 4",
        ),
    ] {
        let mut scene = Scene::new();
        scene.create();
        scene.come();
        scene.guest_is(6);
        scene.guest_is(1);
        scene.say(leaf, value);
        scene.guest_is(4);
        assert_eq!((scene.state(), scene.node("error")), (is("6"), is(reason)));
        assert_eq!(scene.connected(), 0);
    }
    let mut scene = Scene::new();
    scene.notes.refuses = true;
    scene.create();
    scene.come();
    assert_eq!((scene.state(), scene.node("error")), (is("6"), is("not today")));
}

#[test]
fn a_frontend_elsewhere_is_not_its_guests() {
    let mut scene = Scene::new();
    scene.other.write("/local/domain/8/x", b"").unwrap_err();
    let elsewhere = "/local/domain/8/device/vif/0";
    scene.dom0.mkdir(elsewhere).unwrap();
    scene.dom0.write(&format!("{elsewhere}/state"), b"4").unwrap();
    scene.dom0.mkdir(BACK).unwrap();
    let owner = [Permission::new(Access::None, OWN)];
    scene.dom0.set_perms(BACK, &owner).unwrap();
    for (leaf, value) in [("frontend", elsewhere), ("online", "1"), ("state", "1")] {
        scene.dom0.write(&format!("{BACK}/{leaf}"), value.as_bytes()).unwrap();
    }
    scene.hear();
    assert_eq!(scene.connected(), 0);
    assert_eq!(scene.node("error"), is("its frontend is not a directory of its guest"));
}

#[test]
fn names_that_are_no_interfaces_are_nobodys() {
    for text in ["", "7", "7/", "7/x", "07/0", "7/00", "70000/0", "7/0x", "-7/0", "+7/0"] {
        assert_eq!(Key::parse(text), None, "{text:?}");
    }
    let key = Key { guest: DomId(7), handle: 0 };
    assert_eq!(Key::parse("7/0"), Some((key, "")));
    assert_eq!(Key::parse("7/0/state"), Some((key, "state")));
    assert_eq!(Key::parse("7/0/a/b"), Some((key, "a/b")));
}
