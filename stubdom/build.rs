//! Links the image without a C runtime, at the addresses of `linker.ld`.
//!
//! The arguments stand here and not in `.cargo/config.toml`, where they would also reach build
//! scripts, procedural macros and the host's tests.

fn main() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../linker.ld");
    println!("cargo:rerun-if-changed={script}");
    for argument in ["-nostartfiles", "-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none"] {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
    println!("cargo:rustc-link-arg-bins=-T{script}");
}
