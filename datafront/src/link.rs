//! What a session needs of the channel below it.

use std::time::Instant;

use databack::vchan::End;
use xen_sys::page::Shared;

use crate::Error;

/// One end of a channel, and a way to notify the other and to wait for it.
pub trait Link {
    /// What the channel lies in.
    type Memory: Shared;

    /// The rings.
    fn end(&mut self) -> &mut End<Self::Memory>;

    /// Sends an event to the other end.
    ///
    /// # Errors
    /// [`Error::Events`].
    fn notify(&mut self) -> Result<(), Error>;

    /// Returns when an event came, or the time has; sooner at times. Whatever came before is to be
    /// seen in the rings then. With a time that is over it only takes note of what came.
    ///
    /// # Errors
    /// [`Error::Gone`] if the other end is no more, and those of the devices.
    fn wait(&mut self, deadline: Option<Instant>) -> Result<(), Error>;
}
