//! One run of the lab: a Xen host boots in QEMU, dom0 runs a script, its exit status is the
//! verdict.

use core::fmt::Write as _;
use core::time::Duration;
use std::fs::{self, File, TryLockError};
use std::io::{IsTerminal as _, Read, stdin};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, Parser, ValueEnum};

use crate::console::{Console, Echo, Event};
use crate::dom0::{self, Contents};
use crate::interrupt;
use crate::packages;
use crate::progress::Progress;
use crate::qemu::{Accelerator, Clock, Machine};
use crate::release::Release;
use crate::tree::Tree;
use crate::workspace::Workspace;

/// Who serves Xenstore in the lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Store {
    /// Our image, started by Xen's init-xenstore-domain
    Stubdom,
    /// xenstored, Xen's daemon in C
    C,
    /// oxenstored, Xen's daemon in OCaml
    Ocaml,
    /// Nobody: the script starts one itself
    None,
}

/// What a lab is made of.
#[derive(Debug, Clone, Args)]
pub(crate) struct Config {
    /// Who serves Xenstore
    #[arg(long, value_enum, default_value = "stubdom")]
    pub(crate) store: Store,
    /// Memory of the store domain, in MiB
    #[arg(long, value_name = "MB", default_value_t = 8)]
    pub(crate) memory: u32,
    /// How far the store domain's memory may grow, in MiB
    #[arg(long, value_name = "MB")]
    pub(crate) maxmem: Option<u32>,
    /// More words for the store's command line (may be repeated)
    #[arg(long, value_name = "STR")]
    pub(crate) param: Vec<String>,
    /// Seconds until the lab is given up
    #[arg(long, value_name = "S", default_value_t = 600)]
    pub(crate) timeout: u64,
    /// What executes the machine's instructions
    #[arg(long, value_enum, default_value = "tcg")]
    pub(crate) accel: Accelerator,
    /// Let time pass as on the wall, not with the instructions: faster, but QEMU then loses an
    /// interrupt now and then, and a busy machine starves its guests
    #[arg(long)]
    pub(crate) wall_clock: bool,
    /// Memory of the whole machine, in MiB
    #[arg(long, value_name = "MB", default_value_t = 2048)]
    pub(crate) ram: u32,
    /// The release of Xen; dom0's Linux and QEMU are those of the same Debian
    #[arg(long, value_enum, default_value = "4.17")]
    pub(crate) xen: Release,
    /// Leave out the stock Linux guest, its kernel and memory to start it: dom0 boots sooner
    #[arg(long)]
    pub(crate) no_linux: bool,
    /// Put Prometheus and its promtool, of the same Debian, into dom0's /lab/with
    #[arg(long)]
    pub(crate) prometheus: bool,
    /// A file of this machine to put into dom0's /lab/with (may be repeated)
    #[arg(long, value_name = "FILE")]
    pub(crate) with: Vec<PathBuf>,
}

impl Config {
    /// The lab that a script asks for with a line `# lab: OPTIONS`; none if it has no such line.
    pub(crate) fn of_script(text: &str) -> Result<Option<Self>> {
        let config = words_of_script(text).map(Self::of_words).transpose();
        config.context("its line `# lab:`")
    }

    /// The lab of these options.
    pub(crate) fn of_words<'a>(words: impl Iterator<Item = &'a str>) -> Result<Self> {
        #[derive(Parser)]
        #[command(no_binary_name = true)]
        struct Line {
            #[command(flatten)]
            config: Config,
        }
        let line = Line::try_parse_from(words).map_err(|error| {
            // What follows is about a command line that nobody has typed.
            let said = error.to_string();
            let first: Vec<_> = said.lines().take_while(|l| !l.is_empty()).map(str::trim).collect();
            anyhow!("{}", first.join(" ").trim_start_matches("error: "))
        })?;
        Ok(line.config)
    }
}

/// The options on a script's line `# lab: OPTIONS`.
pub(crate) fn words_of_script(text: &str) -> Option<impl Iterator<Item = &str>> {
    let line = text.lines().find_map(|line| line.strip_prefix("# lab:"))?;
    Some(line.split_whitespace())
}

/// The releases of Xen on its line `# xen: RELEASE...`, on which a script is a test; that of its
/// lab alone if it has no such line.
pub(crate) fn releases_of_script(text: &str, config: &Config) -> Result<Vec<Release>> {
    let Some(line) = text.lines().find_map(|line| line.strip_prefix("# xen:")) else {
        return Ok(vec![config.xen]);
    };
    let release = |word| Release::from_str(word, false).map_err(|why| anyhow!("{word:?}: {why}"));
    line.split_whitespace().map(release).collect()
}

/// How a lab ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The script ended with this status.
    Verdict(i32),
    /// Nothing was heard of the script in time.
    TimedOut,
    /// The machine stopped before the script ended.
    Stopped,
    /// The user stopped it.
    Interrupted,
    /// The time of all that it was a part of was over.
    CutOff,
}

/// The outcome of a lab and where to read about it.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) ending: Ending,
    pub(crate) log: PathBuf,
}

impl Report {
    /// Whether the script ran to its end and was content.
    pub(crate) fn passed(&self) -> bool {
        self.ending == Ending::Verdict(0)
    }

    /// The outcome in words.
    pub(crate) fn words(&self) -> String {
        match self.ending {
            Ending::Verdict(0) => "passed".to_owned(),
            Ending::Verdict(status) => format!("the script ended with status {status}"),
            Ending::TimedOut => "no verdict in time".to_owned(),
            Ending::Stopped => "the machine stopped before the script ended".to_owned(),
            Ending::Interrupted => "interrupted".to_owned(),
            Ending::CutOff => "cut off".to_owned(),
        }
    }
}

/// A lab to be run.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    /// Names the folder of the log.
    pub(crate) name: &'a str,
    /// What dom0 is to do, in the language of its shell.
    pub(crate) script: &'a [u8],
    pub(crate) config: &'a Config,
    /// Whether dom0's prompt follows the script; the lab then lasts until it is left.
    pub(crate) shell: bool,
    /// When it ends, whether or not there is a verdict.
    pub(crate) until: Option<Instant>,
}

impl Run<'_> {
    /// Boots the host, runs the script and waits for its end.
    pub(crate) fn start(
        &self,
        ws: &Workspace,
        tree: &Tree,
        echo: Echo,
        progress: &Progress,
    ) -> Result<Report> {
        let Self { config, shell, .. } = *self;
        let place = Place::take(&ws.lab()?, self.name)?;
        let token = token()?;
        let settings = settings(config, &token, shell);
        let mut with = config.with.clone();
        if config.prometheus {
            with.extend(packages::prometheus(&ws.lab()?, config.xen, progress)?);
        }
        let contents = Contents {
            script: self.script,
            config: &settings,
            linux: !config.no_linux,
            with: &with,
        };
        let initramfs = File::create(place.path.join("dom0.img"))?;
        dom0::write(ws, tree, &contents, initramfs).context("cannot build dom0")?;

        let clock = match (config.accel, config.wall_clock, shell) {
            (Accelerator::Kvm, _, _) | (_, true, _) => Clock::Wall,
            (_, _, true) => Clock::Instructions,
            (_, _, false) => Clock::InstructionsOnly,
        };
        // Xen's dom0 pays for each page of its memory when it boots.
        let dom0 = if config.no_linux && !config.prometheus { 320 } else { 640 };
        let machine = Machine { ram: config.ram, dom0, accel: config.accel, clock, shell };
        let log = place.path.join("console.log");
        let mut qemu = machine.start(tree, &place.path)?;
        let mut console = Console::new(qemu.take_outputs()?, &log, &token, echo, progress)?;
        let ending = self.watch(&mut console)?;
        if ending == Ending::TimedOut {
            // What it says is for the log; a host that is beyond that says nothing.
            let _ = qemu.interrogate();
        }
        qemu.stop()?;
        console.close()?;
        let _ = fs::remove_file(place.path.join("dom0.img"));
        Ok(Report { ending, log })
    }

    fn watch(&self, console: &mut Console) -> Result<Ending> {
        let mut deadline = Some(Instant::now() + Duration::from_secs(self.config.timeout));
        let mut verdict = None;
        loop {
            match console.next(Duration::from_millis(200))? {
                Some(Event::Verdict(status)) if self.shell => {
                    verdict = Some(status);
                    console.open_prompt();
                    // Whoever types at a terminal may take as long as it takes.
                    deadline = deadline.filter(|_| !stdin().is_terminal());
                }
                Some(Event::Verdict(status)) => return Ok(Ending::Verdict(status)),
                Some(Event::Closed) => return Ok(verdict.map_or(Ending::Stopped, Ending::Verdict)),
                None => {}
            }
            if interrupt::wanted() {
                return Ok(Ending::Interrupted);
            }
            if self.until.is_some_and(|until| Instant::now() > until) {
                return Ok(Ending::CutOff);
            }
            if deadline.is_some_and(|deadline| Instant::now() > deadline) {
                return Ok(Ending::TimedOut);
            }
        }
    }
}

/// A folder of its own for each running lab.
struct Place {
    path: PathBuf,
    _lock: File,
}

impl Place {
    /// Takes `lab/name`, or `lab/name-2` and so on while somebody runs a lab of that name.
    fn take(lab: &Path, name: &str) -> Result<Self> {
        for number in 1..100 {
            let path = match number {
                1 => lab.join(name),
                _ => lab.join(format!("{name}-{number}")),
            };
            fs::create_dir_all(&path)?;
            let lock = File::create(path.join("lock"))?;
            match lock.try_lock() {
                Ok(()) => return Ok(Self { path, _lock: lock }),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(error.into()),
            }
        }
        bail!("a hundred labs named {name} are running")
    }
}

/// A word that nothing in the lab can guess but dom0, which is told.
fn token() -> Result<String> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(format!("{:016x}", u64::from_ne_bytes(bytes)))
}

/// The settings that dom0's init reads, as lines of shell.
fn settings(config: &Config, token: &str, shell: bool) -> String {
    let store = config.store.to_possible_value().map(|value| value.get_name().to_owned());
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{name}='{}'", value.replace('\'', r"'\''"));
    };
    line("XEN", config.xen.name());
    line("STORE", &store.unwrap_or_default());
    line("MEMORY", &config.memory.to_string());
    line("MAXMEM", &config.maxmem.map(|mb| mb.to_string()).unwrap_or_default());
    line("PARAM", &config.param.join(" "));
    line("TOKEN", token);
    line("SHELL_AFTER", if shell { "yes" } else { "" });
    text
}
