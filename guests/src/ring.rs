//! A guest's end of its Xenstore page, with every way to misuse it.

use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use xen_sys::event;
use xen_sys::ids::Port;
use xen_sys::page::SpecialPage;
use xen_sys::param;
use xen_sys::ring::shared::Region;
use xen_sys::ring::xenstore::Client;
use xenstore_core::wire::{HEADER_SIZE, Header, Op};
use zerocopy::{FromBytes, IntoBytes};

/// A word of the page, by its offset (xen/include/public/io/xs_wire.h).
#[derive(Clone, Copy)]
pub(crate) enum Word {
    RequestsTaken = 2048,
    RequestsMade = 2052,
    RepliesTaken = 2056,
    RepliesMade = 2060,
    Connection = 2068,
    Error = 2072,
}

/// The page, our place in both its rings, and the port that wakes the server.
pub(crate) struct Ring {
    page: SpecialPage,
    port: Port,
    client: Client<SpecialPage>,
}

impl Ring {
    /// Attaches to the page as it stands.
    pub(crate) fn attach() -> Self {
        let page = param::store_page().expect("a Xenstore ring");
        let port = param::store_port().expect("a Xenstore port");
        Self { page, port, client: Client::attach(page) }
    }

    /// What a word of the page says now.
    pub(crate) fn word(&self, word: Word) -> u32 {
        Region::of(&self.page).word(word as usize).load(Ordering::Acquire)
    }

    /// Has a word of the page say anything.
    pub(crate) fn set(&self, word: Word, value: u32) {
        Region::of(&self.page).word(word as usize).store(value, Ordering::Release);
    }

    /// Wakes the server, with a reason or without.
    pub(crate) fn notify(&self) {
        // Whoever has closed the port goes on without it.
        let _ = event::send(self.port);
    }

    /// Puts as many of the bytes into the ring as fit, and wakes the server; tells how many.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> usize {
        let sent = self.client.write(bytes).unwrap_or(0);
        self.notify();
        sent
    }

    /// Takes what waits of the replies and forgets it; tells how many bytes.
    pub(crate) fn drain(&mut self) -> usize {
        let mut bytes = [0; 1024];
        let count = self.client.read(&mut bytes).unwrap_or(0);
        if count > 0 {
            self.notify();
        }
        count
    }

    /// Takes one whole reply, waiting for it by `wait`: its type and its payload.
    pub(crate) fn reply(&mut self, mut wait: impl FnMut()) -> (u32, Vec<u8>) {
        let mut header = [0; HEADER_SIZE];
        self.fill(&mut header, &mut wait);
        let header = Header::read_from_bytes(&header).expect("as many bytes as a header has");
        let mut payload = alloc::vec![0; header.payload_len().expect("a length of the server's")];
        self.fill(&mut payload, &mut wait);
        (header.kind.get(), payload)
    }

    fn fill(&mut self, mut bytes: &mut [u8], wait: &mut impl FnMut()) {
        while !bytes.is_empty() {
            let count = self.client.read(bytes).expect("the server's index is possible");
            bytes = &mut bytes[count..];
            if count > 0 {
                self.notify();
            } else {
                wait();
            }
        }
    }
}

/// A request as it should be; strings bring their NUL.
pub(crate) fn frame(op: Op, tx_id: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("a payload's length");
    [header(op.to_wire(), tx_id, len).as_bytes(), payload].concat()
}

/// A header that announces what may be.
pub(crate) fn header(kind: u32, tx_id: u32, len: u32) -> Header {
    Header::new(kind, 1, tx_id, len)
}
