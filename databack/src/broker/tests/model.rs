//! Any fronts at all.

use proptest::prelude::*;

use super::play::Play;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_others_do_the_honest_get_what_they_were_promised(
        calm: bool,
        steps in prop::collection::vec(any::<[u8; 4]>(), 1..100),
    ) {
        let mut play = Play::new(calm);
        for step in steps {
            play.step(step);
        }
        play.finish();
    }
}
