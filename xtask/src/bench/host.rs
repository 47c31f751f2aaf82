//! The host half: `xenstore-core` by itself, driven by the program `bench`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::budgets::{BUDGETS, TURNS};
use super::callgrind::Callgrind;
use super::report::{Line, Plot, Report, Row, Table, Target, shown};
use crate::progress::Progress;
use crate::workspace::Workspace;

/// How many domains there are, each with 100 nodes and 8 watches.
const DOMAINS: [u16; 5] = [1, 10, 100, 1000, 10_000];

/// Among so many the target is what it costs with one, and [`FLAT`].
const MANY: [u16; 2] = [1000, 10_000];

/// How much more an operation may cost among many than among few.
const FLAT: f64 = 1.1;

/// How many watches match a WRITE.
const FAN_OUTS: [u16; 4] = [1, 10, 100, 1000];

/// Figures by their names, in the order in which they were said.
#[derive(Debug)]
struct Figures(Vec<(String, f64)>);

impl Figures {
    fn of(&self, name: &str) -> Result<f64> {
        let figure = self.0.iter().find(|(known, _)| known == name);
        figure.map(|(_, figure)| *figure).with_context(|| format!("bench does not tell of {name}"))
    }

    /// What a program said, a figure a line: its name, a tab, a number.
    fn read(said: &str) -> Result<Self> {
        let figure = |line: &str| {
            let (name, figure) =
                line.split_once('\t').with_context(|| format!("a figure: {line}"))?;
            Ok((name.to_owned(), figure.parse()?))
        };
        said.lines().map(figure).collect::<Result<_>>().map(Self)
    }
}

/// The program `bench`, as the release profile leaves it.
pub(crate) fn program(ws: &Workspace) -> Result<PathBuf> {
    let arguments = ["build", "--quiet", "--release", "--package", "bench", "--bin", "bench"];
    run(ws.cargo().args(arguments), "the build of bench")?;
    Ok(ws.built("bench"))
}

pub(crate) fn measure(ws: &Workspace, progress: &Progress) -> Result<Report> {
    let program = stepped(progress, "building bench", || program(ws))?;
    let callgrind = Callgrind::prepare(ws, program.clone(), progress)?;
    let count = |arguments: &[&str]| callgrind.count(arguments).map(Figures);
    let (instructions, plot) = operations(count, progress)?;
    let step = progress.counted("counting instructions of what is rare or large", 3);
    let mut counted = Vec::new();
    for work in ["watches", "introductions", "removals"] {
        counted.extend(count(&[work])?.0);
        step.advance();
    }
    step.finish(true);
    let counted = Figures(counted);
    let looked = stepped(progress, "interleaving transactions", || tell(&program, "interleave"))?;
    let waited = stepped(progress, "waiting for removals", || tell(&program, "wait"))?;
    let weighed = stepped(progress, "weighing", || tell(&program, "weigh"))?;
    let timed = stepped(progress, "building and timing", || times(ws))?;
    let tables = vec![
        instructions,
        watches(&counted)?,
        comings_and_goings(&counted, &waited)?,
        interleaved(&looked),
        time(&timed)?,
        weights(&weighed)?,
    ];
    Ok(Report { tables, plots: vec![plot] })
}

/// Does something that takes its time.
fn stepped<T>(progress: &Progress, text: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let step = progress.step(text);
    let done = work();
    step.finish(done.is_ok());
    done
}

/// Runs a command to its end; returns what it said.
fn run(command: &mut Command, what: &str) -> Result<String> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {what}"))?;
    let said = String::from_utf8(output.stdout)?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{what} failed:\n{said}{errors}");
    Ok(said)
}

/// What the program says when it is asked to do `work`.
fn tell(program: &Path, work: &str) -> Result<Figures> {
    Figures::read(&run(Command::new(program).arg(work), &format!("`bench {work}`"))?)
}

/// Nanoseconds of each operation, `NAME/DOMAINS`, by criterion.
fn times(ws: &Workspace) -> Result<Figures> {
    let arguments = ["bench", "--quiet", "--package", "bench", "--bench", "times"];
    let mut cargo = ws.cargo();
    cargo.args(arguments).args(["--", "--output-format", "bencher"]);
    times_in(&run(&mut cargo, "criterion")?)
}

/// Those of lines like `test NAME ... bench:       1,234 ns/iter (+/- 5)`.
fn times_in(said: &str) -> Result<Figures> {
    let time = |line: &str| {
        let (name, rest) = line.strip_prefix("test ")?.split_once(" ... bench:")?;
        let (time, _) = rest.split_once(" ns/iter")?;
        Some((name.to_owned(), time.trim().replace(',', "").parse().ok()?))
    };
    let times: Vec<_> = said.lines().filter_map(time).collect();
    ensure!(!times.is_empty(), "criterion tells no times:\n{said}");
    Ok(Figures(times))
}

fn row(what: impl Into<String>, target: Option<f64>, ours: f64, unit: &'static str) -> Row {
    let targets = target.map(Target::Most).into_iter().collect();
    Row { what: what.into(), targets, ours, peers: Vec::new(), unit }
}

fn table(title: &str, about: &str, rows: Vec<Row>) -> Table {
    Table { title: title.to_owned(), about: about.to_owned(), rows }
}

/// What each operation costs, among few domains and among many.
fn operations(
    count: impl Fn(&[&str]) -> Result<Figures>,
    progress: &Progress,
) -> Result<(Table, Plot)> {
    let step = progress.counted("counting instructions", DOMAINS.len());
    let mut scales = Vec::new();
    for domains in DOMAINS {
        scales.push((domains, count(&["count", &domains.to_string()])?));
        step.advance();
    }
    step.finish(true);
    let (mut rows, mut lines) = (Vec::new(), Vec::new());
    for budget in &BUDGETS {
        let name = budget.operation;
        let mut points = Vec::new();
        for (domains, figures) in &scales {
            points.push((f64::from(*domains), figures.of(name)?));
        }
        let alone = points.first().map_or(0.0, |point| point.1);
        rows.push(row(
            format!("{name}, 1 domain"),
            budget.target.map(f64::from),
            alone,
            "instructions",
        ));
        for many in MANY.map(f64::from) {
            let figure = points.iter().find(|point| point.0 == many).map_or(0.0, |point| point.1);
            let what = format!("{name}, {} domains", shown(many));
            rows.push(row(what, Some((FLAT * alone).floor()), figure, "instructions"));
        }
        lines.push(Line { name: name.to_owned(), points });
    }
    let about = "The server's instructions for one operation of one guest, counted by callgrind \
                 over 200 at least: from the bytes of its requests to those of the answers. Each \
                 domain has 100 nodes and 8 watches, so 10,000 domains are a million nodes. Among \
                 many domains the target is what it costs with one and 10 % more.";
    let plot = Plot {
        name: "instructions",
        title: "Instructions of one operation among many domains".to_owned(),
        across: "domains",
        up: "instructions",
        lines,
    };
    Ok((table("Instructions", about, rows), plot))
}

/// What watches cost that match, and those that do not.
fn watches(counted: &Figures) -> Result<Table> {
    let silent = counted.of("WRITE that 0 watches match")?;
    let mut rows = Vec::new();
    for watches in FAN_OUTS {
        let all = counted.of(&format!("WRITE that {watches} watches match"))?;
        let what = format!("WRITE that {} watches match, each event", shown(watches.into()));
        rows.push(row(what, Some(300.0), (all - silent) / f64::from(watches), "instructions"));
    }
    let none = counted.of("WRITE that none of 0 watches match")?;
    rows.push(row("WRITE that none of 0 watches match", None, none, "instructions"));
    let name = "WRITE that none of 100,000 watches match";
    rows.push(row(name, Some((FLAT * none).floor()), counted.of(name)?, "instructions"));
    let about = "A node of dom0's that so many guests watch; an event costs what the WRITE costs \
                 more than one that nobody watches, and its bytes in the watcher's ring are part of \
                 that. Then a guest's node that nobody watches, among 1,000 guests without a watch \
                 and with 100 each.";
    Ok(table("Watches", about, rows))
}

/// What domains cost when they come and go, and what the largest end costs others.
fn comings_and_goings(counted: &Figures, waited: &Figures) -> Result<Table> {
    let mut rows = Vec::new();
    for name in ["INTRODUCE of each of", "INTRODUCE and RELEASE beside"] {
        let few = counted.of(&format!("{name} 40"))?;
        rows.push(row(format!("{name} 40"), None, few, "instructions"));
        let many = counted.of(&format!("{name} 4000"))?;
        rows.push(row(format!("{name} 4,000"), Some((FLAT * few).floor()), many, "instructions"));
    }
    for (name, most) in TURNS {
        let what = format!("{name}, one turn");
        rows.push(row(what, Some(most.into()), counted.of(name)?, "instructions"));
    }
    for (name, time) in &waited.0 {
        rows.push(row(name, None, *time, "ns"));
    }
    let about = "Introductions and releases by dom0, with the domains before them connected and \
                 idle. A removal is one turn of the server, and what it leaves is cleared away in \
                 turns that follow; the times are of a guest's READ that comes right behind the \
                 first, the least of five.";
    Ok(table("Domains that come and go", about, rows))
}

fn interleaved(looked: &Figures) -> Table {
    let rows = looked.0.iter().map(|(name, aborts)| row(name, Some(0.0), *aborts, "%"));
    let about = "Transactions that are told EAGAIN, when every client has one open before the \
                 first ends: each makes a node in the same directory, or reads and writes a node \
                 of its own. Twenty rounds.";
    table("Aborts", about, rows.collect())
}

fn time(timed: &Figures) -> Result<Table> {
    let mut rows = Vec::new();
    for budget in &BUDGETS {
        for domains in ["1", "1000", "10000"] {
            let time = timed.of(&format!("{}/{domains}", budget.operation))?;
            let many = shown(domains.parse()?);
            let what = format!("{}, {many} domain{}", budget.operation, plural(domains));
            rows.push(row(what, None, time, "ns"));
        }
    }
    let about = "The same operations by the clock, by criterion. They depend on the machine and \
                 on what else it does; no target stands on them.";
    Ok(table("Time", about, rows))
}

fn plural(number: &str) -> &'static str {
    if number == "1" { "" } else { "s" }
}

/// What the store's parts weigh.
fn weights(weighed: &Figures) -> Result<Table> {
    const TARGETS: [(&str, Option<f64>); 6] = [
        ("a node", Some(120.0)),
        ("a node with a value of 64 bytes", None),
        ("a watch", Some(100.0)),
        ("an idle domain", Some(512.0)),
        ("10,000 domains with 100 nodes and 8 watches each", Some((192 << 20) as f64)),
        ("growth by a million creates and removes", Some(0.0)),
    ];
    let mut rows = Vec::new();
    for (name, most) in TARGETS {
        rows.push(row(name, most, weighed.of(name)?, "bytes"));
        let asked = format!("{name}, asked for");
        rows.push(row(&asked, None, weighed.of(&asked)?, "bytes"));
    }
    let about = "Bytes of the heap, which is the image's: with what it adds to each object, and \
                 as they were asked for. Nodes have values of ten bytes where nothing else is \
                 said, and share their permissions; a domain comes without its ring's page.";
    Ok(table("Bytes", about, rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_from_lines() {
        let figures = Figures::read("a node\t117.79\nREAD behind it\t12\n").unwrap();
        assert_eq!(figures.of("a node").unwrap(), 117.79);
        assert_eq!(figures.of("READ behind it").unwrap(), 12.0);
        assert!(figures.of("a watch").is_err(), "nobody told of it");
        assert!(Figures::read("thread 'main' panicked").is_err(), "a line without a figure");
    }

    #[test]
    fn criterions_lines_are_times() {
        let said = "\ntest MKDIR and RM/1000 ... bench:       1,261 ns/iter (+/- 1,172)\n\nother\n";
        assert_eq!(times_in(said).unwrap().of("MKDIR and RM/1000").unwrap(), 1261.0);
        assert!(times_in("nothing of the kind").is_err());
    }

    #[test]
    fn an_event_costs_what_the_write_costs_more() {
        let write = |watches, count| (format!("WRITE that {watches} watches match"), count);
        let none = |watches, count| (format!("WRITE that none of {watches} watches match"), count);
        let mut counts: Vec<_> = FAN_OUTS
            .map(|watches| write(watches.to_string(), 1000.0 + 250.0 * f64::from(watches)))
            .into();
        counts.extend([write("0".to_owned(), 1000.0), none("0", 1000.0), none("100,000", 1101.0)]);
        let table = watches(&Figures(counts)).unwrap();
        let rows = table.rows.iter().map(|row| (row.ours, row.is_met())).collect::<Vec<_>>();
        assert_eq!(rows[..4], [(250.0, Some(true)); 4]);
        assert_eq!(rows[4..], [(1000.0, None), (1101.0, Some(false))]);
    }
}
