//! The host half: `xenstore-core` by itself, driven by the program `bench`.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::budgets::BUDGETS;
use super::callgrind::{Callgrind, Counts};
use super::report::{Line, Plot, Report, Row, Table, Target};
use crate::progress::Progress;
use crate::workspace::Workspace;

/// How many domains there are, each with 100 nodes and 8 watches.
const DOMAINS: [u16; 4] = [1, 100, 1000, 10_000];

/// How much more an operation may cost among many domains than with one.
const FLAT: f64 = 1.1;

/// The program `bench`, as the release profile leaves it.
pub(crate) fn program(ws: &Workspace) -> Result<PathBuf> {
    let arguments = ["build", "--quiet", "--release", "--package", "bench", "--bin", "bench"];
    let output = ws.cargo().args(arguments).stdin(Stdio::null()).output()?;
    ensure!(
        output.status.success(),
        "bench does not build:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(ws.built("bench"))
}

pub(crate) fn measure(ws: &Workspace, progress: &Progress) -> Result<Report> {
    let step = progress.step("building bench");
    let program = program(ws);
    step.finish(program.is_ok());
    let program = program?;
    let callgrind = Callgrind::prepare(ws, program.clone(), progress)?;
    let (table, plot) = operations(&callgrind, progress)?;
    let step = progress.step("weighing");
    let weights = weights(&program);
    step.finish(weights.is_ok());
    Ok(Report { tables: vec![table, weights?], plots: vec![plot] })
}

/// What each operation costs, among few domains and among many.
fn operations(callgrind: &Callgrind, progress: &Progress) -> Result<(Table, Plot)> {
    let step = progress.counted("counting instructions", DOMAINS.len());
    let mut scales = Vec::new();
    for domains in DOMAINS {
        let counts = callgrind.count(&["count", &domains.to_string()])?;
        scales.push((domains, counts));
        step.advance();
    }
    step.finish(true);
    let mut rows = Vec::new();
    let mut lines = Vec::new();
    for budget in &BUDGETS {
        let points = points(budget.operation, &scales)?;
        let first = points.first().map_or(0.0, |point| point.1);
        for (at, (domains, count)) in points.iter().enumerate() {
            let target = budget.target.map(|target| Target::Most(target.into()));
            let flat = (at > 0).then_some(Target::Most((FLAT * first).round()));
            rows.push(Row {
                what: format!("{}, {domains} domains", budget.operation),
                targets: flat.or(target).into_iter().collect(),
                ours: *count,
                peers: Vec::new(),
                unit: "instructions",
            });
        }
        lines.push(Line { name: budget.operation.to_owned(), points });
    }
    let about = "The server's instructions for one operation of one guest, counted by callgrind \
                 over 200 at least: from the bytes of its requests to those of the answers. Every \
                 domain has 100 nodes and 8 watches. Among many domains the target is what it \
                 costs with one and 10 % more.";
    let table = Table { title: "Instructions".to_owned(), about: about.to_owned(), rows };
    let plot = Plot {
        name: "instructions",
        title: "Instructions of one operation among many domains".to_owned(),
        across: "domains",
        up: "instructions",
        lines,
    };
    Ok((table, plot))
}

fn points(operation: &str, scales: &[(u16, Counts)]) -> Result<Vec<(f64, f64)>> {
    let point = |(domains, counts): &(u16, Counts)| {
        let count = counts.iter().find(|(name, _)| name == operation);
        let (_, count) = count.with_context(|| format!("bench does not count {operation}"))?;
        Ok((f64::from(*domains), *count))
    };
    scales.iter().map(point).collect()
}

/// What the store's parts weigh.
fn weights(program: &PathBuf) -> Result<Table> {
    const TARGETS: [(&str, f64); 5] = [
        ("a node", 120.0),
        ("a watch", 100.0),
        ("an idle domain", 512.0),
        ("10,000 domains with 100 nodes and 8 watches each", (192 << 20) as f64),
        ("growth by a million creates and removes", 0.0),
    ];
    let output = Command::new(program).arg("weigh").stdin(Stdio::null()).output()?;
    let said = String::from_utf8(output.stdout)?;
    ensure!(
        output.status.success(),
        "`bench weigh` failed: {said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mut rows = Vec::new();
    for line in said.lines() {
        let (name, figure) = line.split_once('\t').with_context(|| format!("a figure: {line}"))?;
        let target = TARGETS.iter().find(|(known, _)| *known == name);
        rows.push(Row {
            what: name.to_owned(),
            targets: target.map(|(_, most)| Target::Most(*most)).into_iter().collect(),
            ours: figure.parse()?,
            peers: Vec::new(),
            unit: "bytes",
        });
    }
    let missing = TARGETS.iter().find(|(name, _)| rows.iter().all(|row| row.what != *name));
    ensure!(missing.is_none(), "bench does not weigh {missing:?}");
    let about = "Bytes of the heap, which is the image's: with what it adds to each object, and \
                 as they were asked for. Nodes have values of ten bytes and share their \
                 permissions; a domain comes without its ring's page.";
    Ok(Table { title: "Bytes".to_owned(), about: about.to_owned(), rows })
}
