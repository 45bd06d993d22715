//! Every target with damaged good inputs. `CHORDFS_TEST_SEED` repeats a run; `CHORDFS_TEST_INPUTS` says how many inputs
//! each target gets.

use std::panic::{AssertUnwindSafe, catch_unwind};

use chordfs_fuzz::{TARGETS, damage};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

#[test]
fn good_inputs_are_taken_and_damaged_ones_stop_nothing() {
    let seed = variable("CHORDFS_TEST_SEED").unwrap_or_else(|| rand::rng().random());
    let inputs = variable("CHORDFS_TEST_INPUTS").unwrap_or(3_000);
    eprintln!("CHORDFS_TEST_SEED={seed}");
    for target in TARGETS {
        let (corpus, mut random) = ((target.corpus)(), StdRng::seed_from_u64(seed));
        for good in &corpus {
            (target.run)(good);
        }
        for number in 0..inputs / target.share {
            let good = corpus.choose(&mut random).expect("each target has good inputs");
            let input = damage(&mut random, good);
            let outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(&input)));
            assert!(outcome.is_ok(), "{}: input {number} of seed {seed} panics: {input:02x?}", target.name);
        }
    }
}
