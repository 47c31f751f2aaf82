//! What guests can rely on, whatever others do.
#![expect(clippy::cast_possible_truncation, reason = "test data is small")]

mod allocations;
mod conversion;
mod delivery;
mod hostile;
mod waiting;
mod world;
