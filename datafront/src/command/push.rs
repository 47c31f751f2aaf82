//! `datafront push`.

use core::time::Duration;
use std::fs::File;
use std::io::{self, BufReader, Cursor, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;

use datafront::{Connection, Link, Outcome};
use indicatif::{ProgressBar, ProgressStyle};

use crate::arguments::PushArguments;
use crate::exit::{self, Failure};

/// From here on a push shows how far it is.
const LONG: u64 = 4 << 20;

/// How much of a file is read at a time.
const PIECE: usize = 256 << 10;

pub(crate) fn run<L: Link>(
    connection: &mut Connection<L>,
    what: &PushArguments,
) -> Result<ExitCode, Failure> {
    let file = what.file.as_deref().filter(|file| *file != Path::new("-"));
    let (block, len) = open(file).map_err(|error| {
        let path = file.map_or("standard input".into(), |file| file.display().to_string());
        Failure::File { path, error }
    })?;
    let progress = progress(len);
    let block = BufReader::with_capacity(PIECE, progress.wrap_read(block));
    let timeout = what.timeout.map(Duration::from_secs_f64);
    let answer = connection.push(&what.to, block, len, timeout);
    progress.finish_and_clear();
    let answer = answer?;
    if let Outcome::Rejected = answer.outcome {
        eprintln!("datafront: {}", String::from_utf8_lossy(&answer.reply));
    } else {
        io::stdout().write_all(&answer.reply)?;
    }
    if let Outcome::Done { flag: flag @ 1.. } = answer.outcome {
        eprintln!("datafront: the receiver's flag is {flag}");
    }
    exit::after(answer.outcome)
}

/// The block and its length. Of what is no file, the length is known when all of it was read.
fn open(file: Option<&Path>) -> io::Result<(Box<dyn Read>, u64)> {
    let mut input = match file {
        Some(path) => File::open(path)?,
        None => File::from(io::stdin().as_fd().try_clone_to_owned()?),
    };
    let metadata = input.metadata()?;
    if metadata.is_file() {
        return Ok((Box::new(input), metadata.len()));
    }
    let mut bytes = Vec::new();
    input.read_to_end(&mut bytes)?;
    let len = bytes.len() as u64;
    Ok((Box::new(Cursor::new(bytes)), len))
}

fn progress(len: u64) -> ProgressBar {
    if len < LONG || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let form = "{bytes} of {total_bytes} [{wide_bar}] {bytes_per_sec}, {eta} left";
    let style = ProgressStyle::with_template(form);
    ProgressBar::new(len).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
