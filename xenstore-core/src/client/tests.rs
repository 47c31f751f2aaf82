use alloc::string::String;
use alloc::vec::Vec;
use core::convert::Infallible;

use embedded_io::{ErrorType, Read, ReadReady, Write};
use proptest::collection::vec;
use proptest::prelude::{Strategy, any, prop_assert, prop_oneof, proptest};
use proptest::test_runner::Config;
use zerocopy::IntoBytes;

use super::codec::{Nonsense, encode};
use super::{Access, Client, EVENTS_MAX, Failure, Nodes, Permission};
use crate::host::DomId;
use crate::wire::{Error, Header, Op, PAYLOAD_MAX};

/// A server that says what it was told to say, a few bytes at a time.
struct Canned {
    input: Vec<u8>,
    at: usize,
    piece: usize,
    output: Vec<u8>,
}

impl ErrorType for Canned {
    type Error = Infallible;
}

impl Read for Canned {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, Infallible> {
        let rest = &self.input[self.at..];
        let count = rest.len().min(buf.len()).min(self.piece);
        buf[..count].copy_from_slice(&rest[..count]);
        self.at += count;
        Ok(count)
    }
}

impl ReadReady for Canned {
    fn read_ready(&mut self) -> Result<bool, Infallible> {
        Ok(self.at < self.input.len())
    }
}

impl Write for Canned {
    fn write(&mut self, buf: &[u8]) -> Result<usize, Infallible> {
        let count = buf.len().min(self.piece);
        self.output.extend_from_slice(&buf[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

fn frame(op: Op, req_id: u32, tx_id: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("a short payload");
    let header = Header::new(op.to_wire(), req_id, tx_id, len);
    [header.as_bytes(), payload].concat()
}

/// A client whose server says `frames`, byte by byte.
fn client(frames: &[Vec<u8>]) -> Client<Canned> {
    Client::new(Canned { input: frames.concat(), at: 0, piece: 1, output: Vec::new() })
}

fn sent(client: Client<Canned>) -> Vec<u8> {
    client.into_stream().output
}

#[test]
fn a_request_and_its_reply() {
    let mut client = client(&[frame(Op::Read, 1, 0, b"value")]);
    assert_eq!(client.read("/a"), Ok(b"value".to_vec()));
    assert_eq!(sent(client), frame(Op::Read, 1, 0, b"/a\0"), "what went out");
}

#[test]
fn requests_carry_ids_of_their_own() {
    let mut client = client(&[frame(Op::Write, 1, 0, b"OK\0"), frame(Op::Rm, 2, 0, b"OK\0")]);
    assert_eq!(client.write("/a", b"\0raw"), Ok(()));
    assert_eq!(client.rm("/a"), Ok(()));
    let out = [frame(Op::Write, 1, 0, b"/a\0\0raw"), frame(Op::Rm, 2, 0, b"/a\0")];
    assert_eq!(sent(client), out.concat());
}

#[test]
fn errors_are_answers() {
    let mut client = client(&[
        frame(Op::Error, 1, 0, b"ENOENT\0"),
        frame(Op::Error, 2, 0, b"EQUOTA\0"),
        frame(Op::Error, 3, 0, b""),
        frame(Op::Read, 4, 0, b""),
    ]);
    assert_eq!(client.read("/a"), Err(Failure::Answer(Error::Enoent)));
    assert_eq!(client.read("/a"), Err(Failure::Answer(Error::Einval)), "an unknown name");
    assert_eq!(client.read("/a"), Err(Failure::Answer(Error::Einval)), "no name at all");
    assert_eq!(client.read("/a"), Ok(Vec::new()), "the connection is well");
}

#[test]
fn events_wait_until_fetched() {
    let mut client = client(&[
        frame(Op::Watch, 1, 0, b"OK\0"),
        frame(Op::WatchEvent, 0, 0, b"/w\0tok\0"),
        frame(Op::WatchEvent, 0, 0, b"/w/x\0\0"),
        frame(Op::Read, 2, 0, b"v"),
        frame(Op::WatchEvent, 0, 0, b"@releaseDomain\0r\0"),
    ]);
    assert_eq!(client.watch("/w", "tok"), Ok(()));
    assert_eq!(client.read("/a"), Ok(b"v".to_vec()), "the reply behind two events");
    let mut heard = Vec::new();
    while let Some(event) = client.poll_event().expect("events in their form") {
        heard.push((String::from(event.path()), String::from(event.token())));
    }
    let expected = [("/w", "tok"), ("/w/x", ""), ("@releaseDomain", "r")];
    let expected = expected.map(|(path, token)| (path.into(), token.into()));
    assert_eq!(heard, expected);
    assert_eq!(client.next_event(), Err(Failure::Closed), "the stream has ended");
}

#[test]
fn too_many_events_are_dropped_and_told() {
    let mut frames: Vec<_> =
        (0..EVENTS_MAX + 5).map(|_| frame(Op::WatchEvent, 0, 0, b"/w\0t\0")).collect();
    frames.push(frame(Op::Read, 1, 0, b"v"));
    let mut client = client(&frames);
    assert_eq!(client.read("/a"), Ok(b"v".to_vec()));
    assert!(client.events_were_lost(), "five did not find room");
    assert!(!client.events_were_lost(), "told once");
    let waiting = core::iter::from_fn(|| client.poll_event().expect("an event")).count();
    assert_eq!(waiting, EVENTS_MAX);
}

#[test]
fn nonsense_ends_the_connection_without_a_panic() {
    let mut oversize = frame(Op::Read, 1, 0, b"");
    oversize[12..].copy_from_slice(&4097_u32.to_le_bytes());
    for (what, frame, nonsense) in [
        ("a length beyond the limit", oversize, Nonsense::Oversize(4097)),
        ("another request's reply", frame(Op::Read, 2, 0, b""), Nonsense::Unasked(2)),
        ("another transaction's reply", frame(Op::Read, 1, 9, b""), Nonsense::Unasked(2)),
        ("another operation's reply", frame(Op::Write, 1, 0, b"OK\0"), Nonsense::Unasked(11)),
        ("an error nobody asked for", frame(Op::Error, 0, 0, b"EIO\0"), Nonsense::Unasked(16)),
        ("an event without token", frame(Op::WatchEvent, 0, 0, b"/w\0"), Nonsense::Malformed),
        ("an event of three", frame(Op::WatchEvent, 0, 0, b"/\0t\0x\0"), Nonsense::Malformed),
        ("an event with a tail", frame(Op::WatchEvent, 0, 0, b"/\0t\0x"), Nonsense::Malformed),
        ("an empty event", frame(Op::WatchEvent, 0, 0, b""), Nonsense::Malformed),
        ("an event in no encoding", frame(Op::WatchEvent, 0, 0, b"\xff\0\0"), Nonsense::Malformed),
    ] {
        let mut client = client(&[frame, self::frame(Op::Read, 1, 0, b"v")]);
        assert_eq!(client.read("/a"), Err(Failure::Nonsense(nonsense)), "{what}");
        assert_eq!(client.read("/a"), Err(Failure::Closed), "after {what}");
        assert_eq!(client.poll_event(), Err(Failure::Closed), "after {what}");
    }
}

#[test]
fn a_stream_that_ends_inside_a_frame() {
    let reply = frame(Op::Read, 1, 0, b"value");
    for cut in 0..reply.len() {
        let mut client = client(&[reply[..cut].to_vec()]);
        assert_eq!(client.read("/a"), Err(Failure::Closed), "after {cut} bytes");
    }
}

#[test]
fn what_does_not_fit_is_not_sent() {
    let mut client = client(&[frame(Op::Write, 2, 0, b"OK\0")]);
    let value = [b'x'; PAYLOAD_MAX];
    assert_eq!(client.write("/a", &value[..PAYLOAD_MAX - 2]), Err(Failure::Unsendable));
    assert_eq!(client.read("/a\0/b"), Err(Failure::Unsendable), "a NUL in a path");
    assert_eq!(client.watch("/a", "t\0"), Err(Failure::Unsendable), "a NUL in a token");
    assert_eq!(client.write("/a", &value[..PAYLOAD_MAX - 3]), Ok(()), "this one fits");
    let mut out = Vec::new();
    encode(&mut out, Op::Write, 2, 0, &[b"/a\0", &value[3..]]).expect("4096 bytes fit");
    assert_eq!(sent(client), out, "one frame in all");
}

#[test]
fn a_large_directory_comes_in_parts() {
    let mut client = client(&[
        frame(Op::Error, 1, 0, b"E2BIG\0"),
        frame(Op::DirectoryPart, 2, 0, b"7\0aa\0b\0"),
        // Somebody changed it: begin anew.
        frame(Op::DirectoryPart, 3, 0, b"8\0c\0\0"),
        frame(Op::DirectoryPart, 4, 0, b"8\0aa\0"),
        frame(Op::DirectoryPart, 5, 0, b"8\0bb\0"),
        frame(Op::DirectoryPart, 6, 0, b"8\0\0"),
    ]);
    assert_eq!(client.directory("/d"), Ok(["aa", "bb"].map(String::from).to_vec()));
    let out = sent(client);
    for (req_id, offset) in [(2, "0"), (3, "5"), (4, "0"), (5, "3"), (6, "6")] {
        let payload = alloc::format!("/d\0{offset}\0");
        let request = frame(Op::DirectoryPart, req_id, 0, payload.as_bytes());
        let found = out.windows(request.len()).any(|part| part == request);
        assert!(found, "request {req_id} asks from {offset}");
    }
}

#[test]
fn directories_that_are_none() {
    for reply in [&b"a"[..], b"a\0\0", b"\0", b"a/b\0", b"\xff\0"] {
        let mut client = client(&[frame(Op::Directory, 1, 0, reply)]);
        let got = client.directory("/d");
        assert_eq!(got, Err(Failure::Nonsense(Nonsense::Malformed)), "{}", reply.escape_ascii());
    }
    for part in [&b""[..], b"7", b"7\0", b"7\0a"] {
        let frames = [frame(Op::Error, 1, 0, b"E2BIG\0"), frame(Op::DirectoryPart, 2, 0, part)];
        let got = client(&frames).directory("/d");
        assert_eq!(got, Err(Failure::Nonsense(Nonsense::Malformed)), "{}", part.escape_ascii());
    }
}

#[test]
fn a_directory_without_an_end() {
    let part = [b"7\0", &b"n\0".repeat(2047)[..]].concat();
    let mut frames = alloc::vec![frame(Op::Error, 1, 0, b"E2BIG\0")];
    frames.extend((2..1100).map(|req_id| frame(Op::DirectoryPart, req_id, 0, &part)));
    assert_eq!(client(&frames).directory("/d"), Err(Failure::Nonsense(Nonsense::Endless)));
}

#[test]
fn permissions_both_ways() {
    let mut client = client(&[
        frame(Op::SetPerms, 1, 0, b"OK\0"),
        frame(Op::GetPerms, 2, 0, b"n0\0b32757\0"),
        frame(Op::GetPerms, 3, 0, b"n0\0q1\0"),
    ]);
    let perms =
        [Permission::new(Access::None, DomId(0)), Permission::new(Access::Both, DomId::ANY)];
    assert_eq!(client.set_perms("/p", &perms), Ok(()));
    assert_eq!(client.perms("/p"), Ok(perms.to_vec()));
    assert_eq!(client.perms("/p"), Err(Failure::Nonsense(Nonsense::Malformed)));
    let out = frame(Op::SetPerms, 1, 0, b"/p\0n0\0b32757\0");
    assert!(sent(client).starts_with(&out), "the entries in their letters");
}

#[test]
fn a_transaction_runs_again_after_a_conflict() {
    let mut client = client(&[
        frame(Op::TransactionStart, 1, 0, b"5\0"),
        frame(Op::Read, 2, 5, b"1"),
        frame(Op::Error, 3, 5, b"EAGAIN\0"),
        frame(Op::TransactionStart, 4, 0, b"6\0"),
        frame(Op::Read, 5, 6, b"2"),
        frame(Op::TransactionEnd, 6, 6, b"OK\0"),
    ]);
    assert_eq!(client.transact(|tx| tx.read("/n")), Ok(b"2".to_vec()));
}

#[test]
fn a_transaction_that_fails_is_given_up() {
    let mut client = client(&[
        frame(Op::TransactionStart, 1, 0, b"5\0"),
        frame(Op::Error, 2, 5, b"ENOENT\0"),
        frame(Op::TransactionEnd, 3, 5, b"OK\0"),
    ]);
    let result = client.transact(|tx| tx.read("/n"));
    assert_eq!(result, Err(Failure::Answer(Error::Enoent)));
    let end = frame(Op::TransactionEnd, 3, 5, b"F\0");
    assert!(sent(client).ends_with(&end), "the last word is the end without commit");
}

#[test]
fn transaction_ids_that_are_none() {
    for id in [&b"0\0"[..], b"\0", b"", b"5", b"x\0", b"4294967296\0"] {
        let mut client = client(&[frame(Op::TransactionStart, 1, 0, id)]);
        let result = client.transact(|tx| tx.read("/n"));
        let nonsense = Failure::Nonsense(Nonsense::Malformed);
        assert_eq!(result, Err(nonsense), "{}", id.escape_ascii());
    }
}

#[test]
fn the_home_of_a_domain() {
    let mut client = client(&[frame(Op::GetDomainPath, 1, 0, b"/local/domain/7\0")]);
    assert_eq!(client.domain_path(DomId(7)), Ok("/local/domain/7".into()));
    assert_eq!(sent(client), frame(Op::GetDomainPath, 1, 0, b"7\0"));
}

/// Frames that come close to what a server would say, in any order.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let text = prop_oneof!["[a-c/0-9]{0,4}", "OK", "ENOENT", "E2BIG", "[nrwb][0-9]{1,6}"];
    let payload = vec((text, 0_usize..3), 0..4).prop_map(|strings| {
        let terminated = |(text, nuls)| [String::into_bytes(text), [0].repeat(nuls)].concat();
        strings.into_iter().flat_map(terminated).collect::<Vec<u8>>()
    });
    let kind = proptest::sample::select(&Op::ALL[..]);
    let one = (kind, 0_u32..6, 0_u32..2, payload)
        .prop_map(|(kind, req_id, tx_id, payload)| frame(kind, req_id, tx_id, &payload));
    let noise = vec(any::<u8>(), 0..40);
    vec(prop_oneof![9 => one, 1 => noise], 0..12).prop_map(|frames| frames.concat())
}

proptest! {
    #![proptest_config(Config { failure_persistence: None, ..Config::default() })]

    #[test]
    fn nothing_a_server_says_is_fatal(input in frames(), piece in 1_usize..20) {
        let mut client = Client::new(Canned { input, at: 0, piece, output: Vec::new() });
        for _ in 0..3 {
            let _ = client.read("/a");
            let _ = client.directory("/a");
            let _ = client.perms("/a");
            let _ = client.watch("/a", "t");
            let _ = client.transact(|tx| tx.write("/a", b"v"));
            let _ = client.domain_path(DomId(1));
            while let Ok(Some(event)) = client.poll_event() {
                prop_assert!(!event.path().contains('\0'), "a path without a NUL");
                prop_assert!(!event.token().contains('\0'), "a token without a NUL");
            }
        }
    }
}

#[test]
fn failures_say_what_happened() {
    let said = |failure: Failure<&str>| format!("{failure}");
    for (failure, expected) in [
        (Failure::Answer(Error::Enoent), "the store answered ENOENT"),
        (Failure::Unsendable, "the request does not fit into a frame"),
        (Failure::Stream("torn"), "the connection to the store failed: torn"),
        (Failure::Closed, "the connection to the store is closed"),
        (
            Failure::Nonsense(Nonsense::Oversize(5000)),
            "the store broke the protocol: a frame of 5000 bytes",
        ),
        (
            Failure::Nonsense(Nonsense::Unasked(99)),
            "the store broke the protocol: a frame of type 99 that nobody asked for",
        ),
        (
            Failure::Nonsense(Nonsense::Malformed),
            "the store broke the protocol: a payload without its form",
        ),
        (
            Failure::Nonsense(Nonsense::Endless),
            "the store broke the protocol: a directory without an end",
        ),
    ] {
        assert_eq!(said(failure), expected);
    }
}

#[test]
fn a_stream_that_takes_nothing_is_closed_for_good() {
    let stream = Canned { input: Vec::new(), at: 0, piece: 0, output: Vec::new() };
    let mut client = Client::new(stream);
    assert_eq!(client.read("/a"), Err(Failure::Closed));
    assert_eq!(client.next_event(), Err(Failure::Closed), "half a frame may be out");
}

#[test]
fn every_access_has_its_letter() {
    let every = [Access::None, Access::Read, Access::Write, Access::Both];
    assert_eq!(every.map(Access::letter), ['n', 'r', 'w', 'b']);
    let mut client = client(&[
        frame(Op::GetPerms, 1, 0, b"n0\0r1\0w2\0b3\0"),
        frame(Op::GetPerms, 2, 0, b"x1\0"),
        frame(Op::GetPerms, 3, 0, b"n1"),
        frame(Op::GetPerms, 4, 0, b"n65536\0"),
    ]);
    let perms = (0..).zip(every).map(|(domain, access)| Permission::new(access, DomId(domain)));
    assert_eq!(client.perms("/a"), Ok(perms.collect()));
    for wrong in ["a letter", "no end", "no domain"] {
        assert_eq!(client.perms("/a"), Err(Nonsense::Malformed.into()), "{wrong}");
    }
}

#[test]
fn a_directory_that_never_stands_still_is_given_up() {
    let mut frames = alloc::vec![frame(Op::Error, 1, 0, b"E2BIG\0")];
    for number in 2..300 {
        let part = alloc::format!("{number}\0name\0");
        frames.push(frame(Op::DirectoryPart, number, 0, part.as_bytes()));
    }
    let mut client = client(&frames);
    assert_eq!(client.directory("/a"), Err(Failure::Answer(Error::Eagain)));
}

#[test]
fn a_transaction_that_is_always_in_the_way_is_given_up() {
    let mut frames = Vec::new();
    for attempt in 0..u32::try_from(super::TRANSACTION_ATTEMPTS).expect("a small number") {
        frames.push(frame(Op::TransactionStart, 2 * attempt + 1, 0, b"7\0"));
        frames.push(frame(Op::Error, 2 * attempt + 2, 7, b"EAGAIN\0"));
    }
    let mut client = client(&frames);
    let mut attempts = 0;
    let done = client.transact(|_| {
        attempts += 1;
        Ok(())
    });
    assert_eq!(done, Err(Failure::Answer(Error::Eagain)));
    assert_eq!(attempts, super::TRANSACTION_ATTEMPTS);
}

#[test]
fn an_end_that_fails_otherwise_is_told() {
    let mut client =
        client(&[frame(Op::TransactionStart, 1, 0, b"7\0"), frame(Op::Error, 2, 7, b"ENOSPC\0")]);
    assert_eq!(client.transact(|_| Ok(())), Err(Failure::Answer(Error::Enospc)));
}

#[test]
fn a_stream_that_does_not_give_ids_back() {
    let frames = [frame(Op::Watch, 0, 0, b"OK\0"), frame(Op::Read, 0, 0, b"v")].concat();
    let stream = Canned { input: frames, at: 0, piece: 100, output: Vec::new() };
    let mut client = Client::without_ids(stream);
    assert_eq!(client.watch("/a", "t"), Ok(()));
    assert_eq!(client.read("/a"), Ok(b"v".to_vec()));
    let expected = [frame(Op::Watch, 0, 0, b"/a\0t\0"), frame(Op::Read, 0, 0, b"/a\0")].concat();
    assert_eq!(sent(client), expected, "all with the id 0");
}
