//! How the command ends.

use std::io::{self, ErrorKind};
use std::process::{self, ExitCode};

use datafront::{Error, Outcome, Reason};

/// Added to a flag that is not 0; greater flags than [`FLAG_MAX`] are as that.
const FLAG: u8 = 64;
const FLAG_MAX: u8 = 63;

/// Why the command did not do what it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Channel(#[from] Error),
    #[error("{0}")]
    Usage(&'static str),
    #[error("{path}: {error}")]
    File { path: String, error: io::Error },
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the block was not taken: {0}")]
    Pushed(Outcome),
    #[error("signals cannot be caught: {0}")]
    Signals(#[from] ctrlc::Error),
}

impl From<databack::ask::Malformed> for Failure {
    fn from(malformed: databack::ask::Malformed) -> Self {
        Self::Channel(malformed.into())
    }
}

impl Failure {
    pub(crate) fn report(&self) {
        if !self.is_broken_pipe() {
            eprintln!("datafront: {self}");
        }
    }

    pub(crate) fn code(&self) -> ExitCode {
        // As if the signal that the reader's end would have been had ended us.
        let broken_pipe = 128 + 13;
        ExitCode::from(match self {
            Self::Pushed(outcome) => of_outcome(*outcome),
            Self::Usage(_) => 2,
            Self::Channel(error) => of_error(error),
            _ if self.is_broken_pipe() => broken_pipe,
            Self::File { .. } | Self::Io(_) | Self::Signals(_) => 1,
        })
    }

    /// Nobody reads our output any longer: nothing to complain of.
    fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == ErrorKind::BrokenPipe)
    }
}

const fn of_outcome(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Done { flag: 0 } => 0,
        #[expect(clippy::cast_possible_truncation, reason = "judged to be small before")]
        Outcome::Done { flag } if flag < FLAG_MAX as u32 => FLAG + flag as u8,
        Outcome::Done { .. } => FLAG + FLAG_MAX,
        Outcome::TimedOut => 3,
        Outcome::ReceiverGone => 4,
        Outcome::NoReceiver => 5,
        Outcome::Ambiguous => 6,
        Outcome::Denied => 7,
        Outcome::Rejected => 8,
        Outcome::Busy => 9,
        Outcome::Cancelled => 1,
        Outcome::BadName => 2,
    }
}

const fn of_error(error: &Error) -> u8 {
    match error {
        Error::NotServed { reason, .. }
        | Error::NotPublished { reason, .. }
        | Error::NotSubscribed { reason, .. } => match reason {
            Reason::Denied => 7,
            Reason::BadName | Reason::TooLong => 2,
            Reason::TooMany | Reason::NoMemory => 9,
            Reason::Asked | Reason::Taken | Reason::Slow => 1,
        },
        Error::Interrupted | Error::Gone => 10,
        Error::TooLong | Error::Malformed(_) => 2,
        Error::Device { .. }
        | Error::Store { .. }
        | Error::Node { .. }
        | Error::NoBackend { .. }
        | Error::UnknownDomain(_)
        | Error::NoChannels { .. }
        | Error::Refused { .. }
        | Error::NoAnswer { .. }
        | Error::Attach { .. } => 11,
        Error::Ring(_)
        | Error::Frame(_)
        | Error::Nonsense(_)
        | Error::Input(_)
        | Error::Silence
        | Error::Events(_) => 1,
    }
}

/// How the program ends after a push.
pub(crate) fn after(outcome: Outcome) -> Result<ExitCode, Failure> {
    match outcome {
        Outcome::Done { .. } => Ok(ExitCode::from(of_outcome(outcome))),
        _ => Err(Failure::Pushed(outcome)),
    }
}

/// Does this before a signal such as that of Ctrl-C ends the program. The kernel tells the other
/// end of a channel by itself, but the request for it would stay.
pub(crate) fn at_signal(cleanup: impl Fn() + Send + 'static) -> Result<(), Failure> {
    let interrupted = 128 + 2;
    ctrlc::set_handler(move || {
        cleanup();
        process::exit(interrupted);
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_is_told_apart_from_every_failure() {
        let codes = [0, 1, 62, 63, 64, u32::MAX].map(|flag| of_outcome(Outcome::Done { flag }));
        assert_eq!(codes, [0, 65, 126, 127, 127, 127]);
    }

    #[test]
    fn outcomes_have_codes_of_their_own() {
        let outcomes = [
            Outcome::TimedOut,
            Outcome::ReceiverGone,
            Outcome::NoReceiver,
            Outcome::Ambiguous,
            Outcome::Denied,
            Outcome::Rejected,
            Outcome::Busy,
        ];
        assert_eq!(outcomes.map(of_outcome), [3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(of_error(&Error::Interrupted), 10);
    }
}
