//! The images that Xen starts.

use std::fs;
use std::process::Stdio;

use anyhow::{Result, ensure};

use crate::progress::Progress;
use crate::workspace::Workspace;

/// The store and driver domain, and the small guest of the tests.
const IMAGES: [&str; 2] = ["stubdom", "guest"];

/// Builds both images, stripped, into `target/image`, and prints their sizes.
pub(crate) fn build(ws: &Workspace, progress: &Progress) -> Result<()> {
    let step = progress.step("building the images");
    // The profile of that name puts them there; rustc strips by itself.
    let output = ws
        .cargo()
        .args([
            "build",
            "--profile",
            "image",
            "--package",
            "stubdom",
            "--package",
            "guests",
            "--message-format",
            "short",
        ])
        .stdin(Stdio::null())
        .output()?;
    step.finish(output.status.success());
    ensure!(
        output.status.success(),
        "the images do not build:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for name in IMAGES {
        let path = ws.image(name);
        progress.say(format_args!(
            "      {} {} bytes",
            ws.shown(&path),
            fs::metadata(&path)?.len()
        ));
    }
    Ok(())
}
