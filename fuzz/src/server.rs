//! The target `server`: a whole server among several domains that do what they like.
//!
//! After every step the server's own check must find nothing, every request has at most one
//! answer and those come in order, and no more than a bounded amount has waited for a connection
//! (the world sees to these two). In the end, once
//! everybody reads and nobody is held back by memory, nothing is unanswered; and when all guests
//! are gone nothing of theirs is left.

use std::collections::BTreeMap;

use conversations::world::{Open, PAYLOAD_MAX};

use crate::steps::{DOMAINS, Deed, Step, Transaction};
use crate::world::{CUTS, TOOLSTACK, World};

const CONTROL: u32 = 0;
const TRANSACTION_START: u32 = 6;
const GET_QUOTA: u32 = 25;

/// Holds the conversation, and panics where the server breaks a promise.
///
/// The first byte chooses how the streams are cut, the lines after it are the steps.
pub fn run(data: &[u8]) {
    let Some((cut, lines)) = data.split_first() else { return };
    let mut scene = Scene::new(usize::from(*cut) % CUTS.len());
    for line in lines.split(|&byte| byte == b'\n') {
        if let Some(step) = Step::parse(line) {
            scene.step(&step);
        }
    }
    scene.end();
}

struct Scene {
    world: World,
    /// The transactions that each domain was told of, the latest last.
    transactions: BTreeMap<u16, Vec<u32>>,
}

impl Scene {
    fn new(cut: usize) -> Self {
        Self { world: World::new(CUTS[cut]), transactions: BTreeMap::new() }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Request { by, kind, queued, transaction, payload } => {
                self.request(*by, *kind, *transaction, payload);
                if *queued {
                    return;
                }
            }
            Step::Bytes { by, bytes } => self.world.put(*by, bytes),
            Step::Do { deed, domain } => self.act(*deed, *domain),
        }
        self.settle();
    }

    fn request(&mut self, by: u16, kind: u32, transaction: Transaction, payload: &[u8]) {
        let tx_id = match transaction {
            Transaction::Number(number) => number.into(),
            Transaction::Latest(back) => {
                let known = self.transactions.get(&by).map(Vec::as_slice).unwrap_or_default();
                known.iter().rev().nth(back.into()).copied().unwrap_or(0)
            }
        };
        let payload = &payload[..payload.len().min(PAYLOAD_MAX)];
        let req_id = self.world.ring(by).mailbox.fresh_req_id();
        self.world.ask(by, Open { kind, req_id, tx_id }, payload);
    }

    fn act(&mut self, deed: Deed, domain: u16) {
        let world = &mut self.world;
        let is_guest = domain != TOOLSTACK;
        match deed {
            Deed::Give if is_guest => self.give(domain),
            Deed::Create if is_guest && !world.outside.domains.contains_key(&domain) => {
                world.create(domain);
            }
            Deed::Destroy if is_guest => world.destroy(&[domain]),
            Deed::Replace if is_guest => world.replace(&[domain]),
            Deed::ShutDown if is_guest => world.notice(&[domain]),
            Deed::Pause => world.ring(domain).stopped = true,
            Deed::Resume => self.must(|world| world.read_again(domain)),
            Deed::Trickle => self.must(|world| world.read_some(domain, 100)),
            Deed::Reconnect => world.reconnect(domain),
            Deed::BreakIndex if is_guest => world.give_up(domain, 2),
            Deed::Unmap => world.outside.unmappable.extend([domain]),
            Deed::Map => drop(world.outside.unmappable.remove(&domain)),
            Deed::LackMemory => world.outside.memory_is_low ^= true,
            _ => {}
        }
    }

    /// Makes a guest as a toolstack does; what is refused is refused.
    fn give(&mut self, domain: u16) {
        if !self.world.outside.domains.contains_key(&domain) {
            self.world.create(domain);
        }
        let home = format!("/local/domain/{domain}");
        for (kind, payload) in [
            (12, format!("{home}\0")),
            (14, format!("{home}\0n0\0r{domain}\0")),
            (12, format!("{home}/data\0")),
            (14, format!("{home}/data\0n{domain}\0")),
            (8, format!("{domain}\x001\x001\0")),
        ] {
            self.request(TOOLSTACK, kind, Transaction::Number(0), payload.as_bytes());
        }
    }

    fn must(&mut self, act: impl FnOnce(&mut World) -> Result<(), String>) {
        if let Err(why) = act(&mut self.world) {
            panic!("{why}");
        }
    }

    fn settle(&mut self) {
        self.must(World::settle);
        self.must(|world| world.server.check());
        for (domain, ring) in &mut self.world.outside.rings {
            let frames = ring.mailbox.inbox.drain(..);
            for frame in frames.filter(|frame| frame.kind == TRANSACTION_START) {
                let number = core::str::from_utf8(&frame.payload).ok();
                let number = number.and_then(|text| text.trim_end_matches('\0').parse().ok());
                let number = number.expect("a transaction has a number");
                self.transactions.entry(*domain).or_default().push(number);
            }
        }
    }

    /// Whether a guest is served and within its quota of memory, by what the store says of it.
    fn has_room(&mut self, domain: u16) -> bool {
        let ring = self.world.ring(domain);
        if ring.conn.is_none() || ring.ended {
            return false;
        }
        let ask = |scene: &mut Self, kind, payload: String| {
            scene.request(TOOLSTACK, kind, Transaction::Number(0), payload.as_bytes());
            scene.must(World::settle);
            let mut answers = scene.world.ring(TOOLSTACK).mailbox.inbox.drain(..);
            let answer = answers.rfind(|frame| frame.kind == kind);
            answer.map(|frame| String::from_utf8_lossy(&frame.payload).into_owned())
        };
        let limit = ask(self, GET_QUOTA, format!("{domain}\0memory\0"));
        let limit = limit.and_then(|text| text.trim_end_matches('\0').parse::<usize>().ok());
        let used = ask(self, CONTROL, format!("quota\0{domain}\0"));
        let used = used.and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("memory "))?;
            line.split_once(':')?.1.split_whitespace().next()?.parse::<usize>().ok()
        });
        limit.zip(used).is_some_and(|(limit, used)| limit == 0 || used <= limit)
    }

    fn end(&mut self) {
        self.world.outside.memory_is_low = false;
        // A frame that was begun would swallow what comes now.
        self.world.reconnect(TOOLSTACK);
        for domain in 0..DOMAINS {
            self.must(|world| world.read_again(domain));
        }
        // Who was beyond its memory, and is not any more, must have been looked at.
        for domain in 1..DOMAINS {
            let home = format!("/local/domain/{domain}\0");
            self.request(TOOLSTACK, 13, Transaction::Number(0), home.as_bytes());
        }
        self.settle();
        for domain in 1..DOMAINS {
            if self.has_room(domain) {
                assert!(self.world.ring(domain).input.is_empty(), "{domain} was forgotten");
            }
        }
        for domain in 1..DOMAINS {
            let unlimited = format!("{domain}\0memory\x000\0");
            self.request(TOOLSTACK, 26, Transaction::Number(0), unlimited.as_bytes());
        }
        self.settle();
        // Without a toolstack, who is beyond its memory stays there.
        let toolstack_lives = !self.world.ring(TOOLSTACK).ended;
        for (domain, ring) in self.world.outside.rings.iter().filter(|_| toolstack_lives) {
            if ring.conn.is_some() && !ring.ended {
                let open = &ring.ledger.open;
                assert!(open.is_empty(), "domain {domain} waits for {open:?}");
                assert!(ring.input.is_empty(), "domain {domain} was not looked at");
            }
        }
        let guests: Vec<u16> = self.world.outside.domains.keys().copied().collect();
        self.world.destroy(&guests);
        self.world.reconnect(TOOLSTACK);
        self.settle();
        let stats = self.world.server.stats();
        assert_eq!((stats.connections, stats.domains), (1, 1), "a dead guest is still known");
        assert_eq!((stats.watches, stats.transactions), (0, 0), "a dead guest's are still there");
    }
}
