use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;

use proptest::prelude::*;
use xen_sys::page::OwnPages;

use super::*;

type Ring = End<Arc<OwnPages>>;

fn sizes(left: u16, right: u16) -> Sizes {
    Sizes::new(Order::new(left).unwrap(), Order::new(right).unwrap()).unwrap()
}

fn server(sizes: Sizes) -> Ring {
    let memory = Arc::new(OwnPages::zeroed(sizes.pages()).unwrap());
    End::serve(memory, sizes, (0..sizes.grants()).map(|i| 100 + u32::try_from(i).unwrap()))
}

/// Both ends of a channel, as after the first events.
fn pair(sizes: Sizes) -> (Ring, Ring) {
    let server = server(sizes);
    let client =
        End::connect(Arc::clone(server.memory()), Sizes::announced(server.memory()).unwrap());
    (server, client)
}

fn page(end: &Ring) -> Vec<u8> {
    let mut bytes = vec![0; PAGE_SIZE];
    Region::of(end.memory()).copy_out(0, &mut bytes);
    bytes
}

#[test]
fn the_page_is_laid_out_as_the_header_has_it() {
    let end = server(sizes(12, 13));
    let golden = [
        [0; 16].as_slice(), // indexes: left cons, prod; right cons, prod
        &[12, 0, 13, 0],    // orders
        &[2, 1],            // no client yet, the server lives
        &[1, 0],            // the server wants to hear of bytes
        &[100, 0, 0, 0, 101, 0, 0, 0, 102, 0, 0, 0, 0, 0, 0, 0], // one page left, two right
    ]
    .concat();
    assert_eq!(page(&end)[..golden.len()], golden);
}

#[test]
fn a_client_says_that_it_is_there_and_what_it_wants() {
    let (server, _client) = pair(sizes(12, 12));
    assert_eq!(page(&server)[20..24], [1, 1, 1, 1]);
    assert_eq!(grants(server.memory(), server.sizes()).collect::<Vec<_>>(), [100, 101]);
}

#[test]
fn bytes_lie_where_a_stock_peer_looks_for_them() {
    // orders, where the left ring begins, where the right
    for (left, right, left_at, right_at) in [
        (10, 11, 1024, 2048),
        (11, 10, 2048, 1024),
        (10, 12, 1024, 4096),
        (12, 10, 4096, 1024),
        (12, 13, 4096, 8192),
        (16, 16, 4096, 4096 + 65536),
        (20, 20, 4096, 4096 + (1 << 20)),
    ] {
        let (mut server, mut client) = pair(sizes(left, right));
        assert_eq!(client.write(b"to the left"), Ok(11));
        assert_eq!(server.write(b"to the right"), Ok(12));
        let mut bytes = vec![0; server.memory().len()];
        Region::of(server.memory()).copy_out(0, &mut bytes);
        assert_eq!(&bytes[left_at..left_at + 11], b"to the left", "{left} {right}");
        assert_eq!(&bytes[right_at..right_at + 12], b"to the right", "{left} {right}");
        assert_eq!(bytes[..16], [0, 0, 0, 0, 11, 0, 0, 0, 0, 0, 0, 0, 12, 0, 0, 0]);
        assert_eq!(client.room(), Ok((1 << left) - 11));
        assert_eq!(server.room(), Ok((1 << right) - 12));
    }
}

#[test]
fn sizes_that_a_page_has_no_room_for_are_refused() {
    let order = |raw| Order::new(raw).unwrap();
    for (left, right) in [(10, 10), (11, 11), (10, 20), (20, 10)] {
        assert_eq!(Sizes::new(order(left), order(right)), None, "{left} {right}");
    }
    for (left, right) in [(10, 11), (10, 19), (11, 20), (12, 12), (20, 20)] {
        assert!(Sizes::new(order(left), order(right)).is_some(), "{left} {right}");
    }
    assert_eq!([9, 21, 1 << 8].map(Order::new), [None; 3]);
    assert_eq!(sizes(20, 20).pages(), 513);
}

#[test]
fn whoever_goes_is_seen_to_go() {
    let mut end = server(sizes(12, 12));
    assert_eq!(end.peer(), Peer::NotYet);
    let mut client = End::connect(Arc::clone(end.memory()), end.sizes());
    assert_eq!((end.peer(), client.peer()), (Peer::Here, Peer::Here));
    client.close();
    assert_eq!(end.peer(), Peer::Gone);
    end.close();
    assert_eq!(client.peer(), Peer::Gone);
}

#[test]
fn a_greeting_waits_for_a_client_that_comes_later() {
    let mut end = server(sizes(10, 11));
    assert_eq!(end.write(b"welcome"), Ok(7));
    assert!(!end.take_notify(), "nobody asked yet");
    let mut client = End::connect(Arc::clone(end.memory()), end.sizes());
    let mut bytes = [0; 10];
    assert_eq!(client.read(&mut bytes), Ok(7));
    assert_eq!(&bytes[..7], b"welcome");
}

#[test]
fn an_event_is_due_once_for_what_was_asked() {
    let (mut server, mut client) = pair(sizes(12, 12));
    server.write(b"one").unwrap();
    server.write(b"two").unwrap();
    assert!(server.take_notify(), "the client asked for bytes");
    server.write(b"three").unwrap();
    assert!(!server.take_notify(), "it is at work and did not ask again");
    assert_eq!(client.await_bytes(0), Ok(true), "there are some already");
    let mut bytes = [0; 100];
    client.read(&mut bytes).unwrap();
    assert!(!client.take_notify(), "nobody waits for room");
    assert_eq!(client.await_bytes(0), Ok(false));
    assert!(!server.take_notify(), "nothing moved since");
    server.write(b"four").unwrap();
    assert!(server.take_notify());
}

#[test]
fn room_is_told_to_who_waits_for_it() {
    let (mut server, mut client) = pair(sizes(12, 12));
    assert_eq!(server.write(&[7; 5000]), Ok(4096));
    assert_eq!(server.await_room(0), Ok(false));
    let mut bytes = [0; 10];
    client.read(&mut bytes).unwrap();
    assert!(client.take_notify(), "the server waits for room");
    assert_eq!(server.await_room(0), Ok(true));
}

#[test]
fn an_impossible_index_is_told_and_moves_nothing() {
    let (mut server, _client) = pair(sizes(12, 12));
    let region = Region::of(server.memory());
    region.word(LEFT_PROD as usize).store(4097, Ordering::Relaxed);
    assert_eq!(server.available(), Err(BadIndex { prod: 4097, cons: 0 }));
    Region::of(server.memory()).word(RIGHT_CONS as usize).store(1, Ordering::Relaxed);
    assert_eq!(server.write(b"lost"), Err(BadIndex { prod: 0, cons: 1 }));
    assert!(!server.take_notify());
}

#[test]
fn an_echo_gives_back_what_fits() {
    let (mut server, mut client) = pair(sizes(12, 11));
    client.write(&[9; 3000]).unwrap();
    assert_eq!(server.echo(usize::MAX), Ok(2048), "as much as the way back holds");
    assert!(server.take_notify());
    let mut bytes = [0; 4096];
    assert_eq!(client.read(&mut bytes), Ok(2048));
    assert_eq!(server.echo(usize::MAX), Ok(952));
}

/// What stock peers do between two sleeps, one step of it at a time.
#[derive(Clone, Debug)]
enum Step {
    ServerWrites(usize),
    ServerReads(usize),
    ClientWrites(usize),
    ClientReads(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let len = || prop_oneof![0..64usize, 0..5000usize];
    prop_oneof![
        len().prop_map(Step::ServerWrites),
        len().prop_map(Step::ServerReads),
        len().prop_map(Step::ClientWrites),
        len().prop_map(Step::ClientReads),
    ]
}

proptest! {
    /// Both directions against queues, at any sizes.
    #[test]
    fn both_rings_are_queues(
        left in 10..14u16,
        right in 10..14u16,
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let orders = (Order::new(left).unwrap(), Order::new(right).unwrap());
        prop_assume!(Sizes::new(orders.0, orders.1).is_some());
        let (mut server, mut client) = pair(sizes(left, right));
        let mut queues = [VecDeque::new(), VecDeque::new()];
        let mut next = 0u8;
        for step in steps {
            let (end, queue, len, writes) = match step {
                Step::ServerWrites(len) => (&mut server, 1, len, true),
                Step::ServerReads(len) => (&mut server, 0, len, false),
                Step::ClientWrites(len) => (&mut client, 0, len, true),
                Step::ClientReads(len) => (&mut client, 1, len, false),
            };
            let size = [1 << left, 1 << right][queue];
            let queue = &mut queues[queue];
            if writes {
                let bytes: Vec<u8> = (0..len).map(|_| { next = next.wrapping_add(1); next }).collect();
                let count = end.write(&bytes).unwrap();
                prop_assert_eq!(count, len.min(size - queue.len()));
                queue.extend(&bytes[..count]);
                prop_assert_eq!(end.room().unwrap(), size - queue.len());
            } else {
                let mut bytes = vec![0; len];
                let count = end.read(&mut bytes).unwrap();
                let expected: Vec<u8> = queue.drain(..len.min(queue.len())).collect();
                prop_assert_eq!(&bytes[..count], &expected[..]);
                prop_assert_eq!(end.available().unwrap(), queue.len());
            }
        }
    }
}

/// What a stream has at that place.
fn byte_at(place: usize) -> u8 {
    u8::try_from(place % 251).unwrap()
}

/// Sends a stream through the ring, sleeping whenever it says that nothing is to be done. A lost
/// wake-up ends in a time-out.
fn flow(
    mut end: Ring,
    events: &mpsc::Receiver<()>,
    peer: &mpsc::Sender<()>,
    total: usize,
    sends: bool,
) {
    let (mut done, mut bytes) = (0usize, [0u8; 700]);
    while done < total {
        let most = bytes.len().min(total - done);
        let count = if sends {
            for (i, byte) in bytes.iter_mut().enumerate() {
                *byte = byte_at(done + i);
            }
            end.write(&bytes[..most]).unwrap()
        } else {
            let count = end.read(&mut bytes[..most]).unwrap();
            for (i, &byte) in bytes[..count].iter().enumerate() {
                assert_eq!(byte, byte_at(done + i), "byte {}", done + i);
            }
            count
        };
        done += count;
        if end.take_notify() {
            let _ = peer.send(());
        }
        let more = if sends { end.await_room(0) } else { end.await_bytes(0) };
        if count == 0 && !more.unwrap() {
            let woken = events.recv_timeout(core::time::Duration::from_secs(30));
            assert!(woken.is_ok(), "no event came after {done} of {total} bytes");
        }
    }
}

#[test]
fn nobody_sleeps_through_what_the_other_did() {
    for _ in 0..20 {
        let (server, client) = pair(sizes(10, 11));
        let (to_server, at_server) = mpsc::channel();
        let (to_client, at_client) = mpsc::channel();
        let sender = thread::spawn(move || flow(client, &at_client, &to_server, 300_000, true));
        flow(server, &at_server, &to_client, 300_000, false);
        sender.join().unwrap();
    }
}
