//! The target `broker`: fronts of data channels, honest ones and others.
//!
//! The input is a list of steps of four bytes, as the broker's own test draws them at random; see
//! `databack/src/broker/tests/play.rs` for what they do and what must hold after each.

#[path = "../../databack/src/broker/tests/play.rs"]
mod play;
#[path = "../../databack/src/broker/tests/world.rs"]
#[expect(dead_code, reason = "the broker's other tests use more of it")]
mod world;

/// Plays the steps, and panics where an honest front does not get what it was promised.
pub fn run(data: &[u8]) {
    let Some((&calm, steps)) = data.split_first() else { return };
    let mut play = play::Play::new(calm & 1 == 0);
    let (steps, _) = steps.as_chunks();
    for step in steps {
        play.step(*step);
    }
    play.finish();
}
