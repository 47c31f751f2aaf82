//! Figures as nodes of Xenstore: for each name a node, whose value is the figure. Where figures of a
//! name are told apart by a label, the value is all of them, each behind its label's value, with
//! blanks between; labels but the last are names of nodes above: `switch_frames_total/uplink1` is
//! `in 12 out 30`. Characters that a path cannot have are `-` there.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Display, Write};

use super::{Family, Figures, Kind, Show};

/// The most nodes; what is beyond is not shown. A domain may not have as many as it likes.
pub(super) const MOST: usize = 256;

/// Figures that change by being shown: if no other changed, nothing is.
pub(super) const PULSE: [&str; 6] = [
    "events_total",
    "memory_free_bytes",
    "notifications_total",
    "turns_total",
    "uptime_seconds",
    "wakeups_total",
];

/// What was shown last.
#[derive(Debug, Default)]
pub struct Nodes {
    shown: BTreeMap<String, String>,
}

/// A node that is to be other than it is: its path behind that of the figures, and its value, or
/// `None` if it is to be removed.
pub type Change = (String, Option<String>);

impl Nodes {
    /// What is to be written and removed so that the nodes show these figures; nothing while no more
    /// than the pulse of this domain has changed.
    pub fn update(&mut self, figures: &Figures<'_>) -> Vec<Change> {
        let mut told = figures.told();
        told.truncate(MOST);
        let is_same = |(path, value): &(String, String)| self.shown.get(path) == Some(value);
        let is_pulse = |path: &String| PULSE.contains(&path.as_str());
        let is_still = told.len() == self.shown.len()
            && told.iter().all(|node| is_pulse(&node.0) || is_same(node));
        if is_still {
            return Vec::new();
        }
        let mut before = core::mem::take(&mut self.shown);
        let mut changes = Vec::new();
        for (path, value) in told {
            if before.remove(&path).as_ref() != Some(&value) {
                changes.push((path.clone(), Some(value.clone())));
            }
            self.shown.insert(path, value);
        }
        changes.extend(before.into_keys().map(|path| (path, None)));
        changes
    }

    /// That change was refused, and is to be tried again.
    pub fn refused(&mut self, path: &str) {
        self.shown.remove(path);
    }
}

impl Figures<'_> {
    /// A line for each node: its name and its value.
    #[must_use]
    pub fn lines(&self) -> String {
        let mut text = String::new();
        for (path, value) in self.told() {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{path}: {value}");
        }
        text
    }

    pub(super) fn told(&self) -> Vec<(String, String)> {
        let mut tree = Tree::default();
        // Nor can this, for the same reason.
        let _ = self.show(&mut tree);
        tree.nodes
    }
}

#[derive(Default)]
struct Tree {
    family: Option<Family>,
    nodes: Vec<(String, String)>,
}

impl Show for Tree {
    fn family(&mut self, family: Family) -> fmt::Result {
        self.family = Some(family);
        Ok(())
    }

    fn sample(&mut self, labels: &[&str], value: &dyn Display) -> fmt::Result {
        let Family { name, kind, labels: names, .. } = self.family.ok_or(fmt::Error)?;
        let mut path = String::from(name);
        let value = match (kind, labels) {
            (Kind::Info, _) => {
                let pairs = names.iter().zip(labels);
                pairs.fold(String::new(), |text, (name, label)| pair(text, name, label))
            }
            (_, []) => alloc::format!("{value}"),
            (_, [above @ .., last]) => {
                for label in above {
                    path.push('/');
                    path.extend(label.chars().map(|c| if is_legal(c) { c } else { '-' }));
                }
                pair(String::new(), last, value)
            }
        };
        match self.nodes.last_mut().filter(|(other, _)| *other == path) {
            Some((_, text)) => write!(text, " {value}"),
            None => {
                self.nodes.push((path, value));
                Ok(())
            }
        }
    }
}

/// Text with two words more.
fn pair(mut text: String, name: &str, value: impl Display) -> String {
    let before = if text.is_empty() { "" } else { " " };
    // Writing to a string cannot fail.
    let _ = write!(text, "{before}{name} {value}");
    text
}

/// Whether a node's name may have this character (docs/misc/xenstore.txt).
const fn is_legal(c: char) -> bool {
    matches!(c, 'A'..='Z' | 'a'..='z' | '0'..='9' | '-' | '_' | '@')
}
