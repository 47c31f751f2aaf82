//! Who watches what, and what they are to hear.

use super::{Checked, Model, Told, absolute, done, owned};
use crate::reference::{self, SPECIALS, Touched, Tree, Watch, allows};

use proptest::prelude::*;

impl Model {
    pub(super) fn watch(&mut self, by: u16, at: &str, token: &str, depth: Option<u8>) -> Checked {
        let path = absolute(by, at);
        // Told apart by their tokens, no two watches share an event.
        let token = &*format!("{path}{token}");
        let own = self.watches.iter().filter(|watch| watch.domain == by);
        let count = own.clone().count();
        let (mut answer, mut told) = (Ok(b"OK\0".to_vec()), Vec::new());
        if depth.is_some() && self.features(by) & 4 == 0 {
            answer = Err("EINVAL");
        } else if own.clone().any(|old| (&*old.path, &*old.token) == (&*path, token)) {
            answer = Err("EEXIST");
        } else if !allows(self.limits(by).watches, count + 1) {
            answer = Err("ENOSPC");
        } else {
            let relative = !at.starts_with(['/', '@']);
            let (token, depth) = (token.to_owned(), depth.map(usize::from));
            let watch = Watch { domain: by, relative, path: path.clone(), token, depth };
            told.push(watch.event(&path));
            self.watches.push(watch);
        }
        let depth = depth.map_or(String::new(), |levels| format!("{levels}\0"));
        let got = self.ask(by, 4, 0, format!("{at}\0{token}\0{depth}").as_bytes())?;
        prop_assert_eq!(&got.answer, &owned(&answer), "{} watches {}", by, at);
        prop_assert!(got.before.is_empty(), "{by} heard an event before WATCH was answered");
        prop_assert_eq!(&got.after, &told, "{} watches {}: the first event", by, at);
        Ok(())
    }

    pub(super) fn unwatch(&mut self, by: u16, at: &str, token: &str) -> Checked {
        let path = absolute(by, at);
        let token = &*format!("{path}{token}");
        let is_it = |old: &Watch| (old.domain, &*old.path, &*old.token) == (by, &path, token);
        let known = self.watches.iter().position(is_it);
        let answer = known.map(|at| drop(self.watches.remove(at)));
        let answer = answer.map(|()| b"OK\0".to_vec()).ok_or("ENOENT");
        let got = self.ask(by, 5, 0, format!("{at}\0{token}\0").as_bytes())?;
        self.compare(&got, &answer, &Told::new(), &format!("{by} unwatches {at}"))
    }

    pub(super) fn reset_watches(&mut self, by: u16) -> Checked {
        self.watches.retain(|watch| watch.domain != by);
        self.transactions.remove(&by);
        let got = self.ask(by, 21, 0, b"\0")?;
        self.compare(&got, &done(), &Told::new(), &format!("{by} resets its watches"))
    }

    /// The events that watches must hear of these changes, in their order.
    pub(super) fn told(&self, before: &Tree, touched: &[Touched]) -> Told {
        let mut told = Told::new();
        for change in touched {
            if SPECIALS.contains(&&*change.path) {
                self.announce(&change.path, None, &mut told);
                continue;
            }
            for watch in &self.watches {
                let caller = self.caller(watch.domain);
                for path in watch.hears(change, before) {
                    if reference::is_told(before, &self.tree, caller, &path) {
                        told.entry(watch.domain).or_default().push(watch.event(&path));
                    }
                }
            }
        }
        told
    }

    /// Adds the events of a domain's coming or going, or of any.
    pub(super) fn announce(&self, special: &str, domain: Option<u16>, told: &mut Told) {
        for watch in &self.watches {
            if let Some(path) = watch.hears_of(special, domain)
                && self.may_hear(watch.domain, special)
            {
                told.entry(watch.domain).or_default().push(watch.event(&path));
            }
        }
    }

    pub(super) fn may_hear(&self, domain: u16, special: &str) -> bool {
        let caller = self.caller(domain);
        [special, "/"].into_iter().any(|path| reference::is_readable(&self.tree, caller, path))
    }
}
