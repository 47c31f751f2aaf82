//! Instructions, counted by valgrind's callgrind: the same on every run, whatever the machine does
//! besides.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::packages;
use crate::progress::Progress;
use crate::workspace::Workspace;

/// What the program `bench` does between these is a figure.
const BEGIN: &str = "bench::mark::begin";
const END: &str = "bench::mark::end";

/// Only what happens in these is counted.
const COUNTED: [&str; 3] =
    ["bench::world::World::turn", "bench::world::World::depart", "bench::world::World::rest"];

/// libc has its copying and comparing in several kinds, one for each generation of processors. A
/// count is to be the same on all machines, so it is always that which every processor can do.
const TUNABLES: &str = "glibc.cpu.hwcaps=-AVX2,-AVX512F,-AVX512VL,-AVX_Fast_Unaligned_Load,-BMI2,\
                        -ERMS,-MOVBE,-SSSE3,-SSE4_2";

/// Instructions of one operation, by its name.
pub(crate) type Counts = Vec<(String, f64)>;

/// Callgrind in an unpacked tree.
#[derive(Debug)]
pub(crate) struct Callgrind {
    root: PathBuf,
    program: PathBuf,
    dumps: PathBuf,
}

impl Callgrind {
    /// Fetches what is missing.
    pub(crate) fn prepare(ws: &Workspace, program: PathBuf, progress: &Progress) -> Result<Self> {
        let place = ws.bench()?;
        let root = packages::valgrind(&place.join("valgrind"), progress)?;
        let dumps = place.join("callgrind");
        fs::create_dir_all(&dumps)?;
        Ok(Self { root, program, dumps })
    }

    /// Runs the program with these arguments; returns the instructions of each figure that it
    /// names.
    pub(crate) fn count(&self, arguments: &[&str]) -> Result<Counts> {
        let out = self.dumps.join(arguments.join("-"));
        let output = self.command(&out).arg(&self.program).args(arguments).output();
        let output = output.context("cannot run valgrind")?;
        ensure!(
            output.status.success(),
            "`bench {}` failed under valgrind: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        let figures = String::from_utf8(output.stdout)?;
        figures.lines().enumerate().map(|(at, line)| count_of(line, &out, at + 1)).collect()
    }

    fn command(&self, out: &Path) -> Command {
        let mut command = Command::new(self.root.join("usr/bin/valgrind.bin"));
        command.env("VALGRIND_LIB", self.root.join("usr/libexec/valgrind"));
        command.env("GLIBC_TUNABLES", TUNABLES).stdin(Stdio::null());
        command.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}", out.display()));
        command.args(COUNTED.map(|name| format!("--toggle-collect={name}")));
        command.arg(format!("--zero-before={BEGIN}")).arg(format!("--dump-before={END}"));
        command
    }
}

/// A figure: `line` is its name, a tab, and how many operations it is about; the `number`th dump
/// has the instructions of them all.
fn count_of(line: &str, out: &Path, number: usize) -> Result<(String, f64)> {
    let (name, operations) = line.split_once('\t').with_context(|| format!("a figure: {line}"))?;
    let operations: f64 = operations.parse()?;
    let path = format!("{}.{number}", out.display());
    let dump = fs::read_to_string(&path)
        .with_context(|| format!("callgrind left no {path}: it did not find {END}"))?;
    let total = dump.lines().find_map(|line| line.strip_prefix("totals: "));
    let total: f64 = total.with_context(|| format!("{path} has no total"))?.trim().parse()?;
    ensure!(total > 0.0, "{name}: callgrind did not find {}", COUNTED.join(" or "));
    Ok((name.to_owned(), total / operations))
}
