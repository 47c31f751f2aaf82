//! Frames as a client sees them, without I/O.

use alloc::vec::Vec;
use core::fmt;

use zerocopy::{FromBytes, IntoBytes};

use crate::wire::{Error, HEADER_SIZE, Header, Op, PAYLOAD_MAX, Violation};

/// A request whose payload would exceed [`PAYLOAD_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

/// What a server may not send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nonsense {
    /// A header announced this many bytes of payload, more than [`PAYLOAD_MAX`].
    Oversize(u32),
    /// A frame of this type that is neither an event nor the answer to the open request.
    Unasked(u32),
    /// A payload that does not have the form of its operation.
    Malformed,
    /// A directory whose parts do not come to an end.
    Endless,
}

impl fmt::Display for Nonsense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Oversize(len) => write!(f, "a frame of {len} bytes"),
            Self::Unasked(kind) => write!(f, "a frame of type {kind} that nobody asked for"),
            Self::Malformed => f.write_str("a payload without its form"),
            Self::Endless => f.write_str("a directory without an end"),
        }
    }
}

impl core::error::Error for Nonsense {}

/// Why a frame is not the wanted reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is the answer, and the answer is an error.
    Answer(Error),
    /// It is no answer.
    Nonsense(Nonsense),
}

/// Appends one request to `out`; `parts` follow each other as they stand.
///
/// # Errors
/// [`TooLong`], and `out` is as it was.
pub fn encode(
    out: &mut Vec<u8>,
    op: Op,
    req_id: u32,
    tx_id: u32,
    parts: &[&[u8]],
) -> Result<(), TooLong> {
    let size: usize = parts.iter().map(|part| part.len()).sum();
    let len = u32::try_from(size).ok().filter(|_| size <= PAYLOAD_MAX).ok_or(TooLong)?;
    out.reserve(HEADER_SIZE + size);
    out.extend_from_slice(Header::new(op.to_wire(), req_id, tx_id, len).as_bytes());
    for part in parts {
        out.extend_from_slice(part);
    }
    Ok(())
}

/// One frame from the server, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    header: Header,
    payload: Vec<u8>,
}

impl Frame {
    /// Returns the type as the header gives it, see [`Op`].
    pub fn kind(&self) -> u32 {
        self.header.kind.get()
    }

    /// Whether this is an event and no reply.
    pub fn is_event(&self) -> bool {
        self.kind() == Op::WatchEvent.to_wire()
    }

    /// Returns the payload.
    pub fn into_payload(self) -> Vec<u8> {
        self.payload
    }

    /// Returns the payload if this is the reply to the request of these marks.
    ///
    /// An error of a name that clients do not know is taken as [`Error::Einval`].
    ///
    /// # Errors
    /// [`Refusal::Answer`] if it is the request's error reply, [`Refusal::Nonsense`] if it is
    /// something else.
    pub fn into_reply(self, op: Op, req_id: u32, tx_id: u32) -> Result<Vec<u8>, Refusal> {
        let kind = self.kind();
        let ours = self.header.req_id.get() == req_id && self.header.tx_id.get() == tx_id;
        if ours && kind == op.to_wire() {
            return Ok(self.payload);
        }
        if !ours || kind != Op::Error.to_wire() {
            return Err(Refusal::Nonsense(Nonsense::Unasked(kind)));
        }
        let name = self.payload.strip_suffix(b"\0").unwrap_or(&self.payload);
        Err(Refusal::Answer(Error::from_name(name).unwrap_or(Error::Einval)))
    }
}

/// Puts frames together from a stream cut anywhere.
///
/// It asks for exactly the bytes that the frame under way still wants: read into
/// [`Decoder::vacant`], then say with [`Decoder::filled`] how many came.
#[derive(Debug)]
pub struct Decoder {
    /// The header, and once that is known, room for the payload.
    frame: Vec<u8>,
    filled: usize,
}

impl Decoder {
    /// Waits for a first frame.
    pub fn new() -> Self {
        Self { frame: alloc::vec![0; HEADER_SIZE], filled: 0 }
    }

    /// Returns where the next bytes belong; never empty.
    pub fn vacant(&mut self) -> &mut [u8] {
        self.frame.get_mut(self.filled..).unwrap_or_default()
    }

    /// Takes note that `count` bytes came; returns the frame if they completed one.
    ///
    /// # Errors
    /// [`Nonsense::Oversize`], after which the stream cannot be understood any more.
    pub fn filled(&mut self, count: usize) -> Result<Option<Frame>, Nonsense> {
        self.filled = self.filled.saturating_add(count).min(self.frame.len());
        if self.filled < self.frame.len() {
            return Ok(None);
        }
        let Ok((header, _)) = Header::read_from_prefix(&self.frame) else { return Ok(None) };
        let len = header.payload_len().map_err(|Violation::Oversize(len)| {
            self.filled = 0;
            Nonsense::Oversize(len)
        })?;
        if self.frame.len() < HEADER_SIZE + len {
            self.frame.resize(HEADER_SIZE + len, 0);
            return Ok(None);
        }
        let payload = self.frame.split_off(HEADER_SIZE);
        self.filled = 0;
        Ok(Some(Frame { header, payload }))
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}
