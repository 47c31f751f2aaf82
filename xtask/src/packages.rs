//! Parts of the lab and tools of the tests, fetched from Debian's archive with the machine's own
//! apt configuration and unpacked into the build directory: nothing is installed and nobody needs
//! to be root.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use core::time::Duration;

use crate::inflate;
use crate::progress::Progress;
use crate::release::Release;
use crate::tree::Tree;

/// What apt is asked for; everything these packages need comes with them.
#[derive(Debug, Clone)]
struct Wanted {
    packages: &'static [&'static str],
    /// The suite of Debian's archive that they are taken from.
    suite: &'static str,
    /// What they are to a reader.
    called: String,
}

/// What a lab is made of.
const LAB: [&str; 8] = [
    "busybox-static",
    "dash",
    "linux-image-amd64",
    "qemu-system-x86",
    "sysvinit-utils",
    "util-linux",
    "xen-system-amd64",
    "xenstore-utils",
];

/// Raised when the unpacked tree of an older checkout will not do any more.
const REVISION: u32 = 4;

const ATTEMPTS: u32 = 4;

/// The unpacked packages of a release under `lab`, fetched first if they are not there.
pub(crate) fn unpacked(lab: &Path, release: Release, progress: &Progress) -> Result<Tree> {
    let called = format!("Xen {release} with its Linux and QEMU");
    let wanted = Wanted { packages: &LAB, suite: release.suite(), called };
    let root = fetched(&lab.join(format!("xen-{release}")), wanted, progress, |root| {
        let tree = Tree::open(root.to_owned(), release)?;
        let hypervisor = fs::read(tree.packed_hypervisor()?)?;
        fs::write(tree.hypervisor(), inflate::plain(&hypervisor)?)?;
        let linux = fs::read(tree.packed_linux()?)?;
        fs::write(tree.linux(), inflate::plain(inflate::linux_payload(&linux)?)?)?;
        Ok(())
    })?;
    Tree::open(root, release)
}

/// Prometheus and its `promtool` as the Debian of a release has them, fetched under `lab` first if
/// they are not there.
pub(crate) fn prometheus(
    lab: &Path,
    release: Release,
    progress: &Progress,
) -> Result<[PathBuf; 2]> {
    let wanted = Wanted {
        packages: &["prometheus"],
        suite: release.suite(),
        called: "Prometheus".to_owned(),
    };
    let place = lab.join(format!("prometheus-{release}"));
    let root = fetched(&place, wanted, progress, |_| Ok(()))?;
    Ok(["prometheus", "promtool"].map(|name| root.join("usr/bin").join(name)))
}

/// The root of LLVM's tools, fetched to `place` first if they are not there.
pub(crate) fn llvm(place: &Path, progress: &Progress) -> Result<PathBuf> {
    let wanted = Wanted {
        packages: &["llvm-19"],
        suite: Release::Xen4_17.suite(),
        called: "LLVM's tools".to_owned(),
    };
    fetched(place, wanted, progress, |_| Ok(()))
}

/// The root of valgrind, fetched to `place` first if it is not there: the one of this machine's
/// release, because it must know the machine's libc.
pub(crate) fn valgrind(place: &Path, progress: &Progress) -> Result<PathBuf> {
    let own = own_suite()?;
    let release = Release::value_variants().iter().find(|release| release.suite() == own);
    let wanted = Wanted {
        packages: &["valgrind"],
        suite: release.unwrap_or(&Release::Xen4_17).suite(),
        called: "valgrind".to_owned(),
    };
    fetched(place, wanted, progress, |_| Ok(()))
}

/// The root of unpacked packages; `finish` does what is left to do before they count as whole.
///
/// A stamp file tells whether what lies there is whole and is what this checkout asks for.
fn fetched(
    place: &Path,
    wanted: Wanted,
    progress: &Progress,
    finish: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    fs::create_dir_all(place)?;
    let lock = File::create(place.join("lock"))?;
    lock.lock().with_context(|| format!("cannot lock {}", place.display()))?;

    let stamp = place.join("stamp");
    let asked = format!("revision {REVISION}: {}\n", wanted.packages.join(" "));
    let root = place.join("root");
    if fs::read_to_string(&stamp).is_ok_and(|found| found == asked) {
        return Ok(root);
    }
    let _ = fs::remove_file(&stamp);
    let apt = Apt::prepare(place, wanted)?;
    apt.update(progress)?;
    let packages = apt.download(progress)?;
    unpack(&packages, &root, progress)?;
    finish(&root)?;
    fs::remove_dir_all(apt.archives())?;
    fs::write(stamp, asked)?;
    Ok(root)
}

/// apt-get with a state of its own: it reads the machine's sources and keys, believes that
/// nothing is installed, and writes only below one folder.
struct Apt {
    wanted: Wanted,
    place: PathBuf,
    options: Vec<OsString>,
}

impl Apt {
    fn prepare(place: &Path, wanted: Wanted) -> Result<Self> {
        for tool in ["apt-get", "dpkg-deb"] {
            ensure!(
                Command::new(tool).arg("--version").stdout(Stdio::null()).status().is_ok(),
                "`{tool}` is not on this machine: {} comes from Debian's packages, so run this on \
                 Debian 12 or 13 (a container of it will do)",
                wanted.called
            );
        }
        let status = place.join("status");
        fs::write(&status, "")?;
        let lists = place.join("lists");
        let archives = place.join("archives");
        fs::create_dir_all(lists.join("partial"))?;
        fs::create_dir_all(archives.join("partial"))?;

        let suite = wanted.suite;
        let mut apt = Self { wanted, place: place.to_owned(), options: Vec::new() };
        apt.option("Dir::State::status", &status);
        apt.option("Dir::State::Lists", &lists);
        apt.option("Dir::Cache", place);
        apt.option("Dir::Cache::archives", &archives);
        let own = own_suite()?;
        if own != suite {
            apt.option("Dir::Etc::sourcelist", Path::new("/dev/null"));
            apt.option("Dir::Etc::sourceparts", &sources_of(suite, &own, place)?);
            apt.option("Dir::Etc::preferencesparts", Path::new("/dev/null"));
        }
        for fixed in [
            "APT::Install-Recommends=0",
            "APT::Sandbox::User=root",
            "Acquire::Languages=none",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=0",
            "Debug::NoLocking=1",
        ] {
            apt.options.push(format!("-o{fixed}").into());
        }
        Ok(apt)
    }

    fn option(&mut self, name: &str, value: &Path) {
        let mut option = OsString::from(format!("-o{name}="));
        option.push(value);
        self.options.push(option);
    }

    fn archives(&self) -> PathBuf {
        self.place.join("archives")
    }

    fn command(&self) -> Command {
        let mut command = Command::new("apt-get");
        command.args(&self.options).env("LC_ALL", "C").stdin(Stdio::null());
        command
    }

    /// The machine's own package lists may be missing or old, so the lab reads its own.
    fn update(&self, progress: &Progress) -> Result<()> {
        let suite = self.wanted.suite;
        let step = progress.step(format!("reading the package lists of Debian's {suite}"));
        let done = persist("apt-get update", || {
            let output = self.command().args(["-q", "update"]).output()?;
            ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Ok(())
        });
        step.finish(done.is_ok());
        done
    }

    fn download(&self, progress: &Progress) -> Result<Vec<PathBuf>> {
        let wanted = self.install().arg("--print-uris").output()?;
        if !wanted.status.success() {
            bail!(
                "apt offers no such packages ({}): {} comes from Debian 12 or 13",
                String::from_utf8_lossy(&wanted.stderr).trim(),
                self.wanted.called
            );
        }
        // A line is `'ADDRESS' FILE SIZE HASH`.
        let files: Vec<_> = String::from_utf8_lossy(&wanted.stdout)
            .lines()
            .filter(|line| line.starts_with('\''))
            .filter_map(|line| Some(self.archives().join(line.split(' ').nth(1)?)))
            .collect();
        ensure!(!files.is_empty(), "apt-get names no package to fetch");
        let step = progress.counted(format!("fetching {}", self.wanted.called), files.len());
        let done = persist("apt-get install --download-only", || {
            let mut child = self
                .install()
                .args(["-q", "--download-only"])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()?;
            let stdout = child.stdout.take().context("apt-get has an output")?;
            for line in BufReader::new(stdout).lines() {
                if line?.starts_with("Get:") {
                    step.advance();
                }
            }
            let output = child.wait_with_output()?;
            ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Ok(())
        });
        step.finish(done.is_ok());
        done?;
        Ok(files)
    }

    fn install(&self) -> Command {
        let mut command = self.command();
        command.args(["-y", "install"]).args(self.wanted.packages);
        command
    }
}

/// Does it again, after a while, if it fails: mirrors have bad moments.
fn persist(what: &str, mut attempt: impl FnMut() -> Result<()>) -> Result<()> {
    let mut pause = Duration::from_secs(2);
    for _ in 1..ATTEMPTS {
        match attempt() {
            Ok(()) => return Ok(()),
            Err(_) => thread::sleep(pause),
        }
        pause *= 2;
    }
    attempt().with_context(|| format!("`{what}` failed {ATTEMPTS} times"))
}

/// The suite that this machine was installed from.
fn own_suite() -> Result<String> {
    let release = fs::read_to_string("/etc/os-release").context("which Debian is this?")?;
    let own = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    Ok(own.context("/etc/os-release names no release")?.trim_matches('"').to_owned())
}

/// The machine's sources with `suite` where they name the machine's `own`.
fn sources_of(suite: &str, own: &str, place: &Path) -> Result<PathBuf> {
    let parts = place.join("sources.d");
    fs::create_dir_all(&parts)?;
    let folder = fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten();
    let files = folder.map(|entry| entry.path()).chain([PathBuf::from("/etc/apt/sources.list")]);
    for file in files {
        let (Ok(text), Some(name)) = (fs::read_to_string(&file), file.file_name()) else {
            continue;
        };
        fs::write(parts.join(name), text.replace(own, suite))?;
    }
    Ok(parts)
}

fn unpack(packages: &[PathBuf], root: &Path, progress: &Progress) -> Result<()> {
    let _ = fs::remove_dir_all(root);
    fs::create_dir_all(root)?;
    let step = progress.counted("unpacking them", packages.len());
    for package in packages {
        let status = Command::new("dpkg-deb").arg("-x").arg(package).arg(root).status()?;
        ensure!(status.success(), "`dpkg-deb -x {}` failed: {status}", package.display());
        step.advance();
    }
    step.finish(true);
    Ok(())
}
