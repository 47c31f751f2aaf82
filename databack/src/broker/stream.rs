//! Streams: two channels, each of whose bytes go to the other.

use xen_sys::page::Shared;
use xen_sys::ring::stream::BadPeer;

use super::channel::{Channel, Purpose, TURN_BYTES};
use super::{Broker, ChannelId, Ended, Turn, Violation};
use crate::ask::Application;
use crate::vchan::{End, Peer};

impl<M: Shared> Broker<M> {
    /// Gives a new end of a stream its other, if that waits already.
    pub(super) fn pair(&mut self, id: ChannelId, name: Application) {
        match self.waiting.binary_search_by(|(other, _)| other.cmp(&name)) {
            Ok(place) => {
                let (_, partner) = self.waiting.remove(place);
                for (one, other) in [(id, partner), (partner, id)] {
                    if let Some(channel) = self.channels.find_mut(one.0) {
                        channel.purpose =
                            Purpose::Stream { name: name.clone(), partner: Some(other) };
                    }
                }
            }
            Err(place) => self.waiting.insert(place, (name, id)),
        }
    }

    /// Ends a stream on one side, which ends it on the other.
    pub(super) fn part(&mut self, id: ChannelId, partner: Option<ChannelId>) {
        match partner {
            Some(partner) => self.end(partner, Ended::Partner),
            None => self.waiting.retain(|&(_, other)| other != id),
        }
    }

    /// Until there is a partner, bytes wait where they are.
    fn turn_alone(&self, id: ChannelId) -> Turn {
        let gone = |channel: &Channel<M>| channel.end.peer() == Peer::Gone;
        if self.channels.find(id.0).is_some_and(gone) { Turn::Over } else { Turn::Waits }
    }

    /// Moves bytes both ways.
    pub(super) fn serve_stream(
        &mut self,
        id: ChannelId,
        partner: Option<ChannelId>,
    ) -> Result<Turn, Violation> {
        let Some(partner) = partner else { return Ok(self.turn_alone(id)) };
        let Some((one, other)) = self.channels.find_both(id.0, partner.0) else {
            return Ok(Turn::Waits);
        };
        // Looked at first: what a peer wrote before it went still arrives.
        let gone = [one.end.peer() == Peer::Gone, other.end.peer() == Peer::Gone];
        let moved = relay(&mut one.end, &mut other.end)
            .and_then(|forth| Ok((forth, relay(&mut other.end, &mut one.end).map_err(turned)?)));
        let over = [gone[0] && is_drained(&mut one.end), gone[1] && is_drained(&mut other.end)];
        self.touch(partner);
        match moved {
            // The bytes of one that went, and those for it, are of no more use.
            Ok(_) if over[0] => Ok(Turn::Over),
            Ok(_) if over[1] => {
                self.end(partner, Ended::Closed);
                Ok(Turn::Waits)
            }
            Ok((Turn::Waits, Turn::Waits)) => Ok(Turn::Waits),
            Ok(_) => Ok(Turn::More),
            Err(BadPeer::Source(bad)) => Err(bad.into()),
            Err(BadPeer::Sink(bad)) => {
                self.end(partner, Ended::Violation(bad.into()));
                Ok(Turn::Waits)
            }
        }
    }
}

/// Whether nothing waits any more.
fn is_drained(end: &mut End<impl Shared>) -> bool {
    end.available().is_ok_and(|waiting| waiting == 0)
}

/// Moves bytes one way, and asks for the event with which there is more to do.
fn relay<M: Shared>(from: &mut End<M>, to: &mut End<M>) -> Result<Turn, BadPeer> {
    if from.relay(to, TURN_BYTES)? == TURN_BYTES {
        return Ok(Turn::More);
    }
    let waiting = from.available().map_err(BadPeer::Source)?;
    let more = if waiting > 0 {
        let room = to.room().map_err(BadPeer::Sink)?;
        room > 0 || to.await_room(room).map_err(BadPeer::Sink)?
    } else {
        from.await_bytes(waiting).map_err(BadPeer::Source)?
    };
    Ok(if more { Turn::More } else { Turn::Waits })
}

/// The fault as seen from the other side.
fn turned(bad: BadPeer) -> BadPeer {
    match bad {
        BadPeer::Source(bad) => BadPeer::Sink(bad),
        BadPeer::Sink(bad) => BadPeer::Source(bad),
    }
}
