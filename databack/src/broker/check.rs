//! Whether what is counted is what there is: all of it counted again. For tests.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use xen_sys::page::Shared;

use super::channel::{Channel, Purpose};
use super::push::PUSH_COST;
use super::{Broker, ChannelId, PushId, cost};

impl<M: Shared> Broker<M> {
    /// Panics where the broker's state contradicts itself.
    pub fn check(&self) {
        let mut used = BTreeMap::new();
        for (id, channel) in self.open_channels() {
            let entry: &mut (u32, usize) = used.entry(channel.domain).or_default();
            entry.0 += 1;
            entry.1 += cost(channel.end.sizes());
            assert!(!channel.ready, "{id} has something to be written after a turn");
            assert_eq!(channel.moved, self.moved.contains(&id), "{id}");
            self.check_channel(id, channel);
        }
        for index in 0..self.pushes.slots() {
            let Some(push) = self.pushes.key_at(index).map(PushId) else { continue };
            let Some(entry) = self.pushes.find(push.0) else { continue };
            assert!(entry.sender.is_some() || entry.receiver.is_some(), "{push:?} is nobody's");
            if let Some(side) = entry.sender {
                let channel = self.channels.find(side.channel.0).expect("the sender is there");
                used.entry(channel.domain).or_default().1 += PUSH_COST;
            }
            if let Some(side) = entry.receiver {
                let channel = self.channels.find(side.channel.0).expect("the receiver is there");
                used.entry(channel.domain).or_default().1 += entry.held.capacity();
                assert!(entry.held.len() == 0 || side.queued, "{push:?} is held and not queued");
            } else {
                assert_eq!(entry.held.capacity(), 0, "{push:?} is held for nobody");
            }
        }
        let counted: BTreeMap<_, _> = self
            .accounts
            .iter()
            .map(|account| (account.owner.domain, (account.channels, account.memory)))
            .collect();
        assert_eq!(counted, used, "channels and memory by domain");
        assert_eq!(self.accounts.memory, used.values().map(|(_, memory)| memory).sum::<usize>());
    }

    fn open_channels(&self) -> impl Iterator<Item = (ChannelId, &Channel<M>)> {
        let keys = (0..self.channels.slots()).filter_map(|index| self.channels.key_at(index));
        keys.filter_map(|key| Some((ChannelId(key), self.channels.find(key)?)))
    }

    fn check_channel(&self, id: ChannelId, channel: &Channel<M>) {
        let Purpose::Services(session) = &channel.purpose else { return };
        for name in &session.services {
            assert_eq!(self.services.find(name, Some(channel.domain)), Ok(id), "{name}");
        }
        for &(number, push) in &session.pushes {
            assert_eq!(self.sender_of(push), Some((id, number)), "{push:?}");
        }
        for (place, push) in session.deliveries.iter().enumerate() {
            let entry = self.pushes.find(push.0).expect("a delivery is a push");
            let side = entry.receiver.expect("a delivery has a receiver");
            assert_eq!((side.channel, entry.place), (id, place), "{push:?}");
            let queued = session.bulk.iter().filter(|&other| other == push).count();
            assert_eq!(queued, usize::from(side.queued), "{push:?} in the queue");
        }
        let queued: Vec<_> = session.bulk.iter().collect();
        assert!(queued.iter().all(|push| session.deliveries.contains(push)), "{id} queues its own");
    }
}
