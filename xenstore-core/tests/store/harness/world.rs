//! A host in memory: domains as Xen would know them, rings without end, one store.

use core::mem::take;

use conversations::world::{self, Field, HEADER_SIZE, Mailbox, Open, PAYLOAD_MAX, Wanted};
use xenstore_core::{Config, DomId, Host, Server};

use super::outside::{Outside, Ring};

/// The domain that may do everything.
pub(crate) const TOOLSTACK: u16 = 0;
/// The domain the store itself runs in.
pub(crate) const STORE: u16 = 31;

const FEATURE_RECONNECTION: u32 = 1;
const FEATURE_ERROR: u32 = 2;

/// When this much waits for a connection, its requests wait, too.
const BACKLOG: usize = 64 << 10;
/// After so many events of a watch, one more stands for all that follow.
const EVENTS_PER_WATCH: usize = 33;
const FRAME_MAX: usize = HEADER_SIZE + PAYLOAD_MAX;

/// How the bytes are cut on their way; nothing may depend on it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    /// Most bytes offered to the store at a time.
    pub input: usize,
    /// Most bytes taken from it at a time.
    pub output: usize,
    /// How many nodes of what was removed are cleared away in one go.
    pub pace: usize,
}

/// The cuts every conversation is held with.
pub(crate) const CUTS: [Cut; 3] = [
    Cut { input: 1024, output: 1024, pace: 1024 },
    Cut { input: 1, output: 1024, pace: 1 },
    Cut { input: 13, output: 5, pace: 2 },
];

/// The store and everybody around it.
pub(crate) struct World {
    pub server: Server,
    pub outside: Outside,
    cut: Cut,
}

impl World {
    /// A store with the toolstack connected, before any request.
    pub(crate) fn new(cut: Cut) -> Self {
        let mut outside = Outside::default();
        let mut server = Server::new(config());
        server.set_pace(cut.pace);
        outside.create(STORE);
        let identity = outside.create(TOOLSTACK);
        let conn = server.connect(DomId(TOOLSTACK), identity);
        let ring = Ring { conn: Some(conn), features: 15, ..Ring::default() };
        outside.rings.insert(TOOLSTACK, ring);
        Self { server, outside, cut }
    }

    pub(crate) fn ring(&mut self, domain: u16) -> &mut Ring {
        self.outside.rings.entry(domain).or_default()
    }

    /// Puts a whole request into the ring of `domain` and remembers that it wants an answer.
    pub(crate) fn ask(&mut self, domain: u16, open: Open, payload: &[u8]) {
        let len = u32::try_from(payload.len()).expect("a payload of less than 4 GiB");
        self.put(domain, &open.header(len));
        self.put(domain, payload);
        self.ring(domain).mailbox.open.push_back(open);
    }

    /// Puts bytes into the ring of `domain`, whether anybody serves it or not.
    pub(crate) fn put(&mut self, domain: u16, bytes: &[u8]) {
        let ring = self.ring(domain);
        ring.input.extend(bytes);
        ring.ledger.send(bytes);
        ring.notified = true;
    }

    /// Serves every ring until nothing moves any more, as the image's main loop does.
    ///
    /// What was removed is cleared away by one part at a time, and more than one only if somebody
    /// waits for that: what comes next finds the rest as it is.
    pub(crate) fn settle(&mut self) -> Result<(), String> {
        self.serve_notified()?;
        loop {
            self.serve_ready()?;
            let more = self.server.clear_away(&mut self.outside);
            self.server.check()?;
            let mut conns = self.outside.rings.values().filter_map(|ring| ring.conn);
            if !more || !conns.any(|conn| self.server.is_stalled(conn)) {
                break;
            }
        }
        self.serve_ready()?;
        match self.outside.faults.first() {
            Some(fault) => Err(fault.clone()),
            None => Ok(()),
        }
    }

    fn serve_notified(&mut self) -> Result<(), String> {
        let rings = self.outside.rings.iter_mut();
        let notified =
            rings.filter_map(|(domain, ring)| take(&mut ring.notified).then_some(*domain));
        for domain in notified.collect::<Vec<_>>() {
            self.serve(domain)?;
            self.drain(domain)?;
        }
        Ok(())
    }

    fn serve_ready(&mut self) -> Result<(), String> {
        let mut rounds = 0_u32;
        while let Some(conn) = self.server.next_ready() {
            rounds += 1;
            if rounds > 1_000_000 {
                return Err("the store never comes to rest".to_owned());
            }
            let owner = self.outside.rings.iter().find(|(_, ring)| ring.conn == Some(conn));
            if let Some((&domain, _)) = owner {
                self.drain(domain)?;
                self.serve(domain)?;
                self.drain(domain)?;
            }
        }
        Ok(())
    }

    /// Offers the store what the ring holds.
    fn serve(&mut self, domain: u16) -> Result<(), String> {
        loop {
            let cut = self.cut.input;
            let ring = self.ring(domain);
            let Some(conn) = ring.conn.filter(|_| !ring.ended) else { break };
            let offered: Vec<u8> = ring.input.iter().take(cut).copied().collect();
            if offered.is_empty() {
                break;
            }
            match self.server.receive(conn, &offered, &mut self.outside) {
                Ok(0) => break,
                Ok(taken) if taken > offered.len() => {
                    return Err(format!("took {taken} of {} bytes", offered.len()));
                }
                Ok(taken) => drop(self.ring(domain).input.drain(..taken)),
                Err(_) => self.give_up(domain, 3),
            }
        }
        Ok(())
    }

    /// Takes what the store has for the ring, which must not be without bounds.
    fn drain(&mut self, domain: u16) -> Result<(), String> {
        let cut = self.cut.output;
        let most = BACKLOG + (EVENTS_PER_WATCH * self.server.stats().watches + 1) * FRAME_MAX;
        let Some(ring) = self.outside.rings.get_mut(&domain) else { return Ok(()) };
        let Some(conn) = ring.conn.filter(|_| !ring.ended && !ring.stopped) else {
            return Ok(());
        };
        let (mut waited, mut before) = (0, usize::MAX);
        while waited != before {
            before = waited;
            self.server.transmit(conn, |chunk| {
                if chunk.is_empty() {
                    return Err("transmit gave an empty chunk".to_owned());
                }
                let taken = chunk.len().min(cut);
                ring.receive(&chunk[..taken])?;
                waited += taken;
                if waited > most {
                    return Err(format!("more than {most} bytes waited for domain {domain}"));
                }
                Ok(taken)
            })?;
        }
        Ok(())
    }

    /// The ring broke the protocol: no more service, and the reason in its error field, if it was
    /// told that there is one.
    pub(crate) fn give_up(&mut self, domain: u16, error: u32) {
        let ring = self.ring(domain);
        let Some(conn) = ring.conn else { return };
        ring.cut_off();
        ring.ended = true;
        if ring.features & FEATURE_ERROR != 0 {
            ring.error = error;
        }
        self.server.ignore(conn);
    }

    /// The guest asks for a fresh connection. It gets one if it is served and was offered that;
    /// otherwise its wish stays in the ring.
    pub(crate) fn reconnect(&mut self, domain: u16) {
        let ring = self.ring(domain);
        ring.connection = 1;
        let offered = !ring.ended && ring.features & FEATURE_RECONNECTION != 0;
        let Some(conn) = ring.conn.filter(|_| offered) else { return };
        ring.cut_off();
        ring.connection = 0;
        self.server.reset(conn);
    }

    /// The guest takes up to that many bytes, even if it reads no more than this, and says so.
    pub(crate) fn read_some(&mut self, domain: u16, count: usize) -> Result<(), String> {
        let ring = self.outside.rings.entry(domain).or_default();
        let Some(conn) = ring.conn.filter(|_| !ring.ended) else { return Ok(()) };
        let mut left = count;
        self.server.transmit(conn, |chunk| {
            let taken = chunk.len().min(left);
            left -= taken;
            ring.receive(&chunk[..taken])?;
            Ok::<_, String>(taken)
        })?;
        self.settle()
    }

    /// The guest reads again, and says so.
    pub(crate) fn read_again(&mut self, domain: u16) -> Result<(), String> {
        self.ring(domain).stopped = false;
        self.drain(domain)?;
        self.settle()
    }

    pub(crate) fn create(&mut self, domain: u16) {
        self.outside.create(domain);
    }

    /// Domains vanish, and Xen says that something changed.
    pub(crate) fn destroy(&mut self, domains: &[u16]) {
        for domain in domains {
            self.outside.domains.remove(domain);
        }
        self.notice(&[]);
    }

    /// Others have the domains' numbers before anybody looked.
    pub(crate) fn replace(&mut self, domains: &[u16]) {
        for &domain in domains {
            self.outside.create(domain);
        }
        self.notice(&[]);
    }

    /// What the image does on VIRQ_DOM_EXC.
    pub(crate) fn notice(&mut self, shut_down: &[u16]) {
        let known: Vec<_> = self.server.domains().collect();
        for (domain, identity) in known {
            if self.outside.identify(domain) != Some(identity) {
                self.server.gone(domain, &mut self.outside);
            } else if shut_down.contains(&domain.0) {
                self.server.shut_down(domain);
            }
        }
        self.server.settle();
    }
}

/// How conversations are held here.
impl world::World for World {
    fn mailbox(&mut self, domain: u16) -> &mut Mailbox {
        &mut self.ring(domain).mailbox
    }

    fn domains(&self) -> Vec<u16> {
        self.outside.rings.keys().copied().collect()
    }

    fn send(&mut self, domain: u16, bytes: &[u8]) -> Result<(), String> {
        self.put(domain, bytes);
        Ok(())
    }

    fn settle(&mut self) -> Result<(), String> {
        Self::settle(self)
    }

    fn wait(&mut self, _: u16, _: Wanted) -> Result<(), String> {
        Self::settle(self)
    }

    fn rest(&mut self, _: u16) -> Result<(), String> {
        Self::settle(self)
    }

    fn check(&mut self) -> Result<(), String> {
        self.server.check()
    }

    fn stop_reading(&mut self, domain: u16) -> Result<(), String> {
        self.ring(domain).stopped = true;
        Ok(())
    }

    fn read_again(&mut self, domain: u16) -> Result<(), String> {
        Self::read_again(self, domain)
    }

    fn is_held_back(&mut self, domain: u16) -> Result<bool, String> {
        Ok(!self.ring(domain).input.is_empty())
    }

    fn field(&mut self, domain: u16, field: Field) -> Result<u32, String> {
        let ring = self.ring(domain);
        Ok(match field {
            Field::Features => ring.features,
            Field::Connection => ring.connection,
            Field::Error => ring.error,
        })
    }

    fn break_index(&mut self, domain: u16) -> Result<(), String> {
        self.give_up(domain, 2);
        Ok(())
    }

    fn reconnect(&mut self, domain: u16) -> Result<(), String> {
        Self::reconnect(self, domain);
        Ok(())
    }

    fn create(&mut self, domain: u16) -> Result<(), String> {
        Self::create(self, domain);
        Ok(())
    }

    fn destroy(&mut self, domains: &[u16]) -> Result<(), String> {
        Self::destroy(self, domains);
        Ok(())
    }

    fn replace(&mut self, domains: &[u16]) -> Result<(), String> {
        Self::replace(self, domains);
        Ok(())
    }

    fn shut_down(&mut self, domains: &[u16]) -> Result<(), String> {
        self.notice(domains);
        Ok(())
    }

    fn let_map(&mut self, domains: &[u16], can: bool) -> Result<(), String> {
        for &domain in domains {
            if can {
                self.outside.unmappable.remove(&domain);
            } else {
                self.outside.unmappable.insert(domain);
            }
        }
        Ok(())
    }

    fn let_grow(&mut self, can: bool) -> Result<(), String> {
        self.outside.memory_is_low = !can;
        Ok(())
    }

    fn has_printed(&mut self, text: &str) -> Result<bool, String> {
        Ok(self.outside.printed.contains(text))
    }
}

fn config() -> Config {
    Config { privileged: DomId(TOOLSTACK), store: DomId(STORE), version: "test" }
}
