//! The page of Xenstore.

use core::sync::atomic::Ordering;

use xen_sys::page::OwnPage;
use xen_sys::ring::BadIndex;
use xen_sys::ring::shared::Region;
use xen_sys::ring::xenstore::{Client, RING_SIZE, RingError, Server, ServerFeatures};

use super::{Input, Marked, Queue, Step, judge};

/// Both ends of the Xenstore page.
pub(super) struct Page {
    page: OwnPage,
    server: Server<OwnPage>,
    client: Client<OwnPage>,
    requests: Queue,
    responses: Queue,
    honest: bool,
}

impl Page {
    pub(super) fn new(page: &OwnPage, input: &Input) -> Self {
        for word in 0..4 {
            Region::of(page).word(2 * RING_SIZE + 4 * word).store(input.start, Ordering::Relaxed);
        }
        let (server, client) = (Server::attach(page.clone()), Client::attach(page.clone()));
        let (requests, responses) = (Queue::default(), Queue::default());
        Self {
            page: page.clone(),
            server,
            client,
            requests,
            responses,
            honest: input.storm.is_empty(),
        }
    }

    pub(super) fn run(mut self, steps: &[Step]) {
        for step in steps {
            match step {
                Step::Put(len) => {
                    let bytes = self.requests.fresh(usize::from(*len) % 1500);
                    let written = self.client.write(&bytes);
                    let room = RING_SIZE - self.requests.bytes.len().min(RING_SIZE);
                    if let Some(count) = self.judge(written, bytes.len().min(room)) {
                        self.requests.wrote(&bytes[..count]);
                    }
                }
                Step::Take(len) => {
                    let mut bytes = Marked::new(usize::from(*len) % 1500);
                    let read = self.client.read(bytes.inside());
                    let count = *read.as_ref().unwrap_or(&0);
                    let waiting = self.responses.bytes.len();
                    if self.judge(read, bytes.len.min(waiting)).is_some() {
                        self.responses.read(bytes.written(count));
                    }
                    bytes.written(count);
                }
                Step::Answer(len) => {
                    let bytes = self.responses.fresh(usize::from(*len) % 1500);
                    let written = self.server.write(&bytes);
                    let room = RING_SIZE - self.responses.bytes.len().min(RING_SIZE);
                    if let Some(count) = self.judge(written, bytes.len().min(room)) {
                        self.responses.wrote(&bytes[..count]);
                    }
                }
                Step::Fetch { see, take } => self.fetch(*see, *take),
                Step::Reset => {
                    self.server.reset();
                    self.server.announce(ServerFeatures::RECONNECTION);
                    self.server.tell_error(RingError::None);
                    self.server.mark_connected();
                    self.client = Client::attach(self.page.clone());
                    (self.requests, self.responses) = (Queue::default(), Queue::default());
                    // Both indexes are where they should be again, unless somebody writes on.
                }
                Step::Lie(lie) => {
                    lie.tell(&self.page);
                    self.honest = false;
                }
            }
            let _ = (self.server.take_notify(), self.server.reconnect_wanted());
            let _ = (self.client.room(), self.client.available(), self.server.client_port());
        }
    }

    fn fetch(&mut self, see: u16, take: u16) {
        let mut bytes = Marked::new(usize::from(see) % 1500);
        let seen = self.server.peek(bytes.inside());
        let Ok(count) = seen else {
            self.judge(seen, 0);
            return;
        };
        assert!(count <= RING_SIZE && count <= bytes.len, "{count} bytes of a ring were seen");
        // What was seen may be consumed whatever the peer wrote meanwhile.
        let consumed = usize::from(take).min(count);
        self.server.consume(consumed);
        let waiting = self.requests.bytes.len();
        if self.judge(seen, bytes.len.min(waiting)).is_some() {
            self.requests.read(&bytes.written(count)[..consumed]);
        }
        bytes.written(count);
    }

    /// The count of a step, if it must be what it should be: both ends are honest.
    fn judge(&self, result: Result<usize, BadIndex>, expected: usize) -> Option<usize> {
        judge(self.honest, result, expected, RING_SIZE)
    }
}
