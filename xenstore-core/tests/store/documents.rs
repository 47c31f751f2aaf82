//! The tables of `docs/` name cases and tests: each of them must exist.

use std::{collections::BTreeSet, fs, path::PathBuf};

/// The tables, with the number of their columns.
const TABLES: [(&str, usize); 2] = [("docs/differences.md", 5), ("docs/advisories.md", 5)];

/// The advisories about a Xenstore server.
const ADVISORIES: [u32; 27] = [
    38, 72, 115, 206, 233, 272, 322, 323, 324, 325, 326, 330, 352, 353, 414, 415, 416, 417, 418,
    419, 420, 421, 425, 440, 481, 483, 484,
];

fn read(path: &str) -> Result<String, String> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    fs::read_to_string(root.join(path)).map_err(|error| format!("{path}: {error}"))
}

/// The rows of the tables of a document, without their heads.
fn rows(text: &str) -> Vec<Vec<&str>> {
    let mut rows = Vec::new();
    let mut in_table = false;
    for line in text.lines() {
        let Some(cells) = line.strip_prefix('|').and_then(|line| line.strip_suffix('|')) else {
            in_table = false;
            continue;
        };
        if cells.trim_start().starts_with("---") {
            in_table = true;
        } else if in_table {
            rows.push(cells.split('|').map(str::trim).collect());
        }
    }
    rows
}

/// The `FILE: NAME` of a cell, and what is wrong with its form.
fn references(cell: &str) -> Result<Vec<(&str, &str)>, String> {
    let mut references = Vec::new();
    for (at, piece) in cell.split('`').enumerate() {
        if at % 2 == 0 {
            if !piece.trim_matches([',', ' ']).is_empty() {
                return Err(format!("{piece:?} is no reference"));
            }
        } else {
            references.push(piece.split_once(": ").ok_or(format!("{piece:?} names no test"))?);
        }
    }
    if references.is_empty() { Err("nothing shows it".to_owned()) } else { Ok(references) }
}

fn must_exist(file: &str, name: &str) -> Result<(), String> {
    let exists = if file.ends_with(".txt") {
        let title = format!("case: {name}");
        read(&format!("tests/conversations/{file}"))?.lines().any(|line| line.trim() == title)
    } else {
        is_test(&read(file)?, name)
    };
    if exists { Ok(()) } else { Err(format!("{file} has no {name:?}")) }
}

/// Whether a source has a function of that name with `#[test]` right above it.
fn is_test(source: &str, name: &str) -> bool {
    let head = format!("fn {name}(");
    let mut attributed = false;
    for line in source.lines().map(str::trim) {
        if line.starts_with(&head) {
            return attributed;
        }
        attributed = line == "#[test]" || (attributed && line.starts_with("#["));
    }
    false
}

fn faults(document: &str, columns: usize) -> Result<Vec<String>, String> {
    let text = read(document)?;
    let rows = rows(&text);
    if rows.is_empty() {
        return Err(format!("{document} has no table"));
    }
    let mut faults = Vec::new();
    for row in rows {
        let at = format!("{document}, row {:?}", row.first().unwrap_or(&""));
        if row.len() != columns {
            faults.push(format!("{at}: {} columns, not {columns}", row.len()));
            continue;
        }
        let judged = references(row[columns - 1]).and_then(|references| {
            references.iter().try_for_each(|(file, name)| must_exist(file, name))
        });
        faults.extend(judged.err().map(|why| format!("{at}: {why}")));
    }
    Ok(faults)
}

#[test]
fn what_the_tables_name_exists() {
    for (document, columns) in TABLES {
        let faults = faults(document, columns).expect("a document with a table");
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    }
}

#[test]
fn every_advisory_has_a_row() {
    let text = read("docs/advisories.md").expect("the document");
    let listed: Vec<u32> = rows(&text).iter().filter_map(|row| row[0].parse().ok()).collect();
    let distinct: BTreeSet<u32> = listed.iter().copied().collect();
    assert_eq!(distinct.len(), listed.len(), "an advisory has two rows");
    assert_eq!(distinct, BTreeSet::from(ADVISORIES));
}

/// A title that names an advisory is pinned for it, or should not name it.
#[test]
fn every_case_that_names_an_advisory_is_in_its_row() {
    let text = read("docs/advisories.md").expect("the document");
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/conversations");
    let mut found = 0;
    for entry in fs::read_dir(root).expect("the directory can be read") {
        let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
        let cases = read(&format!("tests/conversations/{name}")).expect("a file of cases");
        for title in cases.lines().filter_map(|line| line.trim().strip_prefix("case: ")) {
            let Some((_, number)) = title.split_once("(XSA-") else { continue };
            let number = number.trim_end_matches(')');
            let reference = format!("`{name}: {title}`");
            let row = rows(&text).into_iter().find(|row| row[0] == number);
            let row = row.unwrap_or_else(|| panic!("no row for {title:?}"));
            assert!(row[4].contains(&reference), "the row of {number} lacks {reference}");
            found += 1;
        }
    }
    assert!(found > 20, "only {found} titles name an advisory");
}

/// A check that cannot fail would prove nothing.
#[test]
fn wrong_references_are_found() {
    for (file, name) in [
        ("nodes.txt", "no such case"),
        ("xenstore-core/src/outbox/tests.rs", "no_such_test"),
        ("xenstore-core/src/outbox/tests.rs", "reply"),
        ("nowhere.txt", "values"),
    ] {
        assert!(must_exist(file, name).is_err(), "{file}: {name} passes for a test");
    }
    assert_eq!(must_exist("nodes.txt", "values"), Ok(()));
    assert_eq!(
        must_exist("xenstore-core/src/outbox/tests.rs", "special_events_stay_apart"),
        Ok(())
    );
    assert!(references("in words").is_err() && references("").is_err());
}
