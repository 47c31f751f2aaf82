//! Events that wait to be fetched.

use alloc::collections::VecDeque;
use alloc::string::String;

use super::codec::{Frame, Nonsense};

/// The most events that wait in a client; more are dropped, and that is told.
pub const EVENTS_MAX: usize = 1024;

/// Something changed at or below a watched path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Path and token, each with its NUL.
    text: String,
    path_len: usize,
}

impl Event {
    /// Returns the path of the change, relative if the watch was made so.
    pub fn path(&self) -> &str {
        self.text.get(..self.path_len).unwrap_or_default()
    }

    /// Returns the token that the watch was made with.
    pub fn token(&self) -> &str {
        self.text.get(self.path_len + 1..self.text.len() - 1).unwrap_or_default()
    }

    /// Reads an event frame: two strings, each with its NUL.
    pub(super) fn from_frame(frame: Frame) -> Result<Self, Nonsense> {
        if !frame.is_event() {
            return Err(Nonsense::Unasked(frame.kind()));
        }
        let text = String::from_utf8(frame.into_payload()).map_err(|_| Nonsense::Malformed)?;
        let mut ends = text.match_indices('\0').map(|(at, _)| at);
        match (ends.next(), ends.next(), ends.next()) {
            (Some(path_len), Some(end), None) if end + 1 == text.len() => {
                Ok(Self { text, path_len })
            }
            _ => Err(Nonsense::Malformed),
        }
    }
}

/// A bounded queue that remembers having overflowed.
#[derive(Debug, Default)]
pub(super) struct EventQueue {
    waiting: VecDeque<Event>,
    lost: bool,
}

impl EventQueue {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn push(&mut self, event: Event) {
        if self.waiting.len() < EVENTS_MAX {
            self.waiting.push_back(event);
        } else {
            self.lost = true;
        }
    }

    pub(super) fn pop(&mut self) -> Option<Event> {
        self.waiting.pop_front()
    }

    pub(super) fn take_loss(&mut self) -> bool {
        core::mem::take(&mut self.lost)
    }
}
