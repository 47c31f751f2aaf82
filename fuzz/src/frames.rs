//! The target `frames`: bytes as they come from a ring, cut anywhere.
//!
//! However a guest's bytes are cut, the server answers the same, and ends the service at the same
//! place; however its answers are cut, the client reads the same. Of bytes that no server would
//! send, the client makes an error at worst.

use conversations::world::{Frame as Received, Open};
use embedded_io::{ErrorType, Read, ReadReady, Write};
use xenstore_core::client::codec::{Decoder, Frame, Nonsense};
use xenstore_core::client::{Client, EVENTS_MAX};

use crate::world::{Cut, World};

const GUEST: u16 = 1;

/// Hands the bytes over, and panics where the pieces matter.
///
/// The first two bytes say how the streams are cut, the others are what the guest sends.
pub fn run(data: &[u8]) {
    let [input, output, bytes @ ..] = data else { return };
    let whole = exchange(bytes, Cut { input: 1024, output: 1024, pace: 1024 });
    let (input, output) = (usize::from(*input) + 1, usize::from(*output) + 1);
    let cut = Cut { input, output, pace: output };
    let pieces = exchange(bytes, cut);
    assert_eq!(whole, pieces, "the server minds how bytes are cut: {cut:?}");
    let whole = decode(bytes, usize::MAX);
    assert_eq!(whole, decode(bytes, cut.input), "the client minds how bytes are cut: {cut:?}");
    listen(bytes, cut.input);
}

/// What a guest receives for its bytes, and the error in its ring.
fn exchange(bytes: &[u8], cut: Cut) -> (Vec<Received>, u32) {
    let mut world = World::new(cut);
    world.create(GUEST);
    let introduction = format!("{GUEST}\x001\x001\0");
    world.ask(0, Open { kind: 8, req_id: 0, tx_id: 0 }, introduction.as_bytes());
    let mut kept = world.settle();
    world.put(GUEST, bytes);
    kept = kept.and_then(|()| world.settle()).and_then(|()| world.server.check());
    if let Err(why) = kept {
        panic!("{why}");
    }
    let ring = world.ring(GUEST);
    if ring.error == 0 {
        assert!(ring.ledger.open.is_empty(), "no answer to {:?}", ring.ledger.open);
        (ring.mailbox.inbox.drain(..).collect(), 0)
    } else {
        // How much of the answers it received before that is a matter of when it looked.
        (Vec::new(), ring.error)
    }
}

/// Every frame of a stream as a client takes it, up to what it cannot understand.
fn decode(bytes: &[u8], cut: usize) -> (Vec<Frame>, Option<Nonsense>) {
    let (mut decoder, mut frames, mut rest) = (Decoder::new(), Vec::new(), bytes);
    while !rest.is_empty() {
        let vacant = decoder.vacant();
        assert!(!vacant.is_empty(), "the decoder wants nothing more");
        let count = vacant.len().min(rest.len()).min(cut);
        vacant[..count].copy_from_slice(&rest[..count]);
        rest = &rest[count..];
        match decoder.filled(count) {
            Ok(frame) => frames.extend(frame),
            Err(nonsense) => return (frames, Some(nonsense)),
        }
    }
    (frames, None)
}

/// A client whose server says this, in pieces, whatever it is asked.
fn listen(bytes: &[u8], cut: usize) {
    let mut client = Client::new(Tape { rest: bytes, cut });
    // Each request numbers itself one up from 1, so frames of the input can answer it.
    let _ = client.watch("/a", "t");
    let _ = client.call(xenstore_core::wire::Op::Read, &[b"/a\0"]);
    let mut events = 0;
    while let Ok(Some(_)) = client.poll_event() {
        events += 1;
    }
    assert!(events <= EVENTS_MAX + bytes.len() / 18, "{events} events of {} bytes", bytes.len());
}

/// A stream that takes everything and gives what is on it.
struct Tape<'a> {
    rest: &'a [u8],
    cut: usize,
}

impl ErrorType for Tape<'_> {
    type Error = core::convert::Infallible;
}

impl Read for Tape<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Self::Error> {
        let count = self.rest.len().min(bytes.len()).min(self.cut);
        bytes[..count].copy_from_slice(&self.rest[..count]);
        self.rest = &self.rest[count..];
        Ok(count)
    }
}

impl ReadReady for Tape<'_> {
    fn read_ready(&mut self) -> Result<bool, Self::Error> {
        Ok(!self.rest.is_empty())
    }
}

impl Write for Tape<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Self::Error> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
}
