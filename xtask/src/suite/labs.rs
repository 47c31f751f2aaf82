//! The scripts of `tests/lab` as tests: which there are, in which order, and how one is run.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::tally::Outcome;
use crate::console::Echo;
use crate::lab::{self, Config, Ending, Report};
use crate::progress::Progress;
use crate::tree::Tree;
use crate::workspace::Workspace;
use crate::{interrupt, packages};

/// What a Linux guest says when QEMU's emulation of SVM has delivered an interrupt twice, the second
/// time before its kernel had its own GS (ARCHITECTURE.md, "Why one vCPU and no locks"). Nothing that
/// is tested can bring a guest there, so its lab is run a second time.
const INTERRUPTED_TWICE: &str = "BUG: ENTRY_TRAMPOLINE stack guard page was hit";

/// How much of a failed lab's log is shown.
const LAST_LINES: usize = 40;

/// A script of `tests/lab` on one release of Xen.
#[derive(Debug)]
pub(super) struct LabTest {
    /// `lab/SCRIPT-RELEASE`.
    pub(super) name: String,
    pub(super) about: String,
    script: PathBuf,
    pub(super) config: Config,
    /// Whether the script is a test on another release, too, which its line names before this one.
    again: bool,
}

/// The scripts of `tests/lab` that say what lab they want, once for each release of Xen. Where the
/// time is short, what is not run is of the end: first comes each script on one release, those that
/// are soon done before others, then the scripts on their other releases. Of these those that may
/// take longest come first, lest one of them be left alone for the end.
pub(super) fn lab_tests(ws: &Workspace) -> Result<Vec<LabTest>> {
    let mut tests = Vec::new();
    for entry in fs::read_dir(ws.file("tests/lab"))? {
        let script = entry?.path();
        let text = fs::read_to_string(&script)?;
        tests.extend(
            tests_of(&script, &text)
                .with_context(|| format!("{}: what it says of its lab", ws.shown(&script)))?,
        );
    }
    tests.sort_by(|one, other| {
        let times = one.config.timeout.cmp(&other.config.timeout);
        let times = if one.again { times.reverse() } else { times };
        one.again.cmp(&other.again).then(times).then_with(|| one.name.cmp(&other.name))
    });
    Ok(tests)
}

fn tests_of(script: &Path, text: &str) -> Result<Vec<LabTest>> {
    let Some(config) = Config::of_script(text)? else { return Ok(Vec::new()) };
    let stem = script.file_stem().context("a file has a name")?.to_string_lossy();
    let about = text.lines().find_map(|line| line.strip_prefix("# ")).unwrap_or_default();
    let test = |(place, xen)| LabTest {
        name: format!("lab/{stem}-{xen}"),
        about: about.to_owned(),
        script: script.to_owned(),
        config: Config { xen, ..config.clone() },
        again: place > 0,
    };
    Ok(lab::releases_of_script(text, &config)?.into_iter().enumerate().map(test).collect())
}

/// Runs one lab; one that had no time until its end counts as not run.
pub(super) fn one_lab(
    ws: &Workspace,
    progress: &Progress,
    test: &LabTest,
    until: Instant,
) -> Result<Outcome> {
    let tree: Tree = packages::unpacked(&ws.lab()?, test.config.xen, progress)?;
    let script = fs::read(&test.script)?;
    let name = test.name.trim_start_matches("lab/");
    let lab =
        lab::Run { name, script: &script, config: &test.config, shell: false, until: Some(until) };
    let attempt = || {
        if interrupt::wanted() {
            bail!("interrupted");
        }
        let step = progress.step(&test.name);
        let report = lab.start(ws, &tree, Echo::Nothing, progress)?;
        if report.ending != Ending::CutOff {
            step.finish(report.passed());
        }
        let failed = !report.passed();
        let log = if failed { fs::read_to_string(&report.log)? } else { String::new() };
        anyhow::Ok((report, log))
    };
    let (mut report, mut log) = attempt()?;
    if log.contains(INTERRUPTED_TWICE) {
        progress.say(format!(
            "{}: QEMU delivered an interrupt to a Linux guest twice, which killed it; once more",
            test.name
        ));
        (report, log) = attempt()?;
    }
    if report.ending == Ending::CutOff {
        return Ok(Outcome::NotRun);
    }
    if !report.passed() {
        progress.say(how_it_ended(ws, test, &report, &log));
    }
    Ok(Outcome::of(report.passed()))
}

fn how_it_ended(ws: &Workspace, test: &LabTest, report: &Report, log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
    let mut said =
        format!("{}: {}; {} ends so:\n", test.name, report.words(), ws.shown(&report.log));
    said += &last.join("\n");
    if let Some(line) = lines.iter().rev().find(|line| line.contains("| FAILED: ")) {
        said = said + "\n" + &test.name + line.split_once('|').map_or("", |(_, text)| text);
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::Release;

    #[test]
    fn every_script_of_the_lab_has_a_lab_that_can_be_built() {
        let tests = lab_tests(&Workspace::locate().unwrap()).unwrap();
        assert!(!tests.is_empty(), "tests/lab has no script with a `# lab:` line");
        for test in tests {
            let whole = test.about.ends_with('.');
            assert!(whole, "{} does not say in its first line what it is for", test.name);
        }
    }

    #[test]
    fn what_is_short_of_time_is_a_script_that_ran_on_another_release() {
        let tests = lab_tests(&Workspace::locate().unwrap()).unwrap();
        assert!(tests.is_sorted_by_key(|test| test.again), "{tests:?}");
        let seconds = |test: &LabTest| test.config.timeout;
        let (once, again): (Vec<_>, Vec<_>) = tests.iter().partition(|test| !test.again);
        assert!(once.is_sorted_by_key(|test| seconds(test)), "{once:?}");
        assert!(again.is_sorted_by_key(|test| u64::MAX - seconds(test)), "{again:?}");
        let stem = |test: &LabTest| test.script.clone();
        for test in again {
            assert!(once.iter().any(|first| stem(first) == stem(test)), "{} alone", test.name);
        }
    }

    #[test]
    fn a_script_is_a_test_on_each_release_that_it_names() {
        let names = |text| {
            let tests = tests_of(Path::new("tests/lab/some.sh"), text).unwrap();
            tests.into_iter().map(|test| (test.name, test.config.xen)).collect::<Vec<_>>()
        };
        let on = |xen: Release| (format!("lab/some-{xen}"), xen);
        let both = "# Some.\n# lab: --store c\n# xen: 4.17 4.20\n";
        assert_eq!(names(both), [on(Release::Xen4_17), on(Release::Xen4_20)]);
        assert_eq!(names("# Some.\n# lab: --store c\n"), [on(Release::Xen4_17)]);
        assert_eq!(names("# Some.\n# lab: --xen 4.20\n"), [on(Release::Xen4_20)]);
        assert_eq!(names("# To be read by others.\n"), []);
        let unknown = "# Some.\n# lab: --store c\n# xen: 4.3\n";
        assert!(tests_of(Path::new("some.sh"), unknown).is_err(), "there is no lab of Xen 4.3");
    }
}
