//! A guest that sends whatever it likes: it is answered or cut off, nobody else notices.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError};

use conversations::world::Open;

use crate::harness::world::{CUTS, World};

/// Words that mean something somewhere, to get past the first checks.
const WORDS: [&[u8]; 28] = [
    b"",
    b"/",
    b"data",
    b"data/x",
    b"data/x/y",
    b"/local/domain/1/data",
    b"/local/domain/2/data",
    b"/local/domain/",
    b"/tool",
    b"@releaseDomain",
    b"@introduceDomain/1",
    b"//",
    b"0",
    b"1",
    b"-1",
    b"65535",
    b"4294967295",
    b"99999999999999999999",
    b"n1",
    b"r2",
    b"b32757",
    b"T",
    b"F",
    b"nodes",
    b"print",
    b"\xff\xfe",
    &[b'x'; 2100],
    &[b'/'; 300],
];

#[derive(Clone, Debug)]
enum Move {
    /// A frame in its form.
    Frame {
        by: u16,
        kind: u32,
        tx_id: u32,
        words: Vec<usize>,
        terminated: bool,
    },
    /// Bytes without one.
    Bytes {
        by: u16,
        bytes: Vec<u8>,
    },
    StopReading {
        by: u16,
    },
    Read {
        by: u16,
    },
    ReadSome {
        by: u16,
        count: usize,
    },
    Reconnect {
        by: u16,
    },
    BreakIndex {
        by: u16,
    },
    Die {
        by: u16,
    },
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let by = || prop_oneof![2 => Just(1_u16), 1 => Just(3)];
    let kind = prop_oneof![20 => 0_u32..29, 1 => any::<u32>()];
    let tx_id = prop_oneof![3 => Just(0_u32), 2 => 1_u32..4, 1 => any::<u32>()];
    let words = vec(0..WORDS.len(), 0..5);
    let frame = (by(), kind, tx_id, words, any::<bool>()).prop_map(
        |(by, kind, tx_id, words, terminated)| Move::Frame { by, kind, tx_id, words, terminated },
    );
    let bytes = (by(), vec(any::<u8>(), 0..40));
    let one = prop_oneof![
        60 => frame,
        1 => bytes.prop_map(|(by, bytes)| Move::Bytes { by, bytes }),
        2 => by().prop_map(|by| Move::StopReading { by }),
        4 => by().prop_map(|by| Move::Read { by }),
        4 => (by(), 0..100_usize).prop_map(|(by, count)| Move::ReadSome { by, count }),
        1 => by().prop_map(|by| Move::Reconnect { by }),
        1 => by().prop_map(|by| Move::BreakIndex { by }),
        1 => by().prop_map(|by| Move::Die { by }),
    ];
    vec(one, 1..80)
}

/// Sends a request of an honest domain and checks its answer, events aside.
fn expect(
    world: &mut World,
    by: u16,
    kind: u32,
    payload: &[u8],
    answer: &[u8],
) -> Result<(), String> {
    let req_id = world.ring(by).mailbox.fresh_req_id();
    world.ask(by, Open { kind, req_id, tx_id: 0 }, payload);
    world.settle()?;
    let ring = world.ring(by);
    let reply = ring.mailbox.inbox.drain(..).find(|frame| frame.kind != 15);
    match reply {
        Some(reply) if reply.kind == kind && reply.payload == answer => Ok(()),
        other => Err(format!("{by} sent {kind} and got {other:?}")),
    }
}

fn introduce(world: &mut World, domain: u16) -> Result<(), String> {
    let home = format!("/local/domain/{domain}/data");
    expect(world, 0, 12, format!("{home}\0").as_bytes(), b"OK\0")?;
    expect(world, 0, 14, format!("{home}\0n{domain}\0").as_bytes(), b"OK\0")?;
    expect(world, 0, 8, format!("{domain}\x001\x001\0").as_bytes(), b"OK\0")
}

fn hold(moves: &[Move], cut: usize) -> Result<(), String> {
    let mut world = World::new(CUTS[cut]);
    for domain in [1, 2, 3] {
        world.create(domain);
        introduce(&mut world, domain)?;
    }
    expect(&mut world, 2, 11, b"data/mine\0kept", b"OK\0")?;
    for one in moves {
        run(&mut world, one)?;
        world.settle()?;
        world.server.check()?;
        expect(&mut world, 2, 2, b"data/mine\0", b"kept")?;
    }
    expect(&mut world, 0, 10, b"1\0", b"/local/domain/1\0")
}

fn run(world: &mut World, one: &Move) -> Result<(), String> {
    match one {
        Move::Frame { by, kind, tx_id, words, terminated } => {
            let end: &[u8] = if *terminated { b"\0" } else { b"" };
            let words: Vec<&[u8]> = words.iter().map(|&at| WORDS[at]).collect();
            let mut payload = [&words.join(&0)[..], end].concat();
            payload.truncate(4096);
            let open = Open { kind: *kind, req_id: 1, tx_id: *tx_id };
            world.ask(*by, open, &payload);
        }
        Move::Bytes { by, bytes } => world.put(*by, bytes),
        Move::StopReading { by } => world.ring(*by).stopped = true,
        Move::Read { by } => world.read_again(*by)?,
        Move::ReadSome { by, count } => world.read_some(*by, *count)?,
        Move::Reconnect { by } => world.reconnect(*by),
        Move::BreakIndex { by } => world.give_up(*by, 2),
        Move::Die { by } => {
            world.replace(&[*by]);
            world.settle()?;
            introduce(world, *by)?;
        }
    }
    Ok(())
}

/// The events that wait for one who does not read are few, and still say where to look.
#[test]
fn a_slow_reader_costs_little_and_misses_nothing() {
    let mut world = World::new(CUTS[0]);
    world.create(1);
    introduce(&mut world, 1).expect("an introduction");
    expect(&mut world, 1, 4, b"data\0t\0", b"OK\0").expect("a watch");
    world.ring(1).stopped = true;
    let written = 3000;
    for i in 0..written {
        let payload = format!("/local/domain/1/data/k{i}\0v");
        expect(&mut world, 0, 11, payload.as_bytes(), b"OK\0").expect("nobody else waits");
    }
    world.read_again(1).expect("the store keeps its promises");
    let events: Vec<_> = world.ring(1).mailbox.inbox.drain(..).map(|frame| frame.payload).collect();
    assert!(events.len() < written / 10, "{} events were kept for it", events.len());
    for i in 0..written {
        let own = format!("data/k{i}\0t\0").into_bytes();
        let told = events.contains(&own) || events.contains(&b"data\0t\0".to_vec());
        assert!(told, "nothing tells of k{i}");
    }
    expect(&mut world, 0, 11, b"/local/domain/1/data/k7\0w", b"OK\0").expect("a write");
    let last = world.ring(1).mailbox.inbox.pop_front().expect("an event");
    assert_eq!(last.payload, b"data/k7\0t\0", "after that, each change by its name");
}

proptest! {
    #![proptest_config(Config { failure_persistence: None, ..Config::default() })]

    #[test]
    fn hostile_guests_hurt_only_themselves(moves in moves(), cut in 0..CUTS.len()) {
        hold(&moves, cut).map_err(TestCaseError::fail)?;
    }
}
