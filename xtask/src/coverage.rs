//! How much of `xenstore-core` its tests reach, line by line.
//!
//! rustc counts (`-C instrument-coverage`), LLVM's tools of Debian read the counts.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::packages;
use crate::progress::Progress;
use crate::workspace::Workspace;

const CRATE: &str = "xenstore-core";

/// Fewer percent of the lines than this are a failure.
const LEAST: usize = 95;

/// The lines of one source that a test can reach, and how often one did.
type Lines = BTreeMap<usize, u64>;

/// Runs the tests, prints what they do not reach, and says whether they reach enough.
pub(crate) fn run(ws: &Workspace, progress: &Progress) -> Result<bool> {
    let place = ws.coverage()?;
    let llvm = Llvm { root: packages::llvm(&place.join("llvm"), progress)? };
    let programs = build(ws, &place, progress)?;
    let counts = hold(ws, &place, &programs, progress)?;
    let merged = place.join("merged.profdata");
    llvm.run("llvm-profdata", |tool| {
        tool.args(["merge", "--sparse", "-o"]).arg(&merged).args(counts);
    })?;
    let sources = ws.file(CRATE).join("src");
    let report = llvm.run("llvm-cov", |tool| {
        tool.args(["export", "--format=lcov", "--instr-profile"]).arg(&merged);
        // The first program is told bare, each further one by an option.
        for (at, program) in programs.iter().enumerate() {
            tool.args((at > 0).then_some("--object")).arg(program);
        }
        tool.arg("--sources").arg(&sources);
    })?;
    judge(&String::from_utf8_lossy(&report), &sources, progress)
}

/// LLVM's tools in an unpacked tree, and the libraries that came with them.
struct Llvm {
    root: PathBuf,
}

impl Llvm {
    /// Runs a tool and returns what it says.
    fn run(&self, name: &str, arguments: impl FnOnce(&mut Command)) -> Result<Vec<u8>> {
        let folders = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"];
        let folders = folders.map(|folder| self.root.join(folder));
        let mut loaders = folders.iter().map(|folder| folder.join("ld-linux-x86-64.so.2"));
        let loader = loaders.find(|path| path.exists()).context("no loader among the packages")?;
        let tools = fs::read_dir(self.root.join("usr/lib"))?.flatten();
        let tool = tools
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("llvm-"))
            .map(|entry| entry.path().join("bin").join(name))
            .find(|path| path.exists())
            .with_context(|| format!("no {name} among the packages"))?;
        let mut command = Command::new(loader);
        command.arg("--library-path").arg(std::env::join_paths(&folders)?).arg(tool);
        arguments(&mut command);
        let output = command.stdin(Stdio::null()).output()?;
        ensure!(
            output.status.success(),
            "{name} failed, perhaps because this rustc counts in a newer form: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(output.stdout)
    }
}

/// A cargo whose programs count.
fn counting(ws: &Workspace, place: &Path) -> Command {
    let mut cargo = ws.cargo();
    cargo
        .env("CARGO_TARGET_DIR", place)
        .env("RUSTFLAGS", "-Cinstrument-coverage")
        // Build scripts count too; nobody reads that.
        .env("LLVM_PROFILE_FILE", place.join("build-%m.profraw"));
    cargo
}

/// Builds the tests; returns the programs.
fn build(ws: &Workspace, place: &Path, progress: &Progress) -> Result<Vec<PathBuf>> {
    let step = progress.step("building the tests, with counters");
    let arguments = ["test", "--no-run", "--package", CRATE];
    let output = counting(ws, place).args(arguments).stdin(Stdio::null()).output()?;
    step.finish(output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the tests do not build:\n{said}");
    // A line is `  Executable unittests src/lib.rs (PROGRAM)`.
    let programs: Vec<_> = said
        .lines()
        .filter(|line| line.trim_start().starts_with("Executable"))
        .filter_map(|line| Some(line.rsplit_once('(')?.1.trim_end_matches(')')))
        .map(|program| ws.file(program))
        .collect();
    ensure!(!programs.is_empty(), "cargo names no tests:\n{said}");
    Ok(programs)
}

/// Runs the tests; returns the files with their counts.
fn hold(
    ws: &Workspace,
    place: &Path,
    programs: &[PathBuf],
    progress: &Progress,
) -> Result<Vec<PathBuf>> {
    let counts = place.join("counts");
    let _ = fs::remove_dir_all(&counts);
    let step = progress.counted("running them", programs.len());
    for program in programs {
        let output = Command::new(program)
            .current_dir(ws.file(CRATE))
            .env("LLVM_PROFILE_FILE", counts.join("%p.profraw"))
            .stdin(Stdio::null())
            .output()?;
        if !output.status.success() {
            step.finish(false);
            bail!("the tests fail:\n{}", String::from_utf8_lossy(&output.stdout));
        }
        step.advance();
    }
    step.finish(true);
    fs::read_dir(counts)?.map(|entry| Ok(entry?.path())).collect()
}

/// Prints a line a source and a total; true if the total is enough.
fn judge(report: &str, sources: &Path, progress: &Progress) -> Result<bool> {
    let (mut all, mut reached) = (0, 0);
    for (source, mut lines) in parse(report) {
        let text = fs::read_to_string(&source)?;
        let end = product(source.strip_prefix(sources).unwrap_or(&source), &text);
        lines.retain(|line, _| *line <= end);
        let missed: Vec<_> =
            lines.iter().filter(|(_, count)| **count == 0).map(|(line, _)| *line).collect();
        (all, reached) = (all + lines.len(), reached + lines.len() - missed.len());
        if !missed.is_empty() {
            let name = source.strip_prefix(sources).unwrap_or(&source).display().to_string();
            let percent = percent(lines.len() - missed.len(), lines.len());
            progress.say(format_args!("{percent:>6} {name:<24} without {}", ranges(&missed)));
        }
    }
    ensure!(all > 0, "the report names no line of {}", sources.display());
    let percent = percent(reached, all);
    progress.say(format_args!("{percent:>6} of {all} lines of {CRATE}; {LEAST}% are asked for"));
    Ok(reached * 100 >= all * LEAST)
}

/// The lines of each source in a report of the `lcov` form.
fn parse(report: &str) -> BTreeMap<PathBuf, Lines> {
    let mut sources = BTreeMap::<PathBuf, Lines>::new();
    let mut source = PathBuf::new();
    for line in report.lines() {
        if let Some(name) = line.strip_prefix("SF:") {
            source = name.into();
        } else if let Some(count) = line.strip_prefix("DA:") {
            let mut numbers = count.split(',').map_while(|number| number.parse::<u64>().ok());
            if let (Some(line), Some(count)) = (numbers.next(), numbers.next()) {
                let lines = sources.entry(source.clone()).or_default();
                *lines.entry(usize::try_from(line).unwrap_or(0)).or_default() += count;
            }
        }
    }
    sources
}

/// The last line of a source that is no test: tests reach themselves.
fn product(source: &Path, text: &str) -> usize {
    let is_test = |part: &OsStr| part == "tests.rs" || part == "tests";
    if source.iter().any(is_test) {
        return 0;
    }
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let tests = lines.windows(2).position(|two| two == ["#[cfg(test)]", "mod tests {"]);
    tests.unwrap_or(lines.len())
}

fn percent(part: usize, whole: usize) -> String {
    let hundredths = part * 10_000 / whole.max(1);
    format!("{}.{:02}%", hundredths / 100, hundredths % 100)
}

/// Ascending numbers with neighbours put together: `1-3 7`.
fn ranges(numbers: &[usize]) -> String {
    let runs = numbers.chunk_by(|one, next| one + 1 == *next);
    let runs = runs.filter_map(|run| Some((run.first()?, run.last()?)));
    let words = runs.map(|(first, last)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_gives_lines_by_source() {
        let report =
            "SF:/a.rs\nDA:1,2\nDA:2,0\nend_of_record\nSF:/b.rs\nDA:7,1\nSF:/a.rs\nDA:2,3\n";
        let sources = parse(report);
        let lines = |name: &str| sources[Path::new(name)].clone().into_iter().collect::<Vec<_>>();
        assert_eq!(lines("/a.rs"), [(1, 2), (2, 3)]);
        assert_eq!(lines("/b.rs"), [(7, 1)]);
    }

    #[test]
    fn tests_do_not_count() {
        let text = "one\n#[cfg(test)]\nuse x;\ntwo\n#[cfg(test)]\nmod tests {\n";
        assert_eq!(product(Path::new("server/one.rs"), text), 4);
        assert_eq!(product(Path::new("server/tests.rs"), text), 0);
        assert_eq!(product(Path::new("server/tests/watches.rs"), text), 0);
        assert_eq!(product(Path::new("server/one.rs"), "one\ntwo\n"), 2);
    }

    #[test]
    fn numbers_are_put_together() {
        assert_eq!(ranges(&[1, 2, 3, 7, 9, 10]), "1-3 7 9-10");
        assert_eq!(percent(1, 3), "33.33%");
        assert_eq!(percent(20, 20), "100.00%");
    }
}
