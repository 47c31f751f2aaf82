//! How long the operations take, by the clock of this machine.

use core::time::Duration;
use std::time::Instant;

use bench::{Operation, World};
use criterion::Criterion;

/// How many domains there are, each with 100 nodes and 8 watches.
const DOMAINS: [u16; 3] = [1, 1000, 10_000];

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    for domains in DOMAINS {
        let mut world = World::populated(domains, 100, 8);
        let guest = world.guest(domains.div_ceil(2));
        for operation in Operation::ALL {
            let mut script = operation.script(guest);
            let operations = script.operations();
            criterion.bench_function(&format!("{}/{domains}", operation.name()), |bencher| {
                bencher.iter_custom(|runs| {
                    let started = Instant::now();
                    for _ in 0..runs {
                        script.run(&mut world);
                    }
                    started.elapsed() / operations
                });
            });
        }
    }
    criterion.final_summary();
}
