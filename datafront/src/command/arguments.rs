//! The command line.

use core::time::Duration;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use databack::vchan::{Order, Sizes};
use datafront::{Backend, Options, Target};
use xen_sys::ids::DomId;

use crate::exit::Failure;
use crate::stream::Way;

/// Move data between the domains of a Xen host, without a network.
///
/// A domain that runs stubdom in its data role has the channels; whoever is allowed to by its
/// policy can push blocks to others and learn what they made of them, publish messages by topic,
/// and join two ends of a stream of bytes. dom0 is a domain like any other.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES, after_long_help = EXIT_CODES)]
pub(crate) struct Arguments {
    /// Which domain has the channels: a number, in dom0 also a name. If it is not given, what
    /// `datafront announce` said in dom0
    #[arg(long, global = true, value_name = "DOMAIN", env = "DATAFRONT_BACKEND")]
    pub(crate) backend: Option<String>,
    /// Size of the rings as a power of two: from 13 (8 KiB) to 20 (1 MiB) each way
    #[arg(long, global = true, value_name = "ORDER", default_value_t = 16,
          value_parser = clap::value_parser!(u16).range(13..=20))]
    pub(crate) ring: u16,
    /// Seconds until a request for a channel is given up
    #[arg(long, global = true, value_name = "S", default_value_t = 10.0, value_parser = seconds)]
    pub(crate) patience: f64,
    #[command(subcommand)]
    pub(crate) command: Command,
}

macro_rules! examples {
    () => {
        "\
Examples:
  datafront announce stubdom                    in dom0, once: which domain has the channels
  datafront serve jobs --exec 'sha256sum'       in a guest: run a command for each block
  datafront push jobs data.bin                  anywhere: its output and status come back
  datafront sub 'host/+/load' & datafront pub host/3/load 0.7
  datafront stream backup --receive >copy       and elsewhere: datafront stream backup --send <disk
"
    };
}

const EXAMPLES: &str = examples!();

const EXIT_CODES: &str = concat!(
    examples!(),
    "
Exit codes:
  0  done; a pushed block was taken with the flag 0
  1  something else went wrong        2  the command line makes no sense
  3  the receiver did not answer in time
  4  the receiver went before it answered
  5  nobody serves the name           6  several domains serve it: push to DOMAIN/NAME
  7  the policy does not allow it     8  the receiver did not want the block
  9  a limit on pushes or memory was reached
  10 the channel was lost before the answer
  11 there is no channel: no device, no such domain, no answer, or a refusal
  65 to 127  the receiver took the block with a flag: 64 more than it, 127 for 63 and above"
);

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Hand a block of data to who serves a name, and wait for the flag in return
    Push(PushArguments),
    /// Take blocks that are pushed to a name
    Serve(ServeArguments),
    /// Publish a message by topic
    Pub(PubArguments),
    /// Print messages as they are published
    Sub(SubArguments),
    /// Join standard input and output with the other end of a stream of that name
    Stream(StreamArguments),
    /// Join standard input and output with themselves by way of the domain of the channels
    Echo,
    /// Print what there is to tell about the domain of the channels
    Status,
    /// Measure round trips to the domain of the channels
    Ping {
        /// How many
        #[arg(long, value_name = "N", default_value_t = 4)]
        count: u32,
    },
    /// In dom0: let all domains know which one has the channels
    Announce {
        /// Its name or its number
        domain: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct PushArguments {
    /// The name, or DOMAIN/NAME with the number of the domain that shall get it
    pub(crate) to: Target,
    /// The block; standard input if it is `-` or not given, which is read to its end first unless
    /// it is a file
    pub(crate) file: Option<PathBuf>,
    /// Seconds until the answer is given up; for ever if not given
    #[arg(long, value_name = "S", value_parser = seconds)]
    pub(crate) timeout: Option<f64>,
}

/// Takes blocks that are pushed to a name.
///
/// Without an option they are written to standard output one after the other.
#[derive(Debug, Args)]
pub(crate) struct ServeArguments {
    /// The name
    pub(crate) name: String,
    /// End after the first block
    #[arg(long)]
    pub(crate) once: bool,
    #[command(flatten)]
    pub(crate) sink: SinkArguments,
}

#[derive(Debug, Args)]
#[group(multiple = false)]
pub(crate) struct SinkArguments {
    /// Run this in a shell for each block, with the block as its input: its exit status is the
    /// flag, the first 4,096 bytes of its output go back. It finds DATAFRONT_FROM, the sender's
    /// domain, and DATAFRONT_LEN, the block's bytes, in its environment
    #[arg(long, value_name = "COMMAND")]
    pub(crate) exec: Option<String>,
    /// Write each block to a file of its own in this folder, whose name goes back
    #[arg(long, value_name = "DIR")]
    pub(crate) save: Option<PathBuf>,
    /// Write each block to this file, in place of the one before
    #[arg(short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct PubArguments {
    /// The topic: levels separated by `/`
    pub(crate) topic: String,
    /// The message; standard input if it is `-` or not given
    pub(crate) message: Option<String>,
    /// Keep it for those who subscribe later; an empty message removes the one that was kept
    #[arg(long)]
    pub(crate) retain: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SubArguments {
    /// Topics; the level `+` stands for any one, and `#` at the end for any rest
    #[arg(required = true)]
    pub(crate) filter: Vec<String>,
    /// End after so many messages
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
    /// What becomes of messages that are not read as fast as they come
    #[arg(long, value_enum, default_value = "drop")]
    pub(crate) slow: SlowArgument,
    /// How many messages may wait here
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(crate) credit: u32,
    /// Print each message's topic before it
    #[arg(long, short)]
    pub(crate) verbose: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SlowArgument {
    /// Publishers wait
    Wait,
    /// The oldest are lost
    Drop,
    /// The subscription ends
    Disconnect,
}

#[derive(Debug, Args)]
pub(crate) struct StreamArguments {
    /// The name, the same at both ends
    pub(crate) name: String,
    /// Only send: end when all of standard input was taken
    #[arg(long, conflicts_with = "receive")]
    send: bool,
    /// Only receive: do not read standard input
    #[arg(long)]
    receive: bool,
}

impl StreamArguments {
    pub(crate) const fn way(&self) -> Way {
        match (self.send, self.receive) {
            (true, _) => Way::Send,
            (_, true) => Way::Receive,
            _ => Way::Both,
        }
    }
}

impl Arguments {
    pub(crate) fn options(&self) -> Result<Options, Failure> {
        let order = Order::new(self.ring).ok_or(Failure::Usage("no ring has that order"))?;
        let sizes = Sizes::new(order, order);
        Ok(Options {
            backend: self.backend.as_deref().map_or(Backend::Announced, backend),
            sizes: sizes.ok_or(Failure::Usage("two such rings do not fit"))?,
            patience: Duration::from_secs_f64(self.patience),
        })
    }
}

/// A domain as people write it.
pub(crate) fn backend(text: &str) -> Backend {
    let number = text.parse().ok().and_then(DomId::new);
    number.map_or_else(|| Backend::Named(text.to_owned()), Backend::Domain)
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds is expected".to_owned())?;
    if (0.001..=4e6).contains(&seconds) { Ok(seconds) } else { Err("from 0.001 to 4000000".into()) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_backend_is_a_number_or_a_name() {
        assert_eq!(backend("7"), Backend::Domain(DomId::new(7).expect("an ordinary number")));
        assert_eq!(backend("stubdom"), Backend::Named("stubdom".into()));
        assert_eq!(backend("40000"), Backend::Named("40000".into()), "no domain has that number");
    }
}
