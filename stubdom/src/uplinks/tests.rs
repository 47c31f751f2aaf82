use core::cell::RefCell;
use std::rc::Rc;

use xenstore_core::Server;
use xenstore_core::client::{Access, Permission};

use super::*;
use crate::store_in_memory::{self, Wire};

const OWN: DomId = DomId(5);
const BACKEND: &str = "/local/domain/0/backend/vif/5/0";
const FRONTEND: &str = "/local/domain/5/device/vif/0";

/// Devices that only say what is done with them.
#[derive(Default)]
struct Log {
    made: u32,
    deeds: Vec<String>,
    refuses: bool,
}

impl Frontends for Log {
    type Id = u32;
    type Refusal = &'static str;

    fn set_up(&mut self, backend: DomId, features: Features) -> Result<(u32, Rings), &'static str> {
        if self.refuses {
            return Err("no memory for its rings");
        }
        self.made += 1;
        let sg = if features.sg { " with pieces" } else { "" };
        self.deeds.push(format!("set up {} for {backend}{sg}", self.made));
        let rings = Rings { transmit: 8, receive: 9, port: 20 + self.made };
        Ok((self.made, rings))
    }

    fn begin(&mut self, id: u32) {
        self.deeds.push(format!("begin {id}"));
    }

    fn end(&mut self, id: u32) {
        self.deeds.push(format!("end {id}"));
    }
}

/// The domain of the uplink, and dom0, which has the toolstack and the backend.
struct Scene {
    server: Rc<RefCell<Server>>,
    own: Client<Wire>,
    dom0: Client<Wire>,
    log: Log,
    uplinks: Uplinks<u32>,
}

impl Scene {
    /// As when the domain has started, with a device or without.
    fn new(with_device: bool) -> Self {
        let server = store_in_memory::server();
        let mut dom0 = store_in_memory::connect(&server, DomId(0));
        dom0.write("/local/domain/5/name", b"stub").unwrap();
        for directory in ["/local/domain/5", "/local/domain/5/device/vif"] {
            dom0.mkdir(directory).unwrap();
            let perms =
                [Permission::new(Access::None, DomId(0)), Permission::new(Access::Read, OWN)];
            dom0.set_perms(directory, &perms).unwrap();
        }
        if with_device {
            attach(&mut dom0);
        }
        let mut own = store_in_memory::connect(&server, OWN);
        let uplinks = Uplinks::begin(&mut own).unwrap();
        let mut scene = Self { server, own, dom0, log: Log::default(), uplinks };
        scene.hear();
        scene
    }

    fn hear(&mut self) {
        while let Some(event) = self.own.poll_event().unwrap() {
            assert!(Uplinks::<u32>::concerns(event.token()), "{event:?}");
            let Self { own, log, uplinks, .. } = self;
            uplinks.heard(own, log, event.path(), event.token()).unwrap();
        }
        self.server.borrow().check().expect("the accounts agree");
    }

    /// The backend enters a state; tells what was done with the device since.
    fn backend_enters(&mut self, state: State) -> Vec<String> {
        self.dom0.write(&format!("{BACKEND}/state"), state.to_string().as_bytes()).unwrap();
        self.hear();
        core::mem::take(&mut self.log.deeds)
    }

    /// The backend says what Linux's does, and waits.
    fn backend_offers(&mut self) -> Vec<String> {
        for feature in ["feature-rx-copy", "feature-sg", "feature-gso-tcpv4"] {
            self.dom0.write(&format!("{BACKEND}/{feature}"), b"1").unwrap();
        }
        self.backend_enters(State::InitWait)
    }

    fn own_state(&mut self) -> String {
        self.own_node("state")
    }

    fn own_node(&mut self, leaf: &str) -> String {
        let value = self.dom0.read(&format!("{FRONTEND}/{leaf}"));
        value.map_or_else(
            |failure| format!("{failure:?}"),
            |value| String::from_utf8(value).unwrap(),
        )
    }
}

/// Adds the device as libxl does.
fn attach(dom0: &mut Client<Wire>) {
    dom0.transact(|t| {
        let both = |owner, other| {
            [Permission::new(Access::None, owner), Permission::new(Access::Read, other)]
        };
        t.mkdir(FRONTEND)?;
        t.set_perms(FRONTEND, &both(OWN, DomId(0)))?;
        t.mkdir(BACKEND)?;
        t.set_perms(BACKEND, &both(DomId(0), OWN))?;
        for (path, value) in [
            (format!("{FRONTEND}/backend"), BACKEND),
            (format!("{FRONTEND}/backend-id"), "0"),
            (format!("{FRONTEND}/state"), "1"),
            (format!("{FRONTEND}/handle"), "0"),
            (format!("{BACKEND}/frontend"), FRONTEND),
            (format!("{BACKEND}/online"), "1"),
            (format!("{BACKEND}/state"), "1"),
        ] {
            t.write(&path, value.as_bytes())?;
        }
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_device_connects_when_its_backend_waits() {
    let mut scene = Scene::new(true);
    assert!(scene.log.deeds.is_empty(), "its backend has said nothing yet");
    assert_eq!(scene.backend_offers(), ["set up 1 for 0 with pieces"]);
    for (leaf, value) in [
        ("tx-ring-ref", "8"),
        ("rx-ring-ref", "9"),
        ("event-channel", "21"),
        ("request-rx-copy", "1"),
        ("feature-rx-notify", "1"),
        ("state", "4"),
    ] {
        assert_eq!(scene.own_node(leaf), value, "{leaf}");
    }
    assert_eq!(scene.backend_enters(State::Connected), ["begin 1"]);
    assert!(scene.backend_enters(State::Connected).is_empty(), "once");
}

#[test]
fn a_device_may_come_later_and_go() {
    let mut scene = Scene::new(false);
    attach(&mut scene.dom0);
    scene.hear();
    scene.backend_offers();
    assert_eq!(scene.backend_enters(State::Connected), ["begin 1"]);
    scene.dom0.write(&format!("{BACKEND}/online"), b"0").unwrap();
    assert_eq!(scene.backend_enters(State::Closing), ["end 1"]);
    assert_eq!(scene.own_state(), "6");
    assert!(scene.backend_enters(State::Closed).is_empty(), "it is being taken away");
    assert_eq!(scene.own_state(), "6");
    for directory in [FRONTEND, BACKEND] {
        scene.dom0.rm(directory).unwrap();
    }
    scene.hear();
    attach(&mut scene.dom0);
    scene.hear();
    assert_eq!(scene.backend_offers(), ["set up 2 for 0 with pieces"], "and given again");
}

#[test]
fn a_device_that_is_removed_at_once_is_given_up() {
    let mut scene = Scene::new(true);
    scene.backend_offers();
    scene.backend_enters(State::Connected);
    scene.dom0.rm(FRONTEND).unwrap();
    scene.hear();
    assert_eq!(scene.log.deeds, ["end 1"]);
}

#[test]
fn a_backend_that_closes_and_stays_is_connected_to_again() {
    let mut scene = Scene::new(true);
    scene.backend_offers();
    scene.backend_enters(State::Connected);
    assert_eq!(scene.backend_enters(State::Closing), ["end 1"]);
    assert!(scene.backend_enters(State::Closed).is_empty());
    assert_eq!(scene.own_state(), "1");
    assert_eq!(scene.backend_offers(), ["set up 2 for 0 with pieces"]);
    assert_eq!((scene.own_state(), scene.own_node("event-channel")), ("4".into(), "22".into()));
    assert_eq!(scene.backend_enters(State::Connected), ["begin 2"]);
}

#[test]
fn what_cannot_be_connected_is_closed_and_stays_so() {
    let mut scene = Scene::new(true);
    assert!(scene.backend_enters(State::InitWait).is_empty(), "it has no feature-rx-copy");
    assert_eq!(scene.own_state(), "6");

    let mut scene = Scene::new(true);
    scene.log.refuses = true;
    assert!(scene.backend_offers().is_empty());
    assert_eq!(scene.own_state(), "6");
    scene.log.refuses = false;
    assert!(scene.backend_offers().is_empty(), "it is not tried again");

    let mut scene = Scene::new(true);
    scene.backend_offers();
    scene.backend_enters(State::Connected);
    let Scene { own, log, uplinks, .. } = &mut scene;
    uplinks.broken(own, log, 1, "its backend lies").unwrap();
    assert_eq!((scene.log.deeds.clone(), scene.own_state()), (vec!["end 1".into()], "6".into()));
    scene.log.deeds.clear();
    assert!(scene.backend_enters(State::Closed).is_empty());
    assert!(scene.backend_offers().is_empty());
    assert_eq!(scene.own_state(), "6");
}

#[test]
fn a_backend_is_where_its_domain_is() {
    let mut scene = Scene::new(false);
    attach(&mut scene.dom0);
    scene.dom0.write(&format!("{FRONTEND}/backend-id"), b"7").unwrap();
    scene.hear();
    assert!(scene.backend_offers().is_empty(), "dom0's directory is not of domain 7");
    assert_eq!(scene.own_state(), "1");
}

#[test]
fn other_names_are_no_devices() {
    for (text, wanted) in
        [("0", Some(0)), ("12", Some(12)), ("01", None), ("", None), ("0/a", None)]
    {
        assert_eq!(number(text), wanted, "{text:?}");
    }
}
