//! What the store's parts weigh, in bytes of the heap.

use bench::World;
use xen_pvh_boot::heap::host::Use;
use xenstore_core::DomId;
use xenstore_core::wire::Op;

/// Prints every weight.
pub(crate) fn all() {
    nodes("a node", b"valuevalue");
    nodes("a node with a value of 64 bytes", &[b'v'; 64]);
    host();
    churn();
}

/// Nodes of dom0's with this value, in directories of a hundred.
fn nodes(name: &str, value: &[u8]) {
    let mut world = World::new();
    let toolstack = world.toolstack();
    let (before, known) = (Use::now(), world.server().stats().nodes);
    for node in 0..100_000 {
        let path = format!("/some/directory/{}/{}\0", node / 100, node % 100);
        world.ask(toolstack, Op::Write, &[path.as_bytes(), value]);
    }
    say(name, before, world.server().stats().nodes - known);
}

/// Ten thousand domains, and then what is theirs.
fn host() {
    const DOMAINS: u16 = 10_000;
    let mut world = World::new();
    let empty = Use::now();
    let guests: Vec<_> = (1..=DOMAINS).map(|domain| world.introduce(DomId(domain))).collect();
    say("an idle domain", empty, guests.len());
    for guest in &guests {
        world.furnish(*guest, 100);
    }
    let before = Use::now();
    for guest in &guests {
        world.watch(*guest, 8);
    }
    say("a watch", before, world.server().stats().watches);
    say("10,000 domains with 100 nodes and 8 watches each", empty, 1);
}

/// A million nodes made and removed.
fn churn() {
    let mut world = World::populated(100, 100, 8);
    let guest = world.guest(50);
    let mut cycle = |node: u32| {
        let path = format!("data/some/{}\0", node % 50);
        world.ask(guest, Op::Write, &[path.as_bytes(), b"valuevalue"]);
        world.ask(guest, Op::Rm, &[path.as_bytes()]);
    };
    (0..1000).for_each(&mut cycle);
    let before = Use::now();
    (0..1_000_000).for_each(&mut cycle);
    say("growth by a million creates and removes", before, 1);
}

/// What was added since, divided by the number of things that it was added for.
fn say(name: &str, since: Use, things: usize) {
    let now = Use::now();
    for (how, now, then) in [("", now.taken, since.taken), (", asked for", now.asked, since.asked)]
    {
        println!("{name}{how}\t{:.2}", (now as f64 - then as f64) / things as f64);
    }
}
