//! Which address is behind which port.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use core::time::Duration;

use crate::head::Mac;
use crate::port::PortId;

/// For how long an address that was learned stays without another frame from it.
const AGE: Duration = Duration::from_secs(300);

const SETS: usize = 256;
const WAYS: usize = 4;

/// An address that was learned from a frame.
#[derive(Clone, Copy, Debug)]
struct Learned {
    mac: Mac,
    port: PortId,
    seen: Duration,
}

/// Addresses that the toolstack gave to interfaces, and those learned behind ports that have none of
/// their own. The former cannot be displaced by the latter, of which there is a bounded number: the
/// longest silent one makes room.
pub(crate) struct Table {
    given: BTreeMap<Mac, PortId>,
    learned: Box<[[Option<Learned>; WAYS]; SETS]>,
}

impl Table {
    pub(crate) fn new() -> Self {
        Self { given: BTreeMap::new(), learned: Box::new([[None; WAYS]; SETS]) }
    }

    /// An interface has an address. Of two with the same it is the newer one's, as that of a guest
    /// that was just migrated is.
    pub(crate) fn give(&mut self, mac: Mac, port: PortId) {
        self.given.insert(mac, port);
    }

    /// It has it no more.
    pub(crate) fn take_back(&mut self, mac: Mac, port: PortId) {
        if self.given.get(&mac) == Some(&port) {
            self.given.remove(&mac);
        }
    }

    /// Whether an address is an interface's own.
    pub(crate) fn is_given(&self, mac: Mac) -> bool {
        self.given.contains_key(&mac)
    }

    /// A frame came from an address behind a port.
    pub(crate) fn learn(&mut self, mac: Mac, port: PortId, now: Duration) {
        let set = &mut self.learned[set_of(mac)];
        let known = set.iter().position(|way| way.is_some_and(|learned| learned.mac == mac));
        let oldest = || {
            let seen = |way: &Option<Learned>| way.map(|learned| learned.seen);
            (0..WAYS).min_by_key(|&way| seen(&set[way])).unwrap_or(0)
        };
        set[known.unwrap_or_else(oldest)] = Some(Learned { mac, port, seen: now });
    }

    /// Behind which port an address is, if that is known.
    pub(crate) fn find(&self, mac: Mac, now: Duration) -> Option<PortId> {
        if let Some(&port) = self.given.get(&mac) {
            return Some(port);
        }
        let set = self.learned[set_of(mac)].iter().flatten();
        let learned = set.into_iter().find(|learned| learned.mac == mac)?;
        (now.saturating_sub(learned.seen) < AGE).then_some(learned.port)
    }
}

/// The makers' part of addresses is often the same, the rest counts up.
fn set_of(mac: Mac) -> usize {
    let [a, b, c, d, e, f] = mac.0;
    let word = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
    (word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as usize % SETS
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

    fn port(index: u16) -> PortId {
        PortId { index, generation: 0 }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn what_was_learned_moves_and_is_forgotten() {
        let mut table = Table::new();
        assert_eq!(table.find(MAC, at(0)), None);
        table.learn(MAC, port(1), at(0));
        table.learn(MAC, port(2), at(100));
        assert_eq!(table.find(MAC, at(399)), Some(port(2)));
        assert_eq!(table.find(MAC, at(400)), None, "nothing was heard for five minutes");
    }

    #[test]
    fn an_interface_keeps_its_address_whatever_is_learned() {
        let mut table = Table::new();
        table.give(MAC, port(1));
        for number in 0..100_000_u32 {
            let [a, b, c, d] = number.to_be_bytes();
            table.learn(Mac([4, 0, a, b, c, d]), port(2), at(1));
        }
        table.learn(MAC, port(2), at(2));
        assert_eq!(table.find(MAC, at(3)), Some(port(1)));
        table.take_back(MAC, port(7));
        assert!(table.is_given(MAC), "it was another's");
        table.take_back(MAC, port(1));
        assert!(!table.is_given(MAC));
    }

    #[test]
    fn the_longest_silent_makes_room() {
        let mut table = Table::new();
        let same_set: Vec<Mac> = (0..=u16::MAX)
            .map(|number| {
                let [high, low] = number.to_be_bytes();
                Mac([2, 0, 0, 0, high, low])
            })
            .filter(|&mac| set_of(mac) == set_of(MAC))
            .take(WAYS + 1)
            .collect();
        for (second, &mac) in (0..).zip(&same_set) {
            table.learn(mac, port(1), at(second));
        }
        assert_eq!(table.find(same_set[0], at(9)), None);
        assert!(same_set[1..].iter().all(|&mac| table.find(mac, at(9)).is_some()));
    }
}
