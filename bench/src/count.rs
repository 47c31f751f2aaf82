//! Operations to be counted by callgrind.

use bench::{Operation, Script, World};
use xenstore_core::DomId;
use xenstore_core::wire::{HEADER_SIZE, Op};

use crate::mark;

/// Nodes and watches of each guest.
const NODES: usize = 100;
const WATCHES: usize = 8;

/// What is done before counting, to have memory and tables as they are in the long run.
const WARM_UP: u32 = 20;

/// How often an operation is done where nothing else is said.
const TIMES: u32 = 200;

/// So many nodes end at once.
pub(crate) const MANY_NODES: usize = 100_000;

/// So many nodes a guest may own, as its quotas are.
const SCATTERED: usize = 1000;

/// Every operation of the guest in the middle.
pub(crate) fn operations(domains: u16, times: u32) {
    let mut world = World::populated(domains, NODES, WATCHES);
    let guest = world.guest(domains.div_ceil(2));
    for operation in Operation::ALL {
        repeated(operation.name(), &mut operation.script(guest), &mut world, times);
    }
}

/// WRITE of a node that some watch, and of one that nobody watches.
pub(crate) fn watches() {
    let mut world = World::populated(1000, 2, 0);
    for watches in [0_u16, 1, 10, 100, 1000] {
        fan_out(&mut world, watches);
    }
    // A guest may have 128 watches.
    for (watches, each) in [("0", 0), ("100,000", 100)] {
        let mut world = World::populated(1000, NODES, each);
        let guest = world.guest(500);
        let name = format!("WRITE that none of {watches} watches match");
        repeated(&name, &mut Operation::Write.script(guest), &mut world, TIMES);
    }
}

fn fan_out(world: &mut World, watches: u16) {
    let toolstack = world.toolstack();
    let path = format!("/shared/{watches}\0");
    world.ask(toolstack, Op::Write, &[path.as_bytes(), b"valuevalue"]);
    world.ask(toolstack, Op::SetPerms, &[path.as_bytes(), b"r0\0"]);
    let token = b"FFFF888012345678\0";
    for domain in 1..=watches {
        let guest = world.guest(domain);
        world.ask(guest, Op::Watch, &[path.as_bytes(), token]);
    }
    let mut script = Script::new(toolstack)
        .then(Op::Write, &[path.as_bytes(), b"othervalue"])
        .then(Op::Write, &[path.as_bytes(), b"valuevalue"])
        .counting(2);
    let name = format!("WRITE that {watches} watches match");
    repeated(&name, &mut script, world, TIMES / 2);
    let event = HEADER_SIZE + path.len() + token.len();
    assert_eq!(world.news().len(), event * usize::from(watches), "one event for each");
}

/// Domains that come, one by one, and one that comes and goes while the others stay.
pub(crate) fn introductions() {
    for domains in [40_u16, 4000] {
        let mut world = World::new();
        let toolstack = world.toolstack();
        let mut script = Script::new(toolstack).counting(domains.into());
        for domain in 1..=domains {
            world.create(DomId(domain));
            let payload = format!("{domain}\0{}\0{}\0", 1, 1);
            script = script.then(Op::Introduce, &[payload.as_bytes()]);
        }
        once(&format!("INTRODUCE of each of {domains}"), &mut script, &mut world);

        let another = domains + 1;
        world.create(DomId(another));
        let mut script = Script::new(toolstack)
            .then(Op::Introduce, &[format!("{another}\0{}\0{}\0", 1, 1).as_bytes()])
            .then(Op::Release, &[format!("{another}\0").as_bytes()]);
        let name = format!("INTRODUCE and RELEASE beside {domains}");
        repeated(&name, &mut script, &mut world, TIMES);
    }
}

/// A tree that is removed and a domain that dies, each with very many nodes: the turn of the request,
/// and those that clear away what is left.
pub(crate) fn removals() {
    let mut world = World::new();
    let guest = world.introduce(DomId(1));
    world.furnish_beyond_quotas(guest, MANY_NODES);
    // A watch there must not have all the nodes looked at, whatever it is for.
    world.watch(guest, 1);
    let mut script = Script::new(world.toolstack()).then(Op::Rm, &[b"/local/domain/1\0"]);
    once("RM of 100,000 nodes", &mut script, &mut world);
    rest("the turns after RM of 100,000 nodes", &mut world);

    let mut world = World::new();
    let guest = world.introduce(DomId(1));
    world.furnish_beyond_quotas(guest, MANY_NODES);
    mark::begin();
    world.depart(guest.domain);
    mark::end("death of the owner of 100,000 nodes", 1);
    rest("the turns after the death of their owner", &mut world);

    // All that a guest may own, one by one in directories of another's.
    let mut world = World::new();
    let guest = world.introduce(DomId(1));
    for node in 0..SCATTERED {
        let (directory, name) = (node / 100, node % 100);
        if name == 0 {
            let path = format!("/shared/{directory}\0");
            world.ask(world.toolstack(), Op::Mkdir, &[path.as_bytes()]);
            world.ask(world.toolstack(), Op::SetPerms, &[path.as_bytes(), b"b0\0"]);
        }
        let path = format!("/shared/{directory}/{name}\0");
        world.ask(guest, Op::Write, &[path.as_bytes(), b"valuevalue"]);
    }
    mark::begin();
    world.depart(guest.domain);
    mark::end("death of the owner of 1,000 scattered nodes", 1);
}

/// Each turn that is left to do.
fn rest(name: &str, world: &mut World) {
    let mut turns = 1;
    mark::begin();
    while world.rest() {
        turns += 1;
    }
    mark::end(name, turns);
}

fn repeated(name: &str, script: &mut Script, world: &mut World, times: u32) {
    for _ in 0..WARM_UP {
        script.run(world);
    }
    mark::begin();
    for _ in 0..times {
        script.run(world);
    }
    mark::end(name, times * script.operations());
}

fn once(name: &str, script: &mut Script, world: &mut World) {
    mark::begin();
    script.run(world);
    mark::end(name, script.operations());
}
