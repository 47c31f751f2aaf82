//! Runs the work of this crate once, to be counted by valgrind or weighed by its own heap.
//!
//! Each line of its output is a figure: its name, a tab, a number. Under callgrind the figures of
//! `count` are in the dumps: between [`mark::begin`] and [`mark::end`] lies what one of them is about, and the
//! number is how many operations that was.
#![forbid(unsafe_code)]

mod count;
mod heap;
mod mark;
mod weigh;

use clap::{Parser, Subcommand};

/// Runs work for xenstore-core once, to be counted or weighed
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
    /// Bytes of the heap
    Weigh,
}

fn main() {
    match Arguments::parse().command {
        Command::Count { domains, times } => count::operations(domains, times),
        Command::Weigh => weigh::all(),
    }
}
