//! Every conversation of `tests/conversations`, held with the store.

use std::{fs, path::PathBuf};

use conversations::runner::{self, Outcome};
use conversations::script::{self, Peer};

use crate::harness::{
    self,
    world::{CUTS, World},
};

/// The files, one test each below.
const FILES: [&str; 13] = [
    "accounting.txt",
    "control.txt",
    "events.txt",
    "framing.txt",
    "lifecycle.txt",
    "nodes.txt",
    "paths.txt",
    "permissions.txt",
    "quotas.txt",
    "ring.txt",
    "special_watches.txt",
    "transactions.txt",
    "watches.txt",
];

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/conversations")
}

fn hold(name: &str) {
    assert!(FILES.contains(&name), "{name} is not in the list of files");
    let text = fs::read_to_string(directory().join(name)).expect("the file can be read");
    let failures = harness::run(name, &text);
    assert!(failures.is_empty(), "{} failed:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn every_file_is_held() {
    let entries = fs::read_dir(directory()).expect("the directory can be read");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert_eq!(names, FILES, "tests/conversations and the list of files differ");
}

#[test]
fn framing() {
    hold("framing.txt");
}

#[test]
fn paths() {
    hold("paths.txt");
}

#[test]
fn nodes() {
    hold("nodes.txt");
}

#[test]
fn permissions() {
    hold("permissions.txt");
}

#[test]
fn watches() {
    hold("watches.txt");
}

#[test]
fn accounting() {
    hold("accounting.txt");
}

#[test]
fn events() {
    hold("events.txt");
}

#[test]
fn ring() {
    hold("ring.txt");
}

#[test]
fn special_watches() {
    hold("special_watches.txt");
}

#[test]
fn transactions() {
    hold("transactions.txt");
}

#[test]
fn lifecycle() {
    hold("lifecycle.txt");
}

#[test]
fn quotas() {
    hold("quotas.txt");
}

#[test]
fn control() {
    hold("control.txt");
}

/// A runner that cannot fail would prove nothing.
#[test]
fn a_wrong_expectation_fails_where_it_stands() {
    for (text, expected) in [
        ("dom0 READ /tool -> \"x\"", "it:2: expected \"x\", got READ \"\""),
        ("dom0 READ /tool -> ERROR ENOENT", "it:2: expected ERROR ENOENT, got READ \"\""),
        ("dom0 READ /nope -> \"\"", "it:2: expected \"\", got ERROR \"ENOENT\\x00\""),
        ("dom0 DIRECTORY / -> [tool x]", "it:2: expected [\"tool\" \"x\"], got DIRECTORY"),
        ("dom0 WATCH /w t -> OK", "it:2: at the end dom0 still got WATCH_EVENT"),
        ("dom0 <- EVENT /w t", "it:2: expected WATCH_EVENT \"/w\\x00t\\x00\", got nothing"),
        ("dom0 READ /tool", "it:2: at the end dom0 still got READ"),
        ("dom0 READ /tool -> silence", "it:2: expected silence, got READ"),
        ("dom0 held back", "it:2: the store took all its requests"),
        ("dom0 violates 3", "it:2: expected error field 3, got 0"),
        ("dom0 t1 READ /tool -> \"\"", "it:2: t1 is not bound"),
        ("dom0 CHAT /tool -> OK", "it:2: unknown word CHAT"),
        ("dom0 READ \"/tool -> OK", "it:2: a quote is not closed"),
        ("differs c:", "it:2: no reason: differs c:"),
        ("differs d: later", "it:2: unknown server d"),
        ("differs c-4.3: later", "it:2: unknown release 4.3"),
        ("host only:", "it:2: no reason"),
        ("needs dom0's own ring", "it:2: no reason"),
        ("dom0 READ /tool -> \"\"\ndiffers c: later", "it:3: this stands right below `case:`"),
    ] {
        let failures = harness::run("it", &format!("case: wrong\n{text}\n"));
        let failure = failures.join("\n");
        assert!(failure.starts_with(expected), "{text}: expected {expected}, got {failure}");
    }
}

fn peer(name: &str) -> Peer {
    name.parse().expect("a store and its release")
}

#[test]
fn a_case_says_where_it_is_not_held() {
    let text = "case: one\ndiffers c: it lists by age\ndiffers ocaml-4.20: it is later\n\
        needs dom0's own ring: depth\ncase: two\nhost only: no memory is short\n";
    let script = script::parse(text).expect("a script");
    let [one, two] = &script.cases[..] else { panic!("two cases") };
    assert_eq!(one.differs_for(&peer("c-4.17")), Some("it lists by age"));
    assert_eq!(one.differs_for(&peer("c-4.20")), Some("it lists by age"));
    assert_eq!(one.differs_for(&peer("ocaml-4.20")), Some("it is later"));
    assert_eq!(one.differs_for(&peer("ocaml-4.17")), None, "that is told of 4.20 alone");
    assert_eq!(one.needs_own_ring.as_deref(), Some("depth"));
    assert_eq!((one.host_only.as_deref(), one.number), (None, 1));
    assert_eq!((two.differs_for(&peer("c-4.17")), two.number), (None, 5));
    assert_eq!(two.host_only.as_deref(), Some("no memory is short"));
}

#[test]
fn another_stores_choice_ends_its_case() {
    let text = "case: one\n@only ours: it is so\ndom0 READ /tool -> \"x\"\ndom0 READ / -> \"y\"\n\
        case: two\n@only ours: it is so\ndom0 READ /tool -> \"\"\ndom0 READ / -> \"y\"\n\
        case: three\n@only ours: it is so\ndom0 <- EVENT /tool t\ndom0 READ / -> \"y\"\n";
    let script = script::parse(text).expect("a script");
    let other = peer("c-4.17");
    let hold = |at: usize, peer| {
        let mut world = World::new(CUTS[0]);
        runner::hold(&mut world, &script.opening, &script.cases[at], peer)
    };
    let reason = "it is so".to_owned();
    let ended = Ok(Outcome::UntilChoice { number: 3, reason: reason.clone() });
    assert_eq!(hold(0, Some(&other)), ended, "an answer that is not ours");
    assert!(hold(0, None).is_err_and(|why| why.starts_with("3: ")), "it is ours: a failure");
    let went_on = hold(1, Some(&other)).expect_err("the same choice, and a failure after it");
    assert!(went_on.starts_with("8: expected \"y\""), "{went_on}");
    let ended = Ok(Outcome::UntilChoice { number: 11, reason });
    assert_eq!(hold(2, Some(&other)), ended, "an event that does not come");
}
