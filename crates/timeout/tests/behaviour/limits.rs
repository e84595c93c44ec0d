//! What the layer does to calls, on a paused clock.

use std::{
    future::Future,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
    time::Duration,
};

use portcullis_core::{Outcome, Phase, call, clock};
use portcullis_testkit::{Script, Step, TestError, WakeCounter, call as ask, poll_k, ready};
use portcullis_timeout::{Limits, TimeoutLayer};
use tokio::time::{Instant, advance, sleep};
use tower_layer::Layer;
use tower_service::Service;

use crate::kit::{
    Inner, Log, MS, answering_after, elapsed, hanging, ready_after, telling_time_left,
};

// ===== the whole limit =====

#[tokio::test(start_paused = true)]
async fn a_call_is_ended_exactly_when_its_limit_runs_out() {
    for (layer, phase) in [
        (TimeoutLayer::total("search", 50 * MS), Phase::Total),
        (TimeoutLayer::attempt("search", 50 * MS), Phase::Attempt),
    ] {
        let mut service = layer.unwrap().layer(hanging());
        let start = Instant::now();
        assert_eq!(elapsed(ask(&mut service, ()).await), (phase, 50 * MS));
        assert_eq!(start.elapsed(), 50 * MS);
    }
}

#[tokio::test(start_paused = true)]
async fn the_error_names_layer_phase_and_limit() {
    let mut service = TimeoutLayer::total("search", 50 * MS).unwrap().layer(hanging());
    let error = ask(&mut service, ()).await.unwrap_err();
    assert_eq!(error.to_string(), "search: total limit of 50ms ran out");
    assert_eq!(error.rejection().map(|it| it.name().to_owned()).as_deref(), Some("search"));
    assert_eq!(error.outcome(), Outcome::timeout());
}

#[tokio::test(start_paused = true)]
async fn what_is_in_time_passes_as_it_is() {
    let layer = TimeoutLayer::total("search", 50 * MS).unwrap();
    let mut service = layer.layer(answering_after(49 * MS));
    assert_eq!(ask(&mut service, ()).await.unwrap(), 200);

    let mut service = layer.layer(Inner::new(Script::repeat(Step::Err(TestError("reset")))));
    let error = ask(&mut service, ()).await.unwrap_err();
    assert_eq!(error.find::<TestError>(), Some(&TestError("reset")));
}

#[tokio::test(start_paused = true)]
async fn a_response_that_is_ready_in_the_same_poll_as_the_timer_wins() {
    let layer = TimeoutLayer::total("search", 50 * MS).unwrap();
    let mut service = layer.layer(answering_after(50 * MS));
    assert_eq!(ask(&mut service, ()).await.unwrap(), 200);

    // Also when nobody polled until long after.
    ready(&mut service).await.unwrap();
    let mut future = pin!(service.call(()));
    assert!(poll_k(future.as_mut(), 1).await.is_none());
    advance(Duration::from_secs(60)).await;
    assert_eq!(future.await.unwrap(), 200);
}

#[test]
fn no_timer_is_made_for_an_answer_that_is_there_at_once() {
    // There is no runtime here that could give one.
    let layer = TimeoutLayer::total("search", 50 * MS).unwrap();
    let mut service = layer.layer(Inner::answering(200));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut cx).is_ready());
    let Poll::Ready(answer) = pin!(service.call(())).poll(&mut cx) else {
        panic!("pending");
    };
    assert_eq!(answer.unwrap(), 200);
}

#[test]
fn no_timer_is_made_where_nothing_limits_the_head() {
    let layer = TimeoutLayer::builder("chat").idle(50 * MS).slow(MS).build().unwrap();
    let mut service = layer.layer(hanging());
    let mut cx = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut cx).is_ready());
    assert!(pin!(service.call(())).poll(&mut cx).is_pending());
}

#[tokio::test(start_paused = true)]
async fn the_last_task_that_polled_is_woken_when_time_is_up() {
    let layer = TimeoutLayer::total("search", 50 * MS).unwrap();
    let mut service = layer.layer(hanging());
    ready(&mut service).await.unwrap();
    let mut future = pin!(service.call(()));
    let (earlier, latest) = (WakeCounter::new(), WakeCounter::new());
    for wakes in [&earlier, &latest] {
        assert!(future.as_mut().poll(&mut Context::from_waker(&wakes.waker())).is_pending());
    }
    sleep(50 * MS).await;
    assert_eq!(latest.count(), 1);
    assert_eq!(elapsed(future.await).0, Phase::Total);
}

#[tokio::test(start_paused = true)]
async fn an_inner_future_that_eats_the_tasks_budget_does_not_outrun_its_limit() {
    /// Uses up tokio's budget on every poll and asks for the next one.
    #[derive(Clone)]
    struct Greedy;

    impl Service<()> for Greedy {
        type Response = ();
        type Error = TestError;
        type Future = Pin<Box<dyn Future<Output = Result<(), TestError>> + Send>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), TestError>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, (): ()) -> Self::Future {
            Box::pin(async {
                loop {
                    tokio::task::coop::consume_budget().await;
                }
            })
        }
    }

    let mut service = TimeoutLayer::total("search", 50 * MS).unwrap().layer(Greedy);
    let call = tokio::spawn(async move { ask(&mut service, ()).await });
    // The task never rests, so the clock moves only by hand.
    tokio::task::yield_now().await;
    advance(50 * MS).await;
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert!(call.is_finished());
    assert_eq!(elapsed(call.await.unwrap()), (Phase::Total, 50 * MS));
}

// ===== what the caller orders =====

#[tokio::test(start_paused = true)]
async fn the_callers_timeout_replaces_the_total_limit_only() {
    let total = TimeoutLayer::total("search", 50 * MS).unwrap();
    for ordered in [10 * MS, 80 * MS] {
        let mut service = total.layer(hanging());
        let answer = call::with().timeout(ordered).run(ask(&mut service, ())).await;
        assert_eq!(elapsed(answer), (Phase::Total, ordered));
    }

    let attempt = TimeoutLayer::attempt("search", 50 * MS).unwrap();
    for ordered in [10 * MS, 80 * MS] {
        let mut service = attempt.layer(hanging());
        let answer = call::with().timeout(ordered).run(ask(&mut service, ())).await;
        assert_eq!(elapsed(answer), (Phase::Attempt, 50 * MS));
    }

    let head = TimeoutLayer::builder("search").head(50 * MS).build().unwrap();
    let mut service = head.layer(hanging());
    let answer = call::with().timeout(80 * MS).run(ask(&mut service, ())).await;
    assert_eq!(elapsed(answer), (Phase::Head, 50 * MS));
    let answer = call::with().timeout(10 * MS).run(ask(&mut service, ())).await;
    assert_eq!(elapsed(answer), (Phase::Total, 10 * MS));
}

#[tokio::test(start_paused = true)]
async fn the_callers_timeout_never_outlives_an_inherited_deadline() {
    let mut service = TimeoutLayer::total("search", 50 * MS).unwrap().layer(hanging());
    let ordered = call::with().deadline(clock::now() + 60 * MS).timeout(80 * MS);
    assert_eq!(elapsed(ordered.run(ask(&mut service, ())).await), (Phase::Inherited, 60 * MS));
}

#[tokio::test(start_paused = true)]
async fn the_caller_may_lift_the_total_limit() {
    let mut service = TimeoutLayer::total("search", 50 * MS).unwrap().layer(telling_time_left());
    let answer = call::with().timeout(Duration::MAX).run(ask(&mut service, ())).await;
    assert_eq!(answer.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_named_operation_has_its_own_limits_and_the_layers_for_the_rest() {
    let layer = TimeoutLayer::builder("catalogue")
        .total(50 * MS)
        .head(20 * MS)
        .operation("quick", Limits::new().with_total(10 * MS))
        .operation("stream", Limits::new().with_total(Limits::NEVER))
        .operation("report", Limits::new().with_total(90 * MS).with_head(Limits::NEVER))
        .build()
        .unwrap();
    for (name, expected) in [
        ("quick", (Phase::Total, 10 * MS)),
        ("stream", (Phase::Head, 20 * MS)),
        ("report", (Phase::Total, 90 * MS)),
        ("unheard of", (Phase::Head, 20 * MS)),
    ] {
        let mut service = layer.layer(hanging());
        let answer = call::with().name(name).run(ask(&mut service, ())).await;
        assert_eq!(elapsed(answer), expected, "{name}");
    }

    let mut service = layer.layer(hanging());
    let answer = call::with().name("quick").timeout(15 * MS).run(ask(&mut service, ())).await;
    assert_eq!(elapsed(answer), (Phase::Total, 15 * MS));
}

// ===== events =====

#[tokio::test(start_paused = true)]
async fn a_slow_call_is_told_once_and_not_stopped() {
    let log = Log::default();
    let layer = TimeoutLayer::builder("search").slow(20 * MS).observe(log.clone()).build().unwrap();
    for (delay, expected) in [
        (19, &["settled: success, head Some(19ms), end 19ms"][..]),
        (20, &["slow: 20ms of 20ms", "settled: success, head Some(20ms), end 20ms"][..]),
    ] {
        let mut service = layer.layer(answering_after(delay * MS));
        assert_eq!(ask(&mut service, ()).await.unwrap(), 200);
        assert_eq!(log.take(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_failed_or_timed_out_can_be_slow_as_well() {
    let log = Log::default();
    let layer = TimeoutLayer::builder("search").total(50 * MS).slow(20 * MS).observe(log.clone());
    let layer = layer.build().unwrap();

    elapsed(ask(&mut layer.layer(hanging()), ()).await);
    assert_eq!(
        log.take(),
        [
            "timed out: total 50ms after 50ms",
            "slow: 50ms of 20ms",
            "settled: failure (timeout), head None, end 50ms"
        ]
    );

    let failing = Step::Err(TestError("reset")).after(30 * MS);
    let mut service = layer.layer(Inner::new(Script::repeat(failing)));
    assert!(ask(&mut service, ()).await.unwrap_err().is::<TestError>());
    assert_eq!(log.take(), ["slow: 30ms of 20ms", "settled: failure (other), head None, end 30ms"]);
}

#[tokio::test(start_paused = true)]
async fn an_operation_has_its_own_threshold() {
    let log = Log::default();
    let layer = TimeoutLayer::builder("search")
        .slow(20 * MS)
        .operation("export", Limits::new().with_slow(60 * MS))
        .operation("report", Limits::new().with_slow(40 * MS))
        .observe(log.clone())
        .build()
        .unwrap();
    for (name, threshold) in [("anything", 20), ("export", 60), ("report", 40)] {
        for (delay, slow) in [(threshold - 1, false), (threshold, true)] {
            for hangs in [false, true] {
                let mut service = layer.layer(match hangs {
                    false => answering_after(delay * MS),
                    true => hanging(),
                });
                let call = call::with().name(name).run(ask(&mut service, ()));
                let _ = tokio::time::timeout(delay * MS, call).await;
                let line = format!("slow: {threshold}ms of {threshold}ms");
                assert_eq!(log.take().contains(&line), slow, "{name}, {delay} ms, hangs: {hangs}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_before_the_call_is_told_with_the_wait() {
    let log = Log::default();
    let inner = Inner::answering(200);
    let readiness = inner.readiness();
    let layer = TimeoutLayer::builder("search").readiness(20 * MS).observe(log.clone());
    let mut service = layer.build().unwrap().layer(inner);
    ready_after(&mut service, &readiness, 30 * MS).await;
    elapsed(service.call(()).await);
    assert_eq!(
        log.take(),
        ["timed out: readiness 20ms after 30ms", "settled: failure (timeout), head None, end 30ms"]
    );
}

#[tokio::test(start_paused = true)]
async fn the_callers_own_observer_hears_it_too() {
    let log = Log::default();
    let mut service = TimeoutLayer::total("search", 50 * MS).unwrap().layer(hanging());
    elapsed(call::with().observe(log.clone()).run(ask(&mut service, ())).await);
    assert_eq!(log.take().len(), 2);
}

// ===== settings =====

#[test]
fn bad_settings_are_named_when_the_layer_is_built() {
    let invalid = TimeoutLayer::total("search", Duration::ZERO).unwrap_err();
    assert_eq!(invalid.to_string(), "total is 0ns, allowed is above 0");
    assert!(TimeoutLayer::attempt("search", Duration::ZERO).is_err());
    assert_eq!(TimeoutLayer::builder("search").build().unwrap_err().field(), "limits");
}

#[cfg(feature = "serde")]
#[test]
fn settings_are_read_as_people_write_them() {
    use portcullis_timeout::TimeoutConfig;

    let text = r#"{
        "limits": { "head": "5s", "idle": "30s" },
        "operations": { "search": { "total": "1500ms", "slow": "1s" } }
    }"#;
    let config: TimeoutConfig = serde_json::from_str(text).unwrap();
    assert_eq!(config.limits, Limits::new().with_head(5000 * MS).with_idle(30_000 * MS));
    let search = Limits::new().with_total(1500 * MS).with_slow(1000 * MS);
    assert_eq!(config.operations["search"], search);
    assert!(TimeoutLayer::builder("search").config(config.clone()).build().is_ok());

    let again = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<TimeoutConfig>(&again).unwrap(), config);
    assert_eq!(serde_json::from_str::<TimeoutConfig>("{}").unwrap(), TimeoutConfig::default());

    let typo = r#"{ "limits": { "totl": "5s" } }"#;
    assert!(serde_json::from_str::<TimeoutConfig>(typo).is_err());
    let never = r#"{ "limits": { "total": "100years" } }"#;
    let never: TimeoutConfig = serde_json::from_str(never).unwrap();
    assert!(TimeoutLayer::builder("search").config(never).build().is_ok());
}
