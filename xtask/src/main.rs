//! Builds the image, runs a Xen host in QEMU, runs every test.

mod archive;
mod bench;
mod console;
mod coverage;
mod dom0;
mod fuzz;
mod image;
mod inflate;
mod interrupt;
mod lab;
mod packages;
mod progress;
mod qemu;
mod release;
mod suite;
mod tree;
mod workspace;

use core::time::Duration;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use crate::console::Echo;
use crate::lab::{Config, Ending, Store};
use crate::progress::Progress;
use crate::workspace::Workspace;

const DEMONSTRATION: &str = include_str!("../../tests/lab/demonstration.sh");

/// Builds the image, runs a Xen host in QEMU, runs every test
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", args_override_self = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows the whole at work: a Xen host, our Xenstore, a stock Linux guest
    Run {
        /// Leave the terminal at dom0's prompt afterwards
        #[arg(long)]
        shell: bool,
    },
    /// Runs everything that CI runs
    Test {
        /// Only the checks with this in their names
        #[arg(long, value_name = "PATTERN")]
        only: Option<String>,
        /// After so many minutes labs and fuzz targets end; what is not done then is named
        #[arg(long, value_name = "MINUTES", default_value_t = 75,
              value_parser = clap::value_parser!(u64).range(..10_000))]
        within: u64,
        /// Only name the checks
        #[arg(long)]
        list: bool,
    },
    /// Tells which lines of xenstore-core no test reaches; fails if they are too many
    Coverage,
    /// Measures what the store costs; fails if a target is missed
    Bench {
        /// Only this part of the figures
        part: Option<bench::Part>,
    },
    /// Builds target/image/stubdom and target/image/guest, and NAME.debug with the symbols of each
    Image,
    /// Feeds a part of the sources with made-up input, led by what that input reaches
    Fuzz {
        /// What to feed
        target: fuzz::Target,
        /// How long to go on
        #[arg(long, default_value_t = 60)]
        seconds: u32,
        /// Run this input alone, as a finding names it
        #[arg(long, value_name = "FILE", conflicts_with = "seconds")]
        input: Option<PathBuf>,
    },
    /// Runs a shell script in dom0 of a fresh Xen host; exits with its status
    #[command(args_override_self = true)]
    Lab {
        /// The script; options on its line `# lab:` hold unless they are given here
        script: PathBuf,
        #[command(flatten)]
        config: Config,
    },
}

fn main() -> ExitCode {
    match arguments().and_then(|arguments| run(arguments.command)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The command line, with what a lab's script says about itself put before what the user says.
fn arguments() -> Result<Arguments> {
    let given = Arguments::parse();
    let Command::Lab { script, .. } = &given.command else { return Ok(given) };
    let Ok(text) = fs::read_to_string(script) else { return Ok(given) };
    let Some(words) = lab::words_of_script(&text) else { return Ok(given) };
    // Of both together clap could not say whose mistake it is.
    Config::of_script(&text).with_context(|| script.display().to_string())?;
    let mut line: Vec<_> = env::args_os().take(2).collect();
    line.extend(words.map(Into::into));
    line.extend(env::args_os().skip(2));
    Ok(Arguments::parse_from(line))
}

fn run(command: Command) -> Result<ExitCode> {
    interrupt::install()?;
    let ws = Workspace::locate()?;
    let progress = Progress::default();
    match command {
        Command::Run { shell } => demonstrate(&ws, &progress, shell),
        Command::Test { only, list: true, .. } => {
            suite::list(&ws, only.as_deref())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Test { only, within, list: false } => {
            let until = Instant::now() + Duration::from_secs(within * 60);
            let passed = suite::run(&ws, only.as_deref(), until, &progress)?;
            Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Coverage => {
            let enough = coverage::run(&ws, &progress)?;
            Ok(if enough { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Bench { part } => {
            let met = bench::run(&ws, part, &progress)?;
            Ok(if met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Image => {
            image::build(&ws, &progress)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Fuzz { target, seconds, input } => {
            let work = input.map_or(fuzz::Work::Seconds(seconds), fuzz::Work::Input);
            let passed = fuzz::run(&ws, &progress, target, &work)?;
            Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Lab { script, config } => run_script(&ws, &progress, &script, &config),
    }
}

/// Boots the host and lets a script narrate what there is to see.
fn demonstrate(ws: &Workspace, progress: &Progress, shell: bool) -> Result<ExitCode> {
    image::build(ws, progress)?;
    let config = Config::of_script(DEMONSTRATION)?.context("it says what lab it wants")?;
    let tree = packages::unpacked(&ws.lab()?, config.xen, progress)?;
    progress.say("...   booting a Xen host in QEMU, without KVM: the first words in some 15 s");
    let lab = lab::Run {
        name: "run",
        script: DEMONSTRATION.as_bytes(),
        config: &config,
        shell,
        until: None,
    };
    let report = lab.start(ws, &tree, Echo::Script, progress)?;
    progress.say(format_args!(
        "{}; the log of Xen, dom0 and the store: {}",
        report.words(),
        ws.shown(&report.log)
    ));
    Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run_script(
    ws: &Workspace,
    progress: &Progress,
    script: &Path,
    config: &Config,
) -> Result<ExitCode> {
    let text = fs::read(script).with_context(|| format!("cannot read {}", script.display()))?;
    match image::build(ws, progress) {
        // The other stores are for comparing: they must work while the image does not build.
        Err(error) if config.store != Store::Stubdom => progress.say(format_args!("{error}")),
        built => built?,
    }
    let tree = packages::unpacked(&ws.lab()?, config.xen, progress)?;
    let name = script.file_stem().context("the script has a name")?.to_string_lossy();
    let lab = lab::Run { name: &name, script: &text, config, shell: false, until: None };
    let report = lab.start(ws, &tree, Echo::Everything, progress)?;
    progress.say(format_args!("{name}: {}; log: {}", report.words(), ws.shown(&report.log)));
    Ok(match report.ending {
        Ending::Verdict(status) => u8::try_from(status).map_or(ExitCode::FAILURE, ExitCode::from),
        Ending::TimedOut => ExitCode::from(124),
        Ending::Interrupted => ExitCode::from(130),
        Ending::Stopped | Ending::CutOff => ExitCode::FAILURE,
    })
}
