//! Connections and a broker, each in a thread of its own.

use core::time::Duration;
use std::io::{Cursor, Read, Write};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use databack::ask::Kind;

use crate::{Connection, Error, Event, Link, Outcome, Push, Reason, Slow, Target};
use host::{Host, MemoryLink};

mod host;

const POLICY: &str = "allow 1 push *\nallow 2 push *\nallow * serve *";

fn target(text: &str) -> Target {
    text.parse().expect("a target")
}

/// Bytes that tell where they belong.
fn bytes(len: usize) -> Vec<u8> {
    (0_u32..).flat_map(|word| word.wrapping_mul(0x9e37_79b9).to_le_bytes()).take(len).collect()
}

/// Serves `name` in a thread of its own until it has answered `count` blocks as `answer` says.
fn serving(
    mut connection: Connection<MemoryLink>,
    name: &'static str,
    count: usize,
    answer: impl Fn(u16, Vec<u8>) -> (u32, Vec<u8>) + Send + 'static,
) -> thread::JoinHandle<()> {
    connection.serve(name).expect("the name is free");
    thread::spawn(move || {
        for _ in 0..count {
            let mut block = connection.accept().expect("a block");
            let mut got = Vec::new();
            block.read_to_end(&mut got).expect("all of it");
            assert_eq!(got.len() as u64, block.len(), "what was announced came");
            let (flag, reply) = answer(block.from().raw(), got);
            block.done(flag, &reply).expect("the answer is taken");
        }
        connection.close().expect("nothing is left to be told");
    })
}

#[test]
fn a_block_arrives_whole_and_its_flag_comes_back() {
    let host = Host::new(POLICY);
    let sizes = [0, 1, 64, 65_535, 65_536, 65_537, 3 << 20];
    let receiver = serving(host.join(5), "jobs", sizes.len(), |from, got| {
        assert!(got == bytes(got.len()), "{} bytes came as others", got.len());
        (u32::from(from), got.len().to_string().into_bytes())
    });
    let mut sender = host.join(1);
    for len in sizes {
        let block = bytes(len);
        let answer = sender.push(&target("jobs"), &block[..], len as u64, None).expect("an answer");
        assert_eq!(answer.outcome, Outcome::Done { flag: 1 }, "{len} bytes");
        assert_eq!(answer.reply, len.to_string().as_bytes());
    }
    receiver.join().expect("the receiver is content");
}

#[test]
fn rings_of_other_sizes_carry_the_same() {
    for order in [13, 20] {
        let host = Host::new(POLICY);
        let door = host.door();
        let receiver = serving(door.connect(5, order), "jobs", 1, |_, got| {
            assert!(got == bytes(2 << 20), "other bytes came");
            (0, Vec::new())
        });
        let mut sender = door.connect(1, order);
        let block = bytes(2 << 20);
        let answer = sender.push(&target("5/jobs"), &block[..], 2 << 20, None).expect("an answer");
        assert_eq!(answer.outcome, Outcome::Done { flag: 0 }, "rings of order {order}");
        receiver.join().expect("the receiver is content");
    }
}

#[test]
fn blocks_of_two_senders_do_not_mix() {
    let host = Host::new(POLICY);
    let receiver = serving(host.join(5), "jobs", 8, |from, got| {
        let expected = bytes(got.len() + usize::from(from));
        assert!(got == expected[usize::from(from)..], "the bytes of domain {from}");
        (0, Vec::new())
    });
    let senders = [1, 2].map(|domain: u16| {
        let mut sender = host.join(domain);
        thread::spawn(move || {
            let block = &bytes(700_000)[usize::from(domain)..];
            for _ in 0..4 {
                let answer = sender.push(&target("jobs"), block, block.len() as u64, None);
                assert_eq!(answer.expect("an answer").outcome, Outcome::Done { flag: 0 });
            }
        })
    });
    for sender in senders {
        sender.join().expect("the sender is content");
    }
    receiver.join().expect("the receiver is content");
}

#[test]
fn each_way_in_which_a_push_fails_is_told_apart() {
    let host = Host::new("allow 1 push *\nallow * serve *\nallow 3 push other");
    let mut sender = host.join(1);
    let outcome = |sender: &mut Connection<MemoryLink>, to: &str, timeout| {
        sender.push(&target(to), &b"block"[..], 5, timeout).expect("an answer").outcome
    };
    assert_eq!(outcome(&mut sender, "nobody", None), Outcome::NoReceiver);
    let mut other = host.join(3);
    assert_eq!(outcome(&mut other, "jobs", None), Outcome::Denied);

    let (mut first, mut second) = (host.join(5), host.join(6));
    first.serve("jobs").expect("the name is free");
    second.serve("jobs").expect("the name is free in another domain");
    assert_eq!(outcome(&mut sender, "jobs", None), Outcome::Ambiguous);
    let began = Instant::now();
    assert_eq!(outcome(&mut sender, "5/jobs", Some(Duration::from_millis(50))), Outcome::TimedOut);
    assert!(began.elapsed() < Duration::from_secs(4), "the broker told when the time was over");
    drop(second);

    let rejecting = thread::spawn(move || {
        let mut given_up = first.accept().expect("the block that was not answered in time");
        given_up.read_to_end(&mut Vec::new()).expect("it was here before");
        let over = given_up.check().expect_err("nobody waits for the answer");
        assert!(over.to_string().contains("patience"), "{over}");
        drop(given_up);
        first.accept().expect("a block").reject("not today").expect("it is told");
        drop(first.accept().expect("a block"));
    });
    let answer = sender.push(&target("jobs"), &b"block"[..], 5, None).expect("an answer");
    assert_eq!((answer.outcome, &answer.reply[..]), (Outcome::Rejected, &b"not today"[..]));
    let answer = sender.push(&target("jobs"), &b"block"[..], 5, None).expect("an answer");
    assert_eq!(answer.outcome, Outcome::Rejected, "a block that is dropped without an answer");
    rejecting.join().expect("the receiver is content");
}

#[test]
fn a_receiver_that_goes_in_the_middle_is_told_of() {
    let host = Host::new(POLICY);
    let mut receiver = host.join(5);
    receiver.serve("jobs").expect("the name is free");
    let going = thread::spawn(move || {
        let mut block = receiver.accept().expect("a block");
        block.read_exact(&mut [0; 100_000]).expect("the beginning");
        // As if its program were killed.
        core::mem::forget(block);
        drop(receiver);
    });
    let mut sender = host.join(1);
    let block = bytes(8 << 20);
    let answer = sender.push(&target("jobs"), &block[..], 8 << 20, None).expect("an answer");
    assert_eq!(answer.outcome, Outcome::ReceiverGone);
    going.join().expect("the receiver was content");
    sender.ping().expect("the sender's channel is well");
}

#[test]
fn a_block_that_ends_early_is_taken_back() {
    let host = Host::new(POLICY);
    let mut receiver = host.join(5);
    receiver.serve("jobs").expect("the name is free");
    let cut_off = thread::spawn(move || {
        let mut block = receiver.accept().expect("a block");
        let error = block.read_to_end(&mut Vec::new()).expect_err("it has no end");
        assert!(error.to_string().contains("gave up"), "{error}");
        assert!(matches!(block.done(0, b""), Ok(()) | Err(Error::Gone)));
        receiver.ping().expect("the channel is well");
    });
    let mut sender = host.join(1);
    let error =
        sender.push(&target("jobs"), &bytes(100)[..], 200, None).expect_err("100 are missing");
    assert!(matches!(error, Error::Input(_)), "{error}");
    cut_off.join().expect("the receiver is content");
    sender.ping().expect("the sender's channel is well");
}

#[test]
fn a_reply_that_is_too_long_is_the_receivers_mistake() {
    let host = Host::new(POLICY);
    let mut receiver = host.join(5);
    receiver.serve("jobs").expect("the name is free");
    let wordy = thread::spawn(move || {
        let block = receiver.accept().expect("a block");
        assert!(matches!(block.done(0, &[b'x'; 4097]), Err(Error::TooLong)));
    });
    let mut sender = host.join(1);
    let answer = sender.push(&target("jobs"), &b""[..], 0, None).expect("an answer");
    assert_eq!(answer.outcome, Outcome::Rejected);
    wordy.join().expect("the receiver is content");
}

#[test]
fn a_name_can_be_denied_and_given_back() {
    let host = Host::new("allow 5 serve jobs\nallow 1 push *");
    let mut receiver = host.join(5);
    let refused = receiver.serve("mail").expect_err("not allowed");
    assert!(matches!(refused, Error::NotServed { reason: Reason::Denied, .. }), "{refused}");
    receiver.serve("jobs").expect("allowed");
    receiver.unserve("jobs").expect("ours");
    let mut sender = host.join(1);
    let answer = sender.push(&target("jobs"), &b""[..], 0, None).expect("an answer");
    assert_eq!(answer.outcome, Outcome::NoReceiver);
}

#[test]
fn after_a_restart_a_service_is_there_again() {
    let host = Host::new(POLICY);
    let door = host.door();
    let (mut receiver, mut sender) = (door.connect(5, 16), door.connect(1, 16));
    receiver.serve("jobs").expect("the name is free");
    let (seen, was_seen) = mpsc::channel();
    let served = thread::spawn(move || {
        let block = receiver.accept().expect("a block");
        seen.send(()).expect("the test waits");
        drop(was_gone(block));
        let block = receiver.accept().expect("another, by a channel of the new host");
        block.done(7, b"again").expect("it is answered");
        receiver.ping().expect("the answer was taken");
    });
    let pushing = thread::spawn(move || {
        let error = sender.push(&target("jobs"), &b"first"[..], 5, None).expect_err("no answer");
        assert!(matches!(error, Error::Interrupted), "{error}");
        sender
    });
    was_seen.recv().expect("the receiver got it");
    drop(host);
    let mut sender = pushing.join().expect("the sender is content");
    let host = Host::new(POLICY);
    door.lead_to(&host);
    // The receiver comes back in its own time.
    let began = Instant::now();
    let answer = loop {
        let answer = sender.push(&target("jobs"), &b"second"[..], 6, None).expect("an answer");
        if answer.outcome != Outcome::NoReceiver {
            break answer;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "nobody came back");
        thread::sleep(Duration::from_millis(20));
    };
    assert_eq!((answer.outcome, &answer.reply[..]), (Outcome::Done { flag: 7 }, &b"again"[..]));
    served.join().expect("the receiver is content");
}

/// Reads on until the channel is lost.
fn was_gone<L: Link>(mut block: crate::Block<'_, L>) -> crate::Block<'_, L> {
    let mut sink = Vec::new();
    block.read_to_end(&mut sink).expect("the block was here");
    while block.check().is_ok() {
        thread::sleep(Duration::from_millis(5));
    }
    block
}

#[test]
fn an_event_loop_can_push_and_be_pushed_to() {
    let host = Host::new(POLICY);
    let receiver = serving(host.join(5), "jobs", 1, |_, got| {
        (u32::from(got == bytes(1 << 20)), got[..4].to_vec())
    });
    let mut sender = host.join(1);
    let block = bytes(1 << 20);
    let id = sender
        .with(|session, link| {
            let id = session.fresh_id();
            let len = block.len() as u64;
            let push = Push { id, domain: None, name: "jobs", len, timeout_ms: 0 };
            session.push(link.end(), &push, b"").map(|_| id)
        })
        .expect("it begins");
    let mut sent = 0;
    let outcome = loop {
        sent += sender
            .with(|session, link| session.feed(link.end(), id, &block[sent..]))
            .expect("it goes on");
        match sender.poll().expect("the channel is well") {
            Some(Event::Pushed { id: ended, outcome, .. }) if ended == id => break outcome,
            Some(_) => {}
            None => sender.wait(None).expect("an event"),
        }
    };
    assert_eq!(outcome, Outcome::Done { flag: 1 });
    receiver.join().expect("the receiver is content");
}

#[test]
fn what_is_sent_to_an_echo_comes_back() {
    let host = Host::new("allow 3 echo");
    let mut stream = host.stream(3, Kind::Echo);
    for len in [1, 4096, 4095] {
        let sent = bytes(len);
        stream.write_all(&sent).expect("there is room");
        let mut came = vec![0; len];
        stream.read_exact(&mut came).expect("as many come back");
        assert!(came == sent, "{len} bytes came back as others");
    }
}

#[test]
fn a_stream_joins_two_ends_and_ends_with_one() {
    let host = Host::new("allow * stream tape");
    let kind = Kind::Stream("tape".parse().expect("a name"));
    let (mut here, mut there) = (host.stream(3, kind.clone()), host.stream(4, kind));
    let sent = bytes(1 << 20);
    let expected = sent.clone();
    let reading = thread::spawn(move || {
        let mut came = Vec::new();
        there.read_to_end(&mut came).expect("the other end closes it");
        assert!(came == expected, "{} bytes came", came.len());
    });
    std::io::copy(&mut Cursor::new(sent), &mut here).expect("all of it is taken");
    here.drain().expect("all of it is read");
    drop(here);
    reading.join().expect("the other end is content");
}

const WEATHER: &str = "allow 1 publish #\nallow 5 subscribe #\nallow 6 subscribe weather/+/wind";

#[test]
fn a_message_goes_to_all_who_want_it() {
    let host = Host::new(WEATHER);
    let (mut publisher, mut all, mut wind) = (host.join(1), host.join(5), host.join(6));
    all.subscribe("#", Slow::Wait, 8).expect("allowed");
    let of_wind = wind.subscribe("weather/+/wind", Slow::Wait, 8).expect("allowed");
    assert_eq!(publisher.publish("weather/north/wind", b"strong", false).expect("taken"), 2);
    assert_eq!(publisher.publish("weather/north", b"cold", false).expect("taken"), 1);
    let message = wind.next_message().expect("the one that it wanted");
    assert_eq!((message.subscription, message.from.raw()), (of_wind, 1));
    assert_eq!((&message.topic[..], &message.payload[..]), ("weather/north/wind", &b"strong"[..]));
    let topics: Vec<_> =
        all.messages().take(2).map(|message| message.expect("both").topic).collect();
    assert_eq!(topics, ["weather/north/wind", "weather/north"]);

    wind.unsubscribe(of_wind).expect("it ends");
    assert_eq!(publisher.publish("weather/north/wind", b"calm", false).expect("taken"), 1);
    let refused = wind.subscribe("#", Slow::Wait, 8).expect_err("not allowed");
    assert!(matches!(refused, Error::NotSubscribed { reason: Reason::Denied, .. }), "{refused}");
    let refused = wind.publish("weather/north", b"mine", false).expect_err("not allowed");
    assert!(matches!(refused, Error::NotPublished { reason: Reason::Denied, .. }), "{refused}");
}

#[test]
fn a_message_that_is_kept_comes_to_who_is_late() {
    let host = Host::new(WEATHER);
    let mut publisher = host.join(1);
    publisher.publish("weather/south/wind", b"old", true).expect("kept");
    publisher.publish("weather/south/wind", b"new", true).expect("kept");
    let mut late = host.join(6);
    late.subscribe("weather/+/wind", Slow::DropOldest, 8).expect("allowed");
    let message = late.next_message().expect("the last one");
    assert_eq!((message.retained, &message.payload[..]), (true, &b"new"[..]));
}

#[test]
fn more_messages_come_than_there_is_credit_for_at_once() {
    let host = Host::new(WEATHER);
    let (mut publisher, mut all) = (host.join(1), host.join(5));
    all.subscribe("#", Slow::Wait, 4).expect("allowed");
    // Each larger than the ring, with a subscriber that gives credit as it takes them.
    let len = 100_000;
    let publishing = thread::spawn(move || {
        for number in 0..50_u8 {
            assert_eq!(publisher.publish("n", &vec![number; len], false).expect("taken"), 1);
        }
    });
    for number in 0..50 {
        let message = all.next_message().expect("the next one");
        assert_eq!((message.payload.len(), message.payload[0]), (len, number));
        assert_eq!(message.dropped, 0, "none is lost where publishers wait");
    }
    publishing.join().expect("the publisher is content");
}

#[test]
fn a_subscription_outlives_its_channel() {
    let host = Host::new(WEATHER);
    let door = host.door();
    let mut all = door.connect(5, 16);
    all.subscribe("#", Slow::Wait, 4).expect("allowed");
    drop(host);
    let host = Host::new(WEATHER);
    door.lead_to(&host);
    let reading = thread::spawn(move || all.next_message().expect("by the new host").payload);
    let mut publisher = host.join(1);
    let began = Instant::now();
    while publisher.publish("n", b"again", false).expect("taken") == 0 {
        assert!(began.elapsed() < Duration::from_secs(30), "nobody came back");
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(reading.join().expect("the subscriber is content"), b"again");
}

#[test]
fn a_receiver_need_not_read_what_it_answers() {
    let host = Host::new(POLICY);
    let mut receiver = host.join(5);
    receiver.serve("jobs").expect("the name is free");
    let hasty = thread::spawn(move || {
        for read in [0, 1, 100_000] {
            let mut block = receiver.accept().expect("a block");
            block.read_exact(&mut vec![0; read]).expect("so much of it");
            block.done(9, b"enough").expect("the answer is taken");
        }
        receiver.close().expect("nothing is left to be told");
    });
    let mut sender = host.join(1);
    let block = bytes(8 << 20);
    for _ in 0..3 {
        let answer = sender.push(&target("jobs"), &block[..], 8 << 20, None).expect("an answer");
        assert_eq!(
            (answer.outcome, &answer.reply[..]),
            (Outcome::Done { flag: 9 }, &b"enough"[..])
        );
    }
    hasty.join().expect("the receiver is content");
}
