//! Runs the work of this crate once, to be counted by valgrind, or weighed, or looked at.
//!
//! Each line of its output is a figure: its name, a tab, a number. Under callgrind the figures of
//! what is to be counted are in the dumps: between [`mark::begin`] and [`mark::end`] lies what one
//! of them is about, and the number is how many operations that was.
#![forbid(unsafe_code)]

mod count;
mod interleave;
mod mark;
mod wait;
mod weigh;

use clap::{Parser, Subcommand};

/// Runs work for xenstore-core once, to be counted, weighed or looked at
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Every operation of one guest among many, for callgrind
    Count {
        /// How many guests there are, each with 100 nodes and 8 watches
        domains: u16,
        /// How often each operation is done
        #[arg(long, default_value_t = 200)]
        times: u32,
    },
    /// A WRITE that many watches match, or none of many, for callgrind
    Watches,
    /// Domains that come and go among few and among many, for callgrind
    Introductions,
    /// The end of very many nodes at once, for callgrind
    Removals,
    /// Nanoseconds that a READ waits behind the end of very many nodes
    Wait,
    /// Percent of interleaved transactions that are told EAGAIN
    Interleave,
    /// Bytes of the heap
    Weigh,
}

fn main() {
    match Arguments::parse().command {
        Command::Count { domains, times } => count::operations(domains, times),
        Command::Watches => count::watches(),
        Command::Introductions => count::introductions(),
        Command::Removals => count::removals(),
        Command::Wait => wait::all(),
        Command::Interleave => interleave::all(),
        Command::Weigh => weigh::all(),
    }
}
