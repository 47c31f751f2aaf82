//! `cargo xtask bench`: what the image costs, beside what it is to cost and what others cost.

pub(crate) mod budgets;
mod callgrind;
mod data;
mod host;
mod lab;
mod net;
mod report;

use anyhow::Result;
use clap::ValueEnum;

use crate::progress::Progress;
use crate::workspace::Workspace;

pub(crate) use host::program;
use report::Report;

/// A part of the figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// xenstore-core alone, on this machine: instructions, time, bytes
    Host,
    /// The image as the Xenstore of a Xen host, and others in its place: time, events
    Lab,
    /// Blocks from one domain to another, through the image as a data domain and by HTTP and TCP
    Data,
    /// Frames from one guest to another, through the image as a switch and through dom0's bridge
    Net,
    /// As many guests as a large Xen host holds, under the image
    Scale,
}

/// Measures one part, or all; prints the tables and leaves them with their plots in
/// `target/bench/`. True if every target is met.
pub(crate) fn run(ws: &Workspace, part: Option<Part>, progress: &Progress) -> Result<bool> {
    let mut report = Report::default();
    if part.is_none_or(|part| part == Part::Host) {
        report.add(host::measure(ws, progress)?);
    }
    if part.is_none_or(|part| part == Part::Lab) {
        report.add(lab::measure(ws, progress)?);
    }
    if part.is_none_or(|part| part == Part::Data) {
        report.add(data::measure(ws, progress)?);
    }
    if part.is_none_or(|part| part == Part::Net) {
        report.add(net::measure(ws, progress)?);
    }
    if part.is_none_or(|part| part == Part::Scale) {
        report.add(lab::scale(ws, progress)?);
    }
    progress.say(report.text());
    let path = report.write(&ws.bench()?)?;
    progress.say(format_args!("the same with plots: {}", ws.shown(&path)));
    Ok(report.is_met())
}
