//! How the two halves of a device find each other in Xenstore (xen/include/public/io/xenbus.h).
//!
//! Each half has a node `state` in a directory of its own, writes only that, and watches the other's.

use core::fmt;
use core::str::FromStr;

/// `enum xenbus_state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum State {
    /// There is none.
    Unknown = 0,
    /// The half exists.
    Initialising = 1,
    /// It has said what it can do, and waits for what the other wants.
    InitWait = 2,
    /// It has said what it wants.
    Initialised = 3,
    /// It is at work.
    Connected = 4,
    /// It is about to end.
    Closing = 5,
    /// It has ended.
    Closed = 6,
    /// Something of it changes.
    Reconfiguring = 7,
    /// That has changed.
    Reconfigured = 8,
}

impl FromStr for State {
    type Err = NoState;

    fn from_str(text: &str) -> Result<Self, NoState> {
        Ok(match text {
            "0" => Self::Unknown,
            "1" => Self::Initialising,
            "2" => Self::InitWait,
            "3" => Self::Initialised,
            "4" => Self::Connected,
            "5" => Self::Closing,
            "6" => Self::Closed,
            "7" => Self::Reconfiguring,
            "8" => Self::Reconfigured,
            _ => return Err(NoState),
        })
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (*self as u8).fmt(f)
    }
}

/// An error: this is no state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoState;

impl fmt::Display for NoState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the state of a device's half is a number from 0 to 8")
    }
}

impl core::error::Error for NoState {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_its_number() {
        for number in 0..=8_u8 {
            let state: State = number.to_string().parse().unwrap();
            assert_eq!((state as u8, state.to_string()), (number, number.to_string()));
        }
        for wrong in ["", "9", "04", " 4", "-1", "Connected"] {
            assert_eq!(wrong.parse::<State>(), Err(NoState), "{wrong:?}");
        }
    }
}
