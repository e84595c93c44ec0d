//! The engine against naive references, over long random histories.
//!
//! Seeds are fixed; `PORTCULLIS_LONG=1` makes the histories many and long. What fails is shrunk and
//! kept in `proptest-regressions`, to be run first from then on.

mod budget;
mod decide;
mod races;
mod reference;
mod throttling;
mod waits;

use portcullis_testkit::effort;
use proptest::test_runner::{Config, FileFailurePersistence, RngSeed};

/// So many cases of a proof, from a seed of its own.
fn cases(bounded: u32, long: u32, seed: u64, kept: &'static str) -> Config {
    Config {
        cases: effort(bounded, long),
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(kept))),
        ..Config::default()
    }
}
