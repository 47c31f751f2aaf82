//! The initramfs of dom0, with everything a lab needs in it, and the smaller one of the stock
//! Linux guest that dom0 starts.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::archive::Archive;
use crate::tree::Tree;
use crate::workspace::Workspace;

const INIT: &[u8] = include_bytes!("../lab/dom0-init.sh");
const HOST: &[u8] = include_bytes!("../lab/host.sh");
const GUEST_INIT: &[u8] = include_bytes!("../lab/guest-init.sh");

/// Folders that Xen's tools expect to be there.
const FOLDERS: [&str; 12] = [
    "/dev",
    "/mnt",
    "/proc",
    "/root",
    "/run/lock",
    "/run/xen",
    "/run/xenstored",
    "/sys",
    "/tmp",
    "/var/lib/xen",
    "/var/lib/xenstored",
    "/var/log/xen/console",
];

/// Files of Debian's: what configures Xen's tools, and what starts them at boot. The latter wants
/// Debian's shell, as busybox prefers its own `start-stop-daemon` to any other.
const FILES: [&str; 10] = [
    "/bin/dash",
    "/etc/init.d/xen",
    "/etc/xen/oxenstored.conf",
    "/etc/xen/xl.conf",
    "/lib/init/vars.sh",
    "/lib/lsb/init-functions",
    "/sbin/start-stop-daemon",
    "/usr/bin/choom",
    "/usr/lib/xen-common/bin/xen-dir",
    "/usr/lib/xen-common/bin/xen-version",
];

const MODULES: [&str; 12] = [
    "xen-evtchn",
    "xen-gntdev",
    "xen-gntalloc",
    "xen-privcmd",
    "xenfs",
    "xen-netback",
    "xen-blkback",
    "xen-netfront",
    "xen-blkfront",
    "9p",
    "9pnet_xen",
    "bridge",
];

/// What the stock Linux guest loads: the devices for channels, and the network's frontend.
const GUEST_MODULES: [&str; 5] =
    ["xen-evtchn", "xen-gntdev", "xen-gntalloc", "xen-privcmd", "xen-netfront"];

/// Our programs, for dom0 and for guests.
const OWN: [&str; 4] = ["converse", "rate", "datafront", "transfers"];
const OWN_OF_GUESTS: [&str; 2] = ["datafront", "transfers"];

/// What a lab puts into its dom0 beside the parts that are always there.
#[derive(Debug)]
pub(crate) struct Contents<'a> {
    /// The script to run.
    pub(crate) script: &'a [u8],
    /// `NAME='value'` lines that the init reads.
    pub(crate) config: &'a str,
    /// Whether the stock Linux guest is there for xl to start.
    pub(crate) linux: bool,
    /// Files of this machine for `/lab/with`, with the libraries they need.
    pub(crate) with: &'a [PathBuf],
}

/// Writes dom0's initramfs to `out`.
pub(crate) fn write(
    ws: &Workspace,
    tree: &Tree,
    contents: &Contents<'_>,
    out: impl Write,
) -> Result<()> {
    let mut dom0 = Archive::new(BufWriter::new(out));
    for folder in FOLDERS {
        dom0.folder(folder)?;
    }
    dom0.link("/var/run", "/run")?;
    dom0.link("/var/lock", "/run/lock")?;
    dom0.file("/init", INIT)?;

    dom0.file("/lab/host.sh", HOST)?;
    dom0.file("/lab/config", contents.config.as_bytes())?;
    dom0.file("/lab/script", contents.script)?;
    folder(&mut dom0, "/lab", &ws.file("tests/lab"))?;
    folder(&mut dom0, "/lab/conversations", &ws.file("tests/conversations"))?;
    folder(&mut dom0, "/etc/xen", &ws.file("tests/xl-configs"))?;

    images(&mut dom0, ws)?;
    if contents.linux {
        dom0.copy("/boot/linux", &tree.linux())?;
        dom0.file("/boot/guest.img", &linux_guest(ws, tree)?)?;
    }
    modules(&mut dom0, tree, &MODULES)?;
    programs(&mut dom0, ws, tree, contents.with)?;
    dom0.finish()?.flush()?;
    Ok(())
}

/// Those of our images that are built, in `/boot`.
fn images<W: Write>(dom0: &mut Archive<W>, ws: &Workspace) -> Result<()> {
    for image in ["stubdom", "guest"] {
        let built = ws.image(image);
        if built.exists() {
            dom0.copy(&format!("/boot/{image}"), &built)?;
        }
    }
    Ok(())
}

fn modules<W: Write>(archive: &mut Archive<W>, tree: &Tree, names: &[&str]) -> Result<()> {
    let mut order = String::new();
    for (name, module) in tree.modules(names)? {
        archive.file(&format!("/lib/modules/{name}.ko"), &module)?;
        order = order + &name + "\n";
    }
    archive.file("/lib/modules/order", order.as_bytes())
}

/// Everything that runs in dom0; `with` comes from this machine.
fn programs<W: Write>(
    dom0: &mut Archive<W>,
    ws: &Workspace,
    tree: &Tree,
    with: &[PathBuf],
) -> Result<()> {
    let mut programs = Programs::default();
    busybox(dom0, tree)?;
    dom0.link("/bin/sh", "dash")?;
    for path in tools(tree)? {
        programs.add(dom0, tree, &tree.inside(&path)?, &path)?;
    }
    for path in FILES {
        programs.add(dom0, tree, path, &tree.known(path)?)?;
    }
    programs.add_own(dom0, ws, tree, &OWN)?;
    for path in with {
        let name = path.file_name().and_then(|name| name.to_str()).context("a file to take")?;
        programs.add(dom0, tree, &format!("/lab/with/{name}"), path)?;
    }
    programs.libraries(dom0, tree)
}

/// The initramfs of the stock Linux guest: busybox, the Xenstore commands, and what has channels.
fn linux_guest(ws: &Workspace, tree: &Tree) -> Result<Vec<u8>> {
    let mut guest = Archive::new(Vec::new());
    for folder in ["/dev", "/proc", "/sys", "/tmp"] {
        guest.folder(folder)?;
    }
    guest.file("/init", GUEST_INIT)?;
    // The kernel runs these when the toolstack asks it to go; the init is no init(8) to ask.
    for (name, applet) in [("poweroff", "poweroff -f"), ("reboot", "reboot -f")] {
        let script = format!("#!/bin/busybox sh\nexec /bin/busybox {applet}\n");
        guest.file(&format!("/sbin/{name}"), script.as_bytes())?;
    }
    busybox(&mut guest, tree)?;
    guest.link("/bin/sh", "busybox")?;
    let mut programs = Programs::default();
    for path in xenstore_commands(tree)? {
        programs.add(&mut guest, tree, &tree.inside(&path)?, &path)?;
    }
    let proxy = "vchan-socket-proxy";
    programs.add(&mut guest, tree, &format!("/usr/bin/{proxy}"), &tree.xen_tools().join(proxy))?;
    programs.add_own(&mut guest, ws, tree, &OWN_OF_GUESTS)?;
    modules(&mut guest, tree, &GUEST_MODULES)?;
    programs.libraries(&mut guest, tree)?;
    guest.finish()
}

/// Programs added to an archive, and the libraries that are to follow them.
#[derive(Debug, Default)]
struct Programs {
    libraries: BTreeMap<String, PathBuf>,
}

impl Programs {
    fn add<W: Write>(
        &mut self,
        archive: &mut Archive<W>,
        tree: &Tree,
        path: &str,
        source: &Path,
    ) -> Result<()> {
        let bytes =
            fs::read(source).with_context(|| format!("cannot read {}", source.display()))?;
        tree.needs(&bytes, &mut self.libraries)
            .with_context(|| format!("{} cannot run in dom0", source.display()))?;
        archive.file(path, &bytes)
    }

    /// Adds those of our programs that are built.
    fn add_own<W: Write>(
        &mut self,
        archive: &mut Archive<W>,
        ws: &Workspace,
        tree: &Tree,
        names: &[&str],
    ) -> Result<()> {
        for name in names {
            let built = ws.built(name);
            if built.exists() {
                self.add(archive, tree, &format!("/usr/bin/{name}"), &built)?;
            }
        }
        Ok(())
    }

    fn libraries<W: Write>(mut self, archive: &mut Archive<W>, tree: &Tree) -> Result<()> {
        // glibc loads this one by itself when a thread is cancelled, as libxl's are.
        let unwinder = "libgcc_s.so.1";
        self.libraries.insert(unwinder.to_owned(), tree.library(unwinder)?);
        for (name, path) in &self.libraries {
            archive.copy(&format!("/lib/x86_64-linux-gnu/{name}"), path)?;
        }
        archive.copy("/lib64/ld-linux-x86-64.so.2", &tree.loader()?)
    }
}

fn busybox<W: Write>(archive: &mut Archive<W>, tree: &Tree) -> Result<()> {
    archive.copy("/bin/busybox", &tree.known("/bin/busybox")?)
}

/// Everything of Xen's that dom0 may run: its folder of tools, the Xenstore commands, and what
/// oxenstored loads since Xen 4.20.
fn tools(tree: &Tree) -> Result<Vec<PathBuf>> {
    let plugins = tree.xen_tools().with_file_name("ocaml").join("xsd_glue/xenctrl_plugin");
    let mut found = files(tree.xen_tools())?;
    if plugins.exists() {
        found.extend(files(&plugins)?);
    }
    found.extend(xenstore_commands(tree)?);
    found.sort();
    Ok(found)
}

/// The files of a folder.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("no {}", folder.display()))? {
        found.push(entry?.path());
    }
    found.retain(|path| path.is_file());
    Ok(found)
}

fn xenstore_commands(tree: &Tree) -> Result<Vec<PathBuf>> {
    let commands = ["chmod", "exists", "list", "ls", "read", "rm", "watch", "write"];
    let path = |command| tree.file(&format!("usr/bin/xenstore-{command}"));
    Ok(commands.map(path).into())
}

/// Adds the files of a folder of the checkout.
fn folder<W: Write>(archive: &mut Archive<W>, path: &str, source: &Path) -> Result<()> {
    for file in files(source)? {
        let name = file.file_name().and_then(|name| name.to_str()).context("a name in UTF-8")?;
        archive.copy(&format!("{path}/{name}"), &file)?;
    }
    Ok(())
}
