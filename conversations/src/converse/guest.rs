//! A guest of the conversation: a domain that moves bytes between its console and its ring, and
//! the terminal by which this program holds its other end.

use alloc::format;
use core::time::Duration;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::process::Command;
use std::thread;
use std::time::Instant;

use conversations::world::Mailbox;

use crate::connection::{PATIENCE, Toolstack, is_readable};
use crate::numbers::Address;

/// Bytes of a frame that one line of the relay's holds.
const PIECE: usize = 400;

/// Offsets of words in `struct xenstore_domain_interface`.
const REQ_PROD: u32 = 2052;
const RSP_CONS: u32 = 2056;
const CONNECTION: u32 = 2068;

const RING_SIZE: u32 = 1024;

/// The words beside the rings of `struct xenstore_domain_interface`, as they were.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Words {
    /// Bytes that the guest has still to put into the ring.
    pub(crate) unsent: u32,
    pub(crate) req_cons: u32,
    pub(crate) req_prod: u32,
    pub(crate) rsp_prod: u32,
    pub(crate) features: u32,
    pub(crate) connection: u32,
    pub(crate) error: u32,
}

/// What a domain is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// It runs.
    Up,
    /// It has shut down and stays.
    Down,
}

/// One domain.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) address: Address,
    pub(crate) life: Life,
    /// Whether the store serves its ring.
    pub(crate) is_introduced: bool,
    console: File,
    /// The beginning of a line from the console.
    line: Vec<u8>,
    /// Bytes for the ring that were not given to the relay yet.
    outgoing: Vec<u8>,
    /// It takes nothing out of its ring.
    is_stopped: bool,
    /// Where its responses stood when it stopped.
    stopped_at: Option<u32>,
    asked: u32,
}

impl Guest {
    /// Has one made by the toolstack, which also introduces it.
    pub(crate) fn create(number: u32, toolstack: &mut Toolstack) -> Result<Self, String> {
        let name = format!("relay-{number}");
        let named = format!("name=\"{name}\"");
        xl(&["create", "-q", "-e", "/etc/xen/guest.cfg", &named, "extra=\"relay\""])?;
        let domid: u16 = parsed(xl(&["domid", &name])?.trim().as_bytes(), "xl domid")?;
        let home = format!("/local/domain/{domid}");
        let mut node = |path: &str| {
            let path = format!("{home}/{path}");
            await_some(|| toolstack.read(path.as_bytes()), &path)
        };
        let address = Address {
            domid,
            gfn: parsed(&node("store/ring-ref")?, "ring-ref")?,
            port: parsed(&node("store/port")?, "port")?,
        };
        let tty = node("console/tty")?;
        let tty = String::from_utf8(tty).map_err(|e| e.to_string())?;
        let console = OpenOptions::new().read(true).write(true).open(&tty);
        let console = console.map_err(|e| format!("{tty}: {e}"))?;
        let mut guest = Self {
            address,
            life: Life::Up,
            is_introduced: true,
            console,
            line: Vec::new(),
            outgoing: Vec::new(),
            is_stopped: false,
            stopped_at: None,
            asked: 0,
        };
        guest.ask(&mut Mailbox::default())?;
        Ok(guest)
    }

    /// Ends the domain, and what the toolstack knows of it.
    pub(crate) fn destroy(self) -> Result<(), String> {
        xl(&["destroy", &self.address.domid.to_string()]).map(drop)
    }

    /// Keeps bytes for the ring until the next [`flush`](Self::flush).
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        self.outgoing.extend(bytes);
    }

    /// Gives the relay what was put; says whether that was anything.
    pub(crate) fn flush(&mut self) -> Result<bool, String> {
        let outgoing = core::mem::take(&mut self.outgoing);
        if self.life == Life::Down {
            return Ok(false);
        }
        let mut lines = String::new();
        for piece in outgoing.chunks(PIECE) {
            lines += "put ";
            for byte in piece {
                lines += &format!("{byte:02x}");
            }
            lines += "\n";
        }
        self.say(&lines)?;
        Ok(!outgoing.is_empty())
    }

    fn say(&mut self, lines: &str) -> Result<(), String> {
        self.console.write_all(lines.as_bytes()).map_err(|e| format!("a guest's console: {e}"))
    }

    /// Puts what the relay took out of its ring within `patience` into the mailbox; says whether
    /// anything came.
    pub(crate) fn receive(
        &mut self,
        mailbox: &mut Mailbox,
        patience: Duration,
    ) -> Result<bool, String> {
        self.listen(mailbox, patience, &mut None)
    }

    fn listen(
        &mut self,
        mailbox: &mut Mailbox,
        patience: Duration,
        answer: &mut Option<Words>,
    ) -> Result<bool, String> {
        if !is_readable(&self.console, patience)? {
            return Ok(false);
        }
        let mut bytes = [0; 8192];
        let count = self.console.read(&mut bytes).map_err(|e| format!("a guest's console: {e}"))?;
        for &byte in &bytes[..count] {
            if byte != b'\n' {
                self.line.push(byte);
                continue;
            }
            let line = String::from_utf8_lossy(&core::mem::take(&mut self.line)).into_owned();
            match line.trim().split_once(' ') {
                Some(("<", hex)) => mailbox.receive(&unspelled(hex)?)?,
                Some(("=", words)) => *answer = words_of(words, self.asked).or(*answer),
                Some(("!", why)) => return Err(format!("the relay says: {why}")),
                // Other lines are of the guest's start.
                _ => {}
            }
        }
        Ok(count > 0)
    }

    /// The words beside the rings, when the relay has moved what it could.
    pub(crate) fn ask(&mut self, mailbox: &mut Mailbox) -> Result<Words, String> {
        self.flush()?;
        self.asked += 1;
        self.say(&format!("ask {}\n", self.asked))?;
        let mut answer = None;
        loop {
            let heard = self.listen(mailbox, PATIENCE, &mut answer)?;
            match answer {
                Some(words) => return Ok(words),
                None if !heard => return Err("a relay does not answer".to_owned()),
                None => {}
            }
        }
    }

    /// Does not look at the ring until [`begin`](Self::begin) or [`go_on`](Self::go_on): the store
    /// may make it anew.
    pub(crate) fn pause(&mut self, mailbox: &mut Mailbox) -> Result<(), String> {
        self.say("hold\n")?;
        self.ask(mailbox).map(drop)
    }

    /// The store has made the ring anew.
    pub(crate) fn begin(&mut self) -> Result<(), String> {
        self.outgoing.clear();
        self.stopped_at = None;
        self.say("begin\n")?;
        self.go_on()
    }

    /// The store has not.
    pub(crate) fn go_on(&mut self) -> Result<(), String> {
        if self.is_stopped { Ok(()) } else { self.say("take\n") }
    }

    /// Back to what it was after its creation, for the next conversation.
    pub(crate) fn rewind(&mut self) -> Result<(), String> {
        self.is_stopped = false;
        self.begin()?;
        self.ask(&mut Mailbox::default()).map(drop)
    }

    /// Takes nothing out any more, and makes the ring look full: there is no room to write to.
    pub(crate) fn stop_reading(&mut self, mailbox: &mut Mailbox) -> Result<(), String> {
        let at = self.ask(mailbox)?.rsp_prod;
        (self.is_stopped, self.stopped_at) = (true, Some(at));
        self.say(&format!("hold\nword {RSP_CONS} {}\n", at.wrapping_sub(RING_SIZE)))?;
        self.ask(mailbox).map(drop)
    }

    /// Makes room again and takes out what comes.
    pub(crate) fn read_again(&mut self, mailbox: &mut Mailbox) -> Result<(), String> {
        self.is_stopped = false;
        if let Some(at) = self.stopped_at.take() {
            self.say(&format!("word {RSP_CONS} {at}\n"))?;
        }
        self.say("take\nkick\n")?;
        self.ask(mailbox).map(drop)
    }

    /// Claims 2,000 bytes of requests in a ring of 1,024.
    pub(crate) fn break_index(&mut self, mailbox: &mut Mailbox) -> Result<(), String> {
        let prod = self.ask(mailbox)?.req_cons.wrapping_add(2000);
        self.say(&format!("word {REQ_PROD} {prod}\nkick\n"))
    }

    /// Asks for a fresh connection; says whether it has one when the store has looked.
    pub(crate) fn reconnect(
        &mut self,
        mailbox: &mut Mailbox,
        toolstack: &mut Toolstack,
    ) -> Result<bool, String> {
        self.pause(mailbox)?;
        self.say(&format!("word {CONNECTION} 1\nkick\n"))?;
        self.ask(mailbox)?;
        toolstack.barrier()?;
        let is_fresh = self.ask(mailbox)?.connection == 0;
        if is_fresh {
            self.begin()?
        } else {
            self.go_on()?
        }
        Ok(is_fresh)
    }

    /// Shuts the domain down and waits until Xen says so.
    pub(crate) fn shut_down(&mut self) -> Result<(), String> {
        if self.life == Life::Down {
            return Err("this domain has shut down already".to_owned());
        }
        self.life = Life::Down;
        self.say("end\n")?;
        let domid = self.address.domid.to_string();
        let is_down = || {
            let list = xl(&["list", &domid])?;
            let state = list.lines().last().and_then(|line| line.split_whitespace().nth(4));
            Ok(state.filter(|state| state.contains('s')).map(|_| ()))
        };
        await_some(is_down, "the end of a guest")
    }
}

/// Runs xl and returns what it printed.
fn xl(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("xl").args(arguments).output().map_err(|e| format!("xl: {e}"))?;
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        return Ok(said(&output.stdout));
    }
    Err(format!("xl {}: {}, {}", arguments.join(" "), output.status, said(&output.stderr)))
}

/// Asks again until there is something.
fn await_some<T>(
    mut ask: impl FnMut() -> Result<Option<T>, String>,
    what: &str,
) -> Result<T, String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = ask()? {
            return Ok(found);
        }
        if Instant::now() > deadline {
            return Err(format!("waited for {what} in vain"));
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn parsed<T: core::str::FromStr>(text: &[u8], what: &str) -> Result<T, String> {
    let text = String::from_utf8_lossy(text);
    text.parse().map_err(|_| format!("{what}: {text:?} is no number"))
}

fn unspelled(hex: &str) -> Result<Vec<u8>, String> {
    let pair = |at| hex.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    let bytes: Option<_> = (0..hex.len()).step_by(2).map(pair).collect();
    bytes.ok_or_else(|| format!("no bytes: {hex}"))
}

/// The words after `=`, if they answer the question of that number.
fn words_of(text: &str, asked: u32) -> Option<Words> {
    let numbers: Option<Vec<u32>> = text.split_whitespace().map(|word| word.parse().ok()).collect();
    let [token, unsent, req_cons, req_prod, _, rsp_prod, features, connection, error, _] =
        numbers?[..]
    else {
        return None;
    };
    (token == asked).then_some(Words {
        unsent,
        req_cons,
        req_prod,
        rsp_prod,
        features,
        connection,
        error,
    })
}
