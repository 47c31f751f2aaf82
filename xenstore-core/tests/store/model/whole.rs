//! The whole store against the whole of the simplest one.

use super::{Checked, Model, show};
use crate::reference::{self, SPECIALS};

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

impl Model {
    /// What the store says that each domain uses must be what there is.
    pub(super) fn compare_accounts(&mut self) -> Checked {
        for domain in self.introduced.clone() {
            let (nodes, bytes) = reference::owned(&self.tree, self.caller(domain));
            let own = self.watches.iter().filter(|watch| watch.domain == domain);
            let watched: usize =
                own.clone().map(|watch| watch.path.len() + watch.token.len()).sum();
            let open = self.transactions.get(&domain).map_or(0, Vec::len);
            let mut due = vec![("nodes", nodes), ("watches", own.count()), ("transactions", open)];
            if open == 0 {
                // What a transaction's memory comes to is the store's own business.
                due.push(("memory", bytes + watched));
            }
            let got = self.ask(0, 0, 0, format!("quota\0{domain}\0").as_bytes())?;
            prop_assert!(got.told.is_empty(), "an event of a look at the accounts");
            let said = String::from_utf8_lossy(&got.answer.unwrap_or_default()).into_owned();
            let used = |name: &str| {
                let line = said.lines().find(|line| line.split(' ').next() == Some(name))?;
                line.split_once(':')?.1.split_whitespace().next()?.parse::<usize>().ok()
            };
            for (name, due) in due {
                prop_assert_eq!(used(name), Some(due), "{} of domain {}: {}", name, domain, said);
            }
        }
        Ok(())
    }

    /// Compares the whole store as the toolstack sees it with what it should be.
    pub(super) fn compare_store(&mut self, when: &str) -> Checked {
        let mut lines = Vec::new();
        for special in SPECIALS {
            let got = self.ask(0, 3, 0, &[special.as_bytes(), &[0]].concat())?;
            lines.push(format!("{special}  {}", show(&got.answer.unwrap_or_default())));
        }
        let mut open = vec!["/".to_owned()];
        while let Some(path) = open.pop() {
            let mut read = |kind| {
                let got = self.ask(0, kind, 0, &[path.as_bytes(), &[0]].concat())?;
                got.answer.map_err(|e| TestCaseError::fail(format!("{path} is listed, but {e}")))
            };
            let (value, perms, names) = (read(2)?, read(3)?, read(1)?);
            lines.push(format!("{path} {} {}", show(&value), show(&perms)));
            let names = String::from_utf8_lossy(&names).into_owned();
            let base = path.trim_end_matches('/');
            let names = names.split_terminator('\0');
            open.extend(names.map(|name| format!("{base}/{name}")));
        }
        let line = |(path, node): (&String, &reference::Node)| {
            let perms = reference::listed(&node.perms, &self.lives);
            format!("{path} {} {}", show(&node.value), show(&perms))
        };
        let mut due: Vec<String> = self.tree.iter().map(line).collect();
        lines.sort();
        due.sort();
        prop_assert_eq!(lines, due, "the store {}", when);
        Ok(())
    }
}
