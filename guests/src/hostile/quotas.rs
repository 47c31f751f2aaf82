//! Acts that use up every quota, and go on.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use core::fmt::Debug;

use embedded_io::{Read, Write};
use xenstore_core::client::{Client, Failure, Nodes};
use xenstore_core::wire::{Error, Op};

/// How often a thing is tried that must be refused some time.
const TRIES: usize = 5000;

/// Bytes of each of the values that use up the memory.
const VALUE: usize = 1900;

/// Uses up the quotas one after the other, and tells of each how much was allowed and what was
/// answered then.
pub(super) fn fill<T: Read<Error: Debug> + Write>(store: &mut Client<T>) {
    store.mkdir("data/n").expect("data/ is ours to write");
    let own = store.perms("data/n").expect("data/ is ours to read")[0];
    until_refused("permissions", 1, |number| store.set_perms("data/n", &vec![own; number]));
    until_refused("bytes of a value", 1900, |number| store.write("data/size", &vec![b'v'; number]));
    until_refused("bytes of a path", 2000, |number| known(store.read(&"p".repeat(number))));
    let end = store.transact(|t| {
        until_refused("paths in a transaction", 1, |number| {
            known(t.read(&format!("data/{number}")))
        });
        Ok(())
    });
    log::info!("guest: whose end is {end:?}");
    until_refused("nodes", 1, |number| store.mkdir(&leaf(number)));
    until_refused("watches", 1, |number| store.watch("data/n", &format!("{number}")));
    for number in 1..900 {
        store.write(&leaf(number), &[b'v'; VALUE]).expect("memory is left for it");
    }
    let end = store.transact(|t| {
        until_refused("values in a transaction", 1, |number| {
            t.write(&leaf(number), &[b'w'; VALUE])
        });
        Ok(())
    });
    log::info!("guest: whose end is {end:?}");
    until_refused("transactions", 1, |_| store.call(Op::TransactionStart, &[&[0]]).map(drop));
    log::info!("guest: has used up everything");
}

/// One of many nodes, of which no directory has more than a hundred: their names count as its size.
fn leaf(number: usize) -> String {
    format!("data/n/{}/{}", number / 100, number % 100)
}

/// Asks once more for what is refused by now.
pub(super) fn go_beyond<T: Read<Error: Debug> + Write>(store: &mut Client<T>) {
    let refused = |answer| match answer {
        Err(Failure::Answer(Error::Enospc)) => {}
        other => panic!("what was refused is now {other:?}"),
    };
    refused(store.mkdir("data/n/more"));
    refused(store.watch("data/n", "more"));
    refused(store.call(Op::TransactionStart, &[&[0]]).map(drop));
    refused(store.write("data/size", &[b'v'; 4000]));
}

/// Does something with the numbers from `first` on, until it is refused.
fn until_refused<E: Debug>(
    what: &str,
    first: usize,
    mut attempt: impl FnMut(usize) -> Result<(), Failure<E>>,
) {
    for number in first..TRIES {
        match attempt(number) {
            Ok(()) => {}
            Err(Failure::Answer(error)) => {
                log::info!("guest: {} {what}, then {error:?}", number - 1);
                return;
            }
            Err(failure) => panic!("{what}: {failure:?}"),
        }
    }
    panic!("{TRIES} {what} and no end");
}

/// That nothing is there is an answer like any other.
fn known<V, E>(answer: Result<V, Failure<E>>) -> Result<(), Failure<E>> {
    match answer {
        Ok(_) | Err(Failure::Answer(Error::Enoent)) => Ok(()),
        Err(failure) => Err(failure),
    }
}
