//! Everything that CI runs: the sources' form, the tests on the host, the image, the lab.

mod labs;
mod tally;

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::progress::{Progress, print};
use crate::workspace::Workspace;
use crate::{bench, fuzz, image, interrupt};

use labs::{LabTest, lab_tests, one_lab};
use tally::{Outcome, Tally, results_in};

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

/// Prints the names of all checks that fit and what each is for.
pub(crate) fn list(ws: &Workspace, only: Option<&str>) -> Result<()> {
    let checks = chosen(ws, only)?;
    let width = checks.iter().map(|check| check.name().len()).max().unwrap_or_default();
    for check in checks {
        print(format_args!("{:<width$} {}", check.name(), check.about()));
    }
    Ok(())
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
            Check::Image => {
                built = build_images(ws, progress);
                Tally::one(Outcome::of(built))
            }
            Check::Fuzz(_) | Check::Lab(_) => {
                side_by_side.push_back(check);
                continue;
            }
            check => alone(ws, progress, &check)?,
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

/// Runs a check that has the machine for itself.
fn alone(ws: &Workspace, progress: &Progress, check: &Check) -> Result<Tally> {
    match check {
        Check::Format => cargo(ws, progress, "cargo fmt", &[&["fmt", "--all", "--check"]]),
        Check::Clippy => {
            let end = ["--all-targets", "--", "-Dwarnings"];
            let [programs, images] = PARTS.map(|part| [&["clippy"], part, &end[..]].concat());
            cargo(ws, progress, "cargo clippy", &[&programs, &images])
        }
        Check::Documentation => {
            let [programs, images] = PARTS.map(|part| [&["doc", "--no-deps"], part].concat());
            cargo(ws, progress, "cargo doc", &[&programs, &images])
        }
        Check::Host => host(ws, progress),
        Check::Budgets => budgets(ws, progress),
        Check::FuzzSources | Check::Fuzz(_) => Ok(Tally::one(fuzzed(ws, progress, check)?)),
        Check::Image | Check::Lab(_) => bail!("{} does not run alone", check.name()),
    }
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
