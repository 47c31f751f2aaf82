//! Both rings of a device.

use xen_sys::page::Shared;

use crate::{Receiver, Sender, Violation};

/// A virtual network interface, as its frontend has it.
#[derive(Debug)]
pub struct Vif<P> {
    /// What goes out.
    pub sender: Sender<P>,
    /// What comes in.
    pub receiver: Receiver<P>,
}

impl<P: Shared> Vif<P> {
    /// Sets up its empty rings, a page each.
    #[must_use]
    pub fn set_up(transmit: P, receive: P) -> Self {
        Self { sender: Sender::set_up(transmit), receiver: Receiver::set_up(receive) }
    }

    /// Shows the backend what was put into either ring; tells whether to notify it.
    #[must_use]
    pub fn publish(&mut self) -> bool {
        let frames = self.sender.publish();
        let pages = self.receiver.publish();
        frames || pages
    }

    /// The memory of both rings, once the backend was told that the device is closed.
    #[must_use]
    pub fn into_memory(self) -> [P; 2] {
        [self.sender.into_memory(), self.receiver.into_memory()]
    }

    /// Asks for an event when either ring has a response, then looks once more whether one has.
    /// Wait only if none has.
    ///
    /// # Errors
    /// [`Violation`] if the backend claims to have answered what it was not asked.
    pub fn has_more(&mut self) -> Result<bool, Violation> {
        let pages = self.sender.has_more()?;
        let frames = self.receiver.has_more()?;
        Ok(pages || frames)
    }
}
