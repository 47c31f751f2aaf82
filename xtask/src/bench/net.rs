//! The network: what TCP and a round trip take between the same guests by our switch and by dom0's
//! bridge, and what a MiB costs the switch.

use anyhow::{Context, Result};

use super::lab::{Figures, run_in_lab};
use super::report::{Report, Row, Table, Target};
use crate::image;
use crate::lab::Config;
use crate::progress::Progress;
use crate::workspace::Workspace;

const SCRIPT: &str = include_str!("../../../tests/lab/net_figures.sh");

const LAB: &str = "--memory 8 --maxmem 32 --ram 2048 --timeout 5400";

/// Both directions: the script's name, and words.
const DIRECTIONS: [(&str, &str); 2] =
    [("1-to-2", "from guest 1 to guest 2"), ("2-to-1", "from guest 2 to guest 1")];

/// The peer's column.
const BRIDGE: &str = "dom0's bridge";

/// Has the script measure all of it.
pub(crate) fn measure(ws: &Workspace, progress: &Progress) -> Result<Report> {
    image::build(ws, progress)?;
    let config = Config::of_words(LAB.split_whitespace())?;
    let figures = run_in_lab(ws, progress, "net", &config, SCRIPT)?;
    let tables = vec![ways(&figures)?, costs(&figures)?];
    Ok(Report { tables, plots: Vec::new() })
}

fn figure(figures: &Figures, name: &str) -> Result<f64> {
    figures.get(name).copied().with_context(|| format!("no figure of {name}"))
}

fn ways(figures: &Figures) -> Result<Table> {
    let row = |what: String, name: &str, unit, target: Option<Target>| -> Result<Row> {
        Ok(Row {
            what,
            targets: target.into_iter().collect(),
            ours: figure(figures, &format!("switch-{name}"))?,
            peers: vec![(BRIDGE.to_owned(), figure(figures, &format!("bridge-{name}"))?)],
            unit,
        })
    };
    let half = || Some(Target::MostOf(0.5, BRIDGE));
    let mut rows = vec![
        row("ping, average of 100".into(), "ping", "us", half())?,
        row("64 B by TCP and a byte back".into(), "64", "us", half())?,
    ];
    for (name, words) in DIRECTIONS {
        rows.push(row(format!("8 MiB by TCP, {words}"), name, "us", None)?);
        let twice = Some(Target::LeastOf(2.0, BRIDGE));
        rows.push(row(format!("TCP, {words}"), &format!("{name}-rate"), "MB/s", twice)?);
    }
    let about = "Two stock Debian guests have an interface on the switch and one on a bridge in \
                 dom0 with Linux' netback, and the same programs go by each of them in turn. TCP \
                 sends block after block on one connection, each with a byte back; the median \
                 counts, and the rate is its. All share one processor on which every instruction \
                 takes 2 ns.";
    Ok(Table { title: "Between two guests".into(), about: about.into(), rows })
}

fn costs(figures: &Figures) -> Result<Table> {
    let mut rows = Vec::new();
    for (direction, words) in DIRECTIONS {
        for (what, name) in [
            ("calls of Xen's for copies", "grant_copy_calls"),
            ("copies", "grant_copies"),
            ("events that came", "events"),
            ("events that were sent", "notifications"),
        ] {
            rows.push(Row {
                what: format!("{what}, {words}"),
                targets: Vec::new(),
                ours: figure(figures, &format!("{name}-{direction}"))?,
                peers: Vec::new(),
                unit: "",
            });
        }
    }
    let about = "What the stub counts while blocks of 8 MiB go by TCP, acknowledgements and all, \
                 for each MiB of them. An event that is sent is a call of Xen's as well.";
    Ok(Table { title: "What a MiB costs the switch".into(), about: about.into(), rows })
}
