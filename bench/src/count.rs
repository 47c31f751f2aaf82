//! Operations to be counted by callgrind.

use bench::{Operation, Script, World};

use crate::mark;

/// Nodes and watches of each guest.
const NODES: usize = 100;
const WATCHES: usize = 8;

/// What is done before counting, to have memory and tables as they are in the long run.
const WARM_UP: u32 = 20;

/// Every operation of the guest in the middle.
pub(crate) fn operations(domains: u16, times: u32) {
    let mut world = World::populated(domains, NODES, WATCHES);
    let guest = world.guest(domains.div_ceil(2));
    for operation in Operation::ALL {
        figure(operation.name(), &mut operation.script(guest), &mut world, times);
    }
}

fn figure(name: &str, script: &mut Script, world: &mut World, times: u32) {
    for _ in 0..WARM_UP {
        script.run(world);
    }
    mark::begin();
    for _ in 0..times {
        script.run(world);
    }
    mark::end(name, times * script.operations());
}
