//! The unpacked Debian packages: where in them things are, and what an ELF file of theirs needs
//! besides itself.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use goblin::elf::Elf;

use crate::inflate;
use crate::release::Release;

/// A root file system that nobody boots: the lab takes its parts out of it.
#[derive(Debug)]
pub(crate) struct Tree {
    root: PathBuf,
    xen: PathBuf,
    libraries: Vec<PathBuf>,
    modules: PathBuf,
}

impl Tree {
    /// Looks around in an unpacked tree; names that carry a version are found by pattern.
    pub(crate) fn open(root: PathBuf, release: Release) -> Result<Self> {
        let xen = root.join(format!("usr/lib/xen-{release}/bin"));
        if !xen.is_dir() {
            let other = only(&root.join("usr/lib"), "xen-4", "")?;
            bail!(
                "apt's sources gave {} instead of Xen {release}: they must name this machine's \
                 Debian release by its codename, as /etc/os-release does",
                other.display()
            );
        }
        let libraries = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"];
        let libraries = libraries.map(|folder| root.join(folder)).into();
        let modules = ["lib/modules", "usr/lib/modules"].map(|folder| root.join(folder));
        let modules = modules.iter().find(|folder| folder.is_dir()).context("no modules")?;
        let modules = only(modules, "", "")?.join("kernel");
        Ok(Self { root, xen, libraries, modules })
    }

    /// A path inside the tree.
    pub(crate) fn file(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// A file of Debian's by its traditional name; since Debian 13 it lies below `/usr`.
    pub(crate) fn known(&self, path: &str) -> Result<PathBuf> {
        let path = path.trim_start_matches('/');
        let places = [self.root.join(path), self.root.join("usr").join(path)];
        let found = places.into_iter().find(|place| place.exists());
        found.with_context(|| format!("no /{path} among the packages"))
    }

    /// The hypervisor as Debian ships it.
    pub(crate) fn packed_hypervisor(&self) -> Result<PathBuf> {
        only(&self.root.join("boot"), "xen-", ".gz")
    }

    /// The hypervisor as QEMU can load it.
    pub(crate) fn hypervisor(&self) -> PathBuf {
        self.root.join("boot/xen")
    }

    /// Linux as Debian ships it.
    pub(crate) fn packed_linux(&self) -> Result<PathBuf> {
        only(&self.root.join("boot"), "vmlinuz-", "")
    }

    /// The same Linux as a plain ELF file, for dom0 and for guests: to unpack it at every start
    /// would take an emulated processor longer than to boot it.
    pub(crate) fn linux(&self) -> PathBuf {
        self.root.join("boot/linux")
    }

    /// The folder of Xen's tools.
    pub(crate) fn xen_tools(&self) -> &Path {
        &self.xen
    }

    /// `path` of the unpacked tree as dom0 will see it.
    pub(crate) fn inside(&self, path: &Path) -> Result<String> {
        let path = path.strip_prefix(&self.root)?.to_str().context("a path in UTF-8")?;
        Ok(format!("/{path}"))
    }

    /// The dynamic loader.
    pub(crate) fn loader(&self) -> Result<PathBuf> {
        self.library("ld-linux-x86-64.so.2")
    }

    /// Where shared libraries are looked for.
    pub(crate) fn library_folders(&self) -> &[PathBuf] {
        &self.libraries
    }

    /// A shared library by the name that programs ask for.
    pub(crate) fn library(&self, name: &str) -> Result<PathBuf> {
        let mut places = self.libraries.iter().map(|folder| folder.join(name));
        places.find(|path| path.exists()).with_context(|| format!("no {name} among the packages"))
    }

    /// Adds to `found` every shared library that the program `bytes` needs, and what those need.
    pub(crate) fn needs(&self, bytes: &[u8], found: &mut BTreeMap<String, PathBuf>) -> Result<()> {
        if !bytes.starts_with(b"\x7fELF") {
            return Ok(());
        }
        for name in Elf::parse(bytes)?.libraries {
            if !found.contains_key(name) {
                let path = self.library(name)?;
                let library = fs::read(&path)?;
                found.insert(name.to_owned(), path);
                self.needs(&library, found)?;
            }
        }
        Ok(())
    }

    /// The kernel modules of these names and what they need, in the order to load them.
    ///
    /// A name that no file has is built into the kernel, or not in this release: it is left out.
    pub(crate) fn modules(&self, names: &[&str]) -> Result<Vec<(String, Vec<u8>)>> {
        let mut files = BTreeMap::new();
        index_modules(&self.modules, &mut files)?;
        let mut ordered = Vec::new();
        for name in names {
            add_module(name, &files, &mut ordered)?;
        }
        Ok(ordered)
    }
}

/// The one entry of `folder` whose name begins and ends so.
fn only(folder: &Path, prefix: &str, suffix: &str) -> Result<PathBuf> {
    let fits = |name: &str| name.starts_with(prefix) && name.ends_with(suffix);
    let entries = fs::read_dir(folder).with_context(|| format!("no {}", folder.display()))?;
    let mut found = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(fits));
    match (found.next(), found.next()) {
        (Some(path), None) => Ok(path),
        (None, _) => bail!("no {prefix}*{suffix} in {}", folder.display()),
        (Some(_), Some(_)) => bail!("more than one {prefix}*{suffix} in {}", folder.display()),
    }
}

/// Module file names write `-` and `_` as they please; modprobe takes them as one.
fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

fn index_modules(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            index_modules(&path, files)?;
        } else if let Some((name, _)) =
            path.file_name().and_then(|name| name.to_str()).and_then(|name| name.split_once(".ko"))
        {
            files.insert(canonical(name), path);
        }
    }
    Ok(())
}

fn add_module(
    name: &str,
    files: &BTreeMap<String, PathBuf>,
    ordered: &mut Vec<(String, Vec<u8>)>,
) -> Result<()> {
    let name = canonical(name);
    let Some(path) = files.get(&name).filter(|_| ordered.iter().all(|(have, _)| *have != name))
    else {
        return Ok(());
    };
    let bytes = inflate::plain(&fs::read(path)?)?;
    for needed in dependencies(&bytes)? {
        add_module(&needed, files, ordered)?;
    }
    ordered.push((name, bytes));
    Ok(())
}

/// The `depends=` line of a module's `.modinfo` section.
fn dependencies(module: &[u8]) -> Result<Vec<String>> {
    let elf = Elf::parse(module)?;
    let section = elf
        .section_headers
        .iter()
        .find(|header| elf.shdr_strtab.get_at(header.sh_name) == Some(".modinfo"));
    let info = section.and_then(|header| module.get(header.file_range()?)).unwrap_or_default();
    let depends = info.split(|&byte| byte == 0).find_map(|line| line.strip_prefix(b"depends="));
    let depends = core::str::from_utf8(depends.unwrap_or_default())?;
    Ok(depends.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect())
}
