//! Writes the seeds of a target: `seeds TARGET CONVERSATIONS FOLDER`.

use std::env;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [target, conversations, folder] = &arguments[..] else {
        eprintln!("usage: seeds TARGET CONVERSATIONS FOLDER");
        return ExitCode::from(2);
    };
    match fuzz::seeds::write(target, Path::new(conversations), Path::new(folder)) {
        Ok(count) => {
            println!("{count} seeds for {target}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
