//! QEMU out of the unpacked packages, with a Xen host in it.

use core::time::Duration;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::thread;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use crate::tree::Tree;

/// What executes the machine's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Accelerator {
    /// QEMU itself; works everywhere
    Tcg,
    /// The processor, where it may be used
    Kvm,
}

/// What the machine's time is.
///
/// A counted clock is the rule. Its timers expire between instructions of the one thread that
/// executes them. On the wall's clock they expire beside it, and QEMU's emulation of SVM, which
/// changes the processor's set of pending interrupts at every entry into and exit from a guest
/// without a lock, loses one now and then: the timer's interrupt stays pending in the local APIC,
/// and Xen, dom0 and all guests sleep for ever. Nor can guests starve on a counted clock because
/// the machine below is busy: their timer interrupts come once in so many instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clock {
    /// The wall's.
    Wall,
    /// Two nanoseconds an instruction; while the machine sleeps, the wall's.
    Instructions,
    /// Two nanoseconds an instruction; sleep takes no time.
    InstructionsOnly,
}

/// The machine that Xen boots on.
#[derive(Debug)]
pub(crate) struct Machine {
    /// Memory in MiB.
    pub(crate) ram: u32,
    /// Of these, dom0's.
    pub(crate) dom0: u32,
    pub(crate) accel: Accelerator,
    pub(crate) clock: Clock,
    /// Whether our standard input is dom0's console.
    pub(crate) shell: bool,
}

const XEN: &str = "console=com1 com1=115200,8n1 loglvl=all guest_loglvl=all conring_size=512k";

/// Without the self-tests of its cryptography and the search of its page tables for what is both
/// writable and executable: together they are a quarter of dom0's boot.
const LINUX: &str = "console=hvc0 root=/dev/ram0 panic=1 quiet loglevel=4 cryptomgr.notests \
                     rodata=off";

impl Machine {
    /// Starts it; `folder` holds dom0's initramfs.
    ///
    /// The first serial port, Xen's and dom0's console, is QEMU's standard output. The second
    /// belongs to dom0 alone and is QEMU's standard error: no guest and no hypervisor can write
    /// into its lines.
    pub(crate) fn start(&self, tree: &Tree, folder: &Path) -> Result<Qemu> {
        // Names without a folder: the loader splits the list of modules at commas and spaces.
        for (name, path) in [("xen", tree.hypervisor()), ("linux", tree.linux())] {
            let _ = fs::remove_file(folder.join(name));
            symlink(path, folder.join(name))?;
        }
        if self.accel == Accelerator::Kvm {
            ensure!(
                fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok(),
                "/dev/kvm cannot be used here: leave out `--accel kvm`"
            );
        }
        let mut command = bound_to_us(&tree.loader()?);
        command
            .current_dir(folder)
            .arg("--library-path")
            .arg(joined(tree.library_folders()))
            .arg(tree.file("usr/bin/qemu-system-x86_64"))
            .args(["-L".into(), tree.file("usr/share/qemu")])
            .args(["-L".into(), tree.file("usr/share/seabios")])
            .args(["-nodefaults", "-display", "none", "-no-reboot", "-smp", "1"])
            .args(["-m", &self.ram.to_string()])
            .args([
                "-kernel",
                "xen",
                "-append",
                &format!("{XEN} dom0_mem={0}M,max:{0}M", self.dom0),
            ])
            .args(["-initrd", &format!("linux {LINUX},dom0.img")])
            .args(self.processor())
            .args(self.serial_ports())
            .stdin(if self.shell { Stdio::inherit() } else { Stdio::piped() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        for folder in tree.library_folders() {
            let modules = folder.join("qemu");
            if modules.is_dir() {
                command.env("QEMU_MODULE_DIR", modules);
            }
        }
        let child = command.spawn().context("cannot start QEMU")?;
        Ok(Qemu { child })
    }

    fn processor(&self) -> Vec<&'static str> {
        let mut options = match self.accel {
            Accelerator::Tcg => vec!["-machine", "pc,accel=tcg", "-cpu", "qemu64,+svm,+npt"],
            Accelerator::Kvm => vec!["-machine", "pc,accel=kvm", "-cpu", "host"],
        };
        match self.clock {
            Clock::Wall => {}
            Clock::Instructions => options.extend(["-icount", "shift=1"]),
            Clock::InstructionsOnly => options.extend(["-icount", "shift=1,sleep=off"]),
        }
        options
    }

    fn serial_ports(&self) -> Vec<&'static str> {
        let console = if self.shell {
            // With the monitor on the same terminal, Ctrl-A x ends QEMU.
            ["stdio,id=console,mux=on,signal=off", "-mon", "chardev=console"]
        } else {
            ["stdio,id=console", "-monitor", "none"]
        };
        let mut options = vec!["-chardev"];
        options.extend(console);
        options.extend(["-chardev", "file,id=script,path=/dev/stderr"]);
        options.extend(["-serial", "chardev:console", "-serial", "chardev:script"]);
        options
    }
}

/// A command whose process ends when ours does, however ours ends.
fn bound_to_us(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    let available = Command::new("setpriv").arg("--version").stdout(Stdio::null()).status();
    if available.is_ok_and(|status| status.success()) {
        command.args(["--pdeathsig", "KILL", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    }
}

fn joined(folders: &[PathBuf]) -> OsString {
    let folders: Vec<_> = folders.iter().map(|folder| folder.as_os_str()).collect();
    folders.join(OsStr::new(":"))
}

/// A running QEMU; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Qemu {
    child: Child,
}

impl Qemu {
    /// The first and the second serial port.
    pub(crate) fn take_outputs(&mut self) -> Result<(ChildStdout, ChildStderr)> {
        let console = self.child.stdout.take().context("QEMU's output was taken before")?;
        let script = self.child.stderr.take().context("QEMU's output was taken before")?;
        Ok((console, script))
    }

    /// Asks Xen to print what its domains, event channels and dom0 are doing; for a host that
    /// answers nothing else any more.
    pub(crate) fn interrogate(&mut self) -> Result<()> {
        let Some(keyboard) = &mut self.child.stdin else { return Ok(()) };
        // Three times Ctrl-A gives the keyboard to Xen. It takes a few keys at a time.
        for keys in ["\x01\x01\x01", "q", "e", "0", "d"] {
            keyboard.write_all(keys.as_bytes())?;
            thread::sleep(Duration::from_millis(500));
        }
        Ok(())
    }

    /// Ends it, if it still runs.
    pub(crate) fn stop(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}
