//! What a conversation needs of the world it is held in.

use alloc::borrow::Cow;
use alloc::collections::VecDeque;
use alloc::{format, string::String, vec::Vec};

use crate::script::Step;

/// `XS_WATCH_EVENT` of xen/include/public/io/xs_wire.h.
pub const WATCH_EVENT: u32 = 15;
/// `XS_ERROR`.
pub const ERROR: u32 = 16;

/// The size of `struct xsd_sockmsg`.
pub const HEADER_SIZE: usize = 16;
/// `XENSTORE_PAYLOAD_MAX`.
pub const PAYLOAD_MAX: usize = 4096;

/// What a domain received: one frame.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields of struct xsd_sockmsg, by their names there")]
pub struct Frame {
    pub kind: u32,
    pub req_id: u32,
    pub tx_id: u32,
    pub payload: Vec<u8>,
}

/// A request still without its answer.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the fields of struct xsd_sockmsg, by their names there")]
pub struct Open {
    pub kind: u32,
    pub req_id: u32,
    pub tx_id: u32,
}

impl Open {
    /// The header of the request, which claims a payload of `len` bytes.
    #[must_use]
    pub fn header(&self, len: u32) -> Vec<u8> {
        [self.kind, self.req_id, self.tx_id, len].map(u32::to_le_bytes).concat()
    }
}

/// The two kinds of frame that a domain can wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A watch event.
    Event,
    /// The answer to a request.
    Answer,
}

/// A word of `struct xenstore_domain_interface` beside the rings and their indexes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// `server_features`.
    Features,
    /// `connection`.
    Connection,
    /// `error`.
    Error,
}

/// One domain's side of its connection: what it asked and what came back.
#[derive(Debug, Default)]
pub struct Mailbox {
    /// Whole frames that nobody has looked at.
    pub inbox: VecDeque<Frame>,
    /// Requests in the order in which they were asked.
    pub open: VecDeque<Open>,
    /// Something between the store and this domain keeps the order of events, and that of answers,
    /// but not the order between the two.
    pub two_queues: bool,
    /// Bytes that are no whole frame yet.
    part: Vec<u8>,
    next_req_id: u32,
}

impl Mailbox {
    /// Adds bytes as they came, and splits them into frames.
    ///
    /// # Errors
    /// A sentence about a frame that cannot be.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.part.extend(bytes);
        while let Some((header, rest)) = self.part.split_first_chunk::<HEADER_SIZE>() {
            let field = |at: usize| {
                u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
            };
            let (kind, req_id, tx_id, len) = (field(0), field(4), field(8), field(12) as usize);
            if len > PAYLOAD_MAX {
                return Err(format!("the store sent a frame of {len} bytes"));
            }
            let Some(payload) = rest.get(..len) else { break };
            self.inbox.push_back(Frame { kind, req_id, tx_id, payload: payload.to_vec() });
            self.part.drain(..HEADER_SIZE + len);
        }
        Ok(())
    }

    /// Nobody serves this connection any longer: what was under way is lost.
    pub fn cut_off(&mut self) {
        self.part.clear();
        self.open.clear();
    }

    /// A request id that was not used lately.
    pub fn fresh_req_id(&mut self) -> u32 {
        self.next_req_id = self.next_req_id.wrapping_add(0x0101_0101);
        self.next_req_id
    }

    /// The place of the next frame of that kind; without regard to it where order is kept.
    fn place(&self, wanted: Wanted) -> Option<usize> {
        let fits = |frame: &Frame| (frame.kind == WATCH_EVENT) == (wanted == Wanted::Event);
        if self.two_queues {
            self.inbox.iter().position(fits)
        } else {
            (!self.inbox.is_empty()).then_some(0)
        }
    }

    /// Whether a frame is here for who waits for one of that kind.
    #[must_use]
    pub fn has(&self, wanted: Wanted) -> bool {
        self.place(wanted).is_some()
    }

    /// Takes the next frame; of that kind, if answers and events come in queues of their own.
    pub fn take(&mut self, wanted: Wanted) -> Option<Frame> {
        self.inbox.remove(self.place(wanted)?)
    }
}

/// Where conversations are held: one store, domains around it, and whoever decides about them.
///
/// Domains go by the numbers of the script. Every error is a sentence for the reader of a failed
/// conversation.
#[expect(clippy::missing_errors_doc, reason = "said once, above")]
pub trait World {
    /// The step as it is to be said here, where domains may have other numbers.
    fn translate<'a>(&self, step: &'a Step) -> Cow<'a, Step> {
        Cow::Borrowed(step)
    }

    /// The side of `domain` of its connection.
    fn mailbox(&mut self, domain: u16) -> &mut Mailbox;
    /// Every domain that was ever heard of in this conversation.
    fn domains(&self) -> Vec<u16>;
    /// Puts bytes into the ring of `domain`; nowhere, if nobody serves it.
    fn send(&mut self, domain: u16, bytes: &[u8]) -> Result<(), String>;
    /// Lets the store deal with all that was sent.
    fn settle(&mut self) -> Result<(), String>;
    /// Returns when `domain` has got a frame of that kind, or will not get one.
    fn wait(&mut self, domain: u16, wanted: Wanted) -> Result<(), String>;
    /// Returns when `domain` has got all that it will get if nobody does anything more.
    fn rest(&mut self, domain: u16) -> Result<(), String>;
    /// Compares the store's accounts with what it holds, where they can be seen.
    fn check(&mut self) -> Result<(), String>;

    /// `domain` leaves its ring full.
    fn stop_reading(&mut self, domain: u16) -> Result<(), String>;
    /// `domain` takes out what has come and reads on.
    fn read_again(&mut self, domain: u16) -> Result<(), String>;
    /// Whether requests of `domain` are still in its ring.
    fn is_held_back(&mut self, domain: u16) -> Result<bool, String>;
    /// What one of the words in the ring's page says.
    fn field(&mut self, domain: u16, field: Field) -> Result<u32, String>;
    /// `domain` claims more requests than its ring can hold.
    fn break_index(&mut self, domain: u16) -> Result<(), String>;
    /// `domain` asks for a fresh connection and waits until it has it.
    fn reconnect(&mut self, domain: u16) -> Result<(), String>;

    /// A new domain of that number, not introduced to the store.
    fn create(&mut self, domain: u16) -> Result<(), String>;
    /// These domains end.
    fn destroy(&mut self, domains: &[u16]) -> Result<(), String>;
    /// These end, and others have their numbers before the store looks.
    fn replace(&mut self, domains: &[u16]) -> Result<(), String>;
    /// These domains shut down and stay.
    fn shut_down(&mut self, domains: &[u16]) -> Result<(), String>;
    /// The store can, or cannot, map the rings of these domains.
    fn let_map(&mut self, domains: &[u16], can: bool) -> Result<(), String>;
    /// The store has, or has not, memory to grow.
    fn let_grow(&mut self, can: bool) -> Result<(), String>;
    /// Whether the store printed that text.
    fn has_printed(&mut self, text: &str) -> Result<bool, String>;
}
