//! What a frontend says in Xenstore, and when (xen/include/public/io/netif.h, xenbus.h).
//!
//! The backend first says what it takes, in nodes of its own directory, and enters
//! [`State::InitWait`]; the frontend answers with its rings and what *it* takes, and enters
//! [`State::Connected`]. Whoever owns a [`Handshake`] watches the backend's state, tells it here,
//! and does what the [`Step`] says.

use xen_sys::ring::netif::{Gso, GsoKind};
use xen_sys::xenbus::State;

/// What a backend takes, or does, by its nodes. What it does not mention it does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// `feature-sg`: it takes frames of more than one piece.
    pub sg: bool,
    /// `feature-gso-tcpv4`: it takes frames of TCP over IPv4 that are yet to be cut.
    pub gso_tcp4: bool,
    /// `feature-gso-tcpv6`: the same over IPv6.
    pub gso_tcp6: bool,
    /// `feature-ipv6-csum-offload`: it takes blank checksums over IPv6; over IPv4 each does.
    pub ipv6_csum: bool,
}

impl Features {
    /// Reads a backend's features; `is_set` tells whether a node of its directory is there and not
    /// zero. There are none if the backend does not fill the frontend's pages (`feature-rx-copy`):
    /// then no device comes of it.
    ///
    /// # Errors
    /// Those of `is_set`.
    pub fn read<E>(
        mut is_set: impl FnMut(&'static str) -> Result<bool, E>,
    ) -> Result<Option<Self>, E> {
        if !is_set("feature-rx-copy")? {
            return Ok(None);
        }
        Ok(Some(Self {
            sg: is_set("feature-sg")?,
            gso_tcp4: is_set("feature-gso-tcpv4")?,
            gso_tcp6: is_set("feature-gso-tcpv6")?,
            ipv6_csum: is_set("feature-ipv6-csum-offload")?,
        }))
    }

    /// Whether it takes frames that are to be cut so.
    #[must_use]
    pub const fn takes(&self, gso: Gso) -> bool {
        match gso.kind {
            GsoKind::Tcp4 => self.gso_tcp4,
            GsoKind::Tcp6 => self.gso_tcp6,
        }
    }
}

/// What a frontend has set up for its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rings {
    /// The grant of the transmit ring.
    pub transmit: u32,
    /// The grant of the receive ring.
    pub receive: u32,
    /// The event channel of both.
    pub port: u32,
}

impl Rings {
    /// The nodes that say so, in the frontend's directory, each with its value. They are written
    /// before the state.
    ///
    /// All that a frontend of this crate receives may be in pieces, be cut later and have blank
    /// checksums.
    #[must_use]
    pub const fn nodes(self) -> [(&'static str, u32); 9] {
        [
            ("tx-ring-ref", self.transmit),
            ("rx-ring-ref", self.receive),
            ("event-channel", self.port),
            ("request-rx-copy", 1),
            ("feature-rx-notify", 1),
            ("feature-sg", 1),
            ("feature-gso-tcpv4", 1),
            ("feature-gso-tcpv6", 1),
            ("feature-ipv6-csum-offload", 1),
        ]
    }
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing, until the backend's state changes.
    Wait,
    /// Read the backend's [`Features`], set up the rings, write [`Rings::nodes`], and then write
    /// [`State::Connected`]; or, if that fails, do as [`Handshake::fail`] says.
    Connect,
    /// Let frames go: the backend is there.
    Work,
    /// Give up the rings and their pages, if there are any, and write this state.
    Enter(State),
}

/// A frontend's side of the matter.
#[derive(Clone, Copy, Debug)]
pub struct Handshake {
    /// What stands in the frontend's own node.
    own: State,
    /// The backend was seen to be connected to our rings.
    is_at_work: bool,
    /// Nothing shall come of this device any more.
    has_failed: bool,
}

impl Default for Handshake {
    fn default() -> Self {
        Self { own: State::Initialising, is_at_work: false, has_failed: false }
    }
}

impl Handshake {
    /// What to do now that the backend's state is this. Its directory's `online` is not zero as long
    /// as the device is not being taken away.
    ///
    /// A backend that closes and stays online is connected to again, once it has closed.
    pub fn backend_is(&mut self, state: State, is_online: bool) -> Step {
        match (self.own, state) {
            (State::Initialising, State::InitWait) => {
                self.own = State::Connected;
                Step::Connect
            }
            (State::Connected, State::Connected) if !self.is_at_work => {
                self.is_at_work = true;
                Step::Work
            }
            (State::Connected, State::Closing | State::Closed | State::Unknown) => {
                self.enter(State::Closed)
            }
            // It has begun anew, and knows nothing of our rings.
            (State::Connected, State::Initialising | State::InitWait) if self.is_at_work => {
                self.enter(State::Closed)
            }
            (State::Initialising, State::Closing) => self.enter(State::Closed),
            (State::Closed, State::Closed | State::InitWait) if is_online && !self.has_failed => {
                self.enter(State::Initialising)
            }
            _ => Step::Wait,
        }
    }

    /// What to do now that the device is of no use: its backend has broken the rules, or there is
    /// not what it takes to connect. It is not tried again.
    pub fn fail(&mut self) -> Step {
        self.has_failed = true;
        self.enter(State::Closed)
    }

    fn enter(&mut self, state: State) -> Step {
        (self.own, self.is_at_work) = (state, false);
        Step::Enter(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(handshake: &mut Handshake, states: &[State]) -> Vec<Step> {
        states.iter().map(|&state| handshake.backend_is(state, true)).collect()
    }

    #[test]
    fn a_backend_is_answered_state_by_state() {
        use State::{Closed, Closing, Connected, InitWait, Initialising, Unknown};
        let mut handshake = Handshake::default();
        let states = [Unknown, Initialising, InitWait, InitWait, Connected, Connected];
        assert_eq!(
            steps(&mut handshake, &states),
            [Step::Wait, Step::Wait, Step::Connect, Step::Wait, Step::Work, Step::Wait]
        );
        assert_eq!(
            steps(&mut handshake, &[Closing, Closing, Closed, Closed, InitWait, Connected]),
            [
                Step::Enter(Closed),
                Step::Wait,
                Step::Enter(Initialising),
                Step::Wait,
                Step::Connect,
                Step::Work
            ],
            "a backend that closes and stays is connected to again"
        );
    }

    #[test]
    fn a_backend_that_begins_anew_is_given_new_rings() {
        use State::{Closed, Connected, InitWait, Initialising};
        let mut handshake = Handshake::default();
        assert_eq!(
            steps(&mut handshake, &[InitWait, Connected, InitWait, InitWait, InitWait]),
            [
                Step::Connect,
                Step::Work,
                Step::Enter(Closed),
                Step::Enter(Initialising),
                Step::Connect
            ]
        );
    }

    #[test]
    fn a_device_that_is_taken_away_stays_closed() {
        let mut handshake = Handshake::default();
        steps(&mut handshake, &[State::InitWait, State::Connected]);
        assert_eq!(handshake.backend_is(State::Closing, false), Step::Enter(State::Closed));
        for state in [State::Closed, State::Unknown, State::Unknown] {
            assert_eq!(handshake.backend_is(state, false), Step::Wait, "{state:?}");
        }
        let mut handshake = Handshake::default();
        steps(&mut handshake, &[State::InitWait, State::Connected]);
        let gone = handshake.backend_is(State::Unknown, false);
        assert_eq!(gone, Step::Enter(State::Closed), "its directory went at once");
    }

    #[test]
    fn a_device_that_failed_is_not_tried_again() {
        let mut handshake = Handshake::default();
        steps(&mut handshake, &[State::InitWait, State::Connected]);
        assert_eq!(handshake.fail(), Step::Enter(State::Closed));
        for state in [State::Closing, State::Closed, State::InitWait, State::Connected] {
            assert_eq!(handshake.backend_is(state, true), Step::Wait, "{state:?}");
        }
    }

    #[test]
    fn what_a_backend_takes_is_what_its_nodes_say() {
        let of = |nodes: &[&str]| Features::read(|key| Ok::<_, ()>(nodes.contains(&key))).unwrap();
        assert_eq!(of(&["feature-sg"]), None, "without feature-rx-copy there is no device");
        assert_eq!(of(&["feature-rx-copy"]), Some(Features::default()));
        let linux = ["feature-rx-copy", "feature-sg", "feature-gso-tcpv4", "feature-gso-tcpv6"];
        let features = of(&linux).unwrap();
        assert!(features.sg && !features.ipv6_csum);
        for kind in [GsoKind::Tcp4, GsoKind::Tcp6] {
            assert!(features.takes(Gso { size: 1448, kind }), "{kind:?}");
        }
        assert_eq!(Features::read(|_| Err::<bool, _>("gone")), Err("gone"));
    }

    #[test]
    fn the_rings_are_named_as_in_the_header() {
        let nodes = Rings { transmit: 8, receive: 9, port: 5 }.nodes();
        assert_eq!(nodes[..3], [("tx-ring-ref", 8), ("rx-ring-ref", 9), ("event-channel", 5)]);
        let flags: Vec<&str> = nodes[3..].iter().map(|&(name, _)| name).collect();
        assert_eq!(
            flags,
            [
                "request-rx-copy",
                "feature-rx-notify",
                "feature-sg",
                "feature-gso-tcpv4",
                "feature-gso-tcpv6",
                "feature-ipv6-csum-offload"
            ]
        );
        assert!(nodes[3..].iter().all(|&(_, value)| value == 1));
    }
}
