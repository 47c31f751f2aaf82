//! A subscriber: it tells how much it has heard.

use alloc::format;

use databack::frame::{Call, Notice, Slow};
use stubdom::own_store;
use stubdom::platform::Platform;
use xenstore_core::client::Nodes;

use crate::channel::{domain, services};

/// What it subscribes to.
const FILTER: &str = "news/#";

/// Credit for messages; as much is given again when half of it is used.
const CREDIT: u32 = 16;

/// Counts the messages below `news/`, in `data/heard`: `COUNT messages, BYTES bytes`. A message that
/// is lost or comes twice ends it.
pub(crate) fn hear(platform: &Platform, backend: &str) -> ! {
    let mut store = own_store::connect(platform).expect("a Xenstore ring");
    let mut channel = services(platform, &mut store, domain(backend), "hear");
    let subscription = Call::Subscribe { id: 1, filter: FILTER, slow: Slow::Wait, credit: CREDIT };
    channel.say(platform, &subscription, &[]);
    channel.hear(platform, |notice| match notice {
        Notice::Subscribed { id: 1 } => {}
        other => panic!("no subscription but {other:?}"),
    });
    store.write("data/hello", b"hears").expect("data/ is ours to write");
    let (mut count, mut bytes) = (0, 0);
    loop {
        let (seq, payload) = channel.hear(platform, |notice| match *notice {
            Notice::Message { seq, dropped: 0, retained: false, .. } => seq,
            ref other => panic!("no message but {other:?}"),
        });
        (count, bytes) = (count + 1, bytes + payload);
        log::debug!("guest: message {seq}");
        if count % (CREDIT / 2) == 0 {
            channel.say(platform, &Call::Credit { id: 1, messages: CREDIT / 2 }, &[]);
        }
        let heard = format!("{count} messages, {bytes} bytes");
        store.write("data/heard", heard.as_bytes()).expect("data/ is ours to write");
    }
}
