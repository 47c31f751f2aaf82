use core::cell::RefCell;
use std::rc::Rc;

use xenstore_core::Server;

use super::*;
use crate::store_in_memory::{self, Everybody, Wire};

const OWN: DomId = DomId(5);
const GUEST: DomId = DomId(7);
const OTHER: DomId = DomId(8);

/// Channels that only count.
#[derive(Default)]
struct Counter {
    made: u32,
    open: Vec<u32>,
    refuses: bool,
    names: Vec<Option<String>>,
}

impl Endpoints for Counter {
    type Id = u32;
    type Refusal = &'static str;

    fn open(
        &mut self,
        _: DomId,
        name: Option<&str>,
        _: &Ask,
    ) -> Result<Endpoint<u32>, &'static str> {
        self.names.push(name.map(String::from));
        if self.refuses {
            return Err("not today");
        }
        self.made += 1;
        self.open.push(self.made);
        Ok(Endpoint { id: self.made, ring: GrantRef(100 + self.made), port: Port(200 + self.made) })
    }

    fn close(&mut self, id: u32) {
        self.open.retain(|&open| open != id);
    }
}

/// A host: the domain of the channels, two guests, dom0.
struct Scene {
    server: Rc<RefCell<Server>>,
    own: Client<Wire>,
    dom0: Client<Wire>,
    guest: Client<Wire>,
    other: Client<Wire>,
    channels: Counter,
    asks: Asks<u32>,
}

impl Scene {
    fn new() -> Self {
        let server = store_in_memory::server();
        let connect = |domain| store_in_memory::connect(&server, domain);
        let mut dom0 = connect(DomId(0));
        for domain in [OWN, GUEST, OTHER] {
            let home = format!("/local/domain/{domain}");
            dom0.write(&format!("{home}/name"), format!("name of {domain}").as_bytes()).unwrap();
            dom0.mkdir(&format!("{home}/data")).unwrap();
            let own = [Permission::new(Access::None, domain)];
            dom0.set_perms(&format!("{home}/data"), &own).unwrap();
        }
        let [mut own, guest, other] = [OWN, GUEST, OTHER].map(connect);
        let asks = Asks::begin(&mut own, OWN).unwrap();
        let mut scene =
            Self { server, own, dom0, guest, other, channels: Counter::default(), asks };
        scene.hear();
        scene
    }

    /// Has the domain of the channels look at all that it was told.
    fn hear(&mut self) {
        while let Some(event) = self.own.poll_event().unwrap() {
            self.asks.heard(&mut self.own, &mut self.channels, event.path()).unwrap();
        }
        if self.own.events_were_lost() {
            self.asks.look_again(&mut self.own, &mut self.channels).unwrap();
        }
        self.server.borrow().check().expect("the accounts agree");
    }

    fn ended(&mut self, id: u32, end: End) {
        self.channels.close(id);
        self.asks.ended(&mut self.own, &mut self.channels, id, end).unwrap();
        self.hear();
    }
}

fn node(name: &str) -> String {
    format!("/local/domain/{OWN}/{ASK}/{name}")
}

fn leaf(owner: DomId, rest: &str) -> String {
    format!("/local/domain/{OWN}/{ANSWER}/{owner}/{rest}")
}

fn text(value: Vec<u8>) -> String {
    String::from_utf8(value).unwrap()
}

#[test]
fn who_creates_a_node_gets_a_channel_that_only_it_can_find() {
    let mut scene = Scene::new();
    scene.guest.write(&node("one"), b"echo").unwrap();
    scene.hear();
    assert_eq!(text(scene.guest.read(&leaf(GUEST, "one/ring-ref")).unwrap()), "101");
    assert_eq!(text(scene.guest.read(&leaf(GUEST, "one/event-channel")).unwrap()), "201");
    for leaf in [leaf(GUEST, "one/ring-ref"), leaf(GUEST, "one/event-channel")] {
        let refused = scene.other.read(&leaf);
        assert_eq!(refused, Err(Failure::Answer(Error::Eacces)), "{leaf}");
    }
    let listed = scene.other.directory(&format!("/local/domain/{OWN}/{ASK}"));
    assert_eq!(
        listed,
        Err(Failure::Answer(Error::Eacces)),
        "who asks for what is nobody's business"
    );
}

#[test]
fn what_dom0_asks_for_is_dom0s() {
    let mut scene = Scene::new();
    scene.dom0.write(&node("mine"), b"services").unwrap();
    scene.hear();
    assert_eq!(text(scene.dom0.read(&leaf(DomId(0), "mine/ring-ref")).unwrap()), "101");
    assert!(scene.other.read(&leaf(DomId(0), "mine/ring-ref")).is_err());
}

#[test]
fn a_request_that_is_removed_ends_its_channel_and_leaves_nothing() {
    let mut scene = Scene::new();
    for name in ["one", "two"] {
        scene.guest.write(&node(name), b"echo").unwrap();
    }
    scene.hear();
    assert_eq!(scene.channels.open, [1, 2]);
    scene.guest.rm(&node("one")).unwrap();
    scene.hear();
    assert_eq!(scene.channels.open, [2]);
    let own = format!("/local/domain/{OWN}/{ANSWER}");
    assert_eq!(scene.dom0.directory(&format!("{own}/{GUEST}")).unwrap(), ["two"]);
    scene.guest.rm(&node("two")).unwrap();
    scene.hear();
    assert!(scene.dom0.directory(&own).unwrap().is_empty(), "nothing of the domain is left");
}

#[test]
fn a_domains_death_ends_its_channels() {
    let mut scene = Scene::new();
    scene.guest.write(&node("one"), b"echo").unwrap();
    scene.hear();
    scene.server.borrow_mut().gone(GUEST, &mut Everybody);
    scene.hear();
    assert!(scene.channels.open.is_empty());
}

#[test]
fn a_refusal_says_why() {
    let mut scene = Scene::new();
    scene.channels.refuses = true;
    scene.guest.write(&node("no"), b"echo").unwrap();
    scene.guest.write(&node("what"), b"gibberish").unwrap();
    scene.hear();
    assert_eq!(text(scene.guest.read(&leaf(GUEST, "no/error")).unwrap()), "not today");
    let told = text(scene.guest.read(&leaf(GUEST, "what/error")).unwrap());
    assert!(told.starts_with("a channel is for"), "{told}");
    assert!(scene.other.read(&leaf(GUEST, "no/error")).is_err());
}

#[test]
fn refusals_cost_this_domain_few_nodes() {
    let mut scene = Scene::new();
    scene.channels.refuses = true;
    for number in 0..100 {
        scene.guest.write(&node(&format!("n{number}")), b"echo").unwrap();
        scene.hear();
    }
    let answers = scene.dom0.directory(leaf(GUEST, "").trim_end_matches('/')).unwrap();
    assert_eq!(answers.len(), REFUSALS_MAX as usize);
    for number in 0..100 {
        scene.guest.rm(&node(&format!("n{number}"))).unwrap();
    }
    scene.hear();
    scene.channels.refuses = false;
    scene.guest.write(&node("again"), b"echo").unwrap();
    scene.hear();
    assert_eq!(scene.channels.open.len(), 1, "who has cleaned up is answered again");
}

#[test]
fn a_name_is_known_where_the_store_tells_it() {
    let mut scene = Scene::new();
    scene.guest.write(&node("one"), b"echo").unwrap();
    scene.hear();
    let name = format!("/local/domain/{OTHER}/name");
    let readers = [Permission::new(Access::None, DomId(0)), Permission::new(Access::Read, OWN)];
    scene.dom0.set_perms(&name, &readers).unwrap();
    scene.other.write(&node("two"), b"echo").unwrap();
    scene.hear();
    assert_eq!(scene.channels.names, [None, Some("name of 8".to_owned())]);
}

#[test]
fn an_echo_waits_for_its_next_client_and_services_end_with_theirs() {
    let mut scene = Scene::new();
    scene.guest.write(&node("raw"), b"echo").unwrap();
    scene.guest.write(&node("frames"), b"services").unwrap();
    scene.hear();
    scene.ended(1, End::Left);
    assert_eq!(text(scene.guest.read(&leaf(GUEST, "raw/ring-ref")).unwrap()), "103");
    scene.ended(2, End::Left);
    assert_eq!(scene.channels.open, [3]);
    let gone = scene.dom0.read(&node("frames"));
    assert_eq!(gone, Err(Failure::Answer(Error::Enoent)), "its request is removed with it");
    scene.ended(3, End::Broken);
    assert!(scene.channels.open.is_empty(), "who broke the rules has to ask anew");
    assert_eq!(scene.dom0.read(&node("raw")), Err(Failure::Answer(Error::Enoent)));
}

#[test]
fn a_stream_that_was_asked_for_once_waits_for_nobody() {
    let mut scene = Scene::new();
    scene.guest.write(&node("tape"), b"stream tape once").unwrap();
    scene.hear();
    assert_eq!(scene.channels.open, [1]);
    scene.ended(1, End::Left);
    assert!(scene.channels.open.is_empty(), "its client was the only one");
    assert_eq!(scene.dom0.read(&node("tape")), Err(Failure::Answer(Error::Enoent)));
}

#[test]
fn nobody_takes_over_a_request_by_writing_into_it() {
    let mut scene = Scene::new();
    scene.guest.write(&node("one"), b"echo").unwrap();
    scene.hear();
    // Whoever knows the name may write, unless its owner has forbidden that.
    scene.other.write(&node("one"), b"services").unwrap();
    scene.other.write(&node("one/below"), b"services").unwrap();
    scene.hear();
    assert_eq!(scene.channels.open, [1]);
    assert!(scene.other.read(&leaf(GUEST, "one/ring-ref")).is_err());
    assert!(scene.dom0.directory(&format!("/local/domain/{OWN}/{ANSWER}/{OTHER}")).is_err());
}

#[test]
fn who_was_refused_may_ask_again() {
    let mut scene = Scene::new();
    scene.channels.refuses = true;
    scene.guest.write(&node("one"), b"echo").unwrap();
    scene.hear();
    assert_eq!(text(scene.guest.read(&leaf(GUEST, "one/error")).unwrap()), "not today");
    scene.channels.refuses = false;
    scene.guest.write(&node("one"), b"echo").unwrap();
    scene.hear();
    assert_eq!(text(scene.guest.read(&leaf(GUEST, "one/ring-ref")).unwrap()), "101");
    let error = scene.guest.read(&leaf(GUEST, "one/error"));
    assert_eq!(error, Err(Failure::Answer(Error::Eacces)), "the refusal is no more");
}

#[test]
fn a_name_with_a_domains_number_is_that_domains() {
    let mut scene = Scene::new();
    scene.guest.write(&node("7-tape"), b"echo").unwrap();
    scene.other.write(&node("7-box"), b"echo").unwrap();
    scene.other.write(&node("x7-box"), b"echo").unwrap();
    scene.hear();
    assert_eq!(scene.channels.made, 2);
    let told = text(scene.other.read(&leaf(OTHER, "7-box/error")).unwrap());
    assert_eq!(told, NOT_YOURS);
    assert!(scene.guest.read(&leaf(GUEST, "7-tape/ring-ref")).is_ok());
    assert!(scene.other.read(&leaf(OTHER, "x7-box/ring-ref")).is_ok());
}

/// Asks so often that the store has one event, of the directory, stand for what comes then.
fn flood(scene: &mut Scene) {
    for number in 0..40 {
        scene.guest.write(&node(&format!("n{number}")), b"gibberish").unwrap();
    }
}

#[test]
fn a_request_is_found_though_others_hid_it() {
    let mut scene = Scene::new();
    flood(&mut scene);
    scene.dom0.write(&node("late"), b"echo").unwrap();
    scene.hear();
    assert!(scene.dom0.read(&leaf(DomId(0), "late/ring-ref")).is_ok(), "nobody looked at it");
}

#[test]
fn a_request_is_found_though_its_event_was_lost() {
    let mut scene = Scene::new();
    for number in 0..1100 {
        scene.guest.write(&node("much"), format!("{number}").as_bytes()).unwrap();
        // The event arrives here and waits, as many as may.
        scene.own.read("data/nothing").unwrap_err();
    }
    scene.dom0.write(&node("late"), b"echo").unwrap();
    scene.own.read("data/nothing").unwrap_err();
    scene.hear();
    assert!(scene.dom0.read(&leaf(DomId(0), "late/ring-ref")).is_ok(), "nobody looked at it");
}

#[test]
fn a_channel_ends_though_others_hid_that_its_request_did() {
    let mut scene = Scene::new();
    scene.dom0.write(&node("early"), b"echo").unwrap();
    scene.hear();
    flood(&mut scene);
    scene.dom0.rm(&node("early")).unwrap();
    scene.hear();
    assert!(scene.channels.open.is_empty(), "nobody saw that the request is gone");
}

#[test]
fn names_that_no_channel_can_have_are_refused() {
    let mut scene = Scene::new();
    let longest = "n".repeat(2000);
    for name in ["much-too-long-a-name", "a@b"] {
        scene.guest.write(&node(name), b"echo").unwrap();
        scene.hear();
        let told = text(scene.guest.read(&leaf(GUEST, &format!("{name}/error"))).unwrap());
        assert_eq!(told, "a channel's name is 1 to 12 letters, digits, '-' or '_'", "{name}");
        scene.guest.rm(&node(name)).unwrap();
        scene.hear();
    }
    scene.guest.write(&node(&longest), b"echo").unwrap();
    scene.guest.write(&node("a/b"), b"echo").unwrap();
    scene.hear();
    assert!(scene.guest.read(&leaf(GUEST, "a/error")).is_err(), "what lies deeper is no request");
    scene.guest.rm(&node(&longest)).unwrap();
    scene.guest.rm(&node("a")).unwrap();
    scene.hear();
    assert_eq!(scene.channels.made, 0);
    let answers = scene.dom0.directory(leaf(GUEST, "").trim_end_matches('/'));
    assert_eq!(answers, Err(Failure::Answer(Error::Enoent)), "nothing is left of them");
}

#[test]
fn a_careful_client_asks_in_a_transaction() {
    let mut scene = Scene::new();
    while scene.server.borrow_mut().next_ready().is_some() {}
    let perms = [Permission::new(Access::None, GUEST), Permission::new(Access::Both, OWN)];
    scene
        .guest
        .transact(|t| {
            t.write(&node("one"), b"services once")?;
            t.set_perms(&node("one"), &perms)
        })
        .unwrap();
    let mut named = Vec::new();
    while let Some(conn) = scene.server.borrow_mut().next_ready() {
        named.push(conn.slot());
    }
    assert!(named.contains(&1), "nobody looks at the ring of the domain that watches: {named:?}");
    scene.hear();
    assert_eq!(text(scene.guest.read(&leaf(GUEST, "one/ring-ref")).unwrap()), "101");
}
