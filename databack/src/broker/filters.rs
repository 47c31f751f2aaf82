//! Which subscriptions a topic has: a tree of the levels of their filters, so that a topic's own
//! levels lead to them and to no others.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::slab::{Key, Slab};
use super::{Name, SubscriptionId};

/// What one level of one filter is charged.
pub(super) const LEVEL_COST: usize = 320;

#[derive(Debug)]
struct Node {
    parent: Option<Key>,
    /// The level that leads here; `+` for any.
    level: Name,
    children: BTreeMap<Name, Key>,
    /// Subscriptions whose filter ends here.
    here: Vec<SubscriptionId>,
    /// Subscriptions whose filter ends here in `#`.
    rest: Vec<SubscriptionId>,
}

/// Where a subscription is in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    node: Key,
    rest: bool,
    index: usize,
}

#[derive(Debug)]
pub(super) struct Filters {
    nodes: Slab<Node>,
    root: Option<Key>,
}

impl Node {
    fn new(parent: Option<Key>, level: Name) -> Self {
        Self { parent, level, children: BTreeMap::new(), here: Vec::new(), rest: Vec::new() }
    }

    fn list(&mut self, rest: bool) -> &mut Vec<SubscriptionId> {
        if rest { &mut self.rest } else { &mut self.here }
    }

    fn is_bare(&self) -> bool {
        self.children.is_empty() && self.here.is_empty() && self.rest.is_empty()
    }
}

impl Filters {
    pub(super) const fn new() -> Self {
        Self { nodes: Slab::new(), root: None }
    }

    /// Adds a subscription with a legal filter; `None` if there is no memory.
    pub(super) fn add(&mut self, filter: &str, id: SubscriptionId) -> Option<Place> {
        let (levels, rest) = match filter.strip_suffix('#') {
            Some(levels) => (levels.strip_suffix('/').unwrap_or(levels), true),
            None => (filter, false),
        };
        let mut node = self.root()?;
        for level in levels.split('/').filter(|level| !level.is_empty()) {
            match self.child(node, level) {
                Some(child) => node = child,
                None => {
                    self.prune(node);
                    return None;
                }
            }
        }
        let list = self.nodes.find_mut(node)?.list(rest);
        if list.try_reserve(1).is_err() {
            self.prune(node);
            return None;
        }
        let list = self.nodes.find_mut(node)?.list(rest);
        list.push(id);
        Some(Place { node, rest, index: list.len() - 1 })
    }

    /// Removes what is at a place. Another subscription may have to be told of a new place.
    pub(super) fn remove(&mut self, place: Place) -> Option<(SubscriptionId, Place)> {
        let list = self.nodes.find_mut(place.node)?.list(place.rest);
        list.swap_remove(place.index);
        let moved = list.get(place.index).map(|&id| (id, place));
        self.prune(place.node);
        moved
    }

    /// Adds to `found` every subscription whose filter matches the topic, and to `looks` every node
    /// that was looked at; false if there is no memory for them.
    pub(super) fn matches(
        &self,
        topic: &str,
        found: &mut Vec<SubscriptionId>,
        looks: &mut usize,
    ) -> bool {
        self.root.is_none_or(|root| self.descend(root, Some(topic), found, looks))
    }

    /// Goes down by what is left of a topic. Topics have few levels, so the stack is shallow.
    fn descend(
        &self,
        node: Key,
        left: Option<&str>,
        found: &mut Vec<SubscriptionId>,
        looks: &mut usize,
    ) -> bool {
        let Some(node) = self.nodes.find(node) else { return true };
        *looks += 1;
        let ended: &[_] = if left.is_none() { &node.here } else { &[] };
        if found.try_reserve(node.rest.len() + ended.len()).is_err() {
            return false;
        }
        found.extend_from_slice(&node.rest);
        found.extend_from_slice(ended);
        let Some(left) = left else { return true };
        let (level, left) = left.split_once('/').map_or((left, None), |(a, b)| (a, Some(b)));
        [level, "+"].into_iter().all(|level| {
            let child = Name::try_from(level).ok().and_then(|level| node.children.get(&level));
            child.is_none_or(|&child| self.descend(child, left, found, looks))
        })
    }

    fn root(&mut self) -> Option<Key> {
        if self.root.is_none() && self.nodes.reserve() {
            self.root = Some(self.nodes.insert(Node::new(None, Name::new())));
        }
        self.root
    }

    /// The child by that level, which is made if there is none.
    fn child(&mut self, parent: Key, level: &str) -> Option<Key> {
        let level = Name::try_from(level).ok()?;
        if let Some(&child) = self.nodes.find(parent)?.children.get(&level) {
            return Some(child);
        }
        if !self.nodes.reserve() {
            return None;
        }
        let child = self.nodes.insert(Node::new(Some(parent), level.clone()));
        self.nodes.find_mut(parent)?.children.insert(level, child);
        Some(child)
    }

    /// Removes a node that nothing needs any more, and those above that only led to it.
    fn prune(&mut self, mut key: Key) {
        while let Some(node) = self.nodes.find(key).filter(|node| node.is_bare()) {
            let Some(parent) = node.parent else { return };
            let level = node.level.clone();
            self.nodes.remove(key);
            if let Some(above) = self.nodes.find_mut(parent) {
                above.children.remove(&level);
            }
            key = parent;
        }
    }

    /// How many nodes there are.
    #[cfg(test)]
    pub(super) const fn len(&self) -> usize {
        self.nodes.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::covers;

    fn levels(last: &'static str) -> impl Strategy<Value = String> {
        let level = prop::sample::select(vec!["a", "b", "c", last]);
        (prop::collection::vec(level, 1..4), any::<bool>()).prop_map(move |(levels, open)| {
            let levels = levels.join("/");
            if open && last == "+" { format!("{levels}/#") } else { levels }
        })
    }

    proptest! {
        /// The tree finds what comparing with every filter finds, and nothing stays of what went.
        #[test]
        fn a_topic_finds_the_filters_that_match(
            filters in prop::collection::vec((levels("+"), any::<bool>()), 0..30),
            topic in levels("d"),
        ) {
            let mut tree = Filters::new();
            let mut places = BTreeMap::new();
            for (number, (filter, _)) in filters.iter().enumerate() {
                let index = u32::try_from(number).unwrap();
                let id = SubscriptionId(Key { index, generation: 0 });
                let place = tree.add(filter, id).unwrap();
                places.insert(id, place);
            }
            for (number, (_, stays)) in filters.iter().enumerate() {
                let index = u32::try_from(number).unwrap();
                let id = SubscriptionId(Key { index, generation: 0 });
                if !stays && let Some((moved, place)) = tree.remove(places.remove(&id).unwrap()) {
                    places.insert(moved, place);
                }
            }
            let mut found = Vec::new();
            prop_assert!(tree.matches(&topic, &mut found, &mut 0));
            found.sort();
            let matching = |id: &SubscriptionId| covers(&filters[id.0.index as usize].0, &topic);
            let expected: Vec<_> = places.keys().copied().filter(matching).collect();
            prop_assert_eq!(found, expected);
            while let Some((_, place)) = places.pop_first() {
                if let Some((moved, place)) = tree.remove(place) {
                    places.insert(moved, place);
                }
            }
            prop_assert!(tree.len() <= 1, "only the root stays");
        }
    }

    #[test]
    fn a_filter_of_all_is_found_by_all() {
        let mut tree = Filters::new();
        let id = SubscriptionId(Key { index: 7, generation: 1 });
        tree.add("#", id).unwrap();
        let mut found = Vec::new();
        assert!(tree.matches("a/b/c", &mut found, &mut 0));
        assert_eq!(found, [id]);
    }
}
