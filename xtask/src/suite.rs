//! Everything that CI runs: the sources' form, the tests on the host, the image, the lab.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::console::Echo;
use crate::lab::{self, Config, Ending, Report};
use crate::progress::{Progress, print};
use crate::tree::Tree;
use crate::workspace::Workspace;
use crate::{bench, fuzz, image, interrupt, packages};

/// What a Linux guest says when QEMU's emulation of SVM has delivered an interrupt twice, the second
/// time before its kernel had its own GS (ARCHITECTURE.md, "Why one vCPU and no locks"). Nothing that
/// is tested can bring a guest there, so its lab is run a second time.
const INTERRUPTED_TWICE: &str = "BUG: ENTRY_TRAMPOLINE stack guard page was hit";

/// How much of a failed lab's log is shown.
const LAST_LINES: usize = 40;

/// The workspace in two parts, as arguments of cargo's: the programs of an ordinary system, and
/// what is linked into images, which have no std. In one command cargo would build a crate that
/// both use once, with what either wants of it.
const PARTS: [&[&str]; 2] = [
    &["--workspace", "--exclude", "stubdom", "--exclude", "guests"],
    &["--package", "stubdom", "--package", "guests"],
];

/// One thing to check; counts as one test, but for the host's tests, which count themselves.
#[derive(Debug)]
enum Check {
    Format,
    Clippy,
    Documentation,
    Host,
    Budgets,
    /// The fuzz targets as sources.
    FuzzSources,
    Fuzz(fuzz::Target),
    Image,
    Lab(LabTest),
}

/// A script of `tests/lab` on one release of Xen.
#[derive(Debug)]
struct LabTest {
    /// `lab/SCRIPT-RELEASE`.
    name: String,
    about: String,
    script: PathBuf,
    config: Config,
    /// Whether the script is a test on another release, too, which its line names before this one.
    again: bool,
}

impl Check {
    fn name(&self) -> &str {
        match self {
            Self::Format => "fmt",
            Self::Clippy => "clippy",
            Self::Documentation => "doc",
            Self::Host => "host",
            Self::Budgets => "budgets",
            Self::FuzzSources => "fuzz/sources",
            Self::Fuzz(target) => target.check(),
            Self::Image => "image",
            Self::Lab(test) => &test.name,
        }
    }

    fn about(&self) -> &str {
        match self {
            Self::Format => "the sources are formatted",
            Self::Clippy => "clippy has nothing to say",
            Self::Documentation => "the documentation builds without a warning",
            Self::Host => "the tests of the library crates, on this machine",
            Self::Budgets => "the store's operations take no more instructions than they may",
            Self::FuzzSources => "the fuzz targets: form, clippy and tests of their own",
            Self::Fuzz(target) => target.about(),
            Self::Image => "the images build",
            Self::Lab(test) => &test.about,
        }
    }
}

/// How many passed, how many did not, and how many this machine could not run.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Tally {
    passed: u32,
    failed: u32,
    not_run: u32,
}

impl Tally {
    fn one(outcome: Outcome) -> Self {
        let is = |it| u32::from(outcome == it);
        Self {
            passed: is(Outcome::Passed),
            failed: is(Outcome::Failed),
            not_run: is(Outcome::NotRun),
        }
    }

    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.not_run += other.not_run;
    }

    fn words(self) -> String {
        let Self { passed, failed, not_run } = self;
        let more = if not_run > 0 { format!(", {not_run} not run") } else { String::new() };
        format!("{passed} passed, {failed} failed{more}")
    }
}

/// Prints the names of all checks that fit and what each is for.
pub(crate) fn list(ws: &Workspace, only: Option<&str>) -> Result<()> {
    let checks = chosen(ws, only)?;
    let width = checks.iter().map(|check| check.name().len()).max().unwrap_or_default();
    for check in checks {
        print(format_args!("{:<width$} {}", check.name(), check.about()));
    }
    Ok(())
}

/// What one check came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    /// The machine has not what it needs, or the time was over.
    NotRun,
}

impl Outcome {
    fn of(passed: bool) -> Self {
        if passed { Self::Passed } else { Self::Failed }
    }
}

/// Runs every check whose name contains `only`; true if none failed. What runs in labs or is made up
/// by fuzzers ends at `until`: what is not done by then is named, and counts as not run.
pub(crate) fn run(
    ws: &Workspace,
    only: Option<&str>,
    until: Instant,
    progress: &Progress,
) -> Result<bool> {
    let mut tally = Tally::default();
    let mut side_by_side = VecDeque::new();
    let mut built = true;
    for check in chosen(ws, only)? {
        if interrupt::wanted() {
            bail!("interrupted");
        }
        let counted = match check {
            Check::Format => cargo(ws, progress, "cargo fmt", &[&["fmt", "--all", "--check"]])?,
            Check::Clippy => {
                let end = ["--all-targets", "--", "-Dwarnings"];
                let [programs, images] = PARTS.map(|part| [&["clippy"], part, &end[..]].concat());
                cargo(ws, progress, "cargo clippy", &[&programs, &images])?
            }
            Check::Documentation => {
                let [programs, images] = PARTS.map(|part| [&["doc", "--no-deps"], part].concat());
                cargo(ws, progress, "cargo doc", &[&programs, &images])?
            }
            Check::Host => host(ws, progress)?,
            Check::Budgets => budgets(ws, progress)?,
            Check::FuzzSources => Tally::one(fuzzed(ws, progress, &check)?),
            Check::Image => {
                built = build_images(ws, progress);
                Tally::one(Outcome::of(built))
            }
            Check::Fuzz(_) | Check::Lab(_) => {
                side_by_side.push_back(check);
                continue;
            }
        };
        tally.add(counted);
    }
    if !built {
        progress.say("no lab can run without the images");
        side_by_side.retain(|check| match check {
            Check::Lab(_) => {
                tally.add(Tally::one(Outcome::Failed));
                false
            }
            _ => true,
        });
    }
    tally.add(all_side_by_side(ws, progress, side_by_side, until)?);
    if Instant::now() >= until {
        progress.say(
            "`--within MINUTES` gives labs and fuzz targets more time, `--only NAME` runs one",
        );
    }
    progress.say(tally.words());
    Ok(tally.failed == 0)
}

fn chosen(ws: &Workspace, only: Option<&str>) -> Result<Vec<Check>> {
    let mut checks = vec![
        Check::Format,
        Check::Clippy,
        Check::Documentation,
        Check::Host,
        Check::Budgets,
        Check::FuzzSources,
    ];
    checks.extend(fuzz::Target::ALL.map(Check::Fuzz));
    checks.push(Check::Image);
    checks.extend(lab_tests(ws)?.into_iter().map(Check::Lab));
    if let Some(only) = only {
        let fits = |check: &Check| check.name().contains(only);
        // No lab runs with images of other sources.
        let labs = checks.iter().any(|check| matches!(check, Check::Lab(_)) && fits(check));
        checks.retain(|check| fits(check) || labs && matches!(check, Check::Image));
        if checks.is_empty() {
            bail!("no check has {only:?} in its name; `cargo xtask test --list` names them");
        }
    }
    Ok(checks)
}

/// The scripts of `tests/lab` that say what lab they want, once for each release of Xen. Where the
/// time is short, what is not run is of the end: first comes each script on one release, those that
/// are soon done before others, then the scripts on their other releases. Of these those that may
/// take longest come first, lest one of them be left alone for the end.
fn lab_tests(ws: &Workspace) -> Result<Vec<LabTest>> {
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

fn cargo(ws: &Workspace, progress: &Progress, what: &str, commands: &[&[&str]]) -> Result<Tally> {
    let step = progress.step(what);
    let mut failures = Vec::new();
    for arguments in commands {
        let mut command = ws.cargo();
        command.args(*arguments).env("RUSTDOCFLAGS", "-Dwarnings").stdin(Stdio::null());
        let output = command.output().with_context(|| format!("cannot run {what}"))?;
        if !output.status.success() {
            failures.extend([output.stdout, output.stderr]);
        }
    }
    step.finish(failures.is_empty());
    for said in &failures {
        progress.say(String::from_utf8_lossy(said));
    }
    Ok(Tally::one(Outcome::of(failures.is_empty())))
}

/// The host's tests, with cargo's own lines; a part that does not build counts as one failure.
fn host(ws: &Workspace, progress: &Progress) -> Result<Tally> {
    let mut tally = Tally::default();
    for part in PARTS {
        tally.add(host_part(ws, progress, part)?);
    }
    Ok(tally)
}

fn host_part(ws: &Workspace, progress: &Progress, part: &[&str]) -> Result<Tally> {
    let mut command: Command = ws.cargo();
    command.arg("test").args(part).arg("--no-fail-fast").stdin(Stdio::null());
    progress.say("...   cargo test");
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot run cargo test")?;
    let mut tally = Tally::default();
    let stdout = child.stdout.take().context("cargo has an output")?;
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        tally.add(results_in(&line));
        progress.say(line);
    }
    let passed = child.wait()?.success();
    if !passed && tally.failed == 0 {
        tally.failed = 1;
    }
    Ok(tally)
}

/// The figures of a line like `test result: ok. 12 passed; 0 failed; 0 ignored; ...`.
fn results_in(line: &str) -> Tally {
    let mut tally = Tally::default();
    let Some(results) = line.strip_prefix("test result: ") else { return tally };
    for part in results.split(['.', ';']) {
        let mut words = part.split_whitespace();
        match (words.next().and_then(|number| number.parse().ok()), words.next()) {
            (Some(number), Some("passed")) => tally.passed = number,
            (Some(number), Some("failed")) => tally.failed = number,
            _ => {}
        }
    }
    tally
}

/// What the store's operations cost, against what they may.
fn budgets(ws: &Workspace, progress: &Progress) -> Result<Tally> {
    let program = bench::program(ws)?;
    let step = progress.step("budgets");
    let sentences = bench::budgets::exceeded(ws, program, progress)?;
    step.finish(sentences.is_empty());
    for sentence in &sentences {
        progress.say(sentence);
    }
    Ok(Tally::one(Outcome::of(sentences.is_empty())))
}

/// A short run of a fuzz target, or the targets' own form; nothing where libFuzzer cannot be built.
fn fuzzed(ws: &Workspace, progress: &Progress, check: &Check) -> Result<Outcome> {
    if let Err(missing) = fuzz::must_have_compiler() {
        progress.say(format_args!("not run: {}: {missing:#}", check.name()));
        return Ok(Outcome::NotRun);
    }
    let step = progress.step(check.name());
    let failure = match check {
        Check::Fuzz(target) => fuzz::run_briefly(ws, *target)?,
        _ => fuzz::check_sources(ws)?,
    };
    step.finish(failure.is_none());
    if let Some(failure) = &failure {
        progress.say(failure);
    }
    Ok(Outcome::of(failure.is_none()))
}

fn build_images(ws: &Workspace, progress: &Progress) -> bool {
    let result = image::build(ws, progress);
    if let Err(error) = &result {
        progress.say(format_args!("{error:#}"));
    }
    result.is_ok()
}

/// Runs labs and fuzz targets side by side, as many as there are processors: each keeps one busy.
fn all_side_by_side(
    ws: &Workspace,
    progress: &Progress,
    checks: VecDeque<Check>,
    until: Instant,
) -> Result<Tally> {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let workers = processors.min(fitting(&checks)).min(checks.len());
    let waiting = Mutex::new(checks);
    let total = Mutex::new(Tally::default());
    let worker = || -> Result<()> {
        loop {
            let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some(check) = next else { return Ok(()) };
            let outcome = match &check {
                _ if Instant::now() >= until => out_of_time(progress, &check),
                Check::Lab(test) => match one_lab(ws, progress, test, until)? {
                    Outcome::NotRun => out_of_time(progress, &check),
                    outcome => outcome,
                },
                _ => fuzzed(ws, progress, &check)?,
            };
            total.lock().unwrap_or_else(PoisonError::into_inner).add(Tally::one(outcome));
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        for worker in workers {
            worker.join().map_err(|_| anyhow::anyhow!("a lab's thread panicked"))??;
        }
        Ok::<_, anyhow::Error>(())
    })?;
    Ok(total.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn out_of_time(progress: &Progress, check: &Check) -> Outcome {
    progress.say(format_args!("not run: {}: the time is over", check.name()));
    Outcome::NotRun
}

/// How many of these the machine's memory holds at once; one at least, come what may.
fn fitting(checks: &VecDeque<Check>) -> usize {
    // QEMU and what it has read of its files; a fuzz target needs no more.
    const BESIDE_MIB: u64 = 256;
    let largest = checks.iter().map(|check| match check {
        Check::Lab(lab) => u64::from(lab.config.ram) + BESIDE_MIB,
        _ => BESIDE_MIB,
    });
    let largest = largest.max();
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = meminfo.lines().find_map(|line| {
        let kib = line.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB")?;
        kib.parse::<u64>().ok()
    });
    match (available, largest) {
        (Some(kib), Some(mib)) => usize::try_from(kib / 1024 / mib).unwrap_or(1).max(1),
        _ => 1,
    }
}

/// Runs one lab; one that had no time until its end counts as not run.
fn one_lab(ws: &Workspace, progress: &Progress, test: &LabTest, until: Instant) -> Result<Outcome> {
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
    fn cargos_results_are_counted() {
        let line =
            "test result: FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; 1 filtered out";
        assert_eq!(results_in(line), Tally { passed: 12, failed: 3, not_run: 0 });
        assert_eq!(results_in("running 12 tests"), Tally::default());
    }

    #[test]
    fn what_could_not_run_is_said() {
        let mut tally = Tally::one(Outcome::Passed);
        assert_eq!(tally.words(), "1 passed, 0 failed");
        tally.add(Tally { not_run: 2, ..Tally::one(Outcome::Failed) });
        assert_eq!(tally.words(), "1 passed, 1 failed, 2 not run");
    }

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
