//! What a connection is told, and what it takes.

use super::*;
use crate::path::WatchPath;

/// A connection with a watch.
struct Client {
    outbox: Outbox,
    watches: Watches,
    watch: WatchId,
}

impl Client {
    /// With a watch at `/a`.
    fn new() -> Self {
        Self::with("/a")
    }

    fn with(path: &str) -> Self {
        let (mut watches, outbox) = (Watches::new(), Outbox::default());
        let path = WatchPath { full: path.as_bytes(), implied: 0 };
        let watch = watches.add(1, path, b"t", None, 0, outbox.next_event());
        Self { outbox, watches, watch }
    }

    /// Tells the watch of a change.
    fn hear(&mut self, path: &str) {
        let watch = self.watches.watch(self.watch).expect("it is registered");
        let (path, own) = (path.as_bytes(), self.watches.path_of(watch).len());
        let event = Event { id: self.watch, watch, path, told: path.len(), own };
        let number = self.outbox.event(&event, &mut None);
        if let (Some(number), Some(watch)) = (number, self.watches.watch_mut(self.watch)) {
            watch.newest = number;
        }
    }

    /// Takes everything a few bytes at a time, as strings: events as their paths and tokens,
    /// replies as their payloads.
    fn read(&mut self, at_once: usize) -> Vec<String> {
        let mut spare = Spare::default();
        let mut bytes = Vec::new();
        while let Some(chunk) = self.outbox.next(&self.watches, &mut spare) {
            let chunk = chunk[..chunk.len().min(at_once)].to_vec();
            self.outbox.forget(chunk.len(), &mut spare);
            bytes.extend(chunk);
        }
        assert_eq!((self.outbox.len(), self.outbox.replies()), (0, 0), "what it counts");
        assert_eq!((self.outbox.events_len, self.outbox.paths_len), (0, 0), "what it counts");
        frames(&bytes)
    }
}

fn reply(outbox: &mut Outbox, payload: &[u8]) -> bool {
    let header = Header::new(2, 1, 0, 0);
    outbox.reply(header, &mut Spare::default(), payload)
}

fn frames(mut rest: &[u8]) -> Vec<String> {
    let mut frames = Vec::new();
    while let Ok((header, after)) = Header::read_from_prefix(rest) {
        let (payload, next) = after.split_at(header.len.get() as usize);
        let text = String::from_utf8_lossy(payload).replace('\0', " ");
        let sign = if header.kind.get() == 15 { "event" } else { "reply" };
        frames.push(format!("{sign} {}", text.trim_end()));
        rest = next;
    }
    assert!(rest.is_empty(), "a frame is cut short");
    frames
}

#[test]
fn an_event_that_waits_is_not_noted_again() {
    let mut client = Client::new();
    for path in ["/a/k", "/a/k", "/a/l", "/a", "/a/k", "/a"] {
        client.hear(path);
    }
    assert!(reply(&mut client.outbox, b"x"));
    client.hear("/a/l");
    let all = ["event /a/k t", "event /a/l t", "event /a t", "reply x"];
    assert_eq!(client.read(usize::MAX), all);
    client.hear("/a/k");
    assert_eq!(client.read(usize::MAX), ["event /a/k t"], "once sent, it may come again");
}

#[test]
fn replies_and_events_keep_their_order_in_any_pieces() {
    for at_once in [1, 7, 16, 1000] {
        let mut client = Client::new();
        client.hear("/a/1");
        client.hear("/a");
        assert!(reply(&mut client.outbox, b"one"));
        assert!(reply(&mut client.outbox, b"two"));
        client.hear("/a/2");
        assert!(reply(&mut client.outbox, b"last"));
        let all =
            ["event /a/1 t", "event /a t", "reply one", "reply two", "event /a/2 t", "reply last"];
        assert_eq!(client.read(at_once), all, "{at_once} bytes at a time");
    }
}

#[test]
fn special_events_stay_apart() {
    let mut client = Client::with("@releaseDomain");
    client.hear("@releaseDomain");
    client.hear("@releaseDomain");
    assert_eq!(client.read(usize::MAX), ["event @releaseDomain t"; 2]);
}

#[test]
fn many_events_of_a_watch_become_one() {
    let mut client = Client::new();
    for number in 0..100 {
        client.hear(&format!("/a/{number}"));
    }
    let frames = client.read(usize::MAX);
    assert_eq!(frames.len(), EVENTS_PER_WATCH + 1);
    assert_eq!(frames.last().map(String::as_str), Some("event /a t"), "its own path is last");
}

#[test]
fn who_holds_much_memory_hears_of_own_paths_only() {
    let mut client = Client::new();
    let long = "x".repeat(2000);
    for number in 0..30 {
        client.hear(&format!("/a/{number}{long}"));
    }
    assert!(client.outbox.held() <= CROWDED + 2100, "{} bytes", client.outbox.held());
    let frames = client.read(usize::MAX);
    assert_eq!(frames.last().map(String::as_str), Some("event /a t"), "its own path is last");
}

#[test]
fn events_outlive_their_watch() {
    let mut client = Client::new();
    client.hear("/a/k");
    client.hear("/a");
    let watch = client.watches.watch(client.watch).expect("it is registered");
    client.outbox.orphan(client.watch, watch, || client.watches.path_of(watch));
    client.watches.remove(client.watch).expect("it is registered");
    // The next watch gets the same number.
    let path = WatchPath { full: b"/b", implied: 0 };
    let newest = client.outbox.next_event();
    client.watch = client.watches.add(1, path, b"u", None, 0, newest);
    client.hear("/b");
    client.hear("/b");
    assert_eq!(client.read(5), ["event /a/k t", "event /a t", "event /b u"]);
}

#[test]
fn half_sent_events_still_count_as_waiting() {
    let mut client = Client::new();
    client.hear("/a/k");
    client.outbox.forget(5, &mut Spare::default());
    client.hear("/a/k");
    assert_eq!(client.outbox.events.len(), 1);
    client.outbox.forget(client.outbox.len(), &mut Spare::default());
    assert_eq!(client.outbox.events.len(), 0);
}

#[test]
fn too_long_a_reply_is_taken_back() {
    let mut outbox = Outbox::default();
    assert!(!reply(&mut outbox, &[0; 4097]));
    assert!(reply(&mut outbox, &[0; 4096]));
    assert_eq!((outbox.len(), outbox.replies()), (16 + 4096, 1));
}

#[test]
fn sent_bytes_are_dropped_while_more_wait() {
    let mut outbox = Outbox::default();
    for round in 0..100u8 {
        assert!(reply(&mut outbox, &[round; 1000]));
        assert!(reply(&mut outbox, &[round; 1000]));
        outbox.forget(1016 + 7, &mut Spare::default());
    }
    let waiting = outbox.len();
    assert_eq!(waiting, 100 * 2 * 1016 - 100 * 1023);
    assert!(outbox.replies.len() <= 2 * waiting + PAYLOAD_MAX, "what was sent is still kept");
}
