//! The engine against a naive model that keeps everything and counts it anew each time, over long
//! random histories: both windows, probes, late results, results that never come, jumps of time,
//! orders and resets. After every step all that can be seen is compared.
//!
//! The seed is fixed; `PORTCULLIS_LONG=1` runs many more. What fails is shrunk and kept in
//! `proptest-regressions`, to be run first from then on.

mod history;
mod reference;
mod run;
mod shot;
mod told;

use portcullis_testkit::effort;
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{FileFailurePersistence, RngSeed, TestRunner},
};

use self::run::{Seen, run};

fn cases(bounded: u32, long: u32, kept: &'static str) -> ProptestConfig {
    ProptestConfig {
        cases: effort(bounded, long),
        rng_seed: RngSeed::Fixed(0x9e37_79b9),
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(kept))),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases(64, 4_000, "proptest-regressions/engine.txt"))]

    #[test]
    fn the_engine_does_what_the_model_does(
        config in history::config(),
        steps in history::history(),
    ) {
        run(config, steps)?;
    }
}

#[test]
fn the_histories_reach_everything() {
    let mut runner = TestRunner::deterministic();
    let mut all = Seen::default();
    for _ in 0..40 {
        let (config, steps) =
            (history::config(), history::history()).new_tree(&mut runner).unwrap().current();
        all.add(run(config, steps).unwrap());
    }
    assert_eq!(all.that_often(10), 16, "{all:?}");
}
