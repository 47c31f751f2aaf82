//! `datafront pub` and `datafront sub`.

use std::io::{self, Read, Write};
use std::process::ExitCode;

use datafront::{Connection, Link, Slow};

use crate::arguments::{PubArguments, SlowArgument, SubArguments};
use crate::exit::Failure;

pub(crate) fn publish<L: Link>(
    connection: &mut Connection<L>,
    what: &PubArguments,
) -> Result<ExitCode, Failure> {
    let message = match what.message.as_deref() {
        Some(text) if text != "-" => text.as_bytes().to_vec(),
        _ => {
            let mut bytes = Vec::new();
            io::stdin().lock().read_to_end(&mut bytes)?;
            bytes
        }
    };
    let receivers = connection.publish(&what.topic, &message, what.retain)?;
    eprintln!("datafront: {}: {} bytes to {receivers}", what.topic, message.len());
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn subscribe<L: Link>(
    mut connection: Connection<L>,
    what: &SubArguments,
) -> Result<ExitCode, Failure> {
    let slow = match what.slow {
        SlowArgument::Wait => Slow::Wait,
        SlowArgument::Drop => Slow::DropOldest,
        SlowArgument::Disconnect => Slow::Disconnect,
    };
    for filter in &what.filter {
        connection.subscribe(filter, slow, what.credit)?;
    }
    let mut output = io::stdout().lock();
    let mut left = what.count;
    while left != Some(0) {
        let message = connection.next_message()?;
        if message.dropped > 0 {
            eprintln!("datafront: {}: {} messages lost", message.topic, message.dropped);
        }
        if what.verbose {
            write!(output, "{} ", message.topic)?;
        }
        output.write_all(&message.payload)?;
        if !message.payload.ends_with(b"\n") {
            output.write_all(b"\n")?;
        }
        output.flush()?;
        left = left.map(|left| left - 1);
    }
    connection.close()?;
    Ok(ExitCode::SUCCESS)
}
