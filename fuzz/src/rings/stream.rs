//! A byte stream.

use core::sync::atomic::Ordering;

use xen_sys::page::OwnPage;
use xen_sys::ring::shared::Region;
use xen_sys::ring::stream::{Half, Reader, Writer};

use super::{Input, Marked, Queue, Step, judge};

/// Both ends of a byte stream that lies at the end of the page.
pub(super) struct Stream {
    page: OwnPage,
    half: Half,
    writer: Writer,
    reader: Reader,
    queue: Queue,
    honest: bool,
}

impl Stream {
    pub(super) fn new(page: &OwnPage, bits: u8, input: &Input) -> Self {
        let size = 1 << (bits % 12);
        let half = Half::new(4096 - size, size, 4, 8);
        let region = Region::of(page);
        for index in [4, 8] {
            region.word(index).store(input.start, Ordering::Relaxed);
        }
        let (writer, reader) = (Writer::attach(half, region), Reader::attach(half, region));
        Self {
            page: page.clone(),
            half,
            writer,
            reader,
            queue: Queue::default(),
            honest: input.storm.is_empty(),
        }
    }

    pub(super) fn run(mut self, steps: &[Step]) {
        for step in steps {
            let region = Region::of(&self.page);
            let size = self.half.size();
            match step {
                Step::Put(len) | Step::Answer(len) => {
                    let bytes = self.queue.fresh(usize::from(*len) % (2 * size));
                    let written = self.writer.write(region, &bytes);
                    let room = size.saturating_sub(self.queue.bytes.len());
                    let count = judge(self.honest, written, bytes.len().min(room), size);
                    if let Some(count) = count {
                        self.queue.wrote(&bytes[..count]);
                    }
                }
                Step::Take(len) | Step::Fetch { see: len, .. } => {
                    let mut bytes = Marked::new(usize::from(*len) % (2 * size));
                    let read = self.reader.read(region, bytes.inside());
                    let count = *read.as_ref().unwrap_or(&0);
                    assert!(count <= size, "{count} bytes of {size} were read");
                    let waiting = bytes.len.min(self.queue.bytes.len());
                    if judge(self.honest, read, waiting, size).is_some() {
                        self.queue.read(bytes.written(count));
                    }
                    bytes.written(count);
                }
                Step::Reset => {
                    self.reader = Reader::attach(self.half, region);
                    self.writer = Writer::attach(self.half, region);
                }
                Step::Lie(lie) => {
                    lie.tell(&self.page);
                    self.honest = false;
                }
            }
        }
    }
}
