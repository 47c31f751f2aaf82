//! A guest that measures how fast its Xenstore is, as dom0 orders it: by a line of words in
//! `data/order`, answered by a line in `data/result`. All times are nanoseconds of system time.
//!
//! | order | result |
//! | --- | --- |
//! | `trips OP LINE COUNT` | `MIN MEDIAN P99` of that many requests, each sent after the reply before it |
//! | `stream OP LINE COUNT` | the time that many requests take with the ring kept full |
//! | `clock` | the time |
//! | `share OP START LENGTH` | how many requests, one after the other, were answered from START on |
//! | `flood OP START LENGTH` | the same with the ring kept full |
//! | `echo DOMID` | `GRANT PORT` of a page and a port for that domain to echo with |
//!
//! OP is `read` or `write`, of a node with ten bytes. LINE is `store`, or `echo`: the ring that was
//! granted, which is the same ring to this guest, with nothing but an echo behind it.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use embedded_io::Write as _;
use stubdom::own_store;
use stubdom::platform::Platform;
use xen_sys::clock::SystemTime;
use xen_sys::grant::{Access, GrantTable, Granted};
use xen_sys::ids::DomId;
use xen_sys::page::{OwnPages, Shared, SpecialPage};
use xen_sys::sched;
use xenstore_core::client::{Client, Nodes};
use xenstore_core::wire::{Header, Op};
use zerocopy::FromBytes;

use crate::line::Line;
use crate::nap;
use crate::ring::frame;

/// The node that is read and written, and its value.
const NODE: &[u8] = b"data/word\0";
const VALUE: &[u8] = b"ten bytes.";

/// Requests that lie in a row for the ring to be filled from: more than fit into it.
const ROW: usize = 64;

/// Watches of nodes that are not there, beside the two that it needs: as many as it takes to have
/// the eight of a guest with a few devices.
const MORE_WATCHES: u32 = 6;

/// Says hello, and measures whatever it is asked to, until it is asked to end.
pub(crate) fn run(platform: &Platform) -> ! {
    let mut meter = Meter { platform, store: Line::to_store(platform), echo: None };
    meter.begin();
    loop {
        let order = meter.next_order();
        let result = meter.obey(&order).unwrap_or_else(|| String::from("not understood"));
        log::info!("guest: {order}: {result}");
        let mut store = Client::new(&mut meter.store);
        store.write("data/result", result.as_bytes()).expect("data/ is ours to write");
    }
}

struct Meter<'a> {
    platform: &'a Platform,
    store: Line<'a, SpecialPage>,
    echo: Option<Line<'a, Granted>>,
}

impl Meter<'_> {
    fn begin(&mut self) {
        let mut store = Client::new(&mut self.store);
        own_store::accept_orders(&mut store).expect("control/ is ours to write");
        store.write("data/word", VALUE).expect("data/ is ours to write");
        for number in 0..MORE_WATCHES {
            let path = format!("device/{number}/state");
            store.watch(&path, "more").expect("a watch");
        }
        store.watch("data/order", "order").expect("a watch");
        store.write("data/hello", b"from a guest that measures").expect("data/ is ours to write");
    }

    /// Waits for words to obey. The conversation of one order is over when the next begins, so no
    /// event of a measurement is lost with its client.
    fn next_order(&mut self) -> String {
        let mut store = Client::new(&mut self.store);
        loop {
            let event = store.next_event().expect("the store stays");
            if let Some(reason) = own_store::take_order(&mut store).expect("the store stays") {
                sched::shutdown(reason);
            }
            let order = store.read("data/order").unwrap_or_default();
            if event.token() == "order" && !order.is_empty() {
                return String::from_utf8_lossy(&order).into_owned();
            }
        }
    }

    fn obey(&mut self, order: &str) -> Option<String> {
        let words: Vec<&str> = order.split_whitespace().collect();
        match words.as_slice() {
            ["trips", op, line, count] => {
                let (request, count) = (request(op)?, count.parse().ok()?);
                let times = match *line {
                    "store" => trips(self.platform, &mut self.store, &request, count),
                    _ => trips(self.platform, self.echo.as_mut()?, &request, count),
                };
                Some(summary(times))
            }
            ["stream", op, line, count] => {
                let (request, count) = (request(op)?, count.parse().ok()?);
                let begin = self.platform.clock.now();
                match *line {
                    "store" => stream(&mut self.store, &request, || true, count),
                    _ => stream(self.echo.as_mut()?, &request, || true, count),
                };
                Some(format!("{}", self.platform.clock.now().since(begin).as_nanos()))
            }
            ["clock"] => Some(format!("{}", self.platform.clock.now().0)),
            [how @ ("share" | "flood"), op, start, length] => {
                let start = SystemTime(start.parse().ok()?);
                let end = start.after(Duration::from_nanos(length.parse().ok()?));
                let request = request(op)?;
                nap(self.platform, start.since(self.platform.clock.now()));
                let (platform, store) = (self.platform, &mut self.store);
                let goes_on = || platform.clock.now() < end;
                let count = match *how {
                    "share" => sequence(store, &request, goes_on),
                    _ => stream(store, &request, goes_on, usize::MAX),
                };
                Some(format!("{count}"))
            }
            ["echo", domain] => self.offer(DomId::new(domain.parse().ok()?)?),
            _ => None,
        }
    }

    /// Makes a ring and a port for another domain to serve.
    fn offer(&mut self, domain: DomId) -> Option<String> {
        let table = GrantTable::open(self.platform.window).ok()?;
        let page = table.grant(domain, OwnPages::zeroed(1)?, Access::ReadWrite).ok()?;
        let channel = self.platform.events.borrow_mut().alloc_unbound(domain).ok()?;
        let offer = format!("{} {}", page.references().first()?.0, channel.port().0);
        self.echo = Some(Line::over(page, channel, self.platform));
        Some(offer)
    }
}

fn request(op: &str) -> Option<Vec<u8>> {
    match op {
        "read" => Some(frame(Op::Read, 0, NODE)),
        "write" => Some(frame(Op::Write, 0, &[NODE, VALUE].concat())),
        _ => None,
    }
}

/// How long each of `count` requests takes, from before it is put into the ring until its reply is
/// taken out.
fn trips<P: Shared>(
    platform: &Platform,
    line: &mut Line<'_, P>,
    request: &[u8],
    count: usize,
) -> Vec<u64> {
    let trip = |_| {
        let begin = platform.clock.now();
        converse(line, request);
        let time = platform.clock.now().since(begin);
        u64::try_from(time.as_nanos()).expect("a time that can be measured")
    };
    (0..count).map(trip).collect()
}

/// Sends one request after the other while `goes_on`; says how many were answered.
fn sequence<P: Shared>(
    line: &mut Line<'_, P>,
    request: &[u8],
    goes_on: impl Fn() -> bool,
) -> usize {
    let mut count = 0;
    while goes_on() {
        converse(line, request);
        count += 1;
    }
    count
}

fn converse<P: Shared>(line: &mut Line<'_, P>, request: &[u8]) {
    line.write_all(request).expect("this cannot fail");
    let mut replies = Replies::to(request);
    while replies.count(line) == 0 {
        if replies.had_none {
            line.wait();
        }
    }
}

/// Keeps the ring full of requests while `goes_on`, `most` of them at most; says how many were
/// answered in that time. Notifies once whenever it has put in and taken out what it could.
fn stream<P: Shared>(
    line: &mut Line<'_, P>,
    request: &[u8],
    goes_on: impl Fn() -> bool,
    most: usize,
) -> usize {
    let row = request.repeat(ROW);
    let mut replies = Replies::to(request);
    let (mut sent, mut answered, mut in_time) = (0, 0, 0);
    loop {
        let open = goes_on();
        if open {
            in_time = answered;
        }
        // Half a request would stay in the ring for ever: what was begun is ended.
        let total = if open { most.saturating_mul(request.len()) } else { ended(sent, request) };
        let before = sent;
        while sent < total {
            let at = sent % row.len();
            let put = line.put(&row[at..row.len().min(at.saturating_add(total - sent))]);
            sent += put;
            if put == 0 {
                break;
            }
        }
        answered += replies.count(line);
        if sent > before || replies.made_room {
            line.notify();
        } else if replies.had_none {
            if answered * request.len() == total {
                return in_time;
            }
            line.wait();
        }
    }
}

/// How many bytes are sent once the request that these have begun is complete.
fn ended(sent: usize, request: &[u8]) -> usize {
    sent.next_multiple_of(request.len())
}

/// The replies to equal requests: counts them, and looks that each is one.
struct Replies {
    kind: u32,
    bytes: [u8; 1024],
    /// Of the bytes, how many have come.
    filled: usize,
    /// Whether the last look found nothing.
    had_none: bool,
    /// Whether the server may wait for the room that the last look made.
    made_room: bool,
}

impl Replies {
    fn to(request: &[u8]) -> Self {
        let (header, _) = Header::read_from_prefix(request).expect("a request has a header");
        let kind = header.kind.get();
        Self { kind, bytes: [0; 1024], filled: 0, had_none: false, made_room: false }
    }

    /// Takes what is there; says how many replies that completed.
    fn count<P: Shared>(&mut self, line: &mut Line<'_, P>) -> usize {
        let (taken, was_full) = line.take(&mut self.bytes[self.filled..]);
        (self.had_none, self.made_room) = (taken == 0, was_full);
        self.filled += taken;
        let (mut count, mut rest) = (0, &self.bytes[..self.filled]);
        while let Ok((header, after)) = Header::read_from_prefix(rest) {
            let len = header.payload_len().expect("a length of the server's");
            let Some(next) = after.get(len..) else { break };
            assert_eq!(header.kind.get(), self.kind, "the reply is no error and no event");
            (count, rest) = (count + 1, next);
        }
        let used = self.filled - rest.len();
        self.bytes.copy_within(used..self.filled, 0);
        self.filled -= used;
        count
    }
}

/// `MIN MEDIAN P99`.
fn summary(mut times: Vec<u64>) -> String {
    times.sort_unstable();
    let at = |percent: usize| {
        let place = (times.len() * percent / 100).min(times.len().saturating_sub(1));
        times.get(place).copied().unwrap_or_default()
    };
    format!("{} {} {}", at(0), at(50), at(99))
}
