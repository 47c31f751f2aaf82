//! The lab half: the image as the Xenstore of a Xen host, and Xen's own servers in its place,
//! measured by the same guests and by the same program in dom0.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, bail};

use super::report::{Line, Plot, Report, Row, Table, Target};
use crate::console::Echo;
use crate::lab::{self, Config, Store};
use crate::progress::Progress;
use crate::workspace::Workspace;
use crate::{image, packages};

const FIGURES: &str = include_str!("../../../tests/lab/figures.sh");
const SCALE: &str = include_str!("../../../tests/lab/scale.sh");

/// The same for all: only who serves differs.
const LAB: &str = "--memory 8 --maxmem 32 --ram 2560 --no-linux --timeout 5400";

/// A machine for as many guests as there are to be at once.
const LARGE_LAB: &str = "--memory 8 --maxmem 32 --ram 4096 --no-linux --timeout 5400";
const GUESTS: u32 = 160;

/// The servers, by their names in the tables; ours comes first.
const SERVERS: [(&str, Store); 3] =
    [("ours", Store::Stubdom), ("C", Store::C), ("OCaml", Store::Ocaml)];

/// How many others are there, each with eight watches, while one guest measures.
const OTHERS: [u32; 3] = [1, 20, 100];

/// How much more a request may cost among the most others than beside one.
const FLAT: f64 = 1.1;

/// Nanoseconds that an instruction takes in the lab.
const INSTRUCTION: f64 = 2.0;

/// The figures of one server, by the names that the script gives them.
pub(super) type Figures = BTreeMap<String, f64>;

/// Every server in turn.
pub(crate) fn measure(ws: &Workspace, progress: &Progress) -> Result<Report> {
    image::build(ws, progress)?;
    let mut all = Vec::new();
    for (name, store) in SERVERS {
        all.push((name, figures(ws, progress, name, store)?));
    }
    let found = Found(all);
    Ok(Report {
        tables: vec![found.round_trips()?, found.rates()?, found.crowds()?, found.own()?],
        plots: vec![found.plot("read")?, found.plot("write")?],
    })
}

/// Boots a host with this server and has it measured.
fn figures(ws: &Workspace, progress: &Progress, name: &str, store: Store) -> Result<Figures> {
    let config = Config { store, ..Config::of_words(LAB.split_whitespace())? };
    let [few, some, many] = OTHERS;
    let script = format!("FEW={few} SOME={some} MANY={many}\n{FIGURES}");
    let run = format!("figures-{}", name.to_lowercase());
    run_in_lab(ws, progress, &run, &config, &script)
}

/// Has as many guests as a large machine holds come, talk and go.
pub(crate) fn scale(ws: &Workspace, progress: &Progress) -> Result<Report> {
    image::build(ws, progress)?;
    let config = Config::of_words(LARGE_LAB.split_whitespace())?;
    let script = format!("GUESTS={GUESTS}\n{SCALE}");
    let figures = run_in_lab(ws, progress, "scale", &config, &script)?;
    let row = |what: &str, name: &str, unit| -> Result<Row> {
        let ours = figures.get(name).copied().with_context(|| format!("no figure of {name}"))?;
        Ok(Row { what: what.to_owned(), targets: Vec::new(), ours, peers: Vec::new(), unit })
    };
    let rows = vec![
        row("creation of a guest by xl, on average", "scale-create", "ms")?,
        row("READ, all guests at once", "scale-talk", "/s")?,
    ];
    let title = format!("{GUESTS} guests on a host");
    let about = "All talk at once; then every second one is destroyed and created again while the \
                 others talk on; then all are destroyed, and nothing of them is left.";
    let table = Table { title, about: about.into(), rows };
    Ok(Report { tables: vec![table], plots: Vec::new() })
}

/// The figures that a script prints in a lab; it must end well.
pub(super) fn run_in_lab(
    ws: &Workspace,
    progress: &Progress,
    name: &str,
    config: &Config,
    script: &str,
) -> Result<Figures> {
    let tree = packages::unpacked(&ws.lab()?, config.xen, progress)?;
    let step = progress.step(format!("on a host: {name}"));
    let lab = lab::Run { name, script: script.as_bytes(), config, shell: false, until: None };
    let report = lab.start(ws, &tree, Echo::Nothing, progress)?;
    step.finish(report.passed());
    if !report.passed() {
        bail!("{name}: {}; log: {}", report.words(), ws.shown(&report.log));
    }
    Ok(figures_in(&fs::read_to_string(&report.log)?))
}

/// The figures in a lab's log: its script's lines `measure NAME VALUE UNIT`.
fn figures_in(log: &str) -> Figures {
    let figure = |line: &str| {
        let mut words = line.split_once("| measure ")?.1.split_whitespace();
        Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
    };
    log.lines().filter_map(figure).collect()
}

/// What was measured of each server.
struct Found(Vec<(&'static str, Figures)>);

impl Found {
    fn figure(&self, server: &str, name: &str) -> Result<f64> {
        let (_, figures) =
            self.0.iter().find(|(known, _)| *known == server).context("a server of the table")?;
        figures.get(name).copied().with_context(|| format!("{server}: no figure of {name}"))
    }

    /// A row with the figure of every server.
    fn row(&self, what: &str, name: &str, unit: &'static str, targets: Vec<Target>) -> Result<Row> {
        let others = SERVERS.iter().skip(1);
        let peers = others
            .map(|(server, _)| Ok(((*server).to_owned(), self.figure(server, name)?)))
            .collect::<Result<_>>()?;
        Ok(Row { what: what.to_owned(), targets, ours: self.figure("ours", name)?, peers, unit })
    }

    /// A row with that of the echo besides.
    fn row_with_echo(
        &self,
        what: &str,
        (name, echo): (&str, &str),
        unit: &'static str,
        targets: Vec<Target>,
    ) -> Result<Row> {
        let mut row = self.row(what, name, unit, targets)?;
        row.peers.push(("echo".to_owned(), self.figure("ours", echo)?));
        Ok(row)
    }

    fn round_trips(&self) -> Result<Table> {
        let mut rows = Vec::new();
        for (what, op) in [("READ", "read"), ("WRITE", "write")] {
            for statistic in ["min", "median", "p99"] {
                let names =
                    (format!("trip-{op}-{statistic}"), format!("trip-{op}-echo-{statistic}"));
                let targets = match statistic {
                    "median" => vec![
                        Target::MostOf(0.2, "C"),
                        Target::MostOf(0.2, "OCaml"),
                        Target::MostOf(1.3, "echo"),
                    ],
                    _ => Vec::new(),
                };
                let what = format!("{what}, {statistic}");
                rows.push(self.row_with_echo(&what, (&names.0, &names.1), "ns", targets)?);
            }
            rows.push(self.beyond_the_echo(what, op)?);
        }
        let about = "One guest, 2,000 requests one after the other, nobody else at work. The \
                     time of the guest's clock, on which every instruction takes 2 ns, those of \
                     Xen's scheduler and of the processor's emulation included; an echo is a \
                     guest that serves the same ring and only answers.";
        Ok(Table { title: "Round trips on a host".into(), about: about.into(), rows })
    }

    /// What the servers add to the time that the way to the echo and back takes.
    fn beyond_the_echo(&self, what: &str, op: &str) -> Result<Row> {
        let name = format!("trip-{op}-median");
        let echo = self.figure("ours", &format!("trip-{op}-echo-median"))?;
        let mut row =
            self.row(&format!("{what}, median less the echo's"), &name, "ns", Vec::new())?;
        row.ours -= echo;
        for (_, figure) in &mut row.peers {
            *figure -= echo;
        }
        Ok(row)
    }

    fn rates(&self) -> Result<Table> {
        let mut rows = Vec::new();
        for (what, op) in [("READ", "read"), ("WRITE", "write")] {
            let (name, echo) = (format!("stream-{op}"), format!("stream-{op}-echo"));
            let what = format!("{what}, a guest that keeps its ring full");
            rows.push(self.row_with_echo(&what, (&name, &echo), "/s", Vec::new())?);
        }
        for (what, op) in [("READ", "read"), ("WRITE", "write")] {
            for programs in [1, 8] {
                let what = format!("{what}, {programs} of dom0's programs through its kernel");
                let target = vec![Target::LeastOf(0.95, "C")];
                rows.push(self.row(&what, &format!("dom0-{op}-by-{programs}"), "/s", target)?);
            }
        }
        let about = "Requests a second, by the same clock. dom0's programs use /dev/xen/xenbus, \
                     so that every server is reached through the ring of dom0's kernel.";
        Ok(Table { title: "Throughput on a host".into(), about: about.into(), rows })
    }

    fn crowds(&self) -> Result<Table> {
        let mut rows = Vec::new();
        for (what, name) in [("one request after the other", "share"), ("rings kept full", "flood")]
        {
            let all = format!("READ, 16 guests at once, {what}: all of them");
            rows.push(self.row(&all, name, "/s", Vec::new())?);
            let (last, name) =
                (format!("{what}: the last of the first"), format!("{name}-last-of-first"));
            rows.push(self.row(&last, &name, "%", vec![Target::Least(80.0)])?);
        }
        for (what, op) in [("READ", "read"), ("WRITE", "write")] {
            let name = |others| format!("trip-{op}-among-{others}-median");
            let few = self.figure("ours", &name(OTHERS[0]))?;
            for others in OTHERS {
                let targets = match others == OTHERS[0] {
                    true => Vec::new(),
                    false => vec![Target::Most(few * FLAT)],
                };
                let what = format!("{what}, median, among {others} others with 8 watches each");
                rows.push(self.row(&what, &name(others), "ns", targets)?);
            }
        }
        let about = "Sixteen guests measure for the same second; then one alone, beside more and \
                     more that are connected and silent.";
        Ok(Table { title: "Many guests on a host".into(), about: about.into(), rows })
    }

    /// What only our own server can tell.
    fn own(&self) -> Result<Table> {
        let row = |what: &str, name, unit, targets| -> Result<Row> {
            let ours = self.figure("ours", name)?;
            Ok(Row { what: what.to_owned(), targets, ours, peers: Vec::new(), unit })
        };
        let notified = "notifications a thousand requests";
        let mut boot = row(
            "instructions from entry to first reply",
            "first-reply",
            "",
            vec![Target::Most(3_000_000.0)],
        )?;
        boot.ours = boot.ours * 1000.0 / INSTRUCTION;
        let rows = vec![
            row(&format!("{notified}, one after the other"), "notifications-trips", "", vec![])?,
            row(&format!("{notified}, a full ring"), "notifications-stream", "", vec![])?,
            row(&format!("{notified}, 16 guests"), "notifications-share", "", vec![])?,
            row(&format!("{notified}, 16 full rings"), "notifications-flood", "", vec![])?,
            row("wake-ups in 60 idle seconds", "wake-ups-idle", "", vec![Target::Most(0.0)])?,
            boot,
        ];
        let about = "By `xenstore-control counters`, and by the store's word on its console.";
        Ok(Table { title: "The store on its host".into(), about: about.into(), rows })
    }

    fn plot(&self, op: &'static str) -> Result<Plot> {
        let lines = SERVERS.iter().map(|(server, _)| {
            let point = |others: &u32| {
                let name = format!("trip-{op}-among-{others}-median");
                Ok((f64::from(*others), self.figure(server, &name)?))
            };
            let points = OTHERS.iter().map(point).collect::<Result<_>>()?;
            Ok(Line { name: (*server).to_owned(), points })
        });
        let (name, title) = match op {
            "read" => ("lab-read", "READ of one guest among others"),
            _ => ("lab-write", "WRITE of one guest among others"),
        };
        Ok(Plot {
            name,
            title: title.to_owned(),
            across: "other guests",
            up: "median round trip, ns",
            lines: lines.collect::<Result<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_what_the_script_says_and_nobody_else() {
        let log = "  1.00  | == say\n  2.00  | measure trip-read-median 108160 ns\n  \
                   2.10  (d1) measure forged 1 ns\n  3.00  | measure share 98 %\n  4.00  | measure\n";
        let figures = figures_in(log);
        assert_eq!(figures.get("trip-read-median"), Some(&108_160.0));
        assert_eq!(figures.get("share"), Some(&98.0));
        assert_eq!(figures.len(), 2, "{figures:?}");
    }
}
