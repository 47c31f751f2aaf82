//! Blocks from one domain to another and a flag back: by a data channel, by HTTP, or by bare TCP.
//!
//! One end takes blocks, the other sends so many of one size, one after the other, and prints
//! `median MICROSECONDS slowest MICROSECONDS rate MEGABYTES`, the last a second.
#![forbid(unsafe_code)]

mod direct;
mod http;
mod tcp;

use std::io::Read;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use databack::vchan::{Order, Sizes};
use datafront::{Backend, Connection, Options, Outcome, Target};

#[derive(Debug, Parser)]
#[command(about = "Measures how long a block takes to another domain, and a flag back")]
struct Arguments {
    /// The order of both rings of a channel: 16 for 64 KiB, 20 for 1 MiB
    #[arg(long, global = true, default_value = "16")]
    rings: u16,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, clap::Args)]
struct Blocks {
    /// Bytes in a block
    size: usize,
    /// How many
    count: usize,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Takes blocks that are pushed to a name
    Take {
        /// The name, as `datafront serve` has it
        name: String,
    },
    /// Pushes blocks to a name
    Push {
        /// The name, or DOMAIN/NAME with the number of the domain that shall get them
        to: Target,
        #[command(flatten)]
        blocks: Blocks,
    },
    /// Takes blocks from a domain by a vchan of its own, with nobody between; prints what the
    /// other end has to know
    TakeDirect {
        /// The number of the domain that sends them
        domain: u16,
    },
    /// Sends blocks to a domain by the vchan that it opened
    PushDirect {
        /// The number of the domain that takes them
        domain: u16,
        /// The first number that `take-direct` printed there
        ring: u32,
        /// The second
        port: u32,
        #[command(flatten)]
        blocks: Blocks,
    },
    /// Takes blocks by HTTP
    TakeHttp {
        /// Where to listen, as 0.0.0.0:80
        address: String,
    },
    /// Posts blocks by HTTP
    PushHttp {
        /// Where to post, as http://10.0.0.2/
        url: String,
        #[command(flatten)]
        blocks: Blocks,
        /// Keeps the connection for all of them
        #[arg(long)]
        keep: bool,
    },
    /// Takes blocks by TCP
    TakeTcp {
        /// Where to listen, as 0.0.0.0:81
        address: String,
    },
    /// Sends blocks by TCP, all over one connection
    PushTcp {
        /// Where they are taken, as 10.0.0.2:81
        address: String,
        #[command(flatten)]
        blocks: Blocks,
    },
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let order = Order::new(arguments.rings).context("rings have an order from 10 to 20")?;
    let sizes = Sizes::new(order, order).context("these rings have no room beside each other")?;
    let options = Options { backend: Backend::Announced, sizes, ..Options::default() };
    match arguments.command {
        Command::Take { name } => take(&name, &options),
        Command::Push { to, blocks } => {
            let mut connection = Connection::open(&options)?;
            measure(&blocks, |block| {
                let answer = connection.push(&to, block, block.len() as u64, None)?;
                ensure!(answer.outcome == Outcome::Done { flag: 1 }, "{}", answer.outcome);
                Ok(())
            })
        }
        Command::TakeDirect { domain } => direct::take(domain, sizes),
        Command::PushDirect { domain, ring, port, blocks } => {
            direct::push(domain, ring, port, &blocks)
        }
        Command::TakeHttp { address } => http::take(&address),
        Command::PushHttp { url, blocks, keep } => http::push(&url, &blocks, keep),
        Command::TakeTcp { address } => tcp::take(&address),
        Command::PushTcp { address, blocks } => tcp::push(&address, &blocks),
    }
}

/// Takes every block as it comes, and says 1.
fn take(name: &str, options: &Options) -> Result<()> {
    let mut connection = Connection::open(options)?;
    connection.serve(name)?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let mut block = connection.accept()?;
        while block.read(&mut buffer)? > 0 {}
        block.done(1, &[])?;
    }
}

/// Sends all blocks and tells how long it took.
fn measure(blocks: &Blocks, mut send: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let block: Vec<u8> = (0u8..=255).cycle().take(blocks.size).collect();
    // The first opens what the others find open.
    send(&block)?;
    let mut times = Vec::with_capacity(blocks.count);
    for _ in 0..blocks.count {
        let began = Instant::now();
        send(&block)?;
        times.push(began.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    let median = times[times.len() / 2];
    let slowest = times[times.len() - 1];
    println!("median {median:.1} slowest {slowest:.1} rate {:.2}", blocks.size as f64 / median);
    Ok(())
}
