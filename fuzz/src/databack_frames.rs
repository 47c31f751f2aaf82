//! The target `databack_frames`: bytes as the head of a frame, from a front and from the broker.
//!
//! What is understood is understood the same with less or more behind it, and what is said again in
//! the shortest form is understood the same.

use databack::frame::{self, Call, Frame, HEAD_MAX, LENGTH, Notice, PAYLOAD_MAX};

/// Judges the bytes both ways, and panics where a law does not hold.
pub fn run(data: &[u8]) {
    if let Some(frame) = whole::<Call<'_>>(data) {
        hold(&frame, frame::encode(&frame.header, frame.payload));
    }
    if let Some(frame) = whole::<Notice<'_>>(data) {
        hold(&frame, frame::encode(&frame.header, frame.payload));
    }
}

/// The frame that the bytes begin with; no shorter part of them may be taken for another.
fn whole<'a, T>(data: &'a [u8]) -> Option<Frame<T>>
where
    T: serde::Deserialize<'a> + PartialEq + core::fmt::Debug,
{
    let judged = frame::decode::<T>(data);
    for cut in 0..data.len().min(HEAD_MAX) {
        match frame::decode::<T>(&data[..cut]) {
            Ok(None) => assert!(cut < HEAD_MAX, "more is asked for than a head has"),
            early => assert_eq!(early, judged, "cut at {cut}"),
        }
    }
    judged.ok().flatten()
}

fn hold<'a, T>(frame: &Frame<T>, again: Option<frame::Head>)
where
    T: PartialEq + core::fmt::Debug,
    Frame<T>: Clone,
    T: serde::Deserialize<'a>,
{
    assert!(frame.head > LENGTH && frame.head <= HEAD_MAX && frame.payload <= PAYLOAD_MAX);
    let again = again.expect("what came in a head has room in one");
    assert!(again.bytes().len() <= frame.head, "the shortest form is not longer");
}
