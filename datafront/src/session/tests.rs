use alloc::sync::Arc;

use databack::frame::{Limits, Outcome};
use databack::vchan::{Order, Sizes};
use proptest::collection::vec;
use proptest::prelude::*;
use xen_sys::page::OwnPages;

use super::*;

type Rings = End<Arc<OwnPages>>;

/// The broker's end and ours.
fn ends() -> (Rings, Rings) {
    let order = Order::new(13).expect("8 KiB");
    let sizes = Sizes::new(order, order).expect("two rings");
    let memory = Arc::new(OwnPages::zeroed(sizes.pages()).expect("memory"));
    let grants = (0..sizes.grants()).map(|_| 0);
    (End::serve(Arc::clone(&memory), sizes, grants), End::connect(memory, sizes))
}

fn say(broker: &mut Rings, notice: &Notice<'_>, payload: &[u8]) {
    let len = u32::try_from(payload.len()).expect("a short payload");
    let head = frame::encode(notice, len).expect("a short head");
    assert_eq!(broker.write(head.bytes()), Ok(head.bytes().len()), "there is room");
    assert_eq!(broker.write(payload), Ok(payload.len()), "there is room");
}

const LIMITS: Limits =
    Limits { window: 5, message: 100, pushes: 1, publishes: 1, services: 1, subscriptions: 1 };

#[test]
fn the_first_frame_of_ours_is_the_greeting() {
    let (mut broker, mut end) = ends();
    let mut session = Session::new();
    assert_eq!(session.poll(&mut end).expect("nothing came"), None);
    let mut bytes = [0; 64];
    let count = broker.read(&mut bytes).expect("sound indexes");
    let frame = frame::decode::<Call<'_>>(&bytes[..count]).expect("a frame").expect("all of it");
    assert_eq!(frame.header, Call::Hello { version: VERSION, features: 0 });
}

#[test]
fn no_more_is_sent_than_there_is_credit_for() {
    let (mut broker, mut end) = ends();
    let mut session = Session::new();
    say(&mut broker, &Notice::Hello { version: 1, features: 0, domain: 3, limits: LIMITS }, b"");
    let welcome = session.poll(&mut end).expect("a welcome");
    assert!(matches!(welcome, Some(Event::Welcome(welcome)) if welcome.domain.raw() == 3));
    let push = Push { id: 9, domain: None, name: "jobs", len: 12, timeout_ms: 0 };
    assert_eq!(session.push(&mut end, &push, b"abcdefg").expect("it begins"), 5, "the window");
    assert_eq!(session.feed(&mut end, 9, b"fg").expect("no credit"), 0);
    say(&mut broker, &Notice::PushCredit { id: 9, bytes: 4 }, b"");
    let credit = session.poll(&mut end).expect("a frame");
    assert_eq!(credit, Some(Event::Credit { id: 9 }));
    assert_eq!(session.feed(&mut end, 9, b"fghijkl").expect("credit"), 4);
    say(&mut broker, &Notice::PushCredit { id: 9, bytes: u32::MAX }, b"");
    session.poll(&mut end).expect("a frame");
    assert_eq!(session.feed(&mut end, 9, b"jklmnop").expect("credit"), 3, "its length");
    say(&mut broker, &Notice::PushDone { id: 9, outcome: Outcome::Done { flag: 1 } }, b"yes");
    let done = Event::Pushed { id: 9, outcome: Outcome::Done { flag: 1 }, reply: b"yes".to_vec() };
    assert_eq!(session.poll(&mut end).expect("a frame"), Some(done));
    assert_eq!(session.feed(&mut end, 9, b"more").expect("it is over"), 0);
}

/// Bytes of a receiver's ring that the broker gives to no block, and more than one head of a frame
/// to it is longer than that to the broker, for each of the frames that a ring holds.
const NOT_FOR_BLOCKS: usize = 512 + 4 * 64;

#[test]
fn a_block_leaves_as_much_room_as_its_receivers_ring_will_not_have() {
    let (mut broker, mut end) = ends();
    let mut session = Session::new();
    let limits = Limits { window: 1 << 20, ..LIMITS };
    say(&mut broker, &Notice::Hello { version: 1, features: 0, domain: 3, limits }, b"");
    session.poll(&mut end).expect("a welcome");
    let block = [7; 8 << 10];
    let push = Push { id: 9, domain: None, name: "jobs", len: 8 << 10, timeout_ms: 0 };
    let mut sent = session.push(&mut end, &push, &block).expect("it begins");
    sent += session.feed(&mut end, 9, &block[sent..]).expect("it has credit");
    assert!(sent >= 7000, "only {sent} bytes were sent");
    let room = end.room().expect("sound indexes");
    assert!(room >= NOT_FOR_BLOCKS, "{room} bytes are left");
}

#[test]
fn a_little_credit_is_no_reason_for_a_frame() {
    let (mut broker, mut end) = ends();
    let mut session = Session::new();
    let limits = Limits { window: 8 << 10, ..LIMITS };
    say(&mut broker, &Notice::Hello { version: 1, features: 0, domain: 3, limits }, b"");
    session.poll(&mut end).expect("a welcome");
    let block = [7; 8 << 10];
    let push = Push { id: 9, domain: None, name: "jobs", len: 1 << 20, timeout_ms: 0 };
    let sent = session.push(&mut end, &push, &block).expect("it begins");
    assert!(sent < 8 << 10, "there is credit left");
    // The ring is empty again, but nobody has been told that the receiver has anything.
    let count = broker.available().expect("sound indexes");
    broker.consume(count);
    assert_eq!(session.feed(&mut end, 9, &block).expect("some credit"), 0, "a small frame");
    let half = 4 << 10;
    say(&mut broker, &Notice::PushCredit { id: 9, bytes: half }, b"");
    session.poll(&mut end).expect("a frame");
    let more = session.feed(&mut end, 9, &block).expect("credit");
    assert_eq!((sent + more) as u64, (8 << 10) + u64::from(half), "all that there is credit for");
}

#[test]
fn bytes_of_a_block_are_read_where_they_lie() {
    let (mut broker, mut end) = ends();
    let mut session = Session::new();
    say(&mut broker, &Notice::Deliver { id: 7, from: 2, name: "jobs", len: 9 }, b"hel");
    say(&mut broker, &Notice::DeliverData { id: 7 }, b"lo you");
    let came = session.poll(&mut end).expect("a block");
    assert!(matches!(came, Some(Event::Delivery(delivery)) if delivery.len == 9));
    let mut bytes = [0; 100];
    for part in ["hel", "lo you"] {
        assert_eq!(session.poll(&mut end).expect("more of it"), Some(Event::Data { id: 7 }));
        assert_eq!(session.read(&mut end, 8, &mut bytes).expect("sound"), 0, "another block's");
        let count = session.read(&mut end, 7, &mut bytes).expect("sound");
        assert_eq!(&bytes[..count], part.as_bytes());
        assert_eq!(session.read(&mut end, 7, &mut bytes).expect("sound"), 0, "its frame's end");
    }
    assert_eq!(session.poll(&mut end).expect("nothing more"), None);
}

/// Frames that come close to what a broker would say, and noise.
fn said() -> impl Strategy<Value = Vec<u8>> {
    let head = |notice: &Notice<'_>, len: u32| {
        frame::encode(notice, len).expect("a short head").bytes().to_vec()
    };
    let frame =
        (0..6_u8, 0..4_u32, any::<u64>(), 0..300_u32).prop_map(move |(kind, id, n, len)| {
            let big = u64::from(id);
            let notice = match kind {
                0 => Notice::Hello { version: 1, features: 0, domain: id as u16, limits: LIMITS },
                1 => Notice::PushCredit { id, bytes: n as u32 },
                2 => Notice::PushDone { id, outcome: Outcome::TimedOut },
                3 => Notice::Deliver { id: big, from: n as u16, name: "a", len: n },
                4 => Notice::DeliverData { id: big },
                _ => Notice::Message {
                    id,
                    seq: n,
                    dropped: 0,
                    retained: false,
                    from: n as u16,
                    topic: "t",
                },
            };
            let mut bytes = head(&notice, len);
            bytes.resize(bytes.len() + len as usize, b'x');
            bytes
        });
    vec(prop_oneof![9 => frame, 1 => vec(any::<u8>(), 0..40)], 0..20)
        .prop_map(|frames| frames.concat())
}

proptest! {
    /// Whatever the other end says, in pieces of any size: an event, or an error, and no more than
    /// the rings hold.
    #[test]
    fn nothing_a_broker_says_is_fatal(bytes in said(), piece in 1..700_usize) {
        let (mut broker, mut end) = ends();
        let mut session = Session::new();
        for piece in bytes.chunks(piece) {
            prop_assert_eq!(broker.write(piece), Ok(piece.len()));
            loop {
                match session.poll(&mut end) {
                    Ok(None) => break,
                    Ok(Some(Event::Data { id })) => {
                        let mut some = [0; 100];
                        prop_assert!(session.read(&mut end, id, &mut some).expect("sound") > 0);
                    }
                    Ok(Some(Event::Welcome(_))) => {
                        let push = Push { id: 1, domain: None, name: "a", len: 50, timeout_ms: 0 };
                        session.push(&mut end, &push, b"0123456789").expect("a short block");
                    }
                    Ok(Some(_)) => {
                        session.feed(&mut end, 1, b"more").expect("sound");
                    }
                    // The channel would be given up.
                    Err(_) => return Ok(()),
                }
            }
            let mut sink = [0; 8192];
            broker.read(&mut sink).expect("sound");
        }
    }
}
