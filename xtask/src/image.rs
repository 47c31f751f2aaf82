//! The images that Xen starts.

use std::fs;
use std::path::Path;
use std::process::{self, Command, Stdio};

use anyhow::{Context, Result, ensure};
use goblin::elf::Elf;
use goblin::elf::program_header::PT_LOAD;

use crate::progress::Progress;
use crate::workspace::Workspace;

/// The store and driver domain, and the small guest of the tests.
const IMAGES: [&str; 2] = ["stubdom", "guest"];

/// Builds both images into `target/image`, stripped, and beside each the same with its symbols
/// and line numbers, `NAME.debug`; prints their sizes. Builds the lab's own programs for dom0 too.
pub(crate) fn build(ws: &Workspace, progress: &Progress) -> Result<()> {
    compile(ws, progress, "building the images", &["stubdom", "guests"])?;
    compile(
        ws,
        progress,
        "building the lab's programs",
        &["conversations", "datafront", "transfers"],
    )?;
    for name in IMAGES {
        let path = ws.image(name);
        leave(&ws.built(name), &path).with_context(|| format!("no {}", ws.shown(&path)))?;
        progress.say(format_args!(
            "      {} {} bytes",
            ws.shown(&path),
            fs::metadata(&path)?.len()
        ));
    }
    Ok(())
}

/// Builds these packages by the release profile. Images and programs are not built in one command:
/// what both use is to be without std for the images.
fn compile(ws: &Workspace, progress: &Progress, what: &str, packages: &[&str]) -> Result<()> {
    let step = progress.step(what);
    let mut cargo = ws.cargo();
    cargo.args(["build", "--release", "--message-format", "short"]);
    for package in packages {
        cargo.args(["--package", package]);
    }
    let output = cargo.stdin(Stdio::null()).output()?;
    step.finish(output.status.success());
    ensure!(output.status.success(), "{what} failed:\n{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Leaves `built` without its symbols at `image`, and as it is beside it.
///
/// Each file appears whole, whoever else builds or boots at the same time.
fn leave(built: &Path, image: &Path) -> Result<()> {
    fs::create_dir_all(image.parent().context("an image lies in a folder")?)?;
    let fresh = image.with_extension(format!("{}.new", process::id()));
    let mut strip = Command::new("strip");
    strip.args(["--strip-all", "-o"]).arg(&fresh).arg(built);
    let status = strip.status().context("`strip` cannot be run; it is in binutils")?;
    ensure!(status.success(), "`strip {}` failed: {status}", built.display());
    ensure!(
        loaded(&fs::read(&fresh)?)? == loaded(&fs::read(built)?)?,
        "`strip` changed what {} loads into memory",
        built.display()
    );
    fs::rename(&fresh, image)?;
    fs::copy(built, &fresh)?;
    fs::rename(&fresh, image.with_extension("debug"))?;
    Ok(())
}

/// What an ELF file puts into memory: addresses and bytes.
fn loaded(file: &[u8]) -> Result<Vec<(u64, Vec<u8>)>> {
    let elf = Elf::parse(file)?;
    let segments = elf.program_headers.iter().filter(|header| header.p_type == PT_LOAD);
    let bytes = segments.map(|header| {
        let bytes = file.get(header.file_range()).context("a segment beyond its file")?;
        Ok((header.p_paddr, bytes.to_vec()))
    });
    bytes.collect()
}
