//! The fake host, and conversations held with the store on it.

mod outside;
pub(crate) mod world;

use conversations::{runner, script};

use world::{CUTS, World};

/// Holds every case of a file, cut in every way; the failures of all cases, one a line.
pub(crate) fn run(name: &str, text: &str) -> Vec<String> {
    let script = match script::parse(text) {
        Ok(script) => script,
        Err(why) => return vec![format!("{name}:{why}")],
    };
    let mut failures = Vec::new();
    for case in &script.cases {
        for cut in CUTS {
            let held = runner::hold(&mut World::new(cut), &script.opening, case, None);
            if let Err(failure) = held {
                failures.push(format!("{name}:{failure}\n    in \"{}\", {cut:?}", case.title));
                break;
            }
        }
    }
    failures
}
