//! Every conversation of `tests/conversations`, held with the store.

use std::{fs, path::PathBuf};

use crate::harness::{
    runner,
    script::{self, Difference, Peer},
};

/// The files, one test each below.
const FILES: [&str; 12] = [
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
    let failures = runner::run(name, &text);
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
        ("differs c:", "it:2: `differs` wants a reason"),
        ("differs d: later", "it:2: unknown server d"),
        ("dom0 READ /tool -> \"\"\ndiffers c: later", "it:3: `differs` stands right below"),
    ] {
        let failures = runner::run("it", &format!("case: wrong\n{text}\n"));
        let failure = failures.join("\n");
        assert!(failure.starts_with(expected), "{text}: expected {expected}, got {failure}");
    }
}

#[test]
fn a_case_says_who_differs() {
    let text = "case: one\ndiffers c: it lists by age\ndiffers ocaml: it is later\ncase: two\n";
    let script = script::parse(text).expect("a script");
    let reason = |server, reason: &str| Difference { server, reason: reason.to_owned() };
    let told = [reason(Peer::C, "it lists by age"), reason(Peer::Ocaml, "it is later")];
    assert_eq!(script.cases[0].differs, told);
    assert_eq!(script.cases[1].differs, []);
}
