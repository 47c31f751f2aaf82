//! Frames: what a front and the broker say to each other on a channel of services.
//!
//! ```text
//! u32, little-endian        how many bytes follow: header and payload
//! header                    a postcard value: a [`Call`] to the broker, a [`Notice`] from it
//! payload                   what is left: raw bytes that the header is about, or none
//! ```
//!
//! Length and header are [`HEAD_MAX`] bytes at most, the payload [`PAYLOAD_MAX`]. A frame may be
//! larger than the ring that it goes through.
//!
//! postcard: an enum is the number of its variant, as a varint; so are integers wider than a byte
//! (7 bits a byte, the lowest first, the top bit set on all but the last); a string is its length
//! and its UTF-8; an option is 0, or 1 and the value; a struct is its fields. Variants are numbered
//! from 0 in the order below, which is therefore part of the format, as the order of fields is.
//!
//! # A conversation
//!
//! The front speaks first: [`Call::Hello`] with the highest version that it knows. The broker
//! answers [`Notice::Hello`] with the version that is spoken from then on, which is not higher, and
//! with limits. A front that breaks the format or a limit marked with † has its channel closed.
//!
//! ## A block is pushed
//!
//! | who | says | |
//! | --- | --- | --- |
//! | receiver | [`Call::Serve`] | once; answered by [`Notice::Served`] or [`Notice::NotServed`] |
//! | sender | [`Call::Push`] + first bytes | `id` is the sender's choice, free again after `PushDone` † |
//! | broker → receiver | [`Notice::Deliver`] + first bytes | `id` is the broker's choice |
//! | sender | [`Call::PushData`] + more | until `len` bytes † were sent |
//! | broker → receiver | [`Notice::DeliverData`] + more | |
//! | broker → sender | [`Notice::PushCredit`] | the receiver's ring took so many more bytes |
//! | receiver | [`Call::Done`] + reply, or [`Call::Reject`] + text | at any time: what is missing then is not sent |
//! | broker → sender | [`Notice::PushDone`] + reply or text | exactly one for each push |
//!
//! The sender may be [`Limits::window`] bytes ahead of what was credited †, counting those of
//! `Push`. Data for a push that has ended meanwhile is ignored, as is `Done` for a delivery that was
//! cancelled. A block of no bytes is a `Push` without payload.
//!
//! ## A message is published
//!
//! [`Call::Subscribe`] is answered by [`Notice::Subscribed`], or by [`Notice::Ended`]; retained
//! messages that the filter matches come first. A [`Notice::Message`] takes one credit.
//! [`Call::Publish`] carries the whole message and is answered by [`Notice::Published`] as soon as
//! every subscriber has it in its ring or its queue, or by [`Notice::NotPublished`]. A retained
//! message of no bytes removes the one that was kept.
//!
//! # Names
//!
//! Name of a service: 1 to [`NAME_MAX`] bytes, no `/`, `*`, `#`, `+`, `"`, blanks or control
//! characters. Topic: 1 to [`TOPIC_MAX`] bytes, up to [`LEVELS_MAX`] levels separated by `/`, each as
//! a name.
//! Filter: a topic in which `+` stands for any one level, and `#` as the last for any rest, or none.

use core::fmt;

use postcard::Error;
use serde::{Deserialize, Serialize};

/// The version of the format that is described here.
pub const VERSION: u16 = 1;
/// Bytes of the length that begins a frame.
pub const LENGTH: usize = 4;
/// Bytes that length and header have at most.
pub const HEAD_MAX: usize = 512;
/// Bytes of payload that a frame has at most; so long is a message at most.
pub const PAYLOAD_MAX: u32 = 256 * 1024;
/// Bytes that a receiver's reply has at most, and any text.
pub const REPLY_MAX: u32 = 4096;
/// Bytes in the name of a service at most.
pub const NAME_MAX: usize = 64;
/// Bytes in a topic or a filter at most.
pub const TOPIC_MAX: usize = 256;
/// Levels in a topic or a filter at most.
pub const LEVELS_MAX: usize = 32;

/// What a front says to the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "fields are told of where the variant is")]
pub enum Call<'a> {
    /// The first frame: the highest version that the front knows, at least 1, and what it can do
    /// beside. No feature is defined yet; unknown bits are ignored.
    Hello { version: u16, features: u32 },
    /// Blocks that are pushed to `name` shall come to this channel.
    Serve { name: &'a str },
    /// No more of them; deliveries under way go on.
    Unserve { name: &'a str },
    /// Payload: the first bytes of a block of `len` for who serves `name`, in `domain` if one is
    /// given. After `timeout_ms` milliseconds, unless that is 0, its outcome is `TimedOut`.
    Push { id: u32, domain: Option<u16>, name: &'a str, len: u64, timeout_ms: u32 },
    /// Payload: the next bytes of the block.
    PushData { id: u32 },
    /// The sender gives up; the outcome will be `Cancelled`, or what happened before.
    PushCancel { id: u32 },
    /// The receiver's flag for a delivery. Payload: its reply, up to [`REPLY_MAX`] bytes.
    Done { id: u64, flag: u32 },
    /// The receiver does not take the block. Payload: why, as text of up to [`REPLY_MAX`] bytes.
    Reject { id: u64 },
    /// Payload: a message. If `retain`, it is kept for those who subscribe later.
    Publish { id: u32, topic: &'a str, retain: bool },
    /// Messages whose topic `filter` matches shall come, `credit` of them for now.
    Subscribe { id: u32, filter: &'a str, slow: Slow, credit: u32 },
    /// No more of them; answered by `Ended`.
    Unsubscribe { id: u32 },
    /// `messages` more may come.
    Credit { id: u32, messages: u32 },
    /// Asks for a text about the broker.
    Status,
    /// Asks for `Pong` with the same cookie.
    Ping { cookie: u64 },
}

/// What the broker says to a front.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "fields are told of where the variant is")]
pub enum Notice<'a> {
    /// The version and features that both know, who the front is to others, and what it may do.
    Hello { version: u16, features: u32, domain: u16, limits: Limits },
    /// `Serve` is granted.
    Served { name: &'a str },
    /// `Serve` is refused, or its time is over.
    NotServed { name: &'a str, reason: Reason },
    /// The receiver's ring took so many more bytes of the block.
    PushCredit { id: u32, bytes: u32 },
    /// The end of a push. Payload: the receiver's reply after `Done`, its text after `Rejected`.
    PushDone { id: u32, outcome: Outcome },
    /// Payload: the first bytes of a block of `len` that domain `from` pushes to `name`.
    Deliver { id: u64, from: u16, name: &'a str, len: u64 },
    /// Payload: the next bytes of the block.
    DeliverData { id: u64 },
    /// The rest of the block will not come, and nobody waits for a flag.
    DeliverCancel { id: u64, reason: Cancel },
    /// A message went to so many subscriptions.
    Published { id: u32, receivers: u32 },
    /// A message went to nobody and is not kept.
    NotPublished { id: u32, reason: Reason },
    /// `Subscribe` is granted.
    Subscribed { id: u32 },
    /// Payload: a message that domain `from` published. `seq` is higher than that of any message
    /// published before; `dropped` tells how many this subscription lost since the one before; `retained` that it was
    /// kept from earlier.
    Message { id: u32, seq: u64, dropped: u32, retained: bool, from: u16, topic: &'a str },
    /// `Subscribe` is refused, or its time is over.
    Ended { id: u32, reason: Reason },
    /// Payload: text about the broker, as much of it as this domain may know.
    Status,
    /// The answer to `Ping`.
    Pong { cookie: u64 },
}

/// What a front may do. More is refused, or ends the channel where the format says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of a block that may be sent ahead of credit.
    pub window: u32,
    /// Bytes in a message.
    pub message: u32,
    /// Pushes of this channel under way at a time; more are `Busy`.
    pub pushes: u16,
    /// Publishes of this channel unanswered at a time; more are refused.
    pub publishes: u16,
    /// Names that this channel serves.
    pub services: u16,
    /// Subscriptions of this channel.
    pub subscriptions: u16,
}

/// What becomes of messages that a subscription has no credit or no room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Slow {
    /// Their publishers wait for their answer.
    Wait,
    /// A few are kept, the oldest is dropped for a new one, and the next message tells how many.
    DropOldest,
    /// The subscription ends.
    Disconnect,
}

/// How a push ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The receiver took the block and says this.
    Done {
        /// Its word.
        flag: u32,
    },
    /// The receiver did not answer in time. It may have got the block.
    TimedOut,
    /// The receiver's channel ended before it answered. It may have got the block.
    ReceiverGone,
    /// Nobody serves the name.
    NoReceiver,
    /// Several domains serve the name and none was named.
    Ambiguous,
    /// The policy does not allow it.
    Denied,
    /// The receiver did not want the block.
    Rejected,
    /// A limit on pushes or on memory was reached; later there may be room.
    Busy,
    /// The sender gave up.
    Cancelled,
    /// No service can have this name.
    BadName,
}

/// Why a block's rest does not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cancel {
    /// The sender's channel ended.
    SenderGone,
    /// The sender gave up.
    Cancelled,
    /// The sender's patience is over.
    TimedOut,
    /// The broker has no room to keep what this channel does not read.
    Busy,
}

/// Why something was refused or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// The front asked for it.
    Asked,
    /// The policy does not allow it.
    Denied,
    /// The name, topic or filter is none.
    BadName,
    /// The domain serves this name already, or the channel has this id in use.
    Taken,
    /// A limit on the number of such things was reached.
    TooMany,
    /// A limit on memory was reached.
    NoMemory,
    /// The message is too long.
    TooLong,
    /// The subscriber did not keep up.
    Slow,
}

/// What breaks the form of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// A length that no frame has.
    Length(u32),
    /// A header that is none.
    Header,
}

/// A frame's header, and where its payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<T> {
    /// What it says.
    pub header: T,
    /// How many bytes the length and the header take.
    pub head: usize,
    /// How many bytes of payload come behind.
    pub payload: u32,
}

/// A length and a header, as bytes.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    bytes: [u8; HEAD_MAX],
    len: usize,
}

impl Head {
    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Makes the head of a frame whose payload has so many bytes; `None` if a name in the header is so
/// long that it has no room, or the payload too long.
#[must_use]
pub fn encode(header: &impl Serialize, payload: u32) -> Option<Head> {
    let mut bytes = [0; HEAD_MAX];
    let used = postcard::to_slice(header, &mut bytes[LENGTH..]).ok()?.len();
    let length = u32::try_from(used).ok()?.checked_add(payload)?;
    if payload > PAYLOAD_MAX {
        return None;
    }
    bytes[..LENGTH].copy_from_slice(&length.to_le_bytes());
    Some(Head { bytes, len: LENGTH + used })
}

/// Reads the head of the frame that `bytes` begin with; `None` if there is more to come.
/// [`HEAD_MAX`] bytes, or all of the frame, are always enough.
///
/// # Errors
/// [`Malformed`] if no frame begins like that.
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<Option<Frame<T>>, Malformed> {
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH>() else { return Ok(None) };
    let length = u32::from_le_bytes(*length);
    if length == 0 || length as usize > PAYLOAD_MAX as usize + HEAD_MAX - LENGTH {
        return Err(Malformed::Length(length));
    }
    let most = (length as usize).min(HEAD_MAX - LENGTH);
    let rest = &rest[..rest.len().min(most)];
    let (header, behind) = match postcard::take_from_bytes(rest) {
        Ok(parsed) => parsed,
        Err(Error::DeserializeUnexpectedEnd) if rest.len() < most => return Ok(None),
        Err(_) => return Err(Malformed::Header),
    };
    let used = rest.len() - behind.len();
    let payload = length - u32::try_from(used).map_err(|_| Malformed::Header)?;
    if payload > PAYLOAD_MAX {
        return Err(Malformed::Length(length));
    }
    Ok(Some(Frame { header, head: LENGTH + used, payload }))
}

/// Whether a service can have that name.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let ordinary = |c: char| !c.is_whitespace() && !c.is_control() && !"/*#+\"".contains(c);
    !text.is_empty() && text.len() <= NAME_MAX && text.chars().all(ordinary)
}

/// Whether a message can have that topic.
#[must_use]
pub fn is_topic(text: &str) -> bool {
    is_short(text) && text.split('/').all(is_name)
}

/// Whether a subscription can have that filter.
#[must_use]
pub fn is_filter(text: &str) -> bool {
    let (levels, last) = text.rsplit_once('/').map_or((None, text), |(a, b)| (Some(a), b));
    let fits = |level: &str| level == "+" || is_name(level);
    is_short(text)
        && levels.is_none_or(|levels| levels.split('/').all(fits))
        && (last == "#" || fits(last))
}

fn is_short(text: &str) -> bool {
    text.len() <= TOPIC_MAX && text.split('/').count() <= LEVELS_MAX
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length(length) => write!(f, "a frame of {length} bytes"),
            Self::Header => f.write_str("a frame whose header is none"),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Done { flag } => return write!(f, "done, flag {flag}"),
            Self::TimedOut => "the receiver did not answer in time",
            Self::ReceiverGone => "the receiver went before it answered",
            Self::NoReceiver => "nobody serves the name",
            Self::Ambiguous => "several domains serve the name",
            Self::Denied => "the policy does not allow it",
            Self::Rejected => "the receiver did not want it",
            Self::Busy => "a limit on pushes or on memory was reached",
            Self::Cancelled => "the sender gave up",
            Self::BadName => "no service can have this name",
        })
    }
}

impl fmt::Display for Cancel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SenderGone => "the sender went",
            Self::Cancelled => "the sender gave up",
            Self::TimedOut => "the sender's patience is over",
            Self::Busy => "there was no room to keep what was not read",
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Asked => "as was asked",
            Self::Denied => "the policy does not allow it",
            Self::BadName => "this is no name, topic or filter",
            Self::Taken => "it is taken already",
            Self::TooMany => "there are as many as there may be",
            Self::NoMemory => "a limit on memory was reached",
            Self::TooLong => "the message is too long",
            Self::Slow => "the subscriber did not keep up",
        })
    }
}

#[cfg(test)]
mod tests;
