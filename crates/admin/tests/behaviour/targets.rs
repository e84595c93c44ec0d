//! Figures of targets: of every call, whatever is kept of traces.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use portcullis::{
    Course, LayerKind, Outcome, Registry, Stack, What,
    trace::{Recorder, TraceLayer},
};
use portcullis_admin::Admin;
use portcullis_testkit::{Script, ScriptedService, Step, call as send, ready};
use serde_json::{Value, json};
use tokio::time::advance;
use tower::{Layer, Service, service_fn};

use crate::{Upstream, answering, ask, outgoing, read, tell, with_token};

/// The figures of one target.
async fn of(admin: &Admin, name: &str) -> Value {
    let all = read(admin, "/api/targets").await;
    let found = all["targets"].as_array().unwrap().iter().find(|it| it["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {all}")).clone()
}

fn near(value: &Value, wanted: f64) -> bool {
    (value.as_f64().unwrap() - wanted).abs() <= wanted / 60.0
}

#[tokio::test(start_paused = true)]
async fn what_users_see_is_told_beside_what_the_server_did() {
    let registry = Registry::new();
    let admin = Admin::builder().registry(&registry).build().unwrap();
    // Nothing is kept: figures are not of sampled traces.
    let recorder = Recorder::builder().sample_rate(0.0).build().unwrap();
    let stack = Stack::production("shop")
        .recorder(&recorder)
        .register_in(&registry)
        .observe(admin.observer())
        .build()
        .unwrap();
    let mut client = stack.layer(answering([503, 200, 200, 500, 503, 200, 200]));
    for _ in 0..4 {
        send(&mut client, outgoing("http://shop.test/")).await.unwrap();
    }
    let shop = of(&admin, "shop").await;
    assert_eq!((&shop["started"], &shop["ended"]), (&json!(4), &json!(4)));
    assert_eq!(shop["in_flight"], 0);
    assert_eq!(
        shop["outcomes"],
        json!({"success": 4, "error": 0, "timeout": 0, "rejected": 0, "throttled": 0, "cancelled": 0})
    );
    assert_eq!((&shop["attempts"], &shop["attempts_failed"]), (&json!(7), &json!(3)));
    assert_eq!(shop["effective"], 1.0);
    assert_eq!(shop["actual"], 4.0 / 7.0);
    assert_eq!((&shop["retries"], &shop["retries_per_call"]), (&json!(3), &json!(0.75)));
    assert_eq!(shop["errors"], json!({"status 500": 1, "status 503": 2}));
    assert!(shop["budget"].as_f64().unwrap() > 0.0);
}

#[tokio::test(start_paused = true)]
async fn refusals_and_timeouts_are_told_apart() {
    let registry = Registry::new();
    let admin = Admin::builder().registry(&registry).build().unwrap();
    let stack = Stack::production("shop")
        .register_in(&registry)
        .observe(admin.observer())
        .attempt(|timeout| timeout.attempt(Duration::from_secs(1)))
        .retry(|retry| retry.max_attempts(1))
        .limit(|limit| limit.rate(1, Duration::from_secs(1)).burst(1))
        .build()
        .unwrap();
    let response = || axum::http::Response::new(http_body_util::Full::from("text"));
    let hanging: Upstream = ScriptedService::new(Script::respond_with(move |_, call| match call {
        0 => Step::Hang,
        _ => Step::Ok(response()),
    }));
    let mut client = stack.layer(hanging);
    send(&mut client, outgoing("http://shop.test/")).await.unwrap_err();
    // Waits for its turn.
    send(&mut client, outgoing("http://shop.test/")).await.unwrap();
    send(&mut client, outgoing("http://shop.test/")).await.unwrap();
    stack.breaker().handles().get_or_create("shop.test").force_open();
    advance(Duration::from_secs(5)).await;
    send(&mut client, outgoing("http://shop.test/")).await.unwrap_err();

    let shop = of(&admin, "shop").await;
    assert_eq!(shop["timeouts"], 1);
    assert_eq!(shop["outcomes"]["timeout"], 1);
    assert_eq!(shop["outcomes"]["rejected"], 1);
    assert_eq!(shop["breaker_rejected"], 1);
    assert_eq!(shop["limited"], 1);
    assert_eq!((&shop["attempts"], &shop["attempts_failed"]), (&json!(3), &json!(1)));
    assert_eq!(shop["effective"], 0.5);
    // The refused one took no time and is not among the latencies.
    assert!(near(&shop["p99_ms"], 1000.0), "{shop}");
}

#[tokio::test(start_paused = true)]
async fn percentiles_and_the_rate_are_those_of_calls() {
    let admin = Admin::builder().build().unwrap();
    for millis in 1..=100 {
        tell(&admin, LayerKind::Trace, "shop", None, What::Started);
        advance(Duration::from_secs(1)).await;
        let (outcome, elapsed) = (Outcome::Success, Duration::from_millis(millis));
        let settled = What::Settled { outcome, head_after: None, elapsed };
        tell(&admin, LayerKind::Trace, "shop", None, settled);
    }
    let shop = of(&admin, "shop").await;
    assert!(near(&shop["p50_ms"], 50.0) && near(&shop["p95_ms"], 95.0), "{shop}");
    assert!(near(&shop["p99_ms"], 99.0), "{shop}");
    assert_eq!(shop["rate_60s"], 1.0, "{shop}");
    advance(Duration::from_secs(120)).await;
    assert_eq!(of(&admin, "shop").await["rate_60s"], 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_reset_begins_at_zero_and_loses_nothing_under_way() {
    let admin = Admin::builder().token("t").build().unwrap();
    tell(&admin, LayerKind::Trace, "shop", None, What::Started);
    tell(&admin, LayerKind::Trace, "shop", None, What::Started);
    let elapsed = Duration::from_millis(5);
    let settled = |outcome| What::Settled { outcome, head_after: None, elapsed };
    tell(&admin, LayerKind::Trace, "shop", None, settled(Outcome::timeout()));
    let before = read(&admin, "/api/targets").await;
    advance(Duration::from_secs(3)).await;
    let reset = ask(&admin.router(), with_token("POST", "/api/metrics/reset", "t")).await;
    assert_eq!((reset.status.as_u16(), &*reset.text), (204, ""));

    let shop = of(&admin, "shop").await;
    assert_eq!(
        (&shop["started"], &shop["ended"], &shop["in_flight"]),
        (&json!(0), &json!(0), &json!(1))
    );
    assert_eq!(
        (&shop["p50_ms"], &shop["effective"], &shop["actual"]),
        (&json!(null), &json!(null), &json!(null))
    );
    assert_eq!(shop["errors"], json!({}));
    let after = read(&admin, "/api/targets").await;
    assert!(after["since"].as_str().unwrap() >= before["since"].as_str().unwrap());
    tell(&admin, LayerKind::Trace, "shop", None, settled(Outcome::Success));
    let shop = of(&admin, "shop").await;
    assert_eq!(
        (&shop["ended"], &shop["in_flight"], &shop["effective"]),
        (&json!(1), &json!(0), &json!(1.0))
    );
}

#[tokio::test(start_paused = true)]
async fn names_and_errors_without_end_are_counted_together() {
    let admin = Admin::builder().targets(2).keys(1).build().unwrap();
    for name in ["a", "b", "c", "d"] {
        tell(&admin, LayerKind::Trace, name, None, What::Started);
    }
    let all = read(&admin, "/api/targets").await;
    let names: Vec<_> = all["targets"].as_array().unwrap().iter().map(|it| &it["name"]).collect();
    assert_eq!(names, ["a", "b", "_OTHER"]);
    assert_eq!(all["targets"][2]["started"], 2);

    for code in 400..500 {
        let kind = portcullis::FaultKind::Status(code);
        let outcome = Outcome::failure(kind, portcullis::Replay::Safe);
        let settled = What::Settled { outcome, head_after: None, elapsed: Duration::ZERO };
        tell(&admin, LayerKind::Trace, "a", None, settled);
    }
    let errors = of(&admin, "a").await["errors"].as_object().unwrap().clone();
    assert_eq!(errors.len(), 25);
    assert_eq!(errors["_OTHER"], 76);
}

#[tokio::test(start_paused = true)]
async fn polls_are_those_that_asked() {
    let admin = Admin::builder().build().unwrap();
    let ended = Course::Ended { outcome: Outcome::Success };
    // It was waited after the second, and given up.
    let left = Course::Left { outcome: Outcome::Cancelled };
    for (polls, course) in [(0, ended), (1, ended), (2, ended), (2, left)] {
        let polled = What::Polled { polls, elapsed: Duration::ZERO, course };
        tell(&admin, LayerKind::Poll, "jobs", None, polled);
    }
    assert_eq!(of(&admin, "jobs").await["polls"], 2);
}

#[tokio::test(start_paused = true)]
async fn who_listens_only_after_a_call_began_sees_none_below_zero() {
    let admin = Admin::builder().build().unwrap();
    let outcome = Outcome::Success;
    let settled = What::Settled { outcome, head_after: None, elapsed: Duration::ZERO };
    tell(&admin, LayerKind::Trace, "shop", None, settled);
    assert_eq!(of(&admin, "shop").await["in_flight"], 0);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_was_to_follow_and_never_was_sent_is_not_counted() {
    let admin = Admin::builder().build().unwrap();
    let stack = Stack::production("shop").observe(admin.observer()).build().unwrap();
    let upstream = answering([503]);
    let readiness = upstream.readiness();
    let mut client = stack.layer(upstream);
    let call = async {
        ready(&mut client).await.unwrap();
        readiness.hold();
        client.call(outgoing("http://shop.test/")).await
    };
    // The server is not to be had again before time is up.
    call.await.unwrap_err();
    let shop = of(&admin, "shop").await;
    assert_eq!((&shop["ended"], &shop["effective"]), (&json!(1), &json!(0.0)));
    assert_eq!((&shop["attempts"], &shop["attempts_failed"]), (&json!(1), &json!(1)));
    assert_eq!(shop["errors"], json!({"status 503": 1}));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_panics_is_no_longer_in_flight() {
    let admin = Admin::builder().build().unwrap();
    let layer = TraceLayer::builder("shop").observe(admin.observer()).build().unwrap();
    let mut client = layer.layer(service_fn(|is_bad: bool| {
        assert!(!is_bad, "a defect of the client's");
        std::future::ready(Ok::<_, std::io::Error>(()))
    }));
    let call = AssertUnwindSafe(|| drop(client.call(true)));
    catch_unwind(call).unwrap_err();
    let shop = of(&admin, "shop").await;
    assert_eq!((&shop["started"], &shop["in_flight"]), (&json!(1), &json!(0)));
    assert_eq!(shop["outcomes"]["cancelled"], 1);
}
