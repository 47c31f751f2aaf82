//! What can go wrong, told apart, each with what can be done about it.

use core::time::Duration;
use std::io;

use databack::ask::Malformed;
use databack::frame::{self, Reason};
use thiserror::Error;
use xen_sys::ids::DomId;
use xen_sys::ring::BadIndex;
use xenstore_core::client::Failure;

/// Why there is no channel, or none any longer.
#[derive(Debug, Error)]
pub enum Error {
    /// A device of the kernel's cannot be opened.
    #[error("{path} cannot be opened: {error}; {}", advice(path, error))]
    Device {
        /// Which.
        path: &'static str,
        /// Why.
        error: io::Error,
    },
    /// Xenstore refused a request, or the connection to it broke.
    #[error("{path}: {failure}")]
    Store {
        /// The node that it was about.
        path: String,
        /// Why.
        failure: Failure<io::Error>,
    },
    /// A node of Xenstore has not the form that it should have.
    #[error("{path} says {value:?}, which is no {expected}")]
    Node {
        /// Which.
        path: String,
        /// What it says.
        value: String,
        /// What it should say.
        expected: &'static str,
    },
    /// Nobody said which domain has the channels.
    #[error(
        "which domain has the data channels? Xenstore has no node {node}: let `datafront announce \
         DOMAIN` run in dom0, or name the domain with --backend or DATAFRONT_BACKEND"
    )]
    NoBackend {
        /// Where it would stand.
        node: &'static str,
    },
    /// No domain has that name.
    #[error("no domain is named {0:?}, as far as this one may see; a number works everywhere")]
    UnknownDomain(String),
    /// The domain does not take requests for channels.
    #[error(
        "domain {} takes no requests for channels: {path} cannot be written ({failure}); does it \
         run, with stubdom in its data role?",
        .backend.raw()
    )]
    NoChannels {
        /// The domain that was asked.
        backend: DomId,
        /// The node of the request.
        path: String,
        /// Why it could not be written.
        failure: Failure<io::Error>,
    },
    /// The domain of the channels answered that there will be none.
    #[error("domain {} refuses the channel: {why}", .backend.raw())]
    Refused {
        /// The domain that was asked.
        backend: DomId,
        /// Its sentence.
        why: String,
    },
    /// The domain of the channels said nothing for that long.
    #[error(
        "domain {} did not answer {path} within {} s; does it still run?",
        .backend.raw(),
        .patience.as_secs_f32()
    )]
    NoAnswer {
        /// The domain that was asked.
        backend: DomId,
        /// The node of the request.
        path: String,
        /// How long was waited.
        patience: Duration,
    },
    /// The request cannot be written.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// What was promised could not be taken: the port or the pages.
    #[error("{what} of domain {} cannot be used: {error}", .backend.raw())]
    Attach {
        /// What it was.
        what: &'static str,
        /// Whose.
        backend: DomId,
        /// Why.
        error: io::Error,
    },
    /// The other end closed the channel, or its domain is no more.
    #[error("the domain of the data channels ended the channel")]
    Gone,
    /// The other end broke the rules of the ring.
    #[error("the domain of the data channels broke the ring: {0}")]
    Ring(#[from] BadIndex),
    /// The other end broke the form of frames.
    #[error("the domain of the data channels sent {0}")]
    Frame(frame::Malformed),
    /// The other end said what cannot be.
    #[error("the domain of the data channels makes no sense: {0}")]
    Nonsense(&'static str),
    /// A call does not fit into a frame: its name, topic, message or reply is too long.
    #[error("this is too long for a frame: a name, a topic, a message or a reply")]
    TooLong,
    /// The channel ended before the block was answered. The receiver may have got it.
    #[error("the channel ended before the block was answered; the receiver may have got it")]
    Interrupted,
    /// Blocks to a name will not come to us, or no longer.
    #[error("{name:?} cannot be served: {reason}")]
    NotServed {
        /// Which name.
        name: String,
        /// Why.
        reason: Reason,
    },
    /// A message was not published.
    #[error("{topic:?} is not published: {reason}")]
    NotPublished {
        /// Its topic.
        topic: String,
        /// Why.
        reason: Reason,
    },
    /// Messages will not come, or no longer.
    #[error("the subscription of {filter:?} ended: {reason}")]
    NotSubscribed {
        /// The subscription's filter.
        filter: String,
        /// Why.
        reason: Reason,
    },
    /// What is to be pushed cannot be read, or ends too early.
    #[error("the block cannot be read: {0}")]
    Input(io::Error),
    /// The broker does not answer.
    #[error("the domain of the data channels does not answer")]
    Silence,
    /// The kernel would not let us wait or notify.
    #[error("the channel's events: {0}")]
    Events(io::Error),
}

impl Error {
    /// Whether it may be otherwise in a while, though nobody here does anything about it: the
    /// domain of the channels is being started, and its policy comes later.
    pub(crate) const fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::NoBackend { .. }
                | Self::UnknownDomain(_)
                | Self::NoChannels { .. }
                | Self::Refused { .. }
                | Self::NoAnswer { .. }
                | Self::Attach { .. }
                | Self::Silence
                | Self::Gone
        )
    }
}

/// What helps when a device cannot be opened.
fn advice(path: &str, error: &io::Error) -> String {
    let module = match path {
        xen_sys::linux::GNTDEV => Some("xen-gntdev"),
        xen_sys::linux::EVTCHN => Some("xen-evtchn"),
        _ => None,
    };
    match (error.kind(), module) {
        (io::ErrorKind::NotFound, Some(module)) => format!("`modprobe {module}` makes it appear"),
        (io::ErrorKind::NotFound, None) => "this is no domain of Xen".to_owned(),
        (io::ErrorKind::PermissionDenied, _) => "it belongs to root".to_owned(),
        _ => "nothing is known to help".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_missing_tells_what_to_do() {
        let device = |path, kind: io::ErrorKind| Error::Device { path, error: kind.into() };
        let said = device(xen_sys::linux::GNTDEV, io::ErrorKind::NotFound).to_string();
        assert!(said.ends_with("`modprobe xen-gntdev` makes it appear"), "{said}");
        let said = device(crate::XENBUS, io::ErrorKind::NotFound).to_string();
        assert!(said.ends_with("this is no domain of Xen"), "{said}");
        let said = device(xen_sys::linux::EVTCHN, io::ErrorKind::PermissionDenied).to_string();
        assert!(said.ends_with("it belongs to root"), "{said}");
    }
}
