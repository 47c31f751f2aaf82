//! Ctrl-C and termination: noted once, looked at by whatever waits.

use core::sync::atomic::{AtomicBool, Ordering};
use std::process;

use anyhow::Result;

static WANTED: AtomicBool = AtomicBool::new(false);

/// Takes over SIGINT, SIGTERM and SIGHUP: the first asks, the second ends at once.
pub(crate) fn install() -> Result<()> {
    ctrlc::set_handler(|| {
        if WANTED.swap(true, Ordering::Relaxed) {
            process::exit(130);
        }
    })?;
    Ok(())
}

/// Whether the user asked to stop.
pub(crate) fn wanted() -> bool {
    WANTED.load(Ordering::Relaxed)
}
