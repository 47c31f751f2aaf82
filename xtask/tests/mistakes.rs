//! What an operator mistypes is named, before anything is built or fetched.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn xtask(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(words).stdin(Stdio::null());
    command
}

/// What the command says to its standard error, as it fails.
fn complaint(words: &[&str]) -> String {
    let Output { status, stderr, .. } = xtask(words).output().expect("the program runs");
    assert!(!status.success(), "{words:?}");
    String::from_utf8(stderr).expect("it says text")
}

#[test]
fn usage_names_the_command_that_is_typed() {
    let said = complaint(&["test", "nothing"]);
    assert!(said.contains("Usage: cargo xtask test"), "{said}");
}

#[test]
fn a_script_is_named_where_its_line_is_wrong() {
    let script = Path::new(env!("CARGO_TARGET_TMPDIR")).join("wrong.sh");
    let script = script.to_str().unwrap();
    for (line, wrong) in [
        ("# lab: --memory x", "invalid value 'x' for '--memory <MB>'"),
        ("# lab: --bogus 3", "unexpected argument '--bogus' found"),
        ("# lab: --store d", "[possible values: stubdom, c, ocaml, none]"),
    ] {
        fs::write(script, format!("# Wrong.\n{line}\n")).unwrap();
        let said = complaint(&["lab", script]);
        assert!(said.starts_with(&format!("error: {script}: its line `# lab:`: ")), "{said}");
        assert!(said.contains(wrong) && !said.contains("Usage"), "{said}");
    }
}

#[test]
fn files_that_are_not_there_are_named_before_anything_is_built() {
    for words in [["lab", "/none.sh"].as_slice(), &["fuzz", "policy", "--input", "/none.sh"]] {
        let said = complaint(words);
        assert!(said.starts_with("error: cannot read /none.sh: "), "{said}");
    }
}

#[test]
fn who_reads_only_the_beginning_of_a_list_has_it() {
    let mut list = xtask(&["test", "--list"]);
    let mut list = list.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(list.stdout.take());
    let ended = list.wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
}
