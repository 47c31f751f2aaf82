//! Builds the image, runs a Xen host in QEMU, runs every test.

mod archive;
mod console;
mod dom0;
mod image;
mod interrupt;
mod lab;
mod packages;
mod progress;
mod qemu;
mod tree;
mod workspace;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use crate::console::Echo;
use crate::lab::{Ending, Store};
use crate::progress::Progress;
use crate::workspace::Workspace;

/// Builds the image, runs a Xen host in QEMU, runs every test
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Builds target/image/stubdom and target/image/guest
    Image,
    /// Runs a shell script in dom0 of a fresh Xen host; exits with its status
    Lab(LabArguments),
}

#[derive(Debug, clap::Args)]
struct LabArguments {
    /// The script, a file of this machine
    script: PathBuf,
    #[command(flatten)]
    config: lab::Config,
    /// The Debian release to take Xen, Linux and QEMU from, if not this machine's
    #[arg(long)]
    suite: Option<String>,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    interrupt::install()?;
    let ws = Workspace::locate()?;
    let progress = Progress::default();
    match command {
        Command::Image => {
            image::build(&ws, &progress)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Lab(arguments) => run_script(&ws, &progress, &arguments),
    }
}

fn run_script(ws: &Workspace, progress: &Progress, arguments: &LabArguments) -> Result<ExitCode> {
    let LabArguments { script, config, suite } = arguments;
    let text = fs::read(script).with_context(|| format!("cannot read {}", script.display()))?;
    match image::build(ws, progress) {
        // The other stores are for comparing: they must work while the image does not build.
        Err(error) if config.store != Store::Stubdom => progress.say(format_args!("{error}")),
        built => built?,
    }
    let tree = packages::unpacked(&ws.lab()?, suite.as_deref(), progress)?;
    let name = name_of(script);
    let report = lab::run(ws, &tree, &name, &text, config, Echo::Everything, false)?;
    progress.say(format_args!("{}: {}; log: {}", name, report.words(), ws.shown(&report.log)));
    Ok(match report.ending {
        Ending::Verdict(status) => u8::try_from(status).map_or(ExitCode::FAILURE, ExitCode::from),
        Ending::TimedOut => ExitCode::from(124),
        Ending::Interrupted => ExitCode::from(130),
        Ending::Stopped => ExitCode::FAILURE,
    })
}

/// A script's name without its folder and suffix.
fn name_of(script: &Path) -> String {
    script.file_stem().map_or_else(|| "lab".to_owned(), |name| name.to_string_lossy().into_owned())
}
