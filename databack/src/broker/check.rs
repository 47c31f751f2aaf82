//! Whether what is counted is what there is: all of it counted again. For tests.

use alloc::collections::BTreeMap;

use xen_sys::ids::DomId;
use xen_sys::page::Shared;

use super::channel::{Channel, Purpose};
use super::push::PUSH_COST;
use super::services::SERVICE_COST;
use super::session::Bulk;
use super::{Broker, ChannelId, PushId, cost};

impl<M: Shared> Broker<M> {
    /// Panics where the broker's state contradicts itself.
    pub fn check(&self) {
        let mut used = BTreeMap::new();
        for (id, channel) in self.open_channels() {
            let entry: &mut (u32, usize) = used.entry(channel.domain).or_default();
            entry.0 += 1;
            entry.1 += cost(channel.end.sizes());
            assert_eq!(channel.ready, self.ready.contains(&id), "{id}");
            assert_eq!(channel.moved, self.moved.contains(&id), "{id}");
            if let Purpose::Services(session) = &channel.purpose {
                entry.1 += session.services.len() * SERVICE_COST;
            }
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
        for account in self.accounts.iter().filter(|account| account.closed > 0) {
            used.entry(account.owner.domain).or_default().1 += account.closed;
        }
        self.check_messages(&mut used);
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
            let queued = session.bulk.iter().filter(|&other| *other == Bulk::Block(*push)).count();
            assert_eq!(queued, usize::from(side.queued), "{push:?} in the queue");
        }
        assert!(session.sending.is_none() || session.greeted, "{id}");
        let known = session.pushes.len() + session.publications.len() + session.subscriptions.len();
        assert!(session.answers.len() <= known + session.revoked.len(), "{id} answers");
        assert!(
            session.bulk.len() <= session.deliveries.len() + session.subscriptions.len(),
            "{id}"
        );
    }

    fn check_messages(&self, used: &mut BTreeMap<DomId, (u32, usize)>) {
        for (domain, charge) in self.kept.charges() {
            used.entry(domain).or_default().1 += charge;
        }
        let mut waits: BTreeMap<_, u32> = BTreeMap::new();
        for index in 0..self.publications.slots() {
            let Some(key) = self.publications.key_at(index) else { continue };
            let Some(entry) = self.publications.find(key) else { continue };
            used.entry(entry.domain).or_default().1 += entry.charge;
            waits.insert(key, entry.waits());
        }
        for (_, channel) in self.open_channels() {
            let Purpose::Services(session) = &channel.purpose else { continue };
            let sending =
                session.sending.iter().map(|sending| (sending.charge, sending.publication));
            let gathering = session.gathering.iter().map(|one| (0, Some(one.publication())));
            let waiting = session.subscriptions.iter().flat_map(|&(number, subscription)| {
                let entry = self.subscriptions.find(subscription.0).expect("it is there");
                let queued =
                    session.bulk.iter().filter(|&other| *other == Bulk::Messages(subscription));
                assert_eq!(queued.count(), usize::from(entry.queued), "{subscription:?}");
                assert_eq!(entry.number(), number);
                entry.charges()
            });
            for (charge, publication) in sending.chain(gathering).chain(waiting) {
                used.entry(channel.domain).or_default().1 += charge;
                if let Some(publication) = publication {
                    *waits.get_mut(&publication.0).expect("it waits") -= 1;
                }
            }
        }
        assert!(waits.values().all(|&left| left == 0), "publishers wait for nobody");
    }
}
