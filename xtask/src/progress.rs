//! What the user sees while something takes its time: a spinner or a bar on a terminal,
//! plain lines anywhere else.

use core::fmt;
use core::time::Duration;
use std::io::{Write as _, stdout};
use std::time::Instant;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// Prints a line. Whoever has closed our output, as `head` does, wants no more of it.
pub(crate) fn print(line: impl fmt::Display) {
    let _ = writeln!(stdout(), "{line}");
}

/// The terminal, shared by everything that reports to it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress {
    bars: MultiProgress,
}

impl Progress {
    /// Prints one line above whatever is moving.
    pub(crate) fn say(&self, line: impl fmt::Display) {
        self.bars.suspend(|| print(line));
    }

    /// Starts a step whose end is not known.
    pub(crate) fn step(&self, text: impl Into<String>) -> Step<'_> {
        let bar = ProgressBar::new_spinner().with_style(style("{spinner} {msg} {elapsed:.dim}"));
        self.start(text.into(), bar)
    }

    /// Starts a step of `total` parts.
    pub(crate) fn counted(&self, text: impl Into<String>, total: usize) -> Step<'_> {
        let bar = ProgressBar::new(total as u64)
            .with_style(style("{spinner} {msg} {bar:30} {pos}/{len} {elapsed:.dim}"));
        self.start(text.into(), bar)
    }

    fn start(&self, text: String, bar: ProgressBar) -> Step<'_> {
        let bar = self.bars.add(bar.with_message(text.clone()));
        if bar.is_hidden() {
            print(format_args!("...   {text}"));
        }
        bar.enable_steady_tick(Duration::from_millis(120));
        Step { progress: self, text, bar, started: Instant::now() }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

/// Something under way; dropping it takes its bar off the screen and says nothing.
#[derive(Debug)]
pub(crate) struct Step<'a> {
    progress: &'a Progress,
    text: String,
    bar: ProgressBar,
    started: Instant,
}

impl Step<'_> {
    /// One more part is done.
    pub(crate) fn advance(&self) {
        self.bar.inc(1);
    }

    /// Ends the step and leaves one line with its outcome and how long it took.
    pub(crate) fn finish(self, passed: bool) {
        let outcome = if passed { "ok" } else { "FAIL" };
        let took = self.started.elapsed().as_secs_f32();
        self.bar.finish_and_clear();
        self.progress.say(format_args!("{outcome:<5} {} ({took:.1} s)", self.text));
    }
}

impl Drop for Step<'_> {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
