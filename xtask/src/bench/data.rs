//! The data channels: how long a block takes from one domain to another and a flag back, by a
//! channel and by what applications use today, measured between the same guests.

use anyhow::{Context, Result};

use super::lab::{Figures, run_in_lab};
use super::report::{Report, Row, Table, Target};
use crate::image;
use crate::lab::Config;
use crate::progress::Progress;
use crate::workspace::Workspace;

const SCRIPT: &str = include_str!("../../../tests/lab/data_figures.sh");

const LAB: &str = "--memory 8 --maxmem 32 --ram 2048 --timeout 5400";

/// Bytes in a block, in words.
const SIZES: [(u32, &str); 3] = [(64, "64 B"), (64 << 10, "64 KiB"), (8 << 20, "8 MiB")];

/// From the size of which on it is the throughput that counts.
const LARGE: u32 = 8 << 20;

/// Events that one ring of 64 KiB may take for each MiB.
const EVENTS_MOST: f64 = 34.0;

/// Has the script measure all of it.
pub(crate) fn measure(ws: &Workspace, progress: &Progress) -> Result<Report> {
    image::build(ws, progress)?;
    let config = Config::of_words(LAB.split_whitespace())?;
    let figures = run_in_lab(ws, progress, "data", &config, SCRIPT)?;
    let tables = vec![blocks(&figures)?, events(&figures)?];
    Ok(Report { tables, plots: Vec::new() })
}

fn figure(figures: &Figures, name: &str) -> Result<f64> {
    figures.get(name).copied().with_context(|| format!("no figure of {name}"))
}

fn blocks(figures: &Figures) -> Result<Table> {
    let mut rows = Vec::new();
    for (from, who) in [("guest", "guest to guest"), ("dom0", "dom0 to guest")] {
        for (size, words) in SIZES {
            let by = |way| figure(figures, &format!("{from}-{way}-{size}"));
            let mut peers = vec![("HTTP", "http"), ("HTTP, kept", "kept"), ("TCP, kept", "tcp")];
            let third = 1.0 / 3.0;
            let kept = if size == LARGE { third } else { 1.0 };
            let mut targets =
                vec![Target::MostOf(third, "HTTP"), Target::MostOf(kept, "HTTP, kept")];
            if from == "guest" {
                peers.push(("vchan", "direct"));
                targets.push(Target::MostOf(1.5, "vchan"));
            }
            rows.push(Row {
                what: format!("{words}, {who}"),
                targets,
                ours: by("push")?,
                peers: peers
                    .iter()
                    .map(|(peer, way)| Ok(((*peer).to_owned(), by(way)?)))
                    .collect::<Result<_>>()?,
                unit: "us",
            });
        }
    }
    let about = "The median of some blocks one after the other, each with the receiver's flag \
                 back, between stock Debian guests. A channel goes through the stub; HTTP and TCP \
                 go through netfront, netback and a bridge in dom0. HTTP opens a connection for \
                 each block unless it is kept; the vchan is one between the two guests, with \
                 nobody between them. The rings have 64 KiB, for 8 MiB they have 1 MiB. \
                 All share one processor on which every instruction takes 2 ns.";
    Ok(Table { title: "Blocks between domains".into(), about: about.into(), rows })
}

fn events(figures: &Figures) -> Result<Table> {
    let mut rows = Vec::new();
    for (from, who) in [("guest", "guest to guest"), ("dom0", "dom0 to guest")] {
        rows.push(Row {
            what: format!("events a MiB and ring, 8 MiB through rings of 64 KiB, {who}"),
            targets: vec![Target::Most(EVENTS_MOST)],
            ours: figure(figures, &format!("{from}-events"))?,
            peers: Vec::new(),
            unit: "",
        });
    }
    let about = "What the stub counts: events that came from its clients, and those it sent.";
    Ok(Table { title: "Events of the data channels".into(), about: about.into(), rows })
}
