//! What checks came to, and how many came to what.

/// What one check came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Passed,
    Failed,
    /// The machine has not what it needs, or the time was over.
    NotRun,
}

impl Outcome {
    pub(super) fn of(passed: bool) -> Self {
        if passed { Self::Passed } else { Self::Failed }
    }
}

/// How many passed, how many did not, and how many this machine could not run.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) passed: u32,
    pub(super) failed: u32,
    pub(super) not_run: u32,
}

impl Tally {
    pub(super) fn one(outcome: Outcome) -> Self {
        let is = |it| u32::from(outcome == it);
        Self {
            passed: is(Outcome::Passed),
            failed: is(Outcome::Failed),
            not_run: is(Outcome::NotRun),
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.not_run += other.not_run;
    }

    pub(super) fn words(self) -> String {
        let Self { passed, failed, not_run } = self;
        let more = if not_run > 0 { format!(", {not_run} not run") } else { String::new() };
        format!("{passed} passed, {failed} failed{more}")
    }
}

/// The figures of a line like `test result: ok. 12 passed; 0 failed; 0 ignored; ...`.
pub(super) fn results_in(line: &str) -> Tally {
    let mut tally = Tally::default();
    let Some(results) = line.strip_prefix("test result: ") else { return tally };
    for part in results.split(['.', ';']) {
        let mut words = part.split_whitespace();
        match (words.next().and_then(|number| number.parse().ok()), words.next()) {
            (Some(number), Some("passed")) => tally.passed = number,
            (Some(number), Some("failed")) => tally.failed = number,
            _ => {}
        }
    }
    tally
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargos_results_are_counted() {
        let line =
            "test result: FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; 1 filtered out";
        assert_eq!(results_in(line), Tally { passed: 12, failed: 3, not_run: 0 });
        assert_eq!(results_in("running 12 tests"), Tally::default());
    }

    #[test]
    fn what_could_not_run_is_said() {
        let mut tally = Tally::one(Outcome::Passed);
        assert_eq!(tally.words(), "1 passed, 0 failed");
        tally.add(Tally { not_run: 2, ..Tally::one(Outcome::Failed) });
        assert_eq!(tally.words(), "1 passed, 1 failed, 2 not run");
    }
}
