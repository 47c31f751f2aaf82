use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits {
    window: 65536,
    message: 262_144,
    pushes: 16,
    publishes: 8,
    services: 32,
    subscriptions: 200,
};

/// Every call, with the bytes of its header.
const CALLS: &[(Call<'_>, &[u8])] = &[
    (Call::Hello { version: 1, features: 0 }, &[0, 1, 0]),
    (Call::Serve { name: "jobs" }, b"\x01\x04jobs"),
    (Call::Unserve { name: "jobs" }, b"\x02\x04jobs"),
    (
        Call::Push { id: 7, domain: None, name: "jobs", len: 300, timeout_ms: 0 },
        b"\x03\x07\x00\x04jobs\xac\x02\x00",
    ),
    (
        Call::Push { id: 128, domain: Some(5), name: "a", len: 1 << 30, timeout_ms: 1000 },
        b"\x03\x80\x01\x01\x05\x01a\x80\x80\x80\x80\x04\xe8\x07",
    ),
    (Call::PushData { id: 7 }, &[4, 7]),
    (Call::PushCancel { id: 7 }, &[5, 7]),
    (Call::Done { id: 1 << 20, flag: 255 }, &[6, 0x80, 0x80, 0x40, 0xff, 1]),
    (Call::Reject { id: 1 }, &[7, 1]),
    (Call::Publish { id: 2, topic: "a/b", retain: true }, b"\x08\x02\x03a/b\x01"),
    (
        Call::Subscribe { id: 3, filter: "a/+/#", slow: Slow::DropOldest, credit: 64 },
        b"\x09\x03\x05a/+/#\x01\x40",
    ),
    (Call::Unsubscribe { id: 3 }, &[10, 3]),
    (Call::Credit { id: 3, messages: 10 }, &[11, 3, 10]),
    (Call::Status, &[12]),
    (Call::Ping { cookie: 200 }, &[13, 200, 1]),
];

/// Every notice, with the bytes of its header.
const NOTICES: &[(Notice<'_>, &[u8])] = &[
    (
        Notice::Hello { version: 1, features: 0, domain: 5, limits: LIMITS },
        &[0, 1, 0, 5, 0x80, 0x80, 4, 0x80, 0x80, 0x10, 16, 8, 32, 200, 1],
    ),
    (Notice::Served { name: "jobs" }, b"\x01\x04jobs"),
    (Notice::NotServed { name: "jobs", reason: Reason::Taken }, b"\x02\x04jobs\x03"),
    (Notice::PushCredit { id: 7, bytes: 65536 }, &[3, 7, 0x80, 0x80, 4]),
    (Notice::PushDone { id: 7, outcome: Outcome::Done { flag: 3 } }, &[4, 7, 0, 3]),
    (Notice::PushDone { id: 7, outcome: Outcome::TimedOut }, &[4, 7, 1]),
    (Notice::PushDone { id: 7, outcome: Outcome::ReceiverGone }, &[4, 7, 2]),
    (Notice::PushDone { id: 7, outcome: Outcome::NoReceiver }, &[4, 7, 3]),
    (Notice::PushDone { id: 7, outcome: Outcome::Ambiguous }, &[4, 7, 4]),
    (Notice::PushDone { id: 7, outcome: Outcome::Denied }, &[4, 7, 5]),
    (Notice::PushDone { id: 7, outcome: Outcome::Rejected }, &[4, 7, 6]),
    (Notice::PushDone { id: 7, outcome: Outcome::Busy }, &[4, 7, 7]),
    (Notice::PushDone { id: 7, outcome: Outcome::Cancelled }, &[4, 7, 8]),
    (Notice::PushDone { id: 7, outcome: Outcome::BadName }, &[4, 7, 9]),
    (Notice::Deliver { id: 9, from: 4, name: "jobs", len: 300 }, b"\x05\x09\x04\x04jobs\xac\x02"),
    (Notice::DeliverData { id: 9 }, &[6, 9]),
    (Notice::DeliverCancel { id: 9, reason: Cancel::SenderGone }, &[7, 9, 0]),
    (Notice::DeliverCancel { id: 9, reason: Cancel::Cancelled }, &[7, 9, 1]),
    (Notice::DeliverCancel { id: 9, reason: Cancel::TimedOut }, &[7, 9, 2]),
    (Notice::DeliverCancel { id: 9, reason: Cancel::Busy }, &[7, 9, 3]),
    (Notice::Published { id: 2, receivers: 8 }, &[8, 2, 8]),
    (Notice::NotPublished { id: 2, reason: Reason::TooLong }, &[9, 2, 6]),
    (Notice::Subscribed { id: 3 }, &[10, 3]),
    (
        Notice::Message { id: 3, seq: 130, dropped: 1, retained: false, from: 4, topic: "a/b" },
        b"\x0b\x03\x82\x01\x01\x00\x04\x03a/b",
    ),
    (Notice::Ended { id: 3, reason: Reason::Asked }, &[12, 3, 0]),
    (Notice::Ended { id: 3, reason: Reason::Denied }, &[12, 3, 1]),
    (Notice::Ended { id: 3, reason: Reason::BadName }, &[12, 3, 2]),
    (Notice::Ended { id: 3, reason: Reason::TooMany }, &[12, 3, 4]),
    (Notice::Ended { id: 3, reason: Reason::NoMemory }, &[12, 3, 5]),
    (Notice::Ended { id: 3, reason: Reason::Slow }, &[12, 3, 7]),
    (Notice::Status, &[13]),
    (Notice::Pong { cookie: 200 }, &[14, 200, 1]),
];

/// Checks a header's bytes, and that no cut of the frame is taken for the whole.
fn check<'a, T>(header: T, golden: &[u8], frame: &'a mut Vec<u8>)
where
    T: Serialize + Deserialize<'a> + PartialEq + fmt::Debug,
{
    let length = u32::try_from(golden.len()).unwrap() + 1000;
    frame.extend(length.to_le_bytes());
    frame.extend(golden);
    let head = encode(&header, 1000).unwrap();
    assert_eq!(head.bytes(), frame, "{header:?}");
    let frame: &'a [u8] = frame;
    for cut in 0..frame.len() {
        assert_eq!(decode::<T>(&frame[..cut]), Ok(None), "{header:?} cut at {cut}");
    }
    let whole = Frame { header, head: frame.len(), payload: 1000 };
    assert_eq!(decode(frame), Ok(Some(whole)));
}

#[test]
fn calls_are_these_bytes() {
    for (call, golden) in CALLS {
        check(*call, golden, &mut Vec::new());
    }
}

#[test]
fn notices_are_these_bytes() {
    for (notice, golden) in NOTICES {
        check(*notice, golden, &mut Vec::new());
    }
}

#[test]
fn slow_is_one_of_three_numbers() {
    for (slow, number) in [(Slow::Wait, 0), (Slow::DropOldest, 1), (Slow::Disconnect, 2)] {
        let call = Call::Subscribe { id: 0, filter: "#", slow, credit: 0 };
        check(call, &[9, 0, 1, b'#', number, 0], &mut Vec::new());
    }
}

#[test]
fn what_is_no_frame_is_said_to_be_none() {
    let longest = u32::try_from(PAYLOAD_MAX as usize + HEAD_MAX - LENGTH).unwrap();
    for (bytes, wrong) in [
        (&[0, 0, 0, 0][..], Malformed::Length(0)),
        (&(longest + 1).to_le_bytes(), Malformed::Length(longest + 1)),
        (&[0xff; 8], Malformed::Length(u32::MAX)),
        (&[1, 0, 0, 0, 14], Malformed::Header), // a call that there is not
        (&[1, 0, 0, 0, 4, 7], Malformed::Header), // the header is longer than the frame
        (&[3, 0, 0, 0, 1, 1, 0xff], Malformed::Header), // a name that is not UTF-8
        (&[7, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 1], Malformed::Header), // no u16
        (&[4, 0, 0, 0, 3, 1, 2, 0], Malformed::Header), // an option that is neither
    ] {
        assert_eq!(decode::<Call<'_>>(bytes), Err(wrong), "{bytes:?}");
    }
    // More payload than may be, behind a header that leaves room for it.
    let length = (PAYLOAD_MAX + 2).to_le_bytes();
    let bytes = [&length[..], &[12]].concat();
    assert_eq!(decode::<Call<'_>>(&bytes), Err(Malformed::Length(PAYLOAD_MAX + 2)));
}

#[test]
fn a_header_beyond_its_bound_is_refused_by_both_sides() {
    let name = "n".repeat(HEAD_MAX);
    assert!(encode(&Call::Serve { name: &name }, 0).is_none());
    assert!(encode(&Call::Status, PAYLOAD_MAX + 1).is_none());
    let mut bytes = 600u32.to_le_bytes().to_vec();
    bytes.extend([1, 0x80, 4]); // a name of 512 bytes
    bytes.extend(name.bytes());
    assert_eq!(decode::<Call<'_>>(&bytes[..HEAD_MAX - 1]), Ok(None));
    assert_eq!(decode::<Call<'_>>(&bytes), Err(Malformed::Header));
}

#[test]
fn names_topics_and_filters_are_what_they_may_be() {
    for name in ["a", "jobs.v2", "Grüße", &"x".repeat(64)] {
        assert!(is_name(name), "{name}");
    }
    for none in ["", "a b", "a/b", "*", "jobs*", "a\0", "#", "+", "a\"", &"x".repeat(65)] {
        assert!(!is_name(none), "{none}");
    }
    assert!(is_topic("a") && is_topic("a/b/c") && is_topic(&["x"; 32].join("/")));
    for none in [
        "",
        "/",
        "/a",
        "a/",
        "a//b",
        "a/+",
        "#",
        &["x"; 33].join("/"),
        &["x".repeat(64).as_str(); 4].join("/"),
    ] {
        assert!(!is_topic(none), "{none}");
    }
    for filter in ["#", "+", "a", "a/#", "+/b/#", "a/+/c"] {
        assert!(is_filter(filter), "{filter}");
    }
    for none in ["", "a/#/b", "#/a", "a+", "a#", "a/", "/#", "a//#"] {
        assert!(!is_filter(none), "{none}");
    }
}

proptest! {
    /// Whatever comes, the answer is a frame inside the bounds, more to come, or what is wrong; and
    /// a head that was enough stays the same with more behind it.
    #[test]
    fn bytes_are_judged_without_surprise(
        length in prop_oneof![0..700u32, any::<u32>()],
        mut bytes in prop::collection::vec(any::<u8>(), 0..600),
        more in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let all = [&length.to_le_bytes()[..], &bytes, &more].concat();
        bytes.splice(0..0, length.to_le_bytes());
        match decode::<Call<'_>>(&bytes) {
            Ok(Some(frame)) => {
                prop_assert!(frame.head <= HEAD_MAX && frame.payload <= PAYLOAD_MAX);
                prop_assert_eq!(frame.head + frame.payload as usize, LENGTH + length as usize);
                prop_assert_eq!(decode(&all), Ok(Some(frame)));
            }
            Ok(None) => prop_assert!(bytes.len() < HEAD_MAX.min(LENGTH + length as usize)),
            Err(wrong) => prop_assert_eq!(decode::<Call<'_>>(&all), Err(wrong)),
        }
    }
}
