//! A store with domains around it, and the turns of the image's main loop.

use core::convert::Infallible;

use xenstore_core::client::codec::{Decoder, Frame, Refusal, encode};
use xenstore_core::wire::{Op, Violation};
use xenstore_core::{Config, ConnId, DomId, Server};

use crate::outside::{Outside, STORE, TOOLSTACK};

/// Room for what a turn writes: more than the events of a thousand watches.
const OUTPUT: usize = 1 << 20;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its number.
    pub domain: DomId,
    /// Its connection.
    pub conn: ConnId,
}

/// A store, the domains that it serves, and where their bytes go.
#[derive(Debug)]
pub struct World {
    server: Server,
    outside: Outside,
    /// What who asked last got during its turn, its own events included.
    answer: Vec<u8>,
    /// What all others got during that turn.
    news: Vec<u8>,
    toolstack: Client,
}

impl World {
    /// A store with the toolstack connected, before any request.
    pub fn new() -> Self {
        let mut outside = Outside::new();
        let config = Config { privileged: TOOLSTACK, store: STORE, version: "bench" };
        let mut server = Server::new(config);
        let identity = outside.create(TOOLSTACK);
        let conn = server.connect(TOOLSTACK, identity);
        let toolstack = Client { domain: TOOLSTACK, conn };
        let [answer, news] = [Vec::with_capacity(OUTPUT), Vec::with_capacity(OUTPUT)];
        Self { server, outside, answer, news, toolstack }
    }

    /// A store that serves this many guests, numbered from 1, each of which owns `nodes` nodes (2
    /// at least) and has `watches` watches on what is not there yet.
    pub fn populated(domains: u16, nodes: usize, watches: usize) -> Self {
        let mut world = Self::new();
        for domain in 1..=domains {
            let guest = world.introduce(DomId(domain));
            world.furnish(guest, nodes);
            world.watch(guest, watches);
        }
        world
    }

    /// The store itself, to look at.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// The toolstack in dom0.
    pub fn toolstack(&self) -> Client {
        self.toolstack
    }

    /// A guest that was introduced.
    pub fn guest(&mut self, domain: u16) -> Client {
        let domain = DomId(domain);
        let conn = self.outside.conn(domain).expect("the domain was introduced");
        Client { domain, conn }
    }

    /// Creates a domain and introduces it.
    pub fn introduce(&mut self, domain: DomId) -> Client {
        self.create(domain);
        self.ask(self.toolstack, Op::Introduce, &[format!("{domain}\0{}\0{}\0", 1, 1).as_bytes()]);
        self.guest(domain.0)
    }

    /// Creates a domain that the store has not heard of.
    pub fn create(&mut self, domain: DomId) {
        self.outside.create(domain);
    }

    /// Makes a guest's home and fills it: directories of ten nodes, each with a value of ten bytes.
    pub fn furnish(&mut self, guest: Client, nodes: usize) {
        let domain = guest.domain;
        let home = format!("/local/domain/{domain}");
        self.ask(self.toolstack, Op::Mkdir, &[home.as_bytes(), b"/data\0"]);
        for below in ["", "/data"] {
            let permissions = format!("{home}{below}\0n{domain}\0");
            self.ask(self.toolstack, Op::SetPerms, &[permissions.as_bytes()]);
        }
        // A directory makes eleven nodes: itself and ten.
        for node in 0..nodes.saturating_sub(2) {
            let (directory, name) = (node / 11, node % 11);
            let path = format!("data/d{directory}");
            match name.checked_sub(1) {
                None => self.ask(guest, Op::Mkdir, &[path.as_bytes(), b"\0"]),
                Some(name) => {
                    let path = format!("{path}/k{name}\0");
                    self.ask(guest, Op::Write, &[path.as_bytes(), b"valuevalue"])
                }
            };
        }
    }

    /// As [`furnish`](Self::furnish), with more than a guest may have: its quotas are lifted first.
    pub fn furnish_beyond_quotas(&mut self, guest: Client, nodes: usize) {
        for quota in ["nodes", "memory", "node-size"] {
            let payload = format!("{}\0{quota}\0{}\0", guest.domain, 0);
            self.ask(self.toolstack, Op::SetQuota, &[payload.as_bytes()]);
        }
        self.furnish(guest, nodes);
    }

    /// Registers watches of a guest on nodes of its own that are not there yet.
    pub fn watch(&mut self, guest: Client, watches: usize) {
        for watch in 0..watches {
            let payload = format!("device/{watch}/state\0FFFF8880{watch:08X}\0");
            self.ask(guest, Op::Watch, &[payload.as_bytes()]);
        }
    }

    /// A domain dies, the store hears of it, and everybody is told.
    #[inline(never)]
    pub fn depart(&mut self, domain: DomId) {
        self.outside.destroy(domain);
        self.news.clear();
        self.server.gone(domain, &mut self.outside);
        self.server.settle();
        self.flush();
        self.server.clear_away(&mut self.outside);
    }

    /// One request and all that follows from it. Returns the payload of its answer.
    ///
    /// # Panics
    /// If the answer is an error, or none.
    pub fn ask(&mut self, client: Client, op: Op, parts: &[&[u8]]) -> Vec<u8> {
        self.ask_in(client, 0, op, parts)
            .unwrap_or_else(|refusal| panic!("{op:?} {parts:?}: {refusal:?}"))
    }

    /// As [`ask`](Self::ask), in a transaction.
    ///
    /// # Errors
    /// The error that is the answer.
    ///
    /// # Panics
    /// If there is no answer.
    pub fn ask_in(
        &mut self,
        client: Client,
        transaction: u32,
        op: Op,
        parts: &[&[u8]],
    ) -> Result<Vec<u8>, Refusal> {
        let mut frame = Vec::new();
        encode(&mut frame, op, 1, transaction, parts).expect("a payload that a frame can hold");
        self.serve(client.conn, &frame).expect("no violation");
        self.reply().into_reply(op, 1, transaction)
    }

    /// One turn of the store's main loop after a client notified: its bytes in, answers and events
    /// out. What happens in here, and nothing else, is what is counted and timed.
    ///
    /// # Panics
    /// If the bytes are no frames.
    #[inline(never)]
    pub fn turn(&mut self, conn: ConnId, bytes: &[u8]) {
        self.serve(conn, bytes).expect("whole frames");
    }

    /// A turn without a request; says whether another has something left to do.
    #[inline(never)]
    pub fn rest(&mut self) -> bool {
        self.flush();
        self.server.clear_away(&mut self.outside)
    }

    /// The bytes that who asked got during the last turn.
    pub fn answer(&self) -> &[u8] {
        &self.answer
    }

    /// The bytes that all others got during the last turn.
    pub fn news(&self) -> &[u8] {
        &self.news
    }

    /// In the order of a turn of `stubdom`: room first, then requests, then what they caused.
    #[inline(always)]
    fn serve(&mut self, conn: ConnId, bytes: &[u8]) -> Result<(), Violation> {
        self.answer.clear();
        self.news.clear();
        let mut rest = bytes;
        while !rest.is_empty() {
            transmit(&mut self.server, conn, &mut self.answer);
            let taken = self.server.receive(conn, rest, &mut self.outside)?;
            rest = &rest[taken..];
            transmit(&mut self.server, conn, &mut self.answer);
            while let Some(ready) = self.server.next_ready() {
                let out = if ready == conn { &mut self.answer } else { &mut self.news };
                transmit(&mut self.server, ready, out);
            }
            let more = self.server.clear_away(&mut self.outside);
            assert!(taken > 0 || more, "all was read, and still the server takes nothing");
        }
        Ok(())
    }

    fn flush(&mut self) {
        while let Some(ready) = self.server.next_ready() {
            transmit(&mut self.server, ready, &mut self.news);
        }
    }

    /// The first frame that is no event.
    fn reply(&self) -> Frame {
        let (mut decoder, mut rest) = (Decoder::new(), self.answer.as_slice());
        loop {
            let vacant = decoder.vacant();
            let count = vacant.len();
            let (frame, after) = rest.split_at_checked(count).expect("an answer");
            vacant.copy_from_slice(frame);
            rest = after;
            match decoder.filled(count).expect("a frame") {
                Some(frame) if !frame.is_event() => return frame,
                _ => {}
            }
        }
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

/// Moves all that waits for a connection into its ring, which has no end here.
#[inline(always)]
fn transmit(server: &mut Server, conn: ConnId, ring: &mut Vec<u8>) {
    let Ok(_) = server.transmit(conn, |bytes| {
        ring.extend_from_slice(bytes);
        Ok::<_, Infallible>(bytes.len())
    });
}
