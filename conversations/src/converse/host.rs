//! A Xen host as a world for conversations: guests with real rings, dom0 through one of its doors.

use alloc::borrow::Cow;
use alloc::collections::{BTreeMap, BTreeSet};
use core::mem;
use core::time::Duration;
use std::fs;
use std::thread;
use std::time::Instant;

use conversations::script::{Case, Line, Step};
use conversations::world::{ERROR, Field, HEADER_SIZE, Mailbox, Wanted, World};

use crate::connection::{Connection, Door, PATIENCE, Toolstack};
use crate::guest::{Guest, Life};
use crate::numbers::{INTRODUCE, Numbers, RELEASE, SET_TARGET};
use crate::scene::Scene;

/// Where xenconsoled writes what the store's domain prints.
const STORE_CONSOLE: &str = "/var/log/xen/console/guest-Xenstore.log";

/// What a store makes of a guest that was released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Releases {
    /// It can be introduced again, as a new one.
    UntilIntroduced,
    /// It stays out; but a guest that stays in can ask for a fresh connection.
    ForGood,
}

/// The host, and who takes part in the conversation at hand.
#[derive(Debug)]
pub(crate) struct XenHost {
    door: Door,
    releases: Releases,
    toolstack: Toolstack,
    scene: Scene,
    numbers: Numbers,
    /// dom0's connection, a fresh one for each conversation.
    dom0: Connection,
    mailboxes: BTreeMap<u16, Mailbox>,
    /// Guests by their numbers in the conversation.
    guests: BTreeMap<u16, Guest>,
    /// Guests that are not in it: not introduced, without a home. The lowest number comes last.
    idle: Vec<Guest>,
    /// Numbers of the conversation whose guests cannot be taken for another.
    doomed: BTreeSet<u16>,
    /// The conversation gives a guest a target, which only a release takes away.
    has_target: bool,
    created: u32,
    /// dom0's requests under way that change who is introduced: request id, kind, Xen's number.
    moves: Vec<(u32, u32, u16)>,
    /// Something was sent that the store may not have looked at.
    unsettled: bool,
}

impl XenHost {
    /// Takes note of the host as it is. `store` is the store's domain, if it is one.
    pub(crate) fn new(door: Door, releases: Releases, store: Option<u16>) -> Result<Self, String> {
        let mut toolstack = Toolstack::open(door)?;
        Ok(Self {
            door,
            releases,
            scene: Scene::note(&mut toolstack)?,
            toolstack,
            numbers: Numbers::new(store),
            dom0: Connection::open(door)?,
            mailboxes: BTreeMap::new(),
            guests: BTreeMap::new(),
            idle: Vec::new(),
            doomed: BTreeSet::new(),
            has_target: false,
            created: 0,
            moves: Vec::new(),
            unsettled: false,
        })
    }

    /// Makes everything as it was, and guests ready for `case`; those of the last one are taken
    /// again if it `went_well`.
    pub(crate) fn begin(
        &mut self,
        opening: &[Line],
        case: &Case,
        went_well: bool,
    ) -> Result<(), String> {
        self.dom0 = Connection::open(self.door)?;
        self.mailboxes.clear();
        self.numbers.clear();
        self.moves.clear();
        let can_serve_again = went_well && !(self.has_target && self.releases == Releases::ForGood);
        for (_, guest) in mem::take(&mut self.guests) {
            self.retire(guest, can_serve_again)?;
        }
        let wanted = opening.iter().chain(&case.lines).map(|line| match &line.step {
            Step::Given(domains) | Step::Creates(domains) => domains.len(),
            _ => 0,
        });
        let wanted: usize = wanted.sum();
        let ending = case.lines.iter().flat_map(|line| match &line.step {
            Step::Destroys(domains) | Step::ShutsDown(domains) => &domains[..],
            _ => &[],
        });
        self.doomed = ending.copied().collect();
        self.has_target = case.lines.iter().any(|line| match &line.step {
            Step::Request(request) => request.kind == SET_TARGET,
            _ => false,
        });
        while self.idle.len() < wanted {
            self.created += 1;
            let guest = Guest::create(self.created, &mut self.toolstack)?;
            self.retire(guest, true)?;
        }
        self.scene.restore(&mut self.toolstack)?;
        self.mailbox(0).two_queues = self.door == Door::Kernel;
        self.unsettled = false;
        self.toolstack.barrier()
    }

    /// Takes a guest out of the conversation.
    fn retire(&mut self, mut guest: Guest, can_serve_again: bool) -> Result<(), String> {
        let stays_out = self.releases == Releases::ForGood && !guest.is_introduced;
        if guest.life == Life::Down || stays_out || !can_serve_again {
            return guest.destroy();
        }
        if self.releases == Releases::ForGood {
            guest.rewind()?;
            let mut mailbox = Mailbox::default();
            if !guest.reconnect(&mut mailbox, &mut self.toolstack)? {
                return guest.destroy();
            }
        } else if guest.is_introduced {
            self.toolstack.ask(RELEASE, &[guest.address.domid.to_string().as_bytes()])?;
            guest.is_introduced = false;
        }
        guest.rewind()?;
        let place = self.idle.partition_point(|idle| idle.address.domid > guest.address.domid);
        self.idle.insert(place, guest);
        Ok(())
    }

    /// Ends all guests.
    pub(crate) fn end(mut self) -> Result<(), String> {
        let guests = mem::take(&mut self.guests).into_values();
        guests.chain(mem::take(&mut self.idle)).try_for_each(Guest::destroy)
    }

    /// Takes what has come for `domain`; waits for it no longer than `patience`.
    fn receive(&mut self, domain: u16, patience: Duration) -> Result<bool, String> {
        let mailbox = self.mailboxes.entry(domain).or_default();
        if let Some(guest) = self.guests.get_mut(&domain) {
            return guest.receive(mailbox, patience);
        }
        if domain != 0 {
            return Ok(false);
        }
        let known = mailbox.inbox.len();
        let heard = self.dom0.receive(mailbox, patience)?;
        let arrived: Vec<_> =
            mailbox.inbox.iter().skip(known).map(|frame| (frame.req_id, frame.kind)).collect();
        for (req_id, kind) in arrived {
            self.follow(req_id, kind)?;
        }
        Ok(heard)
    }

    /// An answer to dom0 that may have made or ended a connection.
    fn follow(&mut self, req_id: u32, kind: u32) -> Result<(), String> {
        let Some(at) = self.moves.iter().position(|(asked, ..)| *asked == req_id) else {
            return Ok(());
        };
        let (_, asked, domid) = self.moves.remove(at);
        let mut guests = self.guests.iter_mut();
        let guest = guests.find(|(_, guest)| guest.address.domid == domid);
        let Some((number, guest)) = guest.filter(|(_, guest)| guest.life == Life::Up) else {
            return Ok(());
        };
        if kind == ERROR {
            return if asked == INTRODUCE { guest.go_on() } else { Ok(()) };
        }
        guest.is_introduced = asked == INTRODUCE;
        self.mailboxes.entry(*number).or_default().cut_off();
        if guest.is_introduced { guest.begin() } else { Ok(()) }
    }

    /// dom0 is about to send this. A guest that it introduces must not look into its ring while the
    /// store makes it anew.
    fn prepare_for(&mut self, bytes: &[u8]) -> Result<(), String> {
        let Some((header, payload)) = bytes.split_first_chunk::<HEADER_SIZE>() else {
            return Ok(());
        };
        let [kind @ (8 | 9), 0, 0, 0, a, b, c, d, ..] = *header else { return Ok(()) };
        let domid = payload.split(|&byte| byte == 0).next().unwrap_or_default();
        let domid = core::str::from_utf8(domid).ok().and_then(|domid| domid.parse().ok());
        let Some(domid) = domid else { return Ok(()) };
        self.moves.push((u32::from_le_bytes([a, b, c, d]), kind.into(), domid));
        let mut guests = self.guests.iter_mut();
        match guests.find(|(_, guest)| guest.address.domid == domid) {
            Some((number, guest)) if u32::from(kind) == INTRODUCE && guest.life == Life::Up => {
                guest.pause(self.mailboxes.entry(*number).or_default())
            }
            _ => Ok(()),
        }
    }

    /// Prints where a guest's ring stands: for who wonders why nothing came.
    fn show_ring(&mut self, domain: u16) -> Result<(), String> {
        if let Ok((guest, mailbox)) = self.guest(domain) {
            let words = guest.ask(mailbox)?;
            println!("dom{domain} is domain {}: {words:?}", guest.address.domid);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), String> {
        self.guests.values_mut().try_for_each(|guest| guest.flush().map(drop))
    }

    /// Everything that was sent has been looked at, and dom0 has what came of it.
    fn barrier(&mut self) -> Result<(), String> {
        for (number, guest) in &mut self.guests {
            // The answer tells that what was put is in the ring.
            if guest.flush()? {
                guest.ask(self.mailboxes.entry(*number).or_default())?;
            }
        }
        self.toolstack.barrier()?;
        while self.receive(0, Duration::ZERO)? {}
        self.unsettled = false;
        Ok(())
    }

    /// The guest of that number and its mailbox.
    fn guest(&mut self, domain: u16) -> Result<(&mut Guest, &mut Mailbox), String> {
        let guest = self.guests.get_mut(&domain).filter(|guest| guest.life == Life::Up);
        let guest = guest.ok_or_else(|| format!("dom{domain} does not run"))?;
        Ok((guest, self.mailboxes.entry(domain).or_default()))
    }
}

impl World for XenHost {
    fn translate<'a>(&self, step: &'a Step) -> Cow<'a, Step> {
        let kind = match step {
            Step::Arrives(actor, _) => {
                let open = self.mailboxes.get(actor).and_then(|mailbox| mailbox.open.front());
                open.map(|open| open.kind)
            }
            _ => None,
        };
        Cow::Owned(self.numbers.translate(step, kind))
    }

    fn mailbox(&mut self, domain: u16) -> &mut Mailbox {
        self.mailboxes.entry(domain).or_default()
    }

    fn domains(&self) -> Vec<u16> {
        self.mailboxes.keys().copied().collect()
    }

    fn send(&mut self, domain: u16, bytes: &[u8]) -> Result<(), String> {
        self.unsettled = true;
        if domain == 0 {
            // What guests asked before comes first.
            self.flush()?;
            self.prepare_for(bytes)?;
            return self.dom0.send(bytes);
        }
        if let Some(guest) = self.guests.get_mut(&domain) {
            guest.put(bytes);
        }
        Ok(())
    }

    fn settle(&mut self) -> Result<(), String> {
        if self.unsettled { self.barrier() } else { Ok(()) }
    }

    fn wait(&mut self, domain: u16, wanted: Wanted) -> Result<(), String> {
        self.flush()?;
        let deadline = Instant::now() + PATIENCE;
        while !self.mailbox(domain).has(wanted) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || !self.receive(domain, left)? {
                self.show_ring(domain)?;
                break;
            }
        }
        // The answer to the only request under way tells that the store is at rest.
        let open: usize = self.mailboxes.values().map(|mailbox| mailbox.open.len()).sum();
        if wanted == Wanted::Answer && open <= 1 && self.mailbox(domain).has(wanted) {
            self.unsettled = false;
        }
        Ok(())
    }

    fn rest(&mut self, domain: u16) -> Result<(), String> {
        self.barrier()?;
        if let Ok((guest, mailbox)) = self.guest(domain) {
            guest.ask(mailbox)?;
        }
        Ok(())
    }

    fn check(&mut self) -> Result<(), String> {
        Ok(())
    }

    fn stop_reading(&mut self, domain: u16) -> Result<(), String> {
        self.barrier()?;
        let (guest, mailbox) = self.guest(domain)?;
        guest.stop_reading(mailbox)
    }

    fn read_again(&mut self, domain: u16) -> Result<(), String> {
        self.barrier()?;
        let (guest, mailbox) = self.guest(domain)?;
        guest.read_again(mailbox)?;
        self.rest(domain)
    }

    fn is_held_back(&mut self, domain: u16) -> Result<bool, String> {
        self.barrier()?;
        let (guest, mailbox) = self.guest(domain)?;
        let words = guest.ask(mailbox)?;
        Ok(words.unsent > 0 || words.req_cons != words.req_prod)
    }

    fn field(&mut self, domain: u16, field: Field) -> Result<u32, String> {
        self.barrier()?;
        let (guest, mailbox) = self.guest(domain)?;
        let words = guest.ask(mailbox)?;
        Ok(match field {
            Field::Features => words.features,
            Field::Connection => words.connection,
            Field::Error => words.error,
        })
    }

    fn break_index(&mut self, domain: u16) -> Result<(), String> {
        let (guest, mailbox) = self.guest(domain)?;
        guest.break_index(mailbox)?;
        guest.ask(mailbox)?;
        self.unsettled = true;
        Ok(())
    }

    fn reconnect(&mut self, domain: u16) -> Result<(), String> {
        self.barrier()?;
        let guest = self.guests.get_mut(&domain).filter(|guest| guest.life == Life::Up);
        let guest = guest.ok_or_else(|| format!("dom{domain} does not run"))?;
        let mailbox = self.mailboxes.entry(domain).or_default();
        if guest.reconnect(mailbox, &mut self.toolstack)? {
            mailbox.cut_off();
        }
        Ok(())
    }

    fn create(&mut self, domain: u16) -> Result<(), String> {
        // Low numbers are kept as long as can be: what a path costs depends on their length.
        let is_doomed = self.doomed.contains(&domain) && !self.idle.is_empty();
        let guest = if is_doomed { Some(self.idle.remove(0)) } else { self.idle.pop() };
        let guest = guest.ok_or("no guest was made ready for this line")?;
        self.numbers.give(domain, guest.address);
        self.mailboxes.entry(domain).or_default();
        self.guests.insert(domain, guest);
        Ok(())
    }

    fn destroy(&mut self, domains: &[u16]) -> Result<(), String> {
        for domain in domains {
            let guest = self.guests.remove(domain);
            guest.ok_or_else(|| format!("there is no dom{domain}"))?.destroy()?;
        }
        self.unsettled = true;
        Ok(())
    }

    fn replace(&mut self, _: &[u16]) -> Result<(), String> {
        Err("Xen gives a number again only when all others were used".to_owned())
    }

    fn shut_down(&mut self, domains: &[u16]) -> Result<(), String> {
        for &domain in domains {
            self.guest(domain)?.0.shut_down()?;
        }
        self.unsettled = true;
        Ok(())
    }

    fn let_map(&mut self, _: &[u16], _: bool) -> Result<(), String> {
        Err("a guest's ring can be mapped".to_owned())
    }

    fn let_grow(&mut self, _: bool) -> Result<(), String> {
        Err("the store's memory is what it is".to_owned())
    }

    fn has_printed(&mut self, text: &str) -> Result<bool, String> {
        let deadline = Instant::now() + Duration::from_secs(3);
        loop {
            let console = fs::read(STORE_CONSOLE).map_err(|e| format!("{STORE_CONSOLE}: {e}"))?;
            if String::from_utf8_lossy(&console).contains(text) {
                return Ok(true);
            }
            if Instant::now() > deadline {
                return Ok(false);
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}
