//! Where a figure begins and ends, for callgrind, which knows these by their names.

/// Callgrind's counts are zero from here.
#[inline(never)]
pub(crate) fn begin() {
    core::hint::black_box(());
}

/// Callgrind's counts of now are those of this figure, which is about so many operations.
#[inline(never)]
pub(crate) fn end(name: &str, operations: u32) {
    println!("{name}\t{operations}");
}
