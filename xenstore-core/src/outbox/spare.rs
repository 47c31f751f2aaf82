//! Buffers for what waits, kept for the next connection that has something to send.

use alloc::vec::Vec;

/// A buffer that grew beyond this is freed when it is empty, not kept for the next connection.
const SPARE_CAPACITY: usize = 8 << 10;

/// How many empty buffers are kept for connections that next have something to send.
const SPARE_BUFFERS: usize = 16;

/// Buffers that no connection needs now: an idle one holds none.
#[derive(Debug, Default)]
pub(crate) struct Spare {
    buffers: Vec<Vec<u8>>,
    /// The events that are being sent, as bytes.
    pub(super) frames: Vec<u8>,
}

impl Spare {
    pub(crate) fn take(&mut self) -> Vec<u8> {
        self.buffers.pop().unwrap_or_default()
    }

    pub(crate) fn give(&mut self, mut buffer: Vec<u8>) {
        let keeps = (1..=SPARE_CAPACITY).contains(&buffer.capacity());
        if keeps && self.buffers.len() < SPARE_BUFFERS {
            buffer.clear();
            self.buffers.push(buffer);
        }
    }
}
