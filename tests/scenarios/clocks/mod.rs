//! Layers and services of all sorts above each other, chosen at random, on a paused clock.
//!
//! Layers share their readings of the clock on a call's way in and out. So each reading is held against
//! one that shares nothing:
//!
//! - what a timeout or breaker says a call took, against what was measured around that layer;
//! - the time of every event, against the clock;
//! - the limit of every timeout, against what was measured around it.

mod level;
mod witness;

use std::{iter, sync::Arc, time::Duration};

use futures_util::future;
use portcullis::{BoxError, sync::Mutex};
use portcullis_testkit::{Seed, effort};
use tokio::time::{sleep, timeout};
use tower::service_fn;

use self::{
    level::{Any, Level, boxed, millis, when_ready},
    witness::Witness,
};

/// Longer than any stack takes, whatever it waits for.
const FOREVER: Duration = Duration::from_secs(3600);
/// Longer than what a call leaves behind goes on.
const AFTERWARDS: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn every_layer_takes_the_time_for_what_it_is_and_every_limit_holds() {
    let stacks = u64::from(effort(5_000, 200_000));
    let mut compared = 0;
    for seed in 0..stacks {
        compared += hold(seed).await;
    }
    assert!(compared > stacks, "only {compared} of {stacks} stacks' calls were compared");
}

/// Three calls at once through the stack of this seed. Returns how many times were compared.
///
/// Nothing else is left to chance: with the seed that a failure names, this alone replays it.
async fn hold(seed: u64) -> u64 {
    let mut draw = Seed::new(seed);
    let depth = draw.within(1..7) as usize;
    let levels: Vec<_> = iter::repeat_with(|| Level::draw(&mut draw)).take(depth).collect();
    let witness = Witness::default();
    let stack = levels.iter().enumerate().fold(leaf(draw.split()), |inner, (place, level)| {
        level.over(inner, &name(place), &witness)
    });

    let calls = (0..3).map(|_| when_ready(stack.clone()));
    let over = timeout(FOREVER, future::join_all(calls)).await;
    assert!(over.is_ok(), "seed {seed}, {levels:?}: never ends");
    sleep(AFTERWARDS).await;

    let off_clock = witness.off_clock();
    assert!(off_clock.is_empty(), "seed {seed}, {levels:?}: {off_clock:#?}");
    let mut compared = 0;
    for (place, level) in levels.iter().enumerate() {
        let (told, measured) = witness.times(&name(place));
        if let Some(limit) = level.limit() {
            // Nobody can end what is not polled.
            let unpolled = levels[place..].iter().map(Level::unpolled).sum();
            let holds = measured.iter().all(|took| *took <= limit.max(unpolled));
            assert!(holds, "seed {seed}, {levels:?}: level {place} took {measured:?}");
        }
        if level.is_heard() {
            let wrong = missing(&measured, &told);
            assert!(
                wrong.is_empty(),
                "seed {seed}, {levels:?}: level {place} took {wrong:?} and told {told:?}"
            );
            compared += measured.len() as u64;
        }
    }
    compared
}

/// The service below all: answers in up to 40 ms, and fails one time in three.
fn leaf(draw: Seed) -> Any {
    let draw = Arc::new(Mutex::new(draw));
    boxed(service_fn(move |()| {
        let mut draw = draw.lock();
        let (wait, fails) = (millis(draw.within(0..40)), draw.chance(1.0 / 3.0));
        async move {
            if !wait.is_zero() {
                sleep(wait).await;
            }
            if fails { Err(BoxError::from("no")) } else { Ok(()) }
        }
    }))
}

fn name(place: usize) -> String {
    format!("level-{place}")
}

/// What was measured and not told. More may be told than was measured: a call that ran out and was
/// dropped has an answer that nobody saw.
fn missing(measured: &[Duration], told: &[Duration]) -> Vec<Duration> {
    let mut told = told.to_vec();
    let mut wrong = measured.to_vec();
    wrong.retain(|took| match told.iter().position(|it| it == took) {
        Some(at) => {
            told.swap_remove(at);
            false
        }
        None => true,
    });
    wrong
}
