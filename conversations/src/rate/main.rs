//! Measures how fast a Xenstore serves the programs of dom0, as one of them:
//!
//! ```text
//! rate read|write PROGRAMS COUNT
//! ```
//!
//! As many threads as that, each with a connection of its own through dom0's kernel, send COUNT
//! requests one after the other for a node with ten bytes. It prints the nanoseconds that all of
//! them took.

use std::env;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use conversations::world::{HEADER_SIZE, Open};

/// `XS_READ` and `XS_WRITE` of xen/include/public/io/xs_wire.h.
const READ: u32 = 2;
const WRITE: u32 = 11;

const VALUE: &[u8] = b"ten bytes.";

fn main() -> ExitCode {
    match run() {
        Ok(nanoseconds) => {
            println!("{nanoseconds}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            println!("FAILED: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<u128, String> {
    let words: Vec<_> = env::args().skip(1).collect();
    let usage = || "usage: rate read|write PROGRAMS COUNT".to_owned();
    let [op, programs, count] = words.as_slice() else { return Err(usage()) };
    let kind = match op.as_str() {
        "read" => READ,
        "write" => WRITE,
        _ => return Err(usage()),
    };
    let programs = programs.parse().map_err(|_| usage())?;
    let count = count.parse().map_err(|_| usage())?;
    measure(kind, programs, count)
}

fn measure(kind: u32, programs: usize, count: usize) -> Result<u128, String> {
    let begin = Barrier::new(programs + 1);
    thread::scope(|scope| {
        let program = |number| {
            let begin = &begin;
            scope.spawn(move || {
                let program = Program::open(number);
                begin.wait();
                program?.send(kind, count)
            })
        };
        let all: Vec<_> = (0..programs).map(program).collect();
        begin.wait();
        let began = Instant::now();
        for program in all {
            program.join().map_err(|_| "a thread panicked")??;
        }
        Ok(began.elapsed().as_nanos())
    })
}

/// One connection through dom0's kernel, and a node.
struct Program {
    store: File,
    path: Vec<u8>,
}

impl Program {
    fn open(number: usize) -> Result<Self, String> {
        let store = OpenOptions::new().read(true).write(true).open("/dev/xen/xenbus");
        let store = store.map_err(|e| format!("the store cannot be reached: {e}"))?;
        let mut program = Self { store, path: format!("/rate/{number}\0").into_bytes() };
        program.send(WRITE, 1)?;
        Ok(program)
    }

    /// Sends requests, each after the reply to the one before it.
    fn send(&mut self, kind: u32, count: usize) -> Result<(), String> {
        let value = if kind == WRITE { VALUE } else { b"" };
        let len = u32::try_from(self.path.len() + value.len()).map_err(|e| e.to_string())?;
        let header = Open { kind, req_id: 1, tx_id: 0 }.header(len);
        let request = [&header, &self.path, value].concat();
        for _ in 0..count {
            let kind_of_reply = self.converse(&request).map_err(|e| e.to_string())?;
            if kind_of_reply != kind {
                return Err(format!("a request of type {kind} was answered by {kind_of_reply}"));
            }
        }
        Ok(())
    }

    fn converse(&mut self, request: &[u8]) -> io::Result<u32> {
        // The kernel takes a message whole, and gives out as much of a reply as there is room for.
        self.store.write_all(request)?;
        let mut reply = [0; HEADER_SIZE + 64];
        let mut filled = 0;
        loop {
            match self.store.read(&mut reply[filled..])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => filled += count,
            }
            let [kind, len] = [0, 12].map(|at| {
                let mut word = [0; 4];
                word.copy_from_slice(&reply[at..at + 4]);
                u32::from_le_bytes(word)
            });
            if filled >= HEADER_SIZE && filled >= HEADER_SIZE + len as usize {
                return Ok(kind);
            }
        }
    }
}
