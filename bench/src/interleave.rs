//! Transactions of many clients that are all open at once.

use bench::{Client, World};
use xenstore_core::client::codec::Refusal;
use xenstore_core::wire::{Error, Op};

/// How often every client has its transaction.
const ROUNDS: u32 = 20;

/// Prints every figure.
pub(crate) fn all() {
    for clients in [32, 64] {
        aborts(&format!("siblings, {clients} clients"), clients, |world, guest, tx, round| {
            let path = format!("/shared/{round}/{}\0", guest.domain);
            world.ask_in(guest, tx, Op::Mkdir, &[path.as_bytes()])
        });
        aborts(
            &format!("disjoint nodes, {clients} clients"),
            clients,
            |world, guest, tx, round| {
                let value = format!("{round}");
                world.ask_in(guest, tx, Op::Read, &[b"data/d0/k0\0"])?;
                world.ask_in(guest, tx, Op::Write, &[b"data/d0/k0\0", value.as_bytes()])
            },
        );
    }
}

/// Percent of the transactions that do not commit, with each client's `work` in its own.
fn aborts(
    name: &str,
    clients: u16,
    work: impl Fn(&mut World, Client, u32, u32) -> Result<Vec<u8>, Refusal>,
) {
    let mut world = World::populated(clients, 100, 8);
    let toolstack = world.toolstack();
    let guests: Vec<_> = (1..=clients).map(|domain| world.guest(domain)).collect();
    let mut aborted = 0_u32;
    for round in 0..ROUNDS {
        let shared = format!("/shared/{round}\0");
        world.ask(toolstack, Op::Mkdir, &[shared.as_bytes()]);
        world.ask(toolstack, Op::SetPerms, &[shared.as_bytes(), b"b0\0"]);
        let open: Vec<_> = guests.iter().map(|guest| (*guest, begin(&mut world, *guest))).collect();
        for (guest, tx) in &open {
            work(&mut world, *guest, *tx, round).expect("a request that a guest may make");
        }
        for (guest, tx) in open {
            match world.ask_in(guest, tx, Op::TransactionEnd, &[b"T\0"]) {
                Ok(_) => {}
                Err(Refusal::Answer(Error::Eagain)) => aborted += 1,
                Err(refusal) => panic!("the end of a transaction: {refusal:?}"),
            }
        }
    }
    let all = ROUNDS * u32::from(clients);
    println!("{name}\t{:.2}", f64::from(aborted) * 100.0 / f64::from(all));
}

fn begin(world: &mut World, guest: Client) -> u32 {
    let answer = world.ask(guest, Op::TransactionStart, &[b"\0"]);
    let digits = answer.strip_suffix(b"\0").map(str::from_utf8);
    digits.and_then(Result::ok).and_then(|digits| digits.parse().ok()).expect("a number")
}
