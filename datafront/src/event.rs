//! What the broker says, as its front hears it.

use databack::frame::{Cancel, Limits, Outcome, Reason};
use xen_sys::ids::DomId;

/// What the broker says of itself and of us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The version of the frames that is spoken.
    pub version: u16,
    /// Who we are to others.
    pub domain: DomId,
    /// What we may do.
    pub limits: Limits,
}

/// A block that is on its way to us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Stands for it in calls.
    pub id: u64,
    /// Who pushes it.
    pub from: DomId,
    /// The name that it was pushed to.
    pub name: String,
    /// How many bytes it has.
    pub len: u64,
}

/// A message of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The subscription that it came for.
    pub subscription: u32,
    /// Who published it.
    pub from: DomId,
    /// Its topic.
    pub topic: String,
    /// Counts the messages of the topic.
    pub seq: u64,
    /// How many messages the subscription lost before this one.
    pub dropped: u32,
    /// Whether it was kept from before we subscribed.
    pub retained: bool,
    /// What it says.
    pub payload: Vec<u8>,
}

/// What the broker said.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "fields are told of where the variant is")]
pub enum Event {
    /// The answer to our first frame; nothing is to be called before it.
    Welcome(Welcome),
    /// Blocks for `name` will come.
    Served { name: String },
    /// They will not, or no longer.
    NotServed { name: String, reason: Reason },
    /// More of the block can be fed.
    Credit { id: u32 },
    /// There is room in the ring for what was not taken before.
    Room,
    /// The end of a push, with the receiver's reply or its text.
    Pushed { id: u32, outcome: Outcome, reply: Vec<u8> },
    /// A block comes.
    Delivery(Delivery),
    /// Bytes of a block are here. Nothing else comes until [`Session::read`](crate::Session::read) took them.
    Data { id: u64 },
    /// The rest of a block does not come.
    Cancelled { id: u64, reason: Cancel },
    /// A message went to so many subscriptions.
    Published { id: u32, receivers: u32 },
    /// A message went nowhere.
    NotPublished { id: u32, reason: Reason },
    /// Messages will come.
    Subscribed { id: u32 },
    /// They will not, or no longer.
    Ended { id: u32, reason: Reason },
    /// A message came.
    Message(Message),
    /// What there is to tell about the broker.
    Status(String),
    /// The answer to a ping.
    Pong { cookie: u64 },
}

impl Event {
    /// The event with the bytes that came behind its header; of those nobody spoke of, without.
    pub(crate) fn with_payload(mut self, bytes: Vec<u8>) -> Self {
        match &mut self {
            Self::Pushed { reply, .. } => *reply = bytes,
            Self::Message(message) => message.payload = bytes,
            Self::Status(text) => *text = String::from_utf8_lossy(&bytes).into_owned(),
            _ => {}
        }
        self
    }
}
