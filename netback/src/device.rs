//! An interface's two halves in Xenstore: what this half offers, what the other wants, and what to
//! do next (xen/include/public/io/netif.h, xen/include/public/io/xenbus.h).

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use xen_sys::ids::{GrantRef, Port};
use xen_sys::xenbus::State;

use crate::port::{Rings, Takes};

/// Queues of one interface at most.
pub const QUEUES_MAX: u8 = 4;

/// What this half can do, as nodes of its directory. They stand there before it says that it waits.
pub const OFFER: [(&str, &str); 9] = [
    ("feature-rx-copy", "1"),
    ("feature-rx-flip", "0"),
    ("feature-sg", "1"),
    ("feature-gso-tcpv4", "1"),
    ("feature-gso-tcpv6", "1"),
    ("feature-ipv6-csum-offload", "1"),
    ("feature-split-event-channels", "1"),
    ("multi-queue-max-queues", "4"),
    // What a script in the backend's domain says when the interface is on its bridge.
    ("hotplug-status", "connected"),
];

/// What to do with an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing, until something changes.
    Wait,
    /// Offer what this half can do, and wait for what the other wants.
    Offer,
    /// Connect to the other's rings.
    Connect,
    /// Disconnect, and say so by this state.
    Disconnect(State),
    /// Disconnect, and remove what is ours.
    Remove,
}

/// What to do next by both halves' states; `online` is whether the toolstack wants the interface to
/// be, and `connected` whether this half uses the other's rings.
#[must_use]
pub fn next(own: State, other: State, online: bool, connected: bool) -> Step {
    let ended = matches!(other, State::Unknown | State::Closed);
    if !online && (own == State::Closing || ended) {
        return Step::Remove;
    }
    match other {
        State::Initialising if connected => Step::Disconnect(State::Closed),
        State::Initialising if matches!(own, State::InitWait | State::Unknown) => Step::Wait,
        State::Initialising => Step::Offer,
        State::Initialised | State::Connected if own == State::InitWait => Step::Connect,
        State::Closing if own != State::Closing && own != State::Closed => {
            Step::Disconnect(State::Closing)
        }
        State::Closed | State::Unknown if own != State::Closed => Step::Disconnect(State::Closed),
        _ => Step::Wait,
    }
}

/// The event channels of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Events {
    /// One for both rings.
    Shared(Port),
    /// One for each.
    Split {
        /// For the transmit ring.
        tx: Port,
        /// For the receive ring.
        rx: Port,
    },
}

/// A queue as the other half names it.
#[derive(Debug, PartialEq, Eq)]
pub struct Queue {
    /// By which references its rings are granted.
    pub rings: [GrantRef; 2],
    /// Its event channels.
    pub events: Events,
}

impl Queue {
    /// The references by ring.
    #[must_use]
    pub const fn rings(&self) -> Rings<GrantRef> {
        let [tx, rx] = self.rings;
        Rings { tx, rx }
    }
}

/// What the other half wants.
#[derive(Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its queues, at least one.
    pub queues: Vec<Queue>,
    /// What it can receive.
    pub takes: Takes,
}

/// Why that cannot be had: a node of the other half.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// Which node.
    pub node: String,
    /// What it would have to be.
    pub wanted: &'static str,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the frontend's {} is not {}", self.node, self.wanted)
    }
}

impl core::error::Error for Unfit {}

impl Wanted {
    /// Reads what the other half wants by `read`, which gives the value of a node of its directory.
    ///
    /// # Errors
    /// Those of `read`, and within them [`Unfit`] if what is wanted cannot be had.
    pub fn read<E>(
        mut read: impl FnMut(&str) -> Result<Option<String>, E>,
    ) -> Result<Result<Self, Unfit>, E> {
        let mut nodes = Nodes { read: &mut read };
        match nodes.wanted() {
            Ok(wanted) => Ok(Ok(wanted)),
            Err(Stop::Unfit(unfit)) => Ok(Err(unfit)),
            Err(Stop::Read(error)) => Err(error),
        }
    }
}

/// Why reading ends early.
enum Stop<E> {
    Unfit(Unfit),
    Read(E),
}

struct Nodes<'r, R> {
    read: &'r mut R,
}

impl<E, R: FnMut(&str) -> Result<Option<String>, E>> Nodes<'_, R> {
    fn wanted(&mut self) -> Result<Wanted, Stop<E>> {
        for node in ["request-rx-copy", "feature-rx-notify"] {
            if !self.flag(node)? {
                return Err(unfit(node.into(), "1"));
            }
        }
        let queues = self.number("multi-queue-num-queues")?;
        let count = u8::try_from(queues.unwrap_or(1)).unwrap_or(0);
        if !(1..=QUEUES_MAX).contains(&count) {
            return Err(unfit("multi-queue-num-queues".into(), "a number from 1 to 4"));
        }
        let queues = match count {
            1 => [self.queue("")?].into(),
            _ => (0..count)
                .map(|number| self.queue(&format!("queue-{number}/")))
                .collect::<Result<_, _>>()?,
        };
        let takes = Takes {
            chains: self.flag("feature-sg")?,
            gso4: self.flag("feature-gso-tcpv4")?,
            gso6: self.flag("feature-gso-tcpv6")?,
            blank4: !self.flag("feature-no-csum-offload")?,
            blank6: self.flag("feature-ipv6-csum-offload")?,
        };
        Ok(Wanted { queues, takes })
    }

    fn queue(&mut self, place: &str) -> Result<Queue, Stop<E>> {
        let mut reference = |leaf| -> Result<GrantRef, Stop<E>> {
            let node = format!("{place}{leaf}");
            let number = self.number(&node)?;
            number.map(GrantRef).ok_or_else(|| unfit(node, "a grant reference"))
        };
        let rings = [reference("tx-ring-ref")?, reference("rx-ring-ref")?];
        let mut port = |leaf| -> Result<Option<Port>, Stop<E>> {
            Ok(self.number(&format!("{place}{leaf}"))?.map(Port))
        };
        let events = match [port("event-channel-tx")?, port("event-channel-rx")?] {
            [Some(tx), Some(rx)] => Events::Split { tx, rx },
            _ => match port("event-channel")? {
                Some(port) => Events::Shared(port),
                None => return Err(unfit(format!("{place}event-channel"), "a port")),
            },
        };
        Ok(Queue { rings, events })
    }

    fn text(&mut self, node: &str) -> Result<Option<String>, Stop<E>> {
        (self.read)(node).map_err(Stop::Read)
    }

    fn number(&mut self, node: &str) -> Result<Option<u32>, Stop<E>> {
        let Some(text) = self.text(node)? else { return Ok(None) };
        match text.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(unfit(node.into(), "a number")),
        }
    }

    fn flag(&mut self, node: &str) -> Result<bool, Stop<E>> {
        Ok(self.text(node)?.is_some_and(|text| text == "1"))
    }
}

fn unfit<E>(node: String, wanted: &'static str) -> Stop<E> {
    Stop::Unfit(Unfit { node, wanted })
}

#[cfg(test)]
mod tests {
    use core::convert::Infallible;
    use std::collections::BTreeMap;

    use super::*;
    use State::{Closed, Closing, Connected, InitWait, Initialised, Initialising, Unknown};

    #[test]
    fn a_device_comes_and_goes() {
        // As libxl creates it, and Linux connects: without the state in the middle.
        assert_eq!(next(Initialising, Initialising, true, false), Step::Offer);
        assert_eq!(next(InitWait, Initialising, true, false), Step::Wait);
        assert_eq!(next(InitWait, Connected, true, false), Step::Connect);
        assert_eq!(next(Connected, Connected, true, true), Step::Wait);
        // As libxl detaches it.
        assert_eq!(next(Closing, Connected, false, true), Step::Remove);
        // As a driver is unloaded, and loaded again.
        assert_eq!(next(Connected, Closing, true, true), Step::Disconnect(Closing));
        assert_eq!(next(Closing, Closing, true, false), Step::Wait);
        assert_eq!(next(Closing, Closed, true, false), Step::Disconnect(Closed));
        assert_eq!(next(Closed, Closed, true, false), Step::Wait);
        assert_eq!(next(Closed, Initialising, true, false), Step::Offer);
        // Some frontends pass through every state.
        assert_eq!(next(InitWait, Initialised, true, false), Step::Connect);
    }

    #[test]
    fn a_guest_that_is_gone_or_begins_anew_is_left() {
        assert_eq!(next(Connected, Unknown, true, true), Step::Disconnect(Closed));
        assert_eq!(next(Closed, Unknown, true, false), Step::Wait);
        assert_eq!(next(Closed, Unknown, false, false), Step::Remove);
        assert_eq!(next(Connected, Unknown, false, true), Step::Remove);
        // A kernel that was started by another one, without a word.
        assert_eq!(next(Connected, Initialising, true, true), Step::Disconnect(Closed));
    }

    #[test]
    fn whoever_broke_a_rule_stays_out_until_it_begins_anew() {
        assert_eq!(next(Closed, Connected, true, false), Step::Wait);
        assert_eq!(next(Closed, Closing, true, false), Step::Wait);
        assert_eq!(next(Closed, Initialising, true, false), Step::Offer);
    }

    fn wanted(nodes: &[(&str, &str)]) -> Result<Wanted, Unfit> {
        let nodes: BTreeMap<&str, &str> = nodes.iter().copied().collect();
        let read = |node: &str| Ok::<_, Infallible>(nodes.get(node).map(|&value| value.into()));
        Wanted::read(read).unwrap_or_else(|never| match never {})
    }

    const LINUX: [(&str, &str); 10] = [
        ("request-rx-copy", "1"),
        ("feature-rx-notify", "1"),
        ("feature-sg", "1"),
        ("feature-gso-tcpv4", "1"),
        ("feature-gso-tcpv6", "1"),
        ("feature-ipv6-csum-offload", "1"),
        ("tx-ring-ref", "768"),
        ("rx-ring-ref", "769"),
        ("event-channel-tx", "9"),
        ("event-channel-rx", "10"),
    ];

    #[test]
    fn linux_is_understood() {
        let takes = Takes { chains: true, gso4: true, gso6: true, blank4: true, blank6: true };
        let events = Events::Split { tx: Port(9), rx: Port(10) };
        let queues = [Queue { rings: [GrantRef(768), GrantRef(769)], events }].into();
        assert_eq!(wanted(&LINUX), Ok(Wanted { queues, takes }));
    }

    #[test]
    fn a_frontend_that_can_do_little_is_served_too() {
        let events = Events::Shared(Port(3));
        let queues = [Queue { rings: [GrantRef(1), GrantRef(2)], events }].into();
        let takes = Takes { blank4: true, ..Takes::default() };
        let little = [
            ("request-rx-copy", "1"),
            ("feature-rx-notify", "1"),
            ("tx-ring-ref", "1"),
            ("rx-ring-ref", "2"),
            ("event-channel", "3"),
        ];
        assert_eq!(wanted(&little), Ok(Wanted { queues, takes }));
    }

    #[test]
    fn several_queues_have_places_of_their_own() {
        let mut nodes = LINUX.to_vec();
        nodes.push(("multi-queue-num-queues", "2"));
        let unfit = Unfit { node: "queue-0/tx-ring-ref".into(), wanted: "a grant reference" };
        assert_eq!(wanted(&nodes), Err(unfit), "the flat ones are not meant");
        for (place, number) in [("queue-0/", 0), ("queue-1/", 1)] {
            for leaf in ["tx-ring-ref", "rx-ring-ref", "event-channel"] {
                let node: &str = Box::leak(format!("{place}{leaf}").into_boxed_str());
                nodes.push((node, if number == 0 { "5" } else { "6" }));
            }
        }
        let events: Vec<Events> =
            wanted(&nodes).unwrap().queues.iter().map(|queue| queue.events).collect();
        assert_eq!(events, [Events::Shared(Port(5)), Events::Shared(Port(6))]);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        for (node, value, wanted_to_be) in [
            ("request-rx-copy", "0", "1"),
            ("feature-rx-notify", "", "1"),
            ("multi-queue-num-queues", "5", "a number from 1 to 4"),
            ("multi-queue-num-queues", "0", "a number from 1 to 4"),
            ("multi-queue-num-queues", "4294967297", "a number"),
            ("tx-ring-ref", "-1", "a number"),
        ] {
            let mut nodes = LINUX.to_vec();
            nodes.push((node, value));
            let unfit = Unfit { node: node.into(), wanted: wanted_to_be };
            assert_eq!(wanted(&nodes), Err(unfit), "{node}={value}");
        }
    }
}
