//! Where this domain's words go: its console ring, and the port Xen prints itself
//! (xen/include/public/io/console.h).
//!
//! The ring is read by `xenconsoled`, which may not be there yet or never be: output that does
//! not fit is dropped and counted, and nothing ever waits. Port 0xe9 needs no one; Xen prints
//! what is written there as its own line, if told to print guests' lines at all.

use core::fmt::{self, Write};
use core::sync::atomic::{Ordering, fence};

use log::{Level, LevelFilter, Log, Metadata, Record};
use spin::Mutex;

use crate::event;
use crate::ids::Port;
use crate::page::{Shared, SpecialPage};
use crate::param;
use crate::ring::shared::Region;
use crate::ring::stream::{Half, Reader, Writer};

const IN: Half = Half::new(0, 1024, 3076, 3072);
const OUT: Half = Half::new(1024, 2048, 3084, 3080);

/// The guest's end of a console ring, over a page `P` that it keeps.
#[derive(Debug)]
pub struct Console<P = SpecialPage> {
    page: P,
    input: Reader,
    output: Writer,
    port: Option<Port>,
    /// Bytes dropped since the reader was last told of any.
    dropped: u64,
}

impl Console {
    /// Opens the ring the domain builder set up, if it did.
    #[must_use]
    pub fn open() -> Option<Self> {
        Some(Self::over(param::console_page()?, param::console_port()))
    }
}

impl<P: Shared> Console<P> {
    fn over(page: P, port: Option<Port>) -> Self {
        let region = Region::of(&page);
        let (input, output) = (Reader::attach(IN, region), Writer::attach(OUT, region));
        Self { page, input, output, port, dropped: 0 }
    }

    /// Writes what fits and drops the rest. Lines end as a terminal wants them. Never waits.
    pub fn write(&mut self, text: &[u8]) {
        if self.append(text) {
            self.notify();
        }
    }

    /// As [`write`](Self::write), but leaves the notification to the caller: due if true.
    fn append(&mut self, text: &[u8]) -> bool {
        let mut moved = self.tell_dropped();
        for line in text.split_inclusive(|&byte| byte == b'\n') {
            let (words, end) = match line.strip_suffix(b"\n") {
                Some(words) => (words, &b"\r\n"[..]),
                None => (line, &b""[..]),
            };
            moved |= self.put(words);
            moved |= self.put(end);
        }
        moved
    }

    /// Copies input that waits; tells how many bytes. Input that its writer counted
    /// impossibly is no input.
    pub fn read(&mut self, bytes: &mut [u8]) -> usize {
        let region = Region::of(&self.page);
        let count = self.input.read(region, bytes).unwrap_or(0);
        // A writer that finds the ring full waits for an event, and for none else: it looks
        // before it sleeps, as this end looks again after its index is out.
        fence(Ordering::SeqCst);
        let left = self.input.available(region).unwrap_or(0);
        if count > 0 && left + count >= IN.size() {
            self.notify();
        }
        count
    }

    /// Writes what fits, as it is; tells how many bytes. For a writer that would rather wait for
    /// an event at the console's port than lose a byte.
    pub fn send(&mut self, bytes: &[u8]) -> usize {
        let count = self.output.write(Region::of(&self.page), bytes).unwrap_or(0);
        if count > 0 {
            self.notify();
        }
        count
    }

    /// The local port that announces input, and room.
    #[must_use]
    pub const fn port(&self) -> Option<Port> {
        self.port
    }

    /// Puts bytes into the ring or counts them as dropped; tells whether any went in. After
    /// the first one dropped, none goes in until the reader can be told.
    fn put(&mut self, bytes: &[u8]) -> bool {
        let put = match self.dropped {
            0 => self.output.write(Region::of(&self.page), bytes).unwrap_or(0),
            _ => 0,
        };
        self.dropped += (bytes.len() - put) as u64;
        put > 0
    }

    /// Says how much was dropped, once there is room to say it and a line more.
    fn tell_dropped(&mut self) -> bool {
        let room = self.output.room(Region::of(&self.page)).unwrap_or(0);
        if self.dropped == 0 || room < 128 {
            return false;
        }
        let mut notice = heapless::String::<64>::new();
        // A u64 has at most 20 digits: the notice fits.
        let _ = write!(notice, "\r\n[{} bytes dropped]\r\n", self.dropped);
        self.dropped = 0;
        self.put(notice.as_bytes())
    }

    fn notify(&self) {
        if let Some(port) = self.port {
            // Without a reader the words stay in the ring.
            let _ = event::send(port);
        }
    }
}

/// Port 0xe9, a character at a time. Takes no lock, so a fault handler may write to it.
#[derive(Clone, Copy, Debug, Default)]
pub struct DebugPort;

impl Write for DebugPort {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(emit);
        Ok(())
    }
}

#[cfg(not(test))]
fn emit(byte: u8) {
    // SAFETY: XEN_HVM_DEBUGCONS_IOPORT; Xen prints the character, and no other platform has
    // a device there that does more.
    unsafe {
        core::arch::asm!("out 0xe9, al", in("al") byte, options(nomem, nostack, preserves_flags));
    }
}

#[cfg(test)]
fn emit(byte: u8) {
    tests::PORT.with(|port| port.borrow_mut().push(byte));
}

/// The console ring, once there is one.
static CONSOLE: Mutex<Option<Console>> = Mutex::new(None);

/// Sends everything logged at `level` or above to port 0xe9, and to the console ring from
/// [`attach`] on.
pub fn log_from(level: LevelFilter) {
    // Refused only if there is a sink already, and this is the only one there is.
    let _ = log::set_logger(&Sink);
    log::set_max_level(level);
}

/// Gives the log a console ring to write to.
pub fn attach(console: Console) {
    *CONSOLE.lock() = Some(console);
}

/// Takes the console ring back from the log, which goes to port 0xe9 alone from here on.
pub fn detach() -> Option<Console> {
    CONSOLE.lock().take()
}

/// Copies input of the attached console; tells how many bytes, 0 without one.
pub fn read(bytes: &mut [u8]) -> usize {
    CONSOLE.lock().as_mut().map_or(0, |console| console.read(bytes))
}

/// Prints to both places, whatever the log's level. Meant for last words: where a fault
/// struck in the middle of a line, only port 0xe9 is written.
pub fn print(words: fmt::Arguments<'_>) {
    let mut console = CONSOLE.try_lock();
    let ring = console.as_mut().and_then(|console| console.as_mut());
    let mut both = Both { ring, moved: false };
    // Neither place ever fails.
    let _ = both.write_fmt(words);
    // Once for all the pieces that formatting made of the words.
    if let Both { ring: Some(ring), moved: true } = both {
        ring.notify();
    }
}

struct Both<'a> {
    ring: Option<&'a mut Console>,
    moved: bool,
}

impl Write for Both<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if let Some(ring) = &mut self.ring {
            self.moved |= ring.append(text.as_bytes());
        }
        DebugPort.write_str(text)
    }
}

struct Sink;

impl Log for Sink {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let prefix = match record.level() {
            Level::Error => "error: ",
            Level::Warn => "warning: ",
            Level::Info | Level::Debug | Level::Trace => "",
        };
        print(format_args!("{prefix}{}\n", record.args()));
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use core::cell::RefCell;
    use std::rc::Rc;

    use super::*;
    use crate::hypercall::{Op, fake};
    use crate::page::OwnPages;

    std::thread_local! {
        pub(super) static PORT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }

    /// A console at port 1, and how many events it sent.
    fn console() -> (Console<OwnPages>, Rc<RefCell<usize>>) {
        let sent = Rc::new(RefCell::new(0));
        let count = sent.clone();
        fake::install(move |op, _| {
            assert_eq!(op, Op::EventChannel);
            *count.borrow_mut() += 1;
            0
        });
        (Console::over(OwnPages::zeroed(1).unwrap(), Some(Port(1))), sent)
    }

    /// What the daemon reads.
    fn drain(console: &Console<OwnPages>) -> String {
        let region = Region::of(&console.page);
        let mut bytes = vec![0; 4096];
        let count = Reader::attach(OUT, region).read(region, &mut bytes).unwrap();
        String::from_utf8(bytes[..count].to_vec()).unwrap()
    }

    #[test]
    fn lines_end_as_a_terminal_wants_them() {
        let (mut console, sent) = console();
        console.write(b"one\ntwo\n\nthree");
        assert_eq!(drain(&console), "one\r\ntwo\r\n\r\nthree");
        assert_eq!(*sent.borrow(), 1, "one event for all of it");
        console.write(b"");
        assert_eq!(*sent.borrow(), 1, "no event without words");
    }

    #[test]
    fn without_a_reader_words_are_dropped_and_counted() {
        let (mut console, sent) = console();
        console.write(&[b'x'; 2040]);
        console.write(b"0123456789");
        console.write(b"more");
        assert_eq!(*sent.borrow(), 2);
        let read = drain(&console);
        assert!(read.ends_with("x01234567") && read.len() == 2048, "what fitted: {}", read.len());
        console.write(b"back\n");
        assert_eq!(drain(&console), "\r\n[6 bytes dropped]\r\nback\r\n");
    }

    #[test]
    fn impossible_indexes_only_drop() {
        let (mut console, sent) = console();
        for index in [1, 2049, u32::MAX / 2, u32::MAX - 2048] {
            Region::of(&console.page).word(3080).store(index, Ordering::Relaxed);
            console.write(b"words\n");
        }
        assert_eq!((console.dropped, *sent.borrow()), (28, 0));
        Region::of(&console.page).word(3076).store(1025, Ordering::Relaxed);
        assert_eq!(console.read(&mut [0; 4]), 0, "no input is counted like this");
    }

    #[test]
    fn input_is_read() {
        let (mut console, sent) = console();
        let region = Region::of(&console.page);
        let mut writer = Writer::attach(IN, region);
        writer.write(region, b"help\n").unwrap();
        let mut bytes = [0; 16];
        let count = console.read(&mut bytes);
        assert_eq!(&bytes[..count], b"help\n");
        assert_eq!(*sent.borrow(), 0, "nobody waits for room in a ring that was not full");
        let region = Region::of(&console.page);
        assert_eq!(writer.write(region, &[b'x'; 2000]), Ok(1024));
        assert_eq!((console.read(&mut bytes), *sent.borrow()), (16, 1));
        assert_eq!((console.read(&mut bytes), *sent.borrow()), (16, 1));
    }

    #[test]
    fn what_is_sent_is_sent_as_it_is_or_stays_with_its_sender() {
        let (mut console, sent) = console();
        assert_eq!(console.send(b"one\ntwo"), 7);
        assert_eq!(drain(&console), "one\ntwo");
        assert_eq!(console.send(&[b'x'; 3000]), 2048, "what fits");
        assert_eq!((console.send(b"more"), console.dropped), (0, 0));
        assert_eq!(*sent.borrow(), 2, "an event for each time that something went out");
    }

    #[test]
    fn the_log_names_what_needs_attention() {
        let record = |level| {
            let words = format_args!("words");
            Sink.log(&Record::builder().level(level).args(words).build());
            PORT.with(|port| String::from_utf8(core::mem::take(&mut *port.borrow_mut())).unwrap())
        };
        assert_eq!(record(Level::Error), "error: words\n");
        assert_eq!(record(Level::Warn), "warning: words\n");
        assert_eq!(record(Level::Info), "words\n");
    }
}
