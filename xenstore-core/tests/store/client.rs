//! The client's half against the server's half, over a stream in memory.

use core::{cell::RefCell, convert::Infallible};
use std::{collections::VecDeque, rc::Rc};

use embedded_io::{ErrorType, Read, ReadReady, Write};
use xenstore_core::DomId;
use xenstore_core::client::{Access, Client, Failure, Nodes, Permission};
use xenstore_core::wire::{Error, Op};

use crate::harness::world::{CUTS, World};

/// One domain's stream to a store shared with others.
struct Pipe {
    world: Rc<RefCell<World>>,
    domain: u16,
    arrived: VecDeque<u8>,
}

impl Pipe {
    /// Lets the store run and takes what it sent.
    fn pump(&mut self) {
        let mut world = self.world.borrow_mut();
        world.settle().expect("the store keeps its promises");
        world.server.check().expect("the accounts agree");
        for frame in world.ring(self.domain).mailbox.inbox.drain(..) {
            let len = u32::try_from(frame.payload.len()).expect("a frame");
            let fields = [frame.kind, frame.req_id, frame.tx_id, len];
            self.arrived.extend(fields.into_iter().flat_map(u32::to_le_bytes));
            self.arrived.extend(frame.payload);
        }
    }
}

impl ErrorType for Pipe {
    type Error = Infallible;
}

impl Read for Pipe {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, Infallible> {
        self.pump();
        let count = buf.len().min(self.arrived.len());
        for (place, byte) in buf.iter_mut().zip(self.arrived.drain(..count)) {
            *place = byte;
        }
        Ok(count)
    }
}

impl ReadReady for Pipe {
    fn read_ready(&mut self) -> Result<bool, Infallible> {
        self.pump();
        Ok(!self.arrived.is_empty())
    }
}

impl Write for Pipe {
    fn write(&mut self, buf: &[u8]) -> Result<usize, Infallible> {
        let part = &buf[..buf.len().min(11)];
        self.world.borrow_mut().put(self.domain, part);
        Ok(part.len())
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        self.pump();
        Ok(())
    }
}

/// The toolstack and guest 1, with a home.
fn pair() -> (Client<Pipe>, Client<Pipe>) {
    let world = Rc::new(RefCell::new(World::new(CUTS[2])));
    world.borrow_mut().create(1);
    let client = |domain| {
        let arrived = VecDeque::new();
        Client::new(Pipe { world: Rc::clone(&world), domain, arrived })
    };
    let mut toolstack = client(0);
    let owner = [Permission::new(Access::None, DomId(1))];
    toolstack.mkdir("/local/domain/1/data").expect("MKDIR");
    toolstack.set_perms("/local/domain/1/data", &owner).expect("SET_PERMS");
    toolstack.call(Op::Introduce, &[b"1\x001\x001\0"]).expect("INTRODUCE");
    (toolstack, client(1))
}

#[test]
fn values_names_and_permissions() {
    let (mut toolstack, mut guest) = pair();
    guest.write("data/b", b"two\0").expect("WRITE");
    guest.mkdir("data/a").expect("MKDIR");
    assert_eq!(toolstack.read("/local/domain/1/data/b"), Ok(b"two\0".to_vec()));
    let names = guest.directory("data").expect("DIRECTORY");
    assert_eq!(names, ["a", "b"]);
    assert_eq!(guest.perms("data/a"), Ok(vec![Permission::new(Access::None, DomId(1))]));
    guest.rm("data/a").expect("RM");
    assert_eq!(guest.read("data/a"), Err(Failure::Answer(Error::Enoent)));
    assert_eq!(guest.read("/tool"), Err(Failure::Answer(Error::Eacces)));
    assert_eq!(guest.domain_path(DomId(1)), Ok("/local/domain/1".into()));
}

#[test]
fn a_watch_from_its_first_to_its_last_event() {
    let (mut toolstack, mut guest) = pair();
    assert_eq!(guest.poll_event(), Ok(None), "nothing is watched yet");
    guest.watch("data", "tok").expect("WATCH");
    let first = guest.next_event().expect("the first event");
    assert_eq!((first.path(), first.token()), ("data", "tok"));
    assert_eq!(guest.watch("data", "tok"), Err(Failure::Answer(Error::Eexist)));
    toolstack.write("/local/domain/1/data/k", b"v").expect("WRITE");
    let event = guest.poll_event().expect("a healthy stream").expect("an event");
    assert_eq!((event.path(), event.token()), ("data/k", "tok"));
    guest.write("data/own", b"v").expect("WRITE: the event comes before its answer");
    assert_eq!(guest.next_event().expect("the event").path(), "data/own");
    guest.unwatch("data", "tok").expect("UNWATCH");
    toolstack.write("/local/domain/1/data/k", b"w").expect("WRITE");
    assert_eq!(guest.poll_event(), Ok(None), "nothing is watched any more");
}

#[test]
fn a_directory_of_a_thousand() {
    let (mut toolstack, _) = pair();
    let wanted: Vec<String> = (0..1500).map(|i| format!("name-{i:04}")).collect();
    for name in &wanted {
        toolstack.mkdir(&format!("/big/{name}")).expect("MKDIR");
    }
    assert_eq!(toolstack.directory("/big"), Ok(wanted));
}

#[test]
fn two_count_up_and_none_is_lost() {
    let (mut toolstack, mut guest) = pair();
    guest.write("data/n", b"0").expect("WRITE");
    let mut disturbed = 0;
    for _ in 0..10 {
        let mut runs = 0;
        let count = guest.transact(|tx| {
            runs += 1;
            let count = parsed(&tx.read("data/n")?) + 1;
            if runs == 1 {
                let there = "/local/domain/1/data/n";
                let other = toolstack.transact(|tx| {
                    let count = parsed(&tx.read(there)?) + 1;
                    tx.write(there, count.to_string().as_bytes())
                });
                other.expect("nobody disturbs the toolstack");
            }
            tx.write("data/n", count.to_string().as_bytes())?;
            Ok(count)
        });
        count.expect("the second run is not disturbed");
        disturbed += runs - 1;
    }
    assert_eq!(guest.read("data/n"), Ok(b"20".to_vec()), "ten each");
    assert_eq!(disturbed, 10, "every first run read what changed under it");
}

fn parsed(value: &[u8]) -> u32 {
    core::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).expect("a number")
}
