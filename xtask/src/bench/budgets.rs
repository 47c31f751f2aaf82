//! What an operation may cost, in instructions: a table to be tightened, and a check against it.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::callgrind::{Callgrind, Counts};
use crate::progress::Progress;
use crate::workspace::Workspace;

/// How many domains there are for the two budgets of each operation.
const DOMAINS: [&str; 2] = ["1", "1000"];

/// One operation's line.
pub(crate) struct Budget {
    /// Its name in the program `bench`.
    pub operation: &'static str,
    /// What it is to cost in the end, if that was ever decided.
    pub target: Option<u32>,
    /// What it may cost now, with as many domains as [`DOMAINS`] says: where the target is not
    /// reached, what it was measured to cost and 3 % more.
    now: [u32; 2],
}

/// Instructions of the server for one operation, from the bytes of the request to those of the
/// answer in the ring. Each domain has 100 nodes and 8 watches.
#[rustfmt::skip]
pub(crate) const BUDGETS: [Budget; 9] = [
    //                                                         target         1 domain, 1,000
    line("READ",                                          Some(  600), [ 1_139,  1_167]),
    line("WRITE",                                         Some(1_500), [ 2_379,  2_484]),
    line("WRITE of another length",                       None,        [ 2_839,  2_944]),
    line("DIRECTORY of 10",                               Some(1_500), [ 1_984,  2_012]),
    line("GET_PERMS",                                     None,        [ 1_400,  1_461]),
    line("SET_PERMS",                                     None,        [ 4_318,  4_609]),
    line("MKDIR and RM",                                  None,        [ 8_143,  8_402]),
    line("WATCH and UNWATCH",                             Some(3_000), [ 6_172,  6_294]),
    line("transaction of START, READ, WRITE, END",        Some(6_000), [ 8_608,  8_733]),
];

/// Instructions of one turn when very many nodes go at once: as they are measured, and 3 % more. The
/// turns that follow are alike, and an average of them is as good as the longest.
pub(crate) const TURNS: [(&str, u32); 5] = [
    ("RM of 100,000 nodes", 201_258),
    ("the turns after RM of 100,000 nodes", 120_758),
    ("death of the owner of 100,000 nodes", 195_827),
    ("the turns after the death of their owner", 120_763),
    ("death of the owner of 1,000 scattered nodes", 4_309_680),
];

const fn line(operation: &'static str, target: Option<u32>, now: [u32; 2]) -> Budget {
    Budget { operation, target, now }
}

/// Counts the operations and compares; one sentence for each that costs more than it may.
pub(crate) fn exceeded(
    ws: &Workspace,
    program: PathBuf,
    progress: &Progress,
) -> Result<Vec<String>> {
    let callgrind = Callgrind::prepare(ws, program, progress)?;
    let counts = DOMAINS.map(|domains| callgrind.count(&["count", domains]));
    let mut sentences = Vec::new();
    for (at, (domains, counts)) in DOMAINS.into_iter().zip(counts).enumerate() {
        sentences.extend(beyond(&BUDGETS, at, domains, &counts?)?);
    }
    let counts = callgrind.count(&["removals"])?;
    for (turn, most) in TURNS {
        let count = counts.iter().find(|(counted, _)| counted == turn);
        let (_, count) = count.with_context(|| format!("bench does not count {turn}"))?;
        if *count > f64::from(most) {
            sentences.push(format!(
                "{turn}: a turn takes {count:.0} instructions; the budget is {most}"
            ));
        }
    }
    Ok(sentences)
}

fn beyond(budgets: &[Budget], at: usize, domains: &str, counts: &Counts) -> Result<Vec<String>> {
    let mut sentences = Vec::new();
    for budget in budgets {
        let name = budget.operation;
        let count = counts.iter().find(|(counted, _)| counted == name);
        let (_, count) = count.with_context(|| format!("bench does not count {name}"))?;
        let most = budget.now[at];
        if *count > f64::from(most) {
            sentences.push(format!(
                "{name} with {domains} domains takes {count:.0} instructions; the budget is {most}"
            ));
        }
    }
    Ok(sentences)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: [Budget; 2] = [line("READ", Some(600), [700, 800]), line("WRITE", None, [9, 9])];

    fn counts(read: f64, write: f64) -> Counts {
        vec![("WRITE".to_owned(), write), ("READ".to_owned(), read)]
    }

    #[test]
    fn what_costs_more_than_it_may_is_named() {
        let within = beyond(&TABLE, 0, "1", &counts(700.0, 9.0)).unwrap();
        assert!(within.is_empty(), "{within:?}");
        let said = beyond(&TABLE, 1, "1000", &counts(801.0, 9.0)).unwrap();
        let wanted = "READ with 1000 domains takes 801 instructions; the budget is 800";
        assert_eq!(said, [wanted]);
    }

    #[test]
    fn what_nobody_counted_is_an_error() {
        let counts = vec![("READ".to_owned(), 1.0)];
        assert!(beyond(&TABLE, 0, "1", &counts).is_err(), "WRITE has a budget and no count");
    }

    #[test]
    fn every_budget_is_above_nothing_and_no_target_lies_above_its_budget() {
        for budget in &BUDGETS {
            let least = budget.target.unwrap_or(0).min(budget.now[0]);
            assert!(budget.now.iter().all(|now| *now >= least), "{}", budget.operation);
        }
    }
}
