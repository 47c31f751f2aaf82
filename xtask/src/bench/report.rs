//! Figures beside their targets and beside what others reach: as tables on the terminal and in
//! Markdown, and as plots.

use core::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use comfy_table::{CellAlignment, Table as Grid, presets};
use plotters::prelude::{
    BLACK, ChartBuilder, EmptyElement, IntoDrawingArea, IntoFont, IntoLogRange, LineSeries,
    Palette, Palette99, SVGBackend, Text, WHITE,
};
use plotters::style::Color;

/// What a run of `cargo xtask bench` found.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub tables: Vec<Table>,
    pub plots: Vec<Plot>,
}

/// Rows that belong together, and how they came about.
#[derive(Debug)]
pub(crate) struct Table {
    pub title: String,
    /// What was measured, how, and on what, in a few sentences.
    pub about: String,
    pub rows: Vec<Row>,
}

/// One figure of ours.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub what: String,
    /// All of them must hold; none if the figure is only to be known.
    pub targets: Vec<Target>,
    pub ours: f64,
    /// The same figure of others, from the same run.
    pub peers: Vec<(String, f64)>,
    /// What a figure of the row counts.
    pub unit: &'static str,
}

/// What our figure must be.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    Most(f64),
    Least(f64),
    /// So many times a peer's figure.
    MostOf(f64, &'static str),
    /// So many times a peer's figure.
    LeastOf(f64, &'static str),
}

/// Lines over two logarithmic axes: what is flat stays flat, and peers may be worlds apart.
#[derive(Debug)]
pub(crate) struct Plot {
    /// The name of its file, without an extension.
    pub name: &'static str,
    pub title: String,
    pub across: &'static str,
    pub up: &'static str,
    pub lines: Vec<Line>,
}

/// A named line through points.
#[derive(Debug)]
pub(crate) struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

impl Report {
    /// Whether every target is met.
    pub(crate) fn is_met(&self) -> bool {
        let mut rows = self.tables.iter().flat_map(|table| &table.rows);
        rows.all(|row| row.is_met() != Some(false))
    }

    /// Adds what another part found.
    pub(crate) fn add(&mut self, other: Self) {
        self.tables.extend(other.tables);
        self.plots.extend(other.plots);
    }

    /// The tables as a terminal shows them.
    pub(crate) fn text(&self) -> String {
        let parts = self
            .tables
            .iter()
            .map(|table| format!("{}\n{}\n{}\n", table.title, table.about, table.grid()));
        parts.collect::<Vec<_>>().join("\n")
    }

    /// Writes `report.md` and its plots below `folder`; returns the path of the report.
    pub(crate) fn write(&self, folder: &Path) -> Result<PathBuf> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        for plot in &self.plots {
            let svg = plot.svg().with_context(|| format!("cannot draw {}", plot.name))?;
            fs::write(folder.join(format!("{}.svg", plot.name)), svg)?;
        }
        let path = folder.join("report.md");
        fs::write(&path, self.markdown())?;
        Ok(path)
    }

    fn markdown(&self) -> String {
        let mut text = String::from("# Figures of `cargo xtask bench`\n");
        for table in &self.tables {
            let grid = table.grid();
            text += &format!("\n## {}\n\n{}\n\n{grid}\n", table.title, table.about);
        }
        for plot in &self.plots {
            text += &format!("\n![{}]({}.svg)\n", plot.title, plot.name);
        }
        text
    }
}

impl Table {
    fn grid(&self) -> Grid {
        let mut peers: Vec<&str> = Vec::new();
        for (peer, _) in self.rows.iter().flat_map(|row| &row.peers) {
            if !peers.contains(&peer.as_str()) {
                peers.push(peer);
            }
        }
        let mut grid = Grid::new();
        grid.load_style(presets::ASCII_MARKDOWN);
        grid.set_header(["what", "target", "ours"].iter().chain(&peers).chain(&["unit", "met"]));
        for row in &self.rows {
            let mut cells = vec![row.what.clone(), row.target(), shown(row.ours)];
            cells.extend(peers.iter().map(|peer| row.peer(peer).map_or_else(String::new, shown)));
            let met = row.is_met().map_or("", |met| if met { "yes" } else { "NO" });
            cells.extend([row.unit.to_owned(), met.to_owned()]);
            grid.add_row(cells);
        }
        for column in 1..peers.len() + 3 {
            if let Some(column) = grid.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        grid
    }
}

impl Row {
    /// Whether all targets hold; `None` without one, or where a peer's figure is missing.
    pub(crate) fn is_met(&self) -> Option<bool> {
        let mut met = None;
        for target in &self.targets {
            met = Some(met.unwrap_or(true) && target.holds(self)?);
        }
        met
    }

    fn peer(&self, name: &str) -> Option<f64> {
        self.peers.iter().find(|(peer, _)| peer == name).map(|(_, figure)| *figure)
    }

    fn target(&self) -> String {
        self.targets.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }
}

impl Target {
    fn holds(&self, row: &Row) -> Option<bool> {
        Some(match *self {
            Self::Most(most) => row.ours <= most,
            Self::Least(least) => row.ours >= least,
            Self::MostOf(times, peer) => row.ours <= times * row.peer(peer)?,
            Self::LeastOf(times, peer) => row.ours >= times * row.peer(peer)?,
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Most(most) => write!(f, "<= {}", shown(*most)),
            Self::Least(least) => write!(f, ">= {}", shown(*least)),
            Self::MostOf(times, peer) => write!(f, "<= {} x {peer}", shown(*times)),
            Self::LeastOf(times, peer) => write!(f, ">= {} x {peer}", shown(*times)),
        }
    }
}

/// A figure with three digits at least, and its thousands apart.
pub(crate) fn shown(figure: f64) -> String {
    let decimals = match figure.abs() {
        small if small == 0.0 || small.fract() == 0.0 || small >= 100.0 => 0,
        small if small >= 10.0 => 1,
        _ => 2,
    };
    let plain = format!("{figure:.decimals$}");
    let (whole, rest) = plain.split_at(plain.find('.').unwrap_or(plain.len()));
    let mut text = String::new();
    for (at, digit) in whole.char_indices() {
        let left = whole.len() - at;
        if left % 3 == 0 && at > 0 && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text + rest
}

impl Plot {
    /// The plot as a picture. It names a family of fonts that every viewer has and brings none.
    fn svg(&self) -> Result<String> {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let most = |of: fn(&(f64, f64)) -> f64| points().map(of).fold(f64::MIN, f64::max);
        let least = |of: fn(&(f64, f64)) -> f64| points().map(of).fold(f64::MAX, f64::min);
        let (left, right) = (least(|point| point.0), most(|point| point.0));
        let (low, high) = (least(|point| point.1), most(|point| point.1));
        ensure!(left > 0.0 && low > 0.0, "a logarithmic axis has no place for nothing");
        let across = (left..right.max(left * 10.0)).log_scale();
        let up = (low / 1.5..high * 1.5).log_scale();
        let mut svg = String::new();
        {
            let area = SVGBackend::with_string(&mut svg, (960, 480)).into_drawing_area();
            area.fill(&WHITE)?;
            let mut chart = ChartBuilder::on(&area)
                .caption(&self.title, ("sans-serif", 20))
                .margin(12)
                .margin_right(280)
                .x_label_area_size(44)
                .y_label_area_size(84)
                .build_cartesian_2d(across, up)?;
            let number = |figure: &f64| shown(*figure);
            let mut mesh = chart.configure_mesh();
            mesh.x_desc(self.across).y_desc(self.up).light_line_style(BLACK.mix(0.05));
            mesh.x_label_formatter(&number).y_label_formatter(&number).draw()?;
            for (at, line) in self.lines.iter().enumerate() {
                let color = Palette99::pick(at).to_rgba();
                let drawn = LineSeries::new(line.points.clone(), color.stroke_width(2));
                chart.draw_series(drawn.point_size(3))?;
                // The name stands at the line's end: flat lines leave no room for a legend.
                let font = ("sans-serif", 14).into_font().color(&color);
                let name = |end: &(f64, f64)| {
                    EmptyElement::at(*end) + Text::new(line.name.clone(), (10, -6), font.clone())
                };
                chart.draw_series(line.points.last().map(name))?;
            }
            area.present()?;
        }
        Ok(svg)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(ours: f64, targets: &[Target]) -> Row {
        let peers = vec![("echo".to_owned(), 10.0)];
        Row { what: "READ".to_owned(), targets: targets.to_vec(), ours, peers, unit: "ns" }
    }

    #[test]
    fn a_row_is_met_when_all_its_targets_are() {
        assert_eq!(row(12.0, &[]).is_met(), None, "nothing was asked for");
        assert_eq!(row(12.0, &[Target::Most(12.0)]).is_met(), Some(true));
        assert_eq!(row(12.0, &[Target::Least(12.5)]).is_met(), Some(false));
        let both = [Target::Most(20.0), Target::MostOf(1.1, "echo")];
        assert_eq!(row(12.0, &both).is_met(), Some(false), "1.2 times echo");
        assert_eq!(row(11.0, &both).is_met(), Some(true));
        assert_eq!(row(12.0, &[Target::LeastOf(1.0, "nobody")]).is_met(), None);
    }

    #[test]
    fn a_report_is_met_unless_a_row_is_not() {
        let table = |rows| Table { title: String::new(), about: String::new(), rows };
        let report = |rows| Report { tables: vec![table(rows)], plots: Vec::new() };
        assert!(report(vec![row(1.0, &[]), row(1.0, &[Target::Most(1.0)])]).is_met());
        assert!(!report(vec![row(1.0, &[]), row(2.0, &[Target::Most(1.0)])]).is_met());
    }

    #[test]
    fn figures_are_easy_to_read() {
        let shown = [0.0, 0.5, 7.0, 9.994, 45.67, 999.4, 1000.0, -1234567.8].map(shown);
        assert_eq!(shown, ["0", "0.50", "7", "9.99", "45.7", "999", "1,000", "-1,234,568"]);
    }

    #[test]
    fn a_table_has_a_column_for_each_peer() {
        let other = Row { peers: vec![("C".to_owned(), 1234.0)], ..row(3.0, &[]) };
        let rows = vec![row(12.0, &[Target::MostOf(1.3, "echo")]), other];
        let text = Table { title: String::new(), about: String::new(), rows }.grid().to_string();
        let lines: Vec<Vec<_>> = text
            .lines()
            .map(|line| line.split('|').map(str::trim).filter(|cell| !cell.is_empty()).collect())
            .collect();
        assert_eq!(lines[0], ["what", "target", "ours", "echo", "C", "unit", "met"]);
        assert_eq!(lines[2], ["READ", "<= 1.30 x echo", "12", "10", "ns", "yes"]);
        assert_eq!(lines[3], ["READ", "3", "1,234", "ns"]);
    }

    #[test]
    fn a_plot_names_its_lines_and_refuses_nothing_on_its_axes() {
        let mut plot = Plot {
            name: "some",
            title: "Some figures".to_owned(),
            across: "domains",
            up: "instructions",
            lines: vec![Line { name: "READ".to_owned(), points: vec![(1.0, 600.0), (1e4, 610.0)] }],
        };
        let svg = plot.svg().unwrap();
        for text in ["Some figures", "domains", "instructions", "READ"] {
            assert!(svg.contains(text), "no {text} in {svg}");
        }
        plot.lines[0].points[0].1 = 0.0;
        assert!(plot.svg().is_err(), "a logarithmic axis begins above nothing");
    }
}
