//! An initramfs: files, folders and links in the "newc" cpio format that Linux unpacks
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use cpio::newc;

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const LINK: u32 = 0o120_777;

/// A cpio archive being written. Paths are absolute; folders above an entry come by themselves.
#[derive(Debug)]
pub(crate) struct Archive<W: Write> {
    out: W,
    present: BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    /// An empty archive.
    pub(crate) fn new(out: W) -> Self {
        Self { out, present: BTreeSet::new() }
    }

    /// Adds an empty folder.
    pub(crate) fn folder(&mut self, path: &str) -> Result<()> {
        self.entry(path, FOLDER, &[])
    }

    /// Adds a file with these bytes; every file may be executed.
    pub(crate) fn file(&mut self, path: &str, bytes: &[u8]) -> Result<()> {
        self.entry(path, PROGRAM, bytes)
    }

    /// Adds a file of this machine.
    pub(crate) fn copy(&mut self, path: &str, source: &Path) -> Result<()> {
        let bytes =
            fs::read(source).with_context(|| format!("cannot read {}", source.display()))?;
        self.file(path, &bytes)
    }

    /// Adds a symbolic link.
    pub(crate) fn link(&mut self, path: &str, points_to: &str) -> Result<()> {
        self.entry(path, LINK, points_to.as_bytes())
    }

    /// Ends the archive and hands back what it was written to.
    pub(crate) fn finish(self) -> Result<W> {
        Ok(newc::trailer(self.out)?)
    }

    fn entry(&mut self, path: &str, mode: u32, bytes: &[u8]) -> Result<()> {
        if !self.present.insert(path.to_owned()) {
            return Ok(());
        }
        if let Some((parent, _)) = path.rsplit_once('/').filter(|(parent, _)| !parent.is_empty()) {
            self.folder(parent)?;
        }
        let size = u32::try_from(bytes.len()).context("a file of 4 GiB in an initramfs")?;
        // The format has inode numbers so that hard links can be told; ours have none.
        let inode = u32::try_from(self.present.len())?;
        let entry = newc::Builder::new(path.trim_start_matches('/')).ino(inode).mode(mode);
        let mut writer = entry.write(&mut self.out, size);
        writer.write_all(bytes)?;
        writer.finish()?;
        Ok(())
    }
}
