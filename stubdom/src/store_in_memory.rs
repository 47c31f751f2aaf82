//! A store in this program's own memory, for tests of its clients.

use core::cell::RefCell;
use core::convert::Infallible;
use std::collections::VecDeque;
use std::rc::Rc;

use embedded_io::{ErrorType, Read, ReadReady, Write};
use xenstore_core::client::Client;
use xenstore_core::{Config, ConnId, DomId, Host, Server, UniqueId, Unreachable};

/// A store without domains but dom0 and its own, which is domain 99.
pub(crate) fn server() -> Rc<RefCell<Server>> {
    let config = Config { privileged: DomId(0), store: DomId(99), version: "" };
    Rc::new(RefCell::new(Server::new(config)))
}

/// Connects a domain.
pub(crate) fn connect(server: &Rc<RefCell<Server>>, domain: DomId) -> Client<Wire> {
    let conn = server.borrow_mut().connect(domain, UniqueId(domain.0.into()));
    let server = Rc::clone(server);
    Client::new(Wire { server, conn, asked: Vec::new(), answered: VecDeque::new() })
}

pub(crate) struct Everybody;

impl Host for Everybody {
    fn identify(&mut self, domain: DomId) -> Option<UniqueId> {
        Some(UniqueId(domain.0.into()))
    }
    fn introduce(
        &mut self,
        _: ConnId,
        _: DomId,
        _: u64,
        _: u32,
        _: u32,
    ) -> Result<(), Unreachable> {
        Err(Unreachable)
    }
    fn reintroduce(&mut self, _: ConnId, _: DomId, _: u32, _: u32) -> Result<(), Unreachable> {
        Err(Unreachable)
    }
    fn release(&mut self, _: ConnId, _: DomId) {}
    fn has_memory(&self, _: usize) -> bool {
        true
    }
    fn print(&mut self, _: &str) {}
}

/// A domain's connection to it.
pub(crate) struct Wire {
    server: Rc<RefCell<Server>>,
    conn: ConnId,
    asked: Vec<u8>,
    answered: VecDeque<u8>,
}

impl Wire {
    fn pump(&mut self) {
        let mut server = self.server.borrow_mut();
        loop {
            let taken =
                server.receive(self.conn, &self.asked, &mut Everybody).expect("no violation");
            self.asked.drain(..taken);
            let answered = &mut self.answered;
            let all = server.transmit(self.conn, |bytes| {
                answered.extend(bytes);
                Ok::<_, Infallible>(bytes.len())
            });
            if taken == 0 && all == Ok(true) {
                return;
            }
        }
    }
}

impl ErrorType for Wire {
    type Error = Infallible;
}

impl Read for Wire {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Infallible> {
        self.pump();
        let count = bytes.len().min(self.answered.len());
        bytes.iter_mut().zip(self.answered.drain(..count)).for_each(|(to, from)| *to = from);
        Ok(count)
    }
}

impl ReadReady for Wire {
    fn read_ready(&mut self) -> Result<bool, Infallible> {
        self.pump();
        Ok(!self.answered.is_empty())
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        self.asked.extend(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> Result<(), Infallible> {
        self.pump();
        Ok(())
    }
}
