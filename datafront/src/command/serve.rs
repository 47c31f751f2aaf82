//! `datafront serve`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::thread;

use datafront::{Block, Connection, Link};
use std::os::unix::process::ExitStatusExt;

use crate::arguments::{ServeArguments, SinkArguments};
use crate::exit::Failure;

/// The most bytes that go back with a flag.
const REPLY_MAX: usize = 4096;

pub(crate) fn run<L: Link>(
    mut connection: Connection<L>,
    what: &ServeArguments,
) -> Result<ExitCode, Failure> {
    connection.serve(&what.name)?;
    for number in 1.. {
        let block = connection.accept()?;
        take(block, &what.sink, number)?;
        if what.once {
            break;
        }
    }
    connection.close()?;
    Ok(ExitCode::SUCCESS)
}

/// Takes a block and answers it. A block that cannot be taken is no reason to end.
fn take<L: Link>(
    mut block: Block<'_, L>,
    sink: &SinkArguments,
    number: u64,
) -> Result<(), Failure> {
    let (from, len, name) = (block.from().raw(), block.len(), block.name().to_owned());
    let taken = match (&sink.exec, &sink.save, &sink.output) {
        (Some(command), _, _) => execute(command, &mut block),
        (_, Some(folder), _) => save(folder, &mut block, number),
        (_, _, Some(file)) => write_to(file, &mut block).map(|()| (0, Vec::new())),
        _ => io::copy(&mut block, &mut io::stdout().lock()).map(|_| (0, Vec::new())),
    };
    match taken {
        Ok((flag, reply)) => {
            match block.done(flag, &reply) {
                // It was lost with its channel; a new one is taken for the next.
                Err(datafront::Error::Gone) => {}
                result => result?,
            }
            eprintln!("datafront: {name}: {len} bytes from domain {from}, flag {flag}");
            Ok(())
        }
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {
            // Nobody reads our output any longer.
            let _ = block.reject("the receiver's output is closed");
            Err(error.into())
        }
        Err(error) => {
            eprintln!("datafront: {name}: {len} bytes from domain {from}: {error}");
            match block.reject(&error.to_string()) {
                Err(datafront::Error::Gone) => Ok(()),
                result => Ok(result?),
            }
        }
    }
}

/// Runs a command with the block as its input; returns its status as the flag, and its output.
fn execute<L: Link>(command: &str, block: &mut Block<'_, L>) -> io::Result<(u32, Vec<u8>)> {
    let mut child = Command::new("/bin/sh")
        .args(["-c", command])
        .env("DATAFRONT_FROM", block.from().raw().to_string())
        .env("DATAFRONT_LEN", block.len().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let output = child.stdout.take().map(|output| thread::spawn(move || beginning_of(output)));
    if let Err(error) = feed(&mut child, block) {
        child.kill()?;
        child.wait()?;
        return Err(error);
    }
    let reply = match output.map(thread::JoinHandle::join) {
        Some(Ok(reply)) => reply?,
        _ => Vec::new(),
    };
    Ok((flag_of(child.wait()?), reply))
}

/// Gives the block to a command that may not want all of it.
fn feed<L: Link>(child: &mut Child, block: &mut Block<'_, L>) -> io::Result<()> {
    let Some(mut input) = child.stdin.take() else { return Ok(()) };
    let mut bytes = vec![0; 64 << 10];
    loop {
        let count = block.read(&mut bytes)?;
        if count == 0 {
            return Ok(());
        }
        match input.write_all(&bytes[..count]) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
            result => result?,
        }
    }
}

/// Reads to the end, and keeps the beginning.
fn beginning_of(mut output: impl Read) -> io::Result<Vec<u8>> {
    let mut beginning = Vec::new();
    output.by_ref().take(REPLY_MAX as u64).read_to_end(&mut beginning)?;
    io::copy(&mut output, &mut io::sink())?;
    Ok(beginning)
}

/// A status as shells write it.
fn flag_of(status: ExitStatus) -> u32 {
    let number = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    number.and_then(|number| u32::try_from(number).ok()).unwrap_or(u32::MAX)
}

/// Writes the block to a new file of `folder`; returns its name as the reply.
fn save<L: Link>(
    folder: &Path,
    block: &mut Block<'_, L>,
    number: u64,
) -> io::Result<(u32, Vec<u8>)> {
    for attempt in number.. {
        let name = format!("{}.{}.{attempt}", block.name(), block.from().raw());
        let path = folder.join(&name);
        let part = folder.join(format!("{name}.part"));
        if path.exists() {
            continue;
        }
        match OpenOptions::new().write(true).create_new(true).open(&part) {
            Ok(file) => {
                fill(file, &part, block)?;
                fs::rename(part, path)?;
                return Ok((0, (name + "\n").into_bytes()));
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

/// Puts the block in place of what `path` had before, when it is whole.
fn write_to<L: Link>(path: &Path, block: &mut Block<'_, L>) -> io::Result<()> {
    if path == Path::new("-") {
        return io::copy(block, &mut io::stdout().lock()).map(drop);
    }
    if path.exists() && !path.is_file() {
        let mut device = OpenOptions::new().write(true).open(path)?;
        return io::copy(block, &mut device).map(drop);
    }
    let part = PathBuf::from(format!("{}.part", path.display()));
    fill(File::create(&part)?, &part, block)?;
    fs::rename(part, path)
}

/// Writes the block to a file, which is removed if that fails.
fn fill<L: Link>(mut file: File, path: &Path, block: &mut Block<'_, L>) -> io::Result<()> {
    let filled = io::copy(block, &mut file).map(drop);
    filled.inspect_err(|_| {
        // What went wrong before says more.
        let _ = fs::remove_file(path);
    })
}
