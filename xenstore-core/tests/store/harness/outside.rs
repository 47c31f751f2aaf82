//! What is around the store in memory: domains as Xen would know them, and their rings.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use conversations::world::{ERROR, Frame, HEADER_SIZE, Mailbox, Open, PAYLOAD_MAX, WATCH_EVENT};
use xenstore_core::{ConnId, DomId, Host, UniqueId, Unreachable};

/// Which requests a domain made, by its bytes alone, and which of them have no answer yet.
#[derive(Default)]
pub(crate) struct Ledger {
    /// What was sent of a frame that is not whole yet.
    begun: Vec<u8>,
    pub open: VecDeque<Open>,
}

impl Ledger {
    /// Notes what was sent: every frame that is whole wants one answer.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.begun.extend(bytes);
        while let Some(header) = self.begun.first_chunk::<HEADER_SIZE>() {
            let (words, _) = header.as_chunks::<4>();
            let [kind, req_id, tx_id, len] = [0, 1, 2, 3].map(|at| u32::from_le_bytes(words[at]));
            let end = HEADER_SIZE + len as usize;
            // After a frame that is too long nothing is a frame any more.
            if len as usize > PAYLOAD_MAX || self.begun.len() < end {
                break;
            }
            self.begun.drain(..end);
            self.open.push_back(Open { kind, req_id, tx_id });
        }
    }

    /// Holds what was received against it: an event, or the answer to the oldest open request.
    fn receive(&mut self, frame: &Frame) -> Result<(), String> {
        if frame.kind == WATCH_EVENT {
            return Ok(());
        }
        let asked = self.open.pop_front();
        let answered = asked.is_some_and(|open| {
            let echoed = (frame.req_id, frame.tx_id) == (open.req_id, open.tx_id);
            echoed && (frame.kind == open.kind || frame.kind == ERROR)
        });
        if answered {
            Ok(())
        } else {
            Err(format!("expected an answer to {asked:?}, got {frame:?}"))
        }
    }
}

/// One domain's end of its ring.
#[derive(Default)]
pub(crate) struct Ring {
    pub conn: Option<ConnId>,
    pub input: VecDeque<u8>,
    pub mailbox: Mailbox,
    pub ledger: Ledger,
    /// The guest sent something and said so. Nobody looks at the ring for any other reason, unless
    /// the store itself asks for it.
    pub(super) notified: bool,
    /// The guest does not read: not a byte fits.
    pub stopped: bool,
    /// Nobody serves the ring until it is introduced again.
    pub ended: bool,
    /// The ring's error field.
    pub error: u32,
    /// The ring's connection field.
    pub connection: u32,
    /// The ring's feature field.
    pub features: u32,
}

impl Ring {
    /// Nobody serves this ring any longer: what was under way is lost.
    pub(super) fn cut_off(&mut self) {
        self.input.clear();
        self.mailbox.cut_off();
        self.ledger = Ledger::default();
    }

    /// Takes bytes out of the ring.
    pub(super) fn receive(&mut self, bytes: &[u8]) -> Result<(), String> {
        let known = self.mailbox.inbox.len();
        self.mailbox.receive(bytes)?;
        self.mailbox.inbox.range(known..).try_for_each(|frame| self.ledger.receive(frame))
    }
}

/// What only the outside can do, done in memory.
#[derive(Default)]
pub(crate) struct Outside {
    pub rings: BTreeMap<u16, Ring>,
    /// The domains Xen knows.
    pub domains: BTreeMap<u16, UniqueId>,
    pub unmappable: BTreeSet<u16>,
    pub memory_is_low: bool,
    pub printed: String,
    next_identity: u64,
    /// What the store asked of the outside and must not.
    pub(super) faults: Vec<String>,
}

impl Outside {
    pub(super) fn create(&mut self, domain: u16) -> UniqueId {
        self.next_identity += 1;
        let identity = UniqueId(self.next_identity);
        self.domains.insert(domain, identity);
        identity
    }
}

impl Host for Outside {
    fn identify(&mut self, domain: DomId) -> Option<UniqueId> {
        self.domains.get(&domain.0).copied()
    }

    fn introduce(
        &mut self,
        conn: ConnId,
        domain: DomId,
        _gfn: u64,
        port: u32,
        features: u32,
    ) -> Result<(), Unreachable> {
        let domain = domain.0;
        let known = self.domains.contains_key(&domain);
        if !known || port == 0 || self.unmappable.contains(&domain) {
            return Err(Unreachable);
        }
        let ring = self.rings.entry(domain).or_default();
        if ring.conn.is_some() {
            self.faults.push(format!("domain {domain} introduced twice without a release"));
        }
        ring.cut_off();
        ring.conn = Some(conn);
        ring.features = features;
        (ring.ended, ring.error, ring.connection) = (false, 0, 0);
        Ok(())
    }

    fn reintroduce(
        &mut self,
        conn: ConnId,
        domain: DomId,
        port: u32,
        features: u32,
    ) -> Result<(), Unreachable> {
        let domain = domain.0;
        let Some(ring) = self.rings.get_mut(&domain).filter(|ring| ring.conn == Some(conn)) else {
            self.faults.push(format!("domain {domain} reintroduced without an introduction"));
            return Err(Unreachable);
        };
        ring.cut_off();
        if port == 0 || self.unmappable.contains(&domain) {
            // Without a channel nobody hears of what it sends.
            ring.ended = true;
            return Err(Unreachable);
        }
        ring.features = features;
        (ring.ended, ring.error, ring.connection) = (false, 0, 0);
        Ok(())
    }

    fn release(&mut self, conn: ConnId, domain: DomId) {
        let domain = domain.0;
        match self.rings.get_mut(&domain) {
            Some(ring) if ring.conn == Some(conn) => {
                ring.cut_off();
                ring.conn = None;
            }
            _ => self.faults.push(format!("domain {domain} released without a ring")),
        }
    }

    fn has_memory(&self, bytes: usize) -> bool {
        // Where no more can be kept, there is still some for answers.
        !self.memory_is_low || bytes <= 256 << 10
    }

    fn print(&mut self, text: &str) {
        self.printed.push_str(text);
        self.printed.push('\n');
    }
}
