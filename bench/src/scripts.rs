//! Operations as a client sends them, over and over.

use xenstore_core::client::codec::encode;
use xenstore_core::wire::Op;

use crate::world::{Client, World};

/// Where a frame's header has the number of its transaction (`struct xsd_sockmsg`).
const TX_ID: core::ops::Range<usize> = 8..12;

/// What a guest of a populated world does to what is its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Reads a value of ten bytes.
    Read,
    /// Changes a value of ten bytes to another of ten.
    Write,
    /// Changes a value to one of another length.
    WriteLonger,
    /// Lists ten children.
    Directory,
    /// Asks for a node's permissions.
    GetPerms,
    /// Changes a node's permissions.
    SetPerms,
    /// Makes a node and removes it.
    MkdirRm,
    /// Registers a watch and removes it.
    WatchUnwatch,
    /// Begins a transaction, reads in it, writes in it, commits it.
    Transaction,
}

impl Operation {
    /// Every operation.
    pub const ALL: [Self; 9] = [
        Self::Read,
        Self::Write,
        Self::WriteLonger,
        Self::Directory,
        Self::GetPerms,
        Self::SetPerms,
        Self::MkdirRm,
        Self::WatchUnwatch,
        Self::Transaction,
    ];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "READ",
            Self::Write => "WRITE",
            Self::WriteLonger => "WRITE of another length",
            Self::Directory => "DIRECTORY of 10",
            Self::GetPerms => "GET_PERMS",
            Self::SetPerms => "SET_PERMS",
            Self::MkdirRm => "MKDIR and RM",
            Self::WatchUnwatch => "WATCH and UNWATCH",
            Self::Transaction => "transaction of START, READ, WRITE, END",
        }
    }

    /// The operation of this client, which must be a guest with a hundred nodes.
    pub fn script(self, client: Client) -> Script {
        let script = Script::new(client);
        let node = b"data/d4/k2\0";
        match self {
            Self::Read => script.then(Op::Read, &[node]),
            Self::Write => script
                .then(Op::Write, &[node, b"othervalue"])
                .then(Op::Write, &[node, b"valuevalue"])
                .counting(2),
            Self::WriteLonger => script
                .then(Op::Write, &[node, b"a value of twenty-six bytes"])
                .then(Op::Write, &[node, b"short"])
                .counting(2),
            Self::Directory => script.then(Op::Directory, &[b"data/d4\0"]),
            Self::GetPerms => script.then(Op::GetPerms, &[node]),
            Self::SetPerms => {
                let domain = client.domain;
                script
                    .then(Op::SetPerms, &[node, format!("n{domain}\0r0\0").as_bytes()])
                    .then(Op::SetPerms, &[node, format!("n{domain}\0").as_bytes()])
                    .counting(2)
            }
            Self::MkdirRm => {
                script.then(Op::Mkdir, &[b"data/d4/new\0"]).then(Op::Rm, &[b"data/d4/new\0"])
            }
            Self::WatchUnwatch => {
                let watch: &[&[u8]] = &[b"data/d4\0", b"FFFF888012345678\0"];
                script.then(Op::Watch, watch).then(Op::Unwatch, watch)
            }
            Self::Transaction => {
                let values: [&[u8]; 2] = [b"othervalue", b"valuevalue"];
                let transaction = |script: Script, value| {
                    script
                        .then(Op::TransactionStart, &[b"\0"])
                        .then(Op::Read, &[node])
                        .then(Op::Write, &[node, value])
                        .then(Op::TransactionEnd, &[b"T\0"])
                };
                values.into_iter().fold(script, transaction).counting(2)
            }
        }
    }
}

/// Requests of one client in order, each in a turn of its own.
#[derive(Clone, Debug)]
pub struct Script {
    client: Client,
    frames: Vec<Vec<u8>>,
    operations: u32,
}

impl Script {
    /// No request yet.
    pub fn new(client: Client) -> Self {
        Self { client, frames: Vec::new(), operations: 1 }
    }

    /// One more request; after a TRANSACTION_START in the transaction that it began.
    ///
    /// # Panics
    /// If no frame can hold it.
    #[must_use]
    pub fn then(mut self, op: Op, parts: &[&[u8]]) -> Self {
        let mut frame = Vec::new();
        encode(&mut frame, op, 1, 0, parts).expect("a payload that a frame can hold");
        self.frames.push(frame);
        self
    }

    /// A run of it is that many operations, and not one.
    #[must_use]
    pub fn counting(mut self, operations: u32) -> Self {
        self.operations = operations;
        self
    }

    /// How many operations a run of it is.
    pub fn operations(&self) -> u32 {
        self.operations
    }

    /// Does it once.
    ///
    /// # Panics
    /// If a request is not answered, or by an error.
    pub fn run(&mut self, world: &mut World) {
        let mut transaction = 0_u32;
        for frame in &mut self.frames {
            frame[TX_ID].copy_from_slice(&transaction.to_le_bytes());
            world.turn(self.client.conn, frame);
            let answer = world.answer();
            let (asked, got) = (kind(frame), kind(answer));
            assert_eq!(got, asked, "the answer is {:?}", answer.escape_ascii().to_string());
            if asked == Op::TransactionStart.to_wire() {
                transaction = number(answer);
            } else if asked == Op::TransactionEnd.to_wire() {
                transaction = 0;
            }
        }
    }
}

/// A frame's type; that of its first one if there are more.
fn kind(frame: &[u8]) -> u32 {
    frame.first_chunk().map_or(u32::MAX, |word| u32::from_le_bytes(*word))
}

/// The number that is a frame's payload, in digits.
fn number(frame: &[u8]) -> u32 {
    let digits = frame[xenstore_core::wire::HEADER_SIZE..].iter().filter(|byte| **byte != 0);
    digits.fold(0, |number, digit| number * 10 + u32::from(digit - b'0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_can_be_repeated_and_leaves_the_store_as_it_was() {
        let mut world = World::populated(3, 100, 8);
        let guest = world.guest(2);
        for operation in Operation::ALL {
            let mut script = operation.script(guest);
            script.run(&mut world);
            let first = world.server().stats();
            script.run(&mut world);
            let second = world.server().stats();
            let counts = |stats: xenstore_core::Stats| {
                (stats.nodes, stats.watches, stats.transactions, stats.permission_lists)
            };
            assert_eq!(counts(first), counts(second), "{}", operation.name());
        }
        world.server().check().unwrap();
    }

    #[test]
    fn a_populated_world_has_what_it_says() {
        let empty = World::new().server().stats();
        let world = World::populated(3, 100, 8);
        let stats = world.server().stats();
        // /local/domain is made for them.
        assert_eq!((stats.nodes - empty.nodes, stats.watches), (2 + 300, 24));
        assert_eq!(stats.connections - empty.connections, 3);
    }

    #[test]
    #[should_panic(expected = "ENOENT")]
    fn an_error_is_no_operation() {
        let mut world = World::populated(1, 100, 0);
        let guest = world.guest(1);
        Script::new(guest).then(Op::Read, &[b"data/missing\0"]).run(&mut world);
    }

    #[test]
    fn who_watches_is_told_and_a_death_takes_all_nodes() {
        let mut world = World::populated(2, 100, 0);
        let (watcher, guest) = (world.guest(1), world.guest(2));
        world.ask(watcher, Op::Watch, &[b"@releaseDomain\0", b"token\0"]);
        world.ask(world.toolstack(), Op::SetPerms, &[b"@releaseDomain\0", b"n0\0r1\0"]);
        let before = world.server().stats().nodes;
        world.depart(guest.domain);
        assert_eq!(before - world.server().stats().nodes, 100, "what the dead domain owned");
        assert!(!world.news().is_empty(), "the watcher hears of the death");
    }
}
