//! Settings of named operations.

use portcullis_core::{Hint, Reason, call};
use portcullis_retry::{Backoff, Jitter, OperationConfig, Throttling, ThrottlingConfig};
use portcullis_testkit::{Step, call as send};
use tower_layer::Layer;

use crate::fakes::{Ear, Inner, Reply, SECOND, answering, builder, by_status};

/// How long the waits of a call are, in seconds, and why there is no other; and how many calls came.
async fn waits_of(
    builder: portcullis_retry::RetryBuilder<portcullis_core::ByClone>,
    inner: Inner,
) -> (Vec<u64>, Option<Reason>) {
    let (ear, journal) = (Ear::default(), inner.journal());
    let layer = builder.classify(by_status()).observe(ear.clone()).build().unwrap();
    send(&mut layer.layer(inner), ()).await.unwrap();
    let at = journal.called_at();
    let waits = at.windows(2).map(|pair| (pair[1] - pair[0]).as_secs()).collect();
    (waits, ear.last_reason())
}

#[tokio::test(start_paused = true)]
async fn a_named_operation_has_its_own_settings_and_the_layers_for_the_rest() {
    let layer = || {
        builder()
            .operation("charge", OperationConfig::new().with_max_attempts(1))
            .operation("a.B/", OperationConfig::new().with_max_attempts(5))
            .operation("a.B/C", OperationConfig::new().with_backoff(Backoff::fixed(SECOND * 7)))
    };
    let used = |max| Some(Reason::AttemptsUsed { max });
    for (name, waits, reason) in [
        ("charge", vec![], used(1)),
        ("a.B/C", vec![7, 7], used(3)),
        ("a.B/D", vec![1, 2, 4, 8], used(5)),
        ("search", vec![1, 2], used(3)),
    ] {
        let seen = call::with().name(name).run(waits_of(layer(), answering(&[500]))).await;
        assert_eq!(seen, (waits, reason), "{name}");
    }
    assert_eq!(waits_of(layer(), answering(&[500])).await, (vec![1, 2], used(3)));

    // The caller's word stands above the operation's settings, too.
    let two = call::with().name("charge").max_attempts(2).run(waits_of(layer(), answering(&[500])));
    assert_eq!(two.await, (vec![1], used(2)));
}

#[tokio::test(start_paused = true)]
async fn an_operation_may_bound_hints_by_itself() {
    let throttled =
        || Inner::respond_with(|(), _| Step::Ok(Reply::new(429).hinting(Hint::After(SECOND * 9))));
    let layer = || builder().operation("quick", OperationConfig::new().with_max_hint(SECOND * 8));
    let too_long = Reason::HintTooLong { hint: SECOND * 9, max: SECOND * 8 };
    let quick = call::with().name("quick").run(waits_of(layer(), throttled())).await;
    assert_eq!(quick, (vec![], Some(too_long)));
    let other = call::with().name("other").run(waits_of(layer(), throttled())).await;
    assert_eq!(other.0, [9, 9]);
}

#[tokio::test(start_paused = true)]
async fn the_layers_custom_backoff_is_that_of_operations_without_their_own() {
    let layer = || {
        builder()
            .backoff_fn(SECOND * 100, |retry| SECOND * 10 * retry)
            .operation("more", OperationConfig::new().with_max_attempts(4))
            .operation("fixed", OperationConfig::new().with_backoff(Backoff::fixed(SECOND)))
            .operation("wide", OperationConfig::new().with_jitter(Jitter::Around(0.0)))
    };
    for (name, waits) in [
        ("more", vec![10, 20, 30]),
        ("fixed", vec![1, 1]),
        ("wide", vec![10, 20]),
        ("other", vec![10, 20]),
    ] {
        let seen = call::with().name(name).run(waits_of(layer(), answering(&[500]))).await;
        assert_eq!(seen.0, waits, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_exact_hint_is_waited_for_without_jitter_and_the_backoff_starts_over() {
    let inner = Inner::respond_with(|(), n| {
        Step::Ok(match n {
            2 => Reply::new(429).hinting(Hint::Exactly(SECOND * 11)),
            _ => Reply::new(500),
        })
    });
    let layer = builder().max_attempts(7);
    assert_eq!(waits_of(layer, inner).await.0, [1, 2, 11, 1, 2, 4]);

    let hinting = || {
        Inner::respond_with(|(), _| Step::Ok(Reply::new(429).hinting(Hint::Exactly(SECOND * 3))))
    };
    let layer = builder().max_attempts(4).jitter(Jitter::Full);
    assert_eq!(waits_of(layer, hinting()).await.0, [3, 3, 3]);
}

#[tokio::test(start_paused = true)]
async fn throttling_counts_failures_of_what_could_be_repeated_by_settings_or_by_the_callers_word() {
    let throttling = Throttling::new(ThrottlingConfig::new(100, 1.0)).unwrap();
    let layer = |most| {
        let builder = builder().max_attempts(most).shared_throttling(throttling.clone());
        builder.operation("charge", OperationConfig::new().with_max_attempts(1))
    };
    let taken = async |calls: call::With, most| {
        let before = throttling.tokens();
        calls.run(waits_of(layer(most), answering(&[500]))).await;
        before - throttling.tokens()
    };
    assert_eq!(taken(call::with().name("charge"), 2).await, 0.0, "never repeated");
    assert_eq!(taken(call::with(), 1).await, 0.0, "never repeated");
    assert_eq!(taken(call::with().name("charge").max_attempts(3), 2).await, 3.0);
    assert_eq!(taken(call::with().no_retry(), 2).await, 1.0, "it tells as much of the peer");
    assert_eq!(taken(call::with(), 2).await, 2.0);
}
