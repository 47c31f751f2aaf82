//! Fuzzing: builds the targets of `fuzz/` with instrumentation, makes their seeds, runs one.
//!
//! libFuzzer wants to know which edges an input takes. LLVM's pass for that is in the stable
//! compiler, so no other toolchain is needed; libFuzzer itself is C++.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::progress::Progress;
use crate::workspace::Workspace;

/// Counters of edges, their places, and what is compared with what.
const INSTRUMENTED: &str = "--cfg=fuzzing -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

/// Named, so that the flags above do not reach build scripts and procedural macros.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";

/// How long a target runs as one test of many.
const BRIEF_SECONDS: u32 = 10;

/// How much of a failed run's output is shown.
const LAST_LINES: usize = 40;

/// A part of the sources that takes what guests send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Target {
    /// Fronts of data channels, honest ones and others
    Broker,
    /// Heads of frames of data channels
    #[value(name = "databack_frames")]
    DatabackFrames,
    /// Bytes cut anywhere, to the server and to the client
    Frames,
    /// Text, as rules for data channels
    Policy,
    /// Payloads of requests, to their parsers
    Requests,
    /// Indexes and bytes, to rings over a page that a peer may write
    Rings,
    /// Conversations of several domains with a whole server
    Server,
    /// Frames, to a switch with a frontend that may write anything
    Switch,
    /// Packets, to the stub's own TCP/IP
    Tcpip,
    /// Words and bytes, to both ends of a data channel
    Vchan,
}

/// What a run does.
#[derive(Debug)]
pub(crate) enum Work {
    /// Makes up inputs for so long, from all that was kept of earlier runs.
    Seconds(u32),
    /// Makes up inputs for [`BRIEF_SECONDS`] from the seeds alone: what was kept is run first, and
    /// libFuzzer does not count that.
    Briefly,
    /// Runs this one.
    Input(PathBuf),
}

impl Target {
    pub(crate) const ALL: [Self; 10] = [
        Self::Broker,
        Self::DatabackFrames,
        Self::Frames,
        Self::Policy,
        Self::Requests,
        Self::Rings,
        Self::Server,
        Self::Switch,
        Self::Tcpip,
        Self::Vchan,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Broker => "broker",
            Self::DatabackFrames => "databack_frames",
            Self::Frames => "frames",
            Self::Policy => "policy",
            Self::Requests => "requests",
            Self::Rings => "rings",
            Self::Server => "server",
            Self::Switch => "switch",
            Self::Tcpip => "tcpip",
            Self::Vchan => "vchan",
        }
    }

    /// The name among all tests.
    pub(crate) fn check(self) -> &'static str {
        match self {
            Self::Broker => "fuzz/broker",
            Self::DatabackFrames => "fuzz/databack_frames",
            Self::Frames => "fuzz/frames",
            Self::Policy => "fuzz/policy",
            Self::Requests => "fuzz/requests",
            Self::Rings => "fuzz/rings",
            Self::Server => "fuzz/server",
            Self::Switch => "fuzz/switch",
            Self::Tcpip => "fuzz/tcpip",
            Self::Vchan => "fuzz/vchan",
        }
    }

    pub(crate) fn about(self) -> &'static str {
        match self {
            Self::Broker => "made-up fronts of data channels",
            Self::DatabackFrames => "made-up heads of frames of data channels",
            Self::Frames => "made-up bytes, cut anywhere",
            Self::Policy => "made-up rules for data channels",
            Self::Requests => "made-up payloads of requests",
            Self::Rings => "rings with a made-up peer",
            Self::Server => "made-up conversations of several domains",
            Self::Switch => "a switch with a made-up frontend",
            Self::Tcpip => "the stub's own TCP/IP on a made-up link",
            Self::Vchan => "data channels with a made-up peer",
        }
    }

    /// The longest input that is made up, in bytes.
    fn longest(self) -> u32 {
        match self {
            Self::Frames | Self::Requests => 4096,
            Self::DatabackFrames | Self::Policy => 700,
            Self::Broker => 600,
            Self::Rings | Self::Switch | Self::Tcpip | Self::Vchan => 1500,
            Self::Server => 3000,
        }
    }
}

/// Fails, with the remedy, where libFuzzer cannot be built.
pub(crate) fn must_have_compiler() -> Result<()> {
    let compiler = env::var_os("CXX").unwrap_or_else(|| "c++".into());
    let found = Command::new(&compiler).arg("--version").stdin(Stdio::null()).output();
    if found.is_ok_and(|output| output.status.success()) {
        return Ok(());
    }
    bail!("libFuzzer is built by a C++ compiler, and there is no {compiler:?}: `apt install g++`")
}

/// Runs a target for the user, who sees what it says; true if it found nothing.
pub(crate) fn run(
    ws: &Workspace,
    progress: &Progress,
    target: Target,
    work: &Work,
) -> Result<bool> {
    if let Work::Input(input) = work {
        // Sooner than the targets are built.
        fs::metadata(input).with_context(|| format!("cannot read {}", input.display()))?;
    }
    must_have_compiler()?;
    let step = progress.step("building the fuzz targets");
    let failure = failure_of(&cargo(ws, &["build"]).output()?);
    step.finish(failure.is_none());
    if let Some(failure) = failure {
        bail!("{failure}");
    }
    let found_nothing = command(ws, target, work)?.status()?.success();
    let findings = findings(ws);
    if !found_nothing {
        progress.say(format_args!(
            "what it found is in {}; `cargo xtask fuzz {} --input FILE` runs it again",
            ws.shown(&findings),
            target.name()
        ));
    }
    Ok(found_nothing)
}

/// Runs a target as one test of many; returns what to show if it failed.
pub(crate) fn run_briefly(ws: &Workspace, target: Target) -> Result<Option<String>> {
    if let Some(failure) = failure_of(&cargo(ws, &["build"]).output()?) {
        return Ok(Some(failure));
    }
    Ok(failure_of(&command(ws, target, &Work::Briefly)?.output()?))
}

/// Judges the targets as sources; returns what to show if there is something to say.
pub(crate) fn check_sources(ws: &Workspace) -> Result<Option<String>> {
    let mut form = ws.cargo();
    form.args(["fmt", "--check", "--manifest-path", "fuzz/Cargo.toml"]);
    let mut clippy = cargo(ws, &["clippy", "--all-targets"]);
    clippy.args(["--", "-Dwarnings"]);
    for mut command in [form, clippy, cargo(ws, &["test", "--lib"])] {
        let failure = failure_of(&command.stdin(Stdio::null()).output()?);
        if failure.is_some() {
            return Ok(failure);
        }
    }
    Ok(None)
}

/// A command of cargo on the targets, which are no part of the workspace.
fn cargo(ws: &Workspace, words: &[&str]) -> Command {
    let mut cargo = ws.cargo();
    cargo
        .args(words)
        .args(["--release", "--manifest-path", "fuzz/Cargo.toml"])
        .args(["--target", PLATFORM, "--target-dir"])
        .arg(ws.fuzz())
        .env("RUSTFLAGS", INSTRUMENTED)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .stdin(Stdio::null());
    cargo
}

/// The built target with what it needs: its seeds, what it reached earlier, the protocol's words.
fn command(ws: &Workspace, target: Target, work: &Work) -> Result<Command> {
    let programs = ws.fuzz().join(PLATFORM).join("release");
    let name = target.name();
    let mut command = Command::new(programs.join(name));
    command.stdin(Stdio::null());
    let (seconds, kept) = match work {
        Work::Seconds(seconds) => (*seconds, "corpus"),
        Work::Briefly => (BRIEF_SECONDS, "brief"),
        Work::Input(input) => {
            command.arg(input);
            return Ok(command);
        }
    };
    let [seeds, corpus] = ["seeds", kept].map(|kind| ws.fuzz().join(kind).join(name));
    let findings = findings(ws);
    if matches!(work, Work::Briefly) && corpus.exists() {
        fs::remove_dir_all(&corpus)
            .with_context(|| format!("cannot empty {}", corpus.display()))?;
    }
    for folder in [&seeds, &corpus, &findings] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let mut make = Command::new(programs.join("seeds"));
    make.arg(name).arg(ws.file("tests/conversations")).arg(&seeds);
    if let Some(failure) = failure_of(&make.output().context("cannot make seeds")?) {
        bail!("cannot make seeds: {failure}");
    }
    command
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={}", target.longest()))
        .arg(format!("-dict={}", ws.file("fuzz/xenstore.dict").display()))
        .arg(format!("-artifact_prefix={}/{name}-", findings.display()))
        .args(["-timeout=30", "-print_final_stats=1"])
        .args([corpus, seeds]);
    Ok(command)
}

/// The folder that inputs which broke a promise are left in.
fn findings(ws: &Workspace) -> PathBuf {
    ws.fuzz().join("findings")
}

/// The end of what a command that failed has said.
fn failure_of(output: &Output) -> Option<String> {
    if output.status.success() {
        return None;
    }
    let said = [&output.stdout[..], &output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    let lines: Vec<_> = said.lines().collect();
    Some(lines[lines.len().saturating_sub(LAST_LINES)..].join("\n"))
}
