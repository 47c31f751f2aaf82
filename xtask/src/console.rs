//! What a lab says: the console of Xen and dom0, and the second serial port that the script
//! alone writes to. Both go into one log, line by line, with the time of each line.

use core::time::Duration;
use std::fs::File;
use std::io::{BufWriter, Read, Write, stdout};
use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::progress::Progress;

/// What of a lab the user sees while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Echo {
    /// Every line, as it stands in the log.
    Everything,
    /// What the script prints.
    Script,
    /// Nothing.
    Nothing,
}

/// Something that the lab's owner must act on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The script ended with this status.
    Verdict(i32),
    /// The machine is gone.
    Closed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Port {
    Console,
    Script,
}

/// Both serial ports of a running lab.
#[derive(Debug)]
pub(crate) struct Console {
    chunks: Receiver<(Port, Vec<u8>)>,
    transcript: Transcript,
    at_prompt: bool,
}

impl Console {
    /// Reads both ports from now on and keeps what they say in the file `log`.
    ///
    /// `token` is the word by which the script's verdict is known.
    pub(crate) fn new(
        (console, script): (impl Read + Send + 'static, impl Read + Send + 'static),
        log: &Path,
        token: &str,
        echo: Echo,
        progress: &Progress,
    ) -> Result<Self> {
        let log = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let (sender, chunks) = mpsc::channel();
        pump(Port::Console, console, sender.clone());
        pump(Port::Script, script, sender);
        let transcript = Transcript {
            log: BufWriter::new(log),
            started: Instant::now(),
            verdict: format!("lab {token} exit "),
            echo,
            progress: progress.clone(),
            unfinished: [Vec::new(), Vec::new()],
        };
        Ok(Self { chunks, transcript, at_prompt: false })
    }

    /// What happened within `patience`, if anything.
    pub(crate) fn next(&mut self, patience: Duration) -> Result<Option<Event>> {
        match self.chunks.recv_timeout(patience) {
            Ok((port, bytes)) => {
                if self.at_prompt && port == Port::Console {
                    stdout().write_all(&bytes)?;
                    stdout().flush()?;
                }
                Ok(self.transcript.add(port, &bytes)?.map(Event::Verdict))
            }
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Ok(Some(Event::Closed)),
        }
    }

    /// From now on the console's bytes go to our terminal as they are.
    pub(crate) fn open_prompt(&mut self) {
        self.at_prompt = true;
        self.transcript.echo = Echo::Nothing;
    }

    /// Writes down what came last.
    pub(crate) fn close(mut self) -> Result<()> {
        while let Ok((port, bytes)) = self.chunks.recv_timeout(Duration::from_secs(1)) {
            self.transcript.add(port, &bytes)?;
        }
        for port in [Port::Console, Port::Script] {
            if !self.transcript.unfinished[port as usize].is_empty() {
                self.transcript.add(port, b"\n")?;
            }
        }
        self.transcript.log.flush()?;
        Ok(())
    }
}

fn pump(port: Port, mut source: impl Read + Send + 'static, chunks: Sender<(Port, Vec<u8>)>) {
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = source.read(&mut buffer) {
            if chunks.send((port, buffer[..count].to_vec())).is_err() {
                break;
            }
        }
    });
}

/// The log of both ports.
#[derive(Debug)]
struct Transcript {
    log: BufWriter<File>,
    started: Instant,
    /// What the script's last line begins with.
    verdict: String,
    echo: Echo,
    progress: Progress,
    unfinished: [Vec<u8>; 2],
}

impl Transcript {
    /// Takes bytes of one port; answers with the script's status when its last line is complete.
    fn add(&mut self, port: Port, bytes: &[u8]) -> Result<Option<i32>> {
        let mut verdict = None;
        for &byte in bytes {
            match byte {
                b'\n' => {
                    let line = core::mem::take(&mut self.unfinished[port as usize]);
                    let line = String::from_utf8_lossy(&line).into_owned();
                    verdict = verdict.or(self.line(port, &line)?);
                }
                b'\r' => {}
                _ => self.unfinished[port as usize].push(byte),
            }
        }
        self.log.flush()?;
        Ok(verdict)
    }

    fn line(&mut self, port: Port, line: &str) -> Result<Option<i32>> {
        let seconds = self.started.elapsed().as_secs_f32();
        let mark = if port == Port::Script { "| " } else { "" };
        writeln!(self.log, "{seconds:7.2}  {mark}{line}")?;
        let status = line.strip_prefix(&self.verdict).and_then(|status| status.parse().ok());
        if port == Port::Script && status.is_some() {
            return Ok(status);
        }
        match self.echo {
            Echo::Everything => self.progress.say(format_args!("{seconds:7.2}  {mark}{line}")),
            Echo::Script if port == Port::Script => self.progress.say(line),
            Echo::Script | Echo::Nothing => {}
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::fs;

    use super::*;

    fn heard(console: &'static [u8], script: &'static [u8]) -> (Vec<Event>, String) {
        let unique = format!("xtask-console-{}-{:p}", std::process::id(), script);
        let log = env::temp_dir().join(unique);
        let mut both =
            Console::new((console, script), &log, "5eed", Echo::Nothing, &Progress::default())
                .unwrap();
        let mut events = Vec::new();
        while events.last() != Some(&Event::Closed) {
            events.extend(both.next(Duration::from_secs(5)).unwrap());
        }
        both.close().unwrap();
        let text = fs::read_to_string(&log).unwrap();
        fs::remove_file(log).unwrap();
        (events, text)
    }

    #[test]
    fn the_script_gives_the_verdict() {
        let (events, _) = heard(b"(XEN) booted\r\n", b"hello\r\nlab 5eed exit 3\r\n");
        assert_eq!(events, [Event::Verdict(3), Event::Closed]);
    }

    #[test]
    fn nobody_else_gives_the_verdict() {
        // A guest's words reach only the console; without the token nothing counts at all.
        let (events, _) = heard(b"lab 5eed exit 0\n", b"lab exit 0\nx lab 5eed exit 0\n");
        assert_eq!(events, [Event::Closed]);
    }

    #[test]
    fn the_log_keeps_every_line_whole() {
        let (_, log) = heard(b"one\r\ntwo", b"three\nfour");
        for line in ["  one\n", "  two\n", "  | three\n", "  | four\n"] {
            assert!(log.contains(line), "{line:?} is missing in {log:?}");
        }
    }
}
