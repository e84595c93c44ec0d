//! How attempts are made.

use std::{sync::Arc, time::Duration};

use portcullis_core::{ByClone, Call, Error, Event, Hint, Outcome, What, call, sync::Mutex};
use portcullis_retry::{Backoff, Exhausted, Retry, RetryLayer};
use portcullis_testkit::{Script, ScriptedService, Step, TestError, call as send, ready};
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

use crate::fakes::{
    Alive, ByText, Ear, Inner, Reply, SECOND, Unclonable, answering, builder, by_status, status,
};

type Sent = Arc<Mutex<Vec<String>>>;

/// A service for requests that cannot be cloned, and what it was sent.
fn for_unclonable(
    longest: usize,
    alive: &Alive,
) -> (Retry<ScriptedService<Unclonable, u32>, ByText>, Sent) {
    let sent = Sent::default();
    let note = sent.clone();
    let inner = ScriptedService::respond_with(move |request: Unclonable, n| {
        note.lock().push(request.0);
        match n {
            0 | 1 => Step::Err(TestError("reset")),
            _ => Step::Ok(200),
        }
    });
    let alive = alive.clone();
    let layer = RetryLayer::builder("search", ByText { longest, alive });
    (layer.build().unwrap().layer(inner), sent)
}

#[tokio::test(start_paused = true)]
async fn a_request_need_not_be_clone() {
    let alive = Alive::default();
    let (mut service, sent) = for_unclonable(64, &alive);
    let answer = send(&mut service, Unclonable("find".into())).await;
    assert_eq!(answer.unwrap(), 200);
    assert_eq!(*sent.lock(), ["find", "find, attempt 2", "find, attempt 3"]);
    assert_eq!(alive.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_cannot_be_kept_has_one_attempt_and_its_own_error() {
    let (mut service, sent) = for_unclonable(3, &Alive::default());
    let error = send(&mut service, Unclonable("find".into())).await.unwrap_err();
    assert_eq!(error.find(), Some(&TestError("reset")));
    assert!(!error.is::<Exhausted>());
    assert_eq!(*sent.lock(), ["find"]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_kept_for_a_single_attempt() {
    let alive = Alive::default();
    let (mut service, _sent) = for_unclonable(64, &alive);
    ready(&mut service).await.unwrap();
    let several = service.call(Unclonable("find".into()));
    assert_eq!(alive.count(), 1);
    drop(several);

    let one = call::with().no_retry().run(async {
        ready(&mut service).await.unwrap();
        let future = service.call(Unclonable("find".into()));
        (alive.count(), future.await)
    });
    let (kept, answer) = one.await;
    assert_eq!(kept, 0);
    assert!(answer.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_success_is_handed_up_untouched_and_nobody_is_told() {
    let ear = Ear::default();
    let inner = answering(&[200]);
    let journal = inner.journal();
    let layer = builder().classify(by_status()).observe(ear.clone()).build();
    let reply = send(&mut layer.unwrap().layer(inner), ()).await.unwrap();
    assert_eq!(reply.status, 200);
    assert_eq!(journal.calls(), 1);
    assert!(ear.heard().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_last_response_or_error_itself_is_handed_up() {
    let inner = answering(&[500, 502, 503]);
    let layer = builder().classify(by_status()).build().unwrap();
    let reply = send(&mut layer.layer(inner), ()).await.unwrap();
    assert_eq!(reply.status, 503);

    let errors = ["one", "two", "three"].map(|text| Step::Err(TestError(text)));
    let inner = Inner::<()>::new(Script::new(errors));
    let error = send(&mut layer.layer(inner), ()).await.unwrap_err();
    assert_eq!(error.find(), Some(&TestError("three")));
    assert!(error.rejection().is_none());
}

#[tokio::test(start_paused = true)]
async fn attempts_are_numbered_in_the_call() {
    let seen: Arc<Mutex<Vec<u32>>> = Arc::default();
    let note = seen.clone();
    let inner = Inner::respond_with(move |(), n| {
        note.lock().push(Call::current().attempt());
        Step::Ok(Reply::new(if n < 2 { 500 } else { 200 }))
    });
    let layer = builder().classify(by_status()).build().unwrap();
    let mut service = layer.layer(inner);
    let after = async {
        send(&mut service, ()).await.unwrap();
        Call::current().attempt()
    };
    assert_eq!(after.await, 0);
    assert_eq!(*seen.lock(), [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn waits_follow_the_backoff() {
    let inner = answering(&[500]);
    let journal = inner.journal();
    let layer = builder().max_attempts(8).classify(by_status()).build();
    send(&mut layer.unwrap().layer(inner), ()).await.unwrap();
    let at = journal.called_at();
    let waits: Vec<_> = at.windows(2).map(|pair| (pair[1] - pair[0]).as_secs()).collect();
    assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
}

#[tokio::test(start_paused = true)]
async fn a_custom_backoff_is_asked_for_each_retry_and_cut_at_its_cap() {
    let inner = answering(&[500]);
    let journal = inner.journal();
    let layer = builder()
        .max_attempts(4)
        .backoff_fn(SECOND * 5, |retry| SECOND * retry.pow(2))
        .classify(by_status());
    send(&mut layer.build().unwrap().layer(inner), ()).await.unwrap();
    let at = journal.called_at();
    let waits: Vec<_> = at.windows(2).map(|pair| (pair[1] - pair[0]).as_secs()).collect();
    assert_eq!(waits, [1, 4, 5]);
}

#[tokio::test(start_paused = true)]
async fn full_jitter_spreads_clients_and_repeats_under_a_seed() {
    async fn waits(seed: u64) -> Vec<Duration> {
        let layer = RetryLayer::builder("search", ByClone::idempotent())
            .classify(by_status())
            .seed(seed)
            .build()
            .unwrap();
        let mut waits = Vec::new();
        for _ in 0..64 {
            let start = Instant::now();
            send(&mut layer.layer(answering(&[500, 200])), ()).await.unwrap();
            waits.push(start.elapsed());
        }
        waits
    }
    let waits_of_seven = waits(7).await;
    assert_eq!(waits_of_seven, waits(7).await);
    // Timers round up to whole milliseconds.
    assert!(waits_of_seven.iter().all(|&wait| wait <= SECOND + Duration::from_millis(1)));
    let early = waits_of_seven.iter().filter(|&&wait| wait < SECOND / 2).count();
    assert!((16..=48).contains(&early), "{early} of 64 in the first half");
}

#[tokio::test(start_paused = true)]
async fn decorrelated_waits_grow_from_the_one_before_also_past_a_hint() {
    let heard: Arc<Mutex<Vec<Duration>>> = Arc::default();
    let note = heard.clone();
    let inner = Inner::respond_with(|(), n| {
        let hint = Hint::After(SECOND * 50);
        Step::Ok(match n {
            3 => Reply::new(429).hinting(hint),
            _ => Reply::new(500),
        })
    });
    let layer = builder()
        .max_attempts(12)
        .backoff(Backoff::decorrelated(SECOND, SECOND * 1_000))
        .classify(by_status())
        .on_retry(move |_, _, delay| note.lock().push(delay))
        .seed(1);
    let mut service = layer.build().unwrap().layer(inner);
    send(&mut service, ()).await.unwrap();

    let mut waits = heard.lock().clone();
    assert!(waits.remove(3) >= SECOND * 50);
    let mut previous = SECOND;
    for &wait in &waits {
        assert!(SECOND <= wait && wait <= previous * 3, "{waits:?}");
        previous = wait;
    }
    assert!(waits.iter().any(|&wait| wait > SECOND * 9), "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn requests_can_be_kept_another_way() {
    let inner = answering(&[500]);
    let journal = inner.journal();
    let layer = builder().keep(ByClone::not_idempotent()).classify(by_status());
    send(&mut layer.build().unwrap().layer(inner), ()).await.unwrap();
    assert_eq!(journal.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_callback_hears_of_each_retry() {
    let heard: Arc<Mutex<Vec<(u32, Outcome, Duration)>>> = Arc::default();
    let note = heard.clone();
    let layer = builder()
        .classify(by_status())
        .on_retry(move |attempt, outcome, delay| note.lock().push((attempt, outcome, delay)));
    let inner = answering(&[500, 502, 200]);
    send(&mut layer.build().unwrap().layer(inner), ()).await.unwrap();
    assert_eq!(*heard.lock(), [(1, status(500), SECOND), (2, status(502), SECOND * 2)]);
}

#[tokio::test(start_paused = true)]
async fn a_time_limit_of_ours_that_ran_out_below_is_retried_if_idempotent() {
    let elapsed = || {
        let phase = portcullis_core::Phase::Attempt;
        Error::rejected(portcullis_core::Elapsed::new("attempt", phase, SECOND))
    };
    for (keep, calls) in [(ByClone::idempotent(), 2), (ByClone::not_idempotent(), 1)] {
        let inner = ScriptedService::<(), u32, Error>::respond_with(move |(), n| match n {
            0 => Step::Err(elapsed()),
            _ => Step::Ok(200),
        });
        let journal = inner.journal();
        let layer =
            RetryLayer::builder("search", keep).backoff(Backoff::fixed(SECOND)).build().unwrap();
        let answer = send(&mut layer.layer(inner), ()).await;
        assert_eq!(answer.is_ok(), calls == 2);
        assert_eq!(journal.calls(), calls);
    }
}

#[tokio::test(start_paused = true)]
async fn each_attempt_is_told_as_it_begins_in_its_own_scope() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let hear = told.clone();
    let start = Instant::now();
    let layer = builder().classify(by_status()).observe(move |event: &Event<'_>| {
        if let What::Attempting { attempt } = event.what {
            hear.lock().push((attempt, event.call.attempt(), event.at - start.into_std()));
        }
    });
    let inner = Inner::respond_with(|(), n| Step::Ok(Reply::new(if n < 2 { 500 } else { 200 })));
    send(&mut layer.build().unwrap().layer(inner), ()).await.unwrap();

    assert_eq!(*told.lock(), [(1, 1, Duration::ZERO), (2, 2, SECOND), (3, 3, SECOND * 3)]);
}
