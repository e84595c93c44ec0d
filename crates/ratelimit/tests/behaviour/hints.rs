//! What a peer asks for.

use std::time::Duration;

use portcullis_core::{
    Error, FaultKind, Hint, Outcome, Reason, Rejection, Replay, Throttle, classify_fn, clock,
};
use portcullis_ratelimit::{RateLimitBuilder, RateLimitLayer};
use portcullis_testkit::{call, poll_k};
use tower_layer::Layer;

use crate::{SECOND, Told, inner, layer, limited, limiter};

/// A response of 4 is a 429 that asks for 8 s.
fn judge(result: Result<&u32, &Error>) -> Outcome {
    match result {
        Ok(4) => Outcome::Throttled(
            Throttle::new(FaultKind::Status(429)).with_hint(Hint::After(8 * SECOND)),
        ),
        Ok(_) => Outcome::Success,
        Err(error) => error.outcome(),
    }
}

fn heedful(burst: u32) -> RateLimitBuilder {
    layer(burst)
}

#[tokio::test(start_paused = true)]
async fn after_a_hint_nothing_passes_then_one_then_the_rate() {
    let told = Told::default();
    let layer = heedful(3).classify(classify_fn(judge)).observe(told.observer()).build().unwrap();
    let mut service = layer.layer(inner());
    assert_eq!(call(&mut service, "four").await.unwrap(), 4);
    assert_eq!(
        told.take(),
        [
            "ratelimit search: took 1, 2 left",
            "ratelimit search: held back for 8.0s: asked to come back in 8s",
        ]
    );
    let error = call(&mut service, "q").await.unwrap_err();
    assert_eq!(limited(&error).reason(), Reason::Hinted { hint: 8 * SECOND });
    assert_eq!(limited(&error).retry_after(), Some(8 * SECOND));
    assert!(layer.limiter().snapshot().held);

    let mut passed = Vec::new();
    for second in 1..=12 {
        tokio::time::advance(SECOND).await;
        for _ in 0..3 {
            if call(&mut service, "q").await.is_ok() {
                passed.push(second);
            }
        }
    }
    assert_eq!(passed, [8, 9, 10, 11, 12]);
}

#[tokio::test(start_paused = true)]
async fn hints_are_cut_down_to_the_longest_allowed_or_ignored() {
    for (max, wait) in
        [(2 * SECOND, 2 * SECOND), (60 * SECOND, 8 * SECOND), (Duration::ZERO, Duration::ZERO)]
    {
        let layer = layer(3).max_hint(max).classify(classify_fn(judge)).build().unwrap();
        call(&mut layer.layer(inner()), "four").await.unwrap();
        assert_eq!(layer.limiter().snapshot().wait, wait);
    }
}

#[tokio::test(start_paused = true)]
async fn a_shorter_hint_does_not_end_a_longer_one() {
    let limiter = limiter(2).build().unwrap();
    limiter.hint(8 * SECOND);
    limiter.hint(3 * SECOND);
    assert_eq!(limiter.snapshot().wait, 8 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn who_waits_when_a_hint_comes_is_held_back_too() {
    let limiter = limiter(1).max_wait(20 * SECOND).build().unwrap();
    limiter.try_acquire().unwrap();
    let start = clock::now();
    let mut one = Box::pin(limiter.until_ready());
    let mut two = Box::pin(limiter.until_ready());
    assert!(poll_k(&mut one, 1).await.is_none());
    assert!(poll_k(&mut two, 1).await.is_none());
    limiter.hint(8 * SECOND);
    let (one, two) = tokio::join!(async { one.await.map(|_| clock::now() - start) }, async {
        two.await.map(|_| clock::now() - start)
    },);
    assert_eq!((one.unwrap(), two.unwrap()), (8 * SECOND, 9 * SECOND));

    // And is refused if that is too long.
    let impatient = self::limiter(1).max_wait(2 * SECOND).build().unwrap();
    impatient.try_acquire().unwrap();
    let mut one = Box::pin(impatient.until_ready());
    assert!(poll_k(&mut one, 1).await.is_none());
    impatient.hint(8 * SECOND);
    let refused = one.await.unwrap_err();
    assert_eq!(refused.reason(), Reason::WaitTooLong { needed: 8 * SECOND, max: 2 * SECOND });
    assert_eq!(refused.retry_after(), Some(7 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn no_settlement_shortens_a_hint() {
    let limiter = limiter(5).build().unwrap();
    let before = limiter.try_acquire_n(5).unwrap();
    limiter.hint(8 * SECOND);
    limiter.settle(before, 0);
    assert_eq!(limiter.snapshot().wait, 8 * SECOND);

    // Nor does one of before the hint that comes when it is over: one passes then, not two.
    let limiter = self::limiter(5).build().unwrap();
    let before = limiter.try_acquire_n(5).unwrap();
    limiter.hint(2 * SECOND);
    tokio::time::advance(2 * SECOND).await;
    limiter.settle(before, 0);
    assert_eq!(limiter.snapshot().left, 1);
}

#[tokio::test(start_paused = true)]
async fn a_layer_below_does_not_speak_for_the_peer() {
    // The inner limit refuses with a `retry_after` of its own.
    let below = limiter(1).build().unwrap();
    let below = RateLimitLayer::of(below).build().unwrap();
    let above = layer(5).build().unwrap();
    let mut service = above.layer(below.layer(inner()));
    call(&mut service, "q").await.unwrap();
    assert!(call(&mut service, "q").await.is_err());
    assert_eq!(above.limiter().snapshot().wait, Duration::ZERO);
    assert_eq!(above.limiter().snapshot().left, 3);
}

#[tokio::test(start_paused = true)]
async fn a_success_may_carry_a_hint_too() {
    let layer = layer(5)
        .hint_with(|length: &u32| match length {
            0 => Hint::After(4 * SECOND),
            1 => Hint::Never,
            2 => Hint::Exactly(6 * SECOND),
            _ => Hint::None,
        })
        .build()
        .unwrap();
    let mut service = layer.layer(inner());
    call(&mut service, "q").await.unwrap();
    assert!(!layer.limiter().snapshot().held);
    call(&mut service, "").await.unwrap();
    assert_eq!(layer.limiter().snapshot().wait, 4 * SECOND);
    tokio::time::advance(4 * SECOND).await;
    call(&mut service, "qq").await.unwrap();
    assert_eq!(layer.limiter().snapshot().wait, 6 * SECOND, "an exact one is one, too");
}

#[tokio::test(start_paused = true)]
async fn an_unavailable_peer_that_names_a_time_is_left_alone_as_well() {
    let unavailable = |result: Result<&u32, &Error>| match result {
        Ok(_) => {
            let mut outcome = Outcome::failure(FaultKind::Status(503), Replay::IfIdempotent);
            if let Outcome::Failure(fault) = &mut outcome {
                fault.hint = Hint::After(SECOND * 5);
            }
            outcome
        }
        Err(error) => error.outcome(),
    };
    let layer = layer(5).classify(classify_fn(unavailable)).build().unwrap();
    call(&mut layer.layer(inner()), "q").await.unwrap();
    assert_eq!(layer.limiter().snapshot().wait, 5 * SECOND);
}
