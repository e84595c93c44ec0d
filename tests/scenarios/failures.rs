//! The ways an upstream fails before its head, and what each layer makes of them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use portcullis::{
    Elapsed, Error, Event, FaultKind, Phase, Reason, Rejection, What,
    breaker::Open,
    call,
    http::{PropagateLayer, RejectionsLayer},
    retry::Backoff,
    sync::Mutex,
};
use tower::{Layer, Service, ServiceExt};

use crate::support::{LATE, Reply, SOON, Upstream, breaker, build, client, eventually, stack};

#[tokio::test]
async fn a_hung_upstream_is_a_timeout_of_the_attempt_and_of_the_breaker() {
    let upstream = Upstream::always(Reply::Hang).await;
    let stack = build(
        stack()
            .total(|timeout| timeout.total(SOON * 2))
            .attempt(|timeout| timeout.attempt(SOON))
            .retry(|retry| retry.max_attempts(1)),
    );
    let error = stack.layer(client()).oneshot(upstream.get("/")).await.unwrap_err();
    assert_eq!(error.find(), Some(&Elapsed::new("upstream", Phase::Attempt, SOON)));
    let counts = breaker(&stack, &upstream).snapshot().counts;
    assert_eq!((counts.total, counts.failures), (1, 1));
}

#[tokio::test]
async fn the_total_limit_ends_attempts_and_waits_alike() {
    let upstream = Upstream::always(Reply::Hang).await;
    let stack = build(
        stack()
            .total(|timeout| timeout.total(SOON))
            .attempt(|timeout| timeout.attempt(SOON * 2 / 5))
            .retry(|retry| retry.max_attempts(100))
            .breaker(|breaker| breaker.consecutive_failures(1_000)),
    );
    let started = Instant::from(tokio::time::Instant::now());
    let error = stack.layer(client()).oneshot(upstream.get("/")).await.unwrap_err();
    let took = started.elapsed();
    assert!(took >= SOON && took < SOON * 2, "{took:?}");
    let phase = error.find::<Elapsed>().unwrap().phase();
    assert_eq!(phase, Phase::Total);
    assert!((2..=3).contains(&upstream.requests()), "{}", upstream.requests());
}

#[tokio::test]
async fn a_refused_connection_is_tried_again_whatever_the_method() {
    let refusing = Upstream::refusing().await;
    let stack = build(stack().breaker(|breaker| breaker.consecutive_failures(10)));
    let host = refusing.authority().unwrap().to_string();
    let request = Request::post(refusing).body(Full::<Bytes>::default()).unwrap();
    let error = stack.layer(client()).oneshot(request).await.unwrap_err();
    assert!(error.find::<hyper_util::client::legacy::Error>().unwrap().is_connect());
    assert_eq!(stack.breaker().handles().get(&host).unwrap().snapshot().counts.failures, 3);
}

#[tokio::test]
async fn a_passing_failure_is_mended_by_a_retry() {
    let upstream = Upstream::new(|asked| match asked.index {
        0 | 1 => Reply::Whole(503, "not yet"),
        _ => Reply::Whole(200, "there"),
    })
    .await;
    let response = build(stack()).layer(client()).oneshot(upstream.get("/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "there");
    assert_eq!(upstream.requests(), 3);
}

#[tokio::test]
async fn a_request_that_may_have_had_an_effect_is_sent_again_only_on_the_callers_word() {
    let upstream = Upstream::always(Reply::Whole(500, "who knows")).await;
    let service =
        build(stack().breaker(|breaker| breaker.consecutive_failures(100))).layer(client());
    let post = || upstream.request(Method::POST, "/", Full::<Bytes>::default());

    let response = service.clone().oneshot(post()).await.unwrap();
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(upstream.requests(), 1);

    let call = call::with().idempotent();
    let _ = call.run(service.clone().oneshot(post())).await.unwrap();
    assert_eq!(upstream.requests(), 4);

    let mut keyed = post();
    keyed.headers_mut().insert("idempotency-key", "7".parse().unwrap());
    let _ = service.clone().oneshot(keyed).await.unwrap();
    assert_eq!(upstream.requests(), 7);

    let call = call::with().no_retry();
    let _ = call.run(service.oneshot(upstream.get("/"))).await.unwrap();
    assert_eq!(upstream.requests(), 8);
}

#[tokio::test]
async fn a_servers_hint_is_the_least_that_is_waited() {
    let upstream = Upstream::new(|asked| match asked.index {
        0 => Reply::RetryAfter(429, "1"),
        1 => Reply::RetryAfter(429, "whenever"),
        _ => Reply::Whole(200, "there"),
    })
    .await;
    let started = Instant::from(tokio::time::Instant::now());
    // POST: a 429 did nothing, so it may be sent again.
    let request = upstream.request(Method::POST, "/", Full::<Bytes>::default());
    let response = build(stack()).layer(client()).oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let took = started.elapsed();
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(3), "{took:?}");
}

#[tokio::test]
async fn an_open_breaker_stops_the_calls_and_says_when_to_come_back() {
    let upstream = Upstream::always(Reply::Whole(500, "down")).await;
    let stack = build(stack().retry(|retry| retry.max_attempts(1)));
    let service = stack.layer(client());
    for _ in 0..3 {
        let _ = service.clone().oneshot(upstream.get("/")).await.unwrap();
    }
    let error: Error = service.clone().oneshot(upstream.get("/")).await.unwrap_err();
    let open = error.find::<Open>().unwrap();
    assert_eq!(open.tripped_by(), Reason::ConsecutiveFailures { count: 3, threshold: 3 });
    assert!(open.retry_after().unwrap() > Duration::from_secs(10));
    assert_eq!(upstream.requests(), 3);

    // The same as a response, for a server that must answer.
    let mut answering = RejectionsLayer::new().layer(service);
    let response = answering.ready().await.unwrap().call(upstream.get("/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(response.headers().contains_key("retry-after"));
}

#[tokio::test]
async fn a_retry_does_not_hammer_an_open_breaker() {
    let upstream = Upstream::always(Reply::Whole(500, "down")).await;
    let gave_up = Arc::new(Mutex::new(Vec::new()));
    let seen = gave_up.clone();
    // It opens for longer than the call may take.
    let stack =
        stack().breaker(|breaker| breaker.consecutive_failures(3).open_time(LATE * 2, LATE * 2));
    let stack = build(stack.retry(|retry| {
        retry.max_attempts(10).observe(move |event: &Event<'_>| {
            if let What::GaveUp { attempt, outcome, .. } = event.what {
                seen.lock().push((attempt, outcome.kind()));
            }
        })
    }));
    let error = stack.layer(client()).oneshot(upstream.get("/")).await.unwrap_err();
    assert!(error.is::<Open>());
    assert_eq!(upstream.requests(), 3);
    // Opened by the third attempt, found open by the fourth, and left alone.
    assert_eq!(*gave_up.lock(), [(4, Some(FaultKind::Rejected))]);
}

#[tokio::test]
async fn a_refused_response_lets_its_connection_go_before_the_wait() {
    let upstream = Upstream::new(|asked| match asked.index {
        0 => Reply::Unfinished(503),
        _ => Reply::Whole(200, "there"),
    })
    .await;
    // The wait would outlast the test.
    let stack = build(stack().retry(|retry| retry.backoff(Backoff::fixed(LATE / 2))));
    let service = stack.layer(client());
    let call = tokio::spawn(service.oneshot(upstream.get::<Full<Bytes>>("/")));
    eventually("the request is there", || upstream.requests() == 1).await;
    eventually("its connection is closed", || upstream.connections() == 0).await;
    assert!(!call.is_finished());
    call.abort();
}

#[tokio::test]
async fn the_server_is_told_the_attempt_and_the_time_left() {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = heads.clone();
    let upstream = Upstream::new(move |asked| {
        let header = |name| asked.head.headers[name].to_str().unwrap().parse::<u64>().unwrap();
        seen.lock().push((header("x-attempt"), header("x-timeout-ms")));
        Reply::Whole(503, "no")
    })
    .await;
    let propagate = PropagateLayer::new()
        .with_attempt_header(http::HeaderName::from_static("x-attempt"))
        .with_timeout_header(http::HeaderName::from_static("x-timeout-ms"));
    let service = build(stack().propagate(propagate)).layer(client());
    let call = call::with().timeout(Duration::from_secs(5));
    let _ = call.run(service.oneshot(upstream.get("/"))).await.unwrap();

    let heads = heads.lock();
    assert_eq!(heads.iter().map(|(attempt, _)| *attempt).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(heads.iter().all(|(_, left)| *left > 3_000 && *left <= 5_000), "{heads:?}");
    assert!(heads.is_sorted_by_key(|(_, left)| std::cmp::Reverse(*left)));
}
