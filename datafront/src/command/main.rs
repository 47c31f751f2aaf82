//! `datafront`: data channels for scripts and for the shell, in a guest or in dom0.
#![forbid(unsafe_code)]

extern crate alloc;

mod arguments;
mod exit;
mod push;
mod serve;
mod stream;
mod topics;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use datafront::{Connection, Kind, Stream};

use arguments::{Arguments, Command};
use exit::Failure;

fn main() -> ExitCode {
    if log::set_logger(&Told).is_ok() {
        log::set_max_level(log::LevelFilter::Warn);
    }
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(code) => code,
        Err(failure) => {
            failure.report();
            failure.code()
        }
    }
}

/// What the library has to say besides its results goes where our own messages do.
struct Told;

impl log::Log for Told {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            eprintln!("datafront: {}", record.args());
        }
    }

    fn flush(&self) {}
}

fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let options = arguments.options()?;
    match &arguments.command {
        Command::Push(what) => push::run(&mut connect(&options)?, what),
        Command::Serve(what) => serve::run(connect(&options)?, what),
        Command::Pub(what) => topics::publish(&mut connect(&options)?, what),
        Command::Sub(what) => topics::subscribe(connect(&options)?, what),
        Command::Stream(what) => {
            stream::run(&mut open(Kind::Stream(what.name.parse()?), &options)?, what.way())
        }
        Command::Echo => stream::run(&mut open(Kind::Echo, &options)?, stream::Way::Back),
        Command::Status => {
            let text = connect(&options)?.status()?;
            io::stdout().write_all(text.as_bytes())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Ping { count } => ping(&mut connect(&options)?, *count),
        Command::Announce { domain } => {
            let domain = datafront::announce(&arguments::backend(domain))?;
            eprintln!("{} says {}", datafront::ANNOUNCED, domain.raw());
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Takes a channel of services; a signal that ends the program takes it back.
fn connect(options: &datafront::Options) -> Result<Connection<datafront::Channel>, Failure> {
    let connection = Connection::open(options)?;
    if let Some(withdrawal) = connection.withdrawal() {
        exit::at_signal(withdrawal)?;
    }
    Ok(connection)
}

/// Takes a channel of bytes, likewise.
fn open(kind: Kind, options: &datafront::Options) -> Result<Stream<datafront::Channel>, Failure> {
    let stream = Stream::open(kind, options)?;
    exit::at_signal(stream.channel().withdrawal())?;
    Ok(stream)
}

fn ping(connection: &mut Connection<datafront::Channel>, count: u32) -> Result<ExitCode, Failure> {
    let backend = connection.channel().map_or(0, |channel| channel.backend().raw());
    for number in 1..=count {
        let before = std::time::Instant::now();
        connection.ping()?;
        let took = before.elapsed();
        println!("domain {backend} answered {number}: {:.1} us", took.as_secs_f64() * 1e6);
    }
    Ok(ExitCode::SUCCESS)
}
