//! A connection of HTTP, and its time.

use core::time::Duration;

use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{Socket, State};

use super::{PORT, TO_READ};
use crate::http::{Exchange, Page};

/// How long a request may take to come, from the first packet on.
pub(super) const TO_ASK: Duration = Duration::from_secs(10);
/// How long it may take until both sides know that there is a connection, where others want its place.
pub(super) const TO_GREET: Duration = Duration::from_millis(250);
/// How long its answer may take to be read.
pub(super) const TO_ANSWER: Duration = Duration::from_secs(30);

/// A connection, or the place for one.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) socket: SocketHandle,
    exchange: Exchange,
    /// Somebody has asked for it.
    is_used: bool,
    /// How many bytes it has read.
    read: usize,
    /// When it is over, if there is somebody.
    until: Option<Duration>,
}

impl Connection {
    pub(super) fn new(socket: SocketHandle) -> Self {
        Self { socket, exchange: Exchange::default(), is_used: false, read: 0, until: None }
    }

    /// When it is to be looked at, whatever comes.
    pub(super) fn until(&self, socket: &Socket<'_>, now: Duration) -> Option<Duration> {
        self.greeted_until(socket).filter(|&until| until > now).or(self.until)
    }

    /// Until when it may keep its place though the other side has not yet answered the answer: maybe
    /// there is no other side.
    pub(super) fn greeted_until(&self, socket: &Socket<'_>) -> Option<Duration> {
        let is_half = socket.state() == State::SynReceived;
        self.until.filter(|_| is_half).map(|until| until.saturating_sub(TO_ASK) + TO_GREET)
    }

    /// Waits for somebody, if there is nobody.
    pub(super) fn listen(&mut self, socket: &mut Socket<'_>) {
        if !socket.is_open() {
            *self = Self::new(self.socket);
            // It is closed, and the port is one.
            let _ = socket.listen(PORT);
        }
    }

    /// Looks at what a packet has done, before there is another: smoltcp 0.14 does not outlive some that
    /// may come then.
    pub(super) fn look(&mut self, socket: &mut Socket<'_>) {
        match socket.state() {
            // Whoever asked has taken it back. The socket would measure the next one's packets by the
            // window that it gave to this one.
            State::Listen if self.is_used => {
                socket.abort();
                self.listen(socket);
            }
            State::Listen | State::Closed => {}
            // Nobody has to say as much before the end, which may be behind the window.
            State::CloseWait | State::Closing | State::LastAck | State::TimeWait
                if self.read + socket.recv_queue() >= TO_READ =>
            {
                socket.abort();
            }
            _ => self.is_used = true,
        }
    }

    /// Reads and answers as far as it can be done now.
    pub(super) fn serve(
        &mut self,
        socket: &mut Socket<'_>,
        now: Duration,
        page: impl FnMut() -> Option<Page>,
    ) {
        match socket.state() {
            State::Closed => self.listen(socket),
            State::Listen => {}
            // The other side has closed, too. What may still come of it finds nobody.
            State::TimeWait => {
                socket.abort();
                self.listen(socket);
            }
            _ if self.until.is_some_and(|until| until <= now) => socket.abort(),
            _ => self.hold(socket, now, page),
        }
    }

    fn hold(
        &mut self,
        socket: &mut Socket<'_>,
        now: Duration,
        mut page: impl FnMut() -> Option<Page>,
    ) {
        self.until.get_or_insert(now + TO_ASK);
        let was_answered = self.exchange.is_answered();
        while socket.can_recv() {
            let take = |bytes: &mut [u8]| {
                self.exchange.receive(bytes, &mut page);
                self.read += bytes.len();
                (bytes.len(), ())
            };
            if socket.recv(take).is_err() {
                break;
            }
        }
        if self.exchange.is_answered() && !was_answered {
            self.until = Some(now + TO_ANSWER);
        }
        while socket.can_send() && !self.exchange.transmit().is_empty() {
            let Ok(count) = socket.send_slice(self.exchange.transmit()) else { break };
            self.exchange.sent(count);
        }
        let asks_no_more = socket.state() == State::CloseWait && !self.exchange.is_answered();
        if self.exchange.is_done() || asks_no_more {
            socket.close();
        }
    }
}
