//! A guest whose words are somebody else's: it moves bytes between its console and its Xenstore
//! ring and understands none of them. Who writes to its console can so put any bytes into a real
//! ring, and any value into the words beside it.
//!
//! Both directions are lines. It reads:
//!
//! | line | what it does |
//! | --- | --- |
//! | `put HEX` | puts these bytes into the request ring, as soon as they fit, and notifies |
//! | `word OFFSET VALUE` | writes a 32-bit word of the ring's page |
//! | `kick` | notifies |
//! | `hold`, `take` | leaves responses in the ring; takes them out again |
//! | `begin` | forgets bytes still to be put, and goes on at the indexes in the page |
//! | `ask TOKEN` | moves what can be moved, then answers `= TOKEN BYTES WORD...`: the bytes that did not fit yet, and the page's eight words from offset 2048 on |
//! | `end` | shuts the domain down |
//!
//! and writes `< HEX` for what it took out, `!` and a sentence for what cannot be, and `ready` when
//! it begins. Numbers are decimal.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;
use core::sync::atomic::{Ordering, fence};

use stubdom::platform::Platform;
use xen_sys::console::{self, Console};
use xen_sys::event::Channel;
use xen_sys::page::SpecialPage;
use xen_sys::param;
use xen_sys::ring::shared::Region;
use xen_sys::ring::stream::{Reader, Writer};
use xen_sys::ring::xenstore::{REQUESTS, RESPONSES, RING_SIZE};
use xen_sys::sched::{self, Reason};

/// Where the words beside the rings begin, and how many `struct xenstore_domain_interface` has.
const WORDS: usize = 2048;
const WORD_COUNT: usize = 8;

/// While this much waits for the console, no more is read from it.
const BACKLOG: usize = 32 << 10;

/// Moves bytes until it is told to end.
pub(crate) fn run(platform: &Platform) -> ! {
    let mut relay = Relay::open(platform);
    relay.say("ready");
    loop {
        if !relay.turn() {
            platform.wait();
        }
    }
}

struct Relay {
    console: Console,
    _input: Channel,
    page: SpecialPage,
    store: Channel,
    requests: Writer,
    responses: Reader,
    /// The beginning of a line.
    line: Vec<u8>,
    /// Bytes that did not fit into the ring yet.
    to_store: Vec<u8>,
    /// Bytes that did not fit into the console yet.
    to_console: Vec<u8>,
    /// Responses stay where they are.
    holds: bool,
}

impl Relay {
    fn open(platform: &Platform) -> Self {
        let console = console::detach().expect("a console");
        let mut events = platform.events.borrow_mut();
        let input = console.port().expect("the console's port");
        let input = events.adopt(input).expect("the console's port is open");
        let page = param::store_page().expect("a Xenstore ring");
        let store = param::store_port().expect("a Xenstore port");
        let store = events.adopt(store).expect("the Xenstore port is open");
        let region = Region::of(&page);
        let (requests, responses) =
            (Writer::attach(REQUESTS, region), Reader::attach(RESPONSES, region));
        Self {
            console,
            _input: input,
            page,
            store,
            requests,
            responses,
            line: Vec::new(),
            to_store: Vec::new(),
            to_console: Vec::new(),
            holds: false,
        }
    }

    /// Moves what can be moved; says whether anything did.
    fn turn(&mut self) -> bool {
        let mut input = [0; 1024];
        let read = if self.to_console.len() < BACKLOG { self.console.read(&mut input) } else { 0 };
        for &byte in &input[..read] {
            if byte == b'\n' {
                let line = core::mem::take(&mut self.line);
                self.obey(&line);
            } else {
                self.line.push(byte);
            }
        }
        let moved = self.move_requests() | self.move_responses();
        let sent = self.console.send(&self.to_console);
        self.to_console.drain(..sent);
        moved || read > 0 || sent > 0
    }

    fn obey(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["put", hex] => match bytes(hex) {
                Some(bytes) => {
                    self.to_store.extend(bytes);
                    self.move_requests();
                }
                None => self.say("! these are no bytes"),
            },
            ["word", offset, value] => match (offset.parse(), value.parse()) {
                (Ok(offset), Ok(value)) if is_word(offset) => {
                    Region::of(&self.page).word(offset).store(value, Ordering::Release);
                }
                _ => self.say("! there is no such word"),
            },
            ["kick"] => self.store.notify(),
            ["hold"] => self.holds = true,
            ["take"] => self.holds = false,
            ["begin"] => {
                let region = Region::of(&self.page);
                self.to_store.clear();
                self.requests = Writer::attach(REQUESTS, region);
                self.responses = Reader::attach(RESPONSES, region);
            }
            ["ask", token] => self.answer(token),
            ["end"] => sched::shutdown(Reason::Poweroff),
            _ => self.say("! not understood"),
        }
    }

    fn answer(&mut self, token: &str) {
        self.move_requests();
        self.move_responses();
        let mut answer = format!("= {token} {}", self.to_store.len());
        for at in 0..WORD_COUNT {
            let word = Region::of(&self.page).word(WORDS + 4 * at).load(Ordering::Acquire);
            // A String takes whatever there is memory for.
            let _ = write!(answer, " {word}");
        }
        self.say(&answer);
    }

    /// Fills the request ring and notifies; says whether anything moved.
    fn move_requests(&mut self) -> bool {
        if self.to_store.is_empty() {
            return false;
        }
        let written = self.requests.write(Region::of(&self.page), &self.to_store);
        let count = self.tell(written);
        self.to_store.drain(..count);
        if count > 0 {
            self.store.notify();
        }
        count > 0
    }

    /// Empties the response ring, unless it is told not to; says whether anything moved.
    fn move_responses(&mut self) -> bool {
        let mut response = [0; RING_SIZE];
        let mut moved = false;
        while !self.holds {
            let region = Region::of(&self.page);
            let read = self.responses.read(region, &mut response);
            // A store that finds the ring full waits for an event.
            fence(Ordering::SeqCst);
            let left = self.responses.available(region).unwrap_or(0);
            let count = self.tell(read);
            if count == 0 {
                break;
            }
            moved = true;
            if left + count >= RING_SIZE {
                self.store.notify();
            }
            self.to_console.extend(b"< ");
            for byte in &response[..count] {
                let digit = |value: u8| b"0123456789abcdef"[usize::from(value & 15)];
                self.to_console.extend([digit(byte >> 4), digit(*byte)]);
            }
            self.to_console.push(b'\n');
        }
        moved
    }

    /// The count, or 0 and a word to the console about indexes that cannot be.
    fn tell(&mut self, moved: Result<usize, xen_sys::ring::BadIndex>) -> usize {
        moved.unwrap_or_else(|bad| {
            self.to_store.clear();
            self.say(&format!("! {bad}"));
            self.holds = true;
            0
        })
    }

    fn say(&mut self, line: &str) {
        self.to_console.extend(line.as_bytes());
        self.to_console.push(b'\n');
    }
}

/// Whether a word of the page, and not a part of the rings, is at this offset.
const fn is_word(offset: usize) -> bool {
    offset >= WORDS && offset < WORDS + 4 * WORD_COUNT && offset.is_multiple_of(4)
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let pairs = hex.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()).collect()
}
