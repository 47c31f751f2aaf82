//! How long others wait for the longest steps of work.

use std::time::Instant;

use bench::{Client, Operation, Script, World};
use xenstore_core::DomId;
use xenstore_core::wire::Op;

use crate::count::MANY_NODES;

/// Each figure is the least of so many: what the machine does besides can only add to it.
const TIMES: usize = 5;

/// Prints every figure.
pub(crate) fn all() {
    figure("READ", |_, _| {});
    figure("READ behind the RM of 100,000 nodes", |world, _| {
        Script::new(world.toolstack()).then(Op::Rm, &[b"/local/domain/1\0"]).run(world);
    });
    figure("READ behind the death of the owner of 100,000 nodes", |world, large| {
        world.depart(large.domain);
    });
}

fn figure(name: &str, before: impl Fn(&mut World, Client)) {
    let times = (0..TIMES).map(|_| {
        let mut world = World::new();
        let large = world.introduce(DomId(1));
        world.furnish_beyond_quotas(large, MANY_NODES);
        let reader = world.introduce(DomId(2));
        world.furnish(reader, 100);
        let mut script = Operation::Read.script(reader);
        script.run(&mut world);
        let started = Instant::now();
        before(&mut world, large);
        script.run(&mut world);
        started.elapsed().as_nanos()
    });
    println!("{name}\t{}", times.min().unwrap_or_default());
}
