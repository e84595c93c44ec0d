//! What happens between a good head and the end of its body.

use std::{
    convert::Infallible,
    future::pending,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Full, channel::Channel};
use portcullis::{
    BoxError, Elapsed, Error, Phase, State, http::HttpClassifier, timeout::TimeoutLayer,
};
use tower::{Layer, ServiceExt, service_fn};

use crate::support::{Reply, SOON, Upstream, breaker, build, client, eventually, stack};

#[tokio::test]
async fn bodies_that_are_cut_open_the_breaker_though_every_head_was_good() {
    let upstream = Upstream::always(Reply::Cut).await;
    let stack = build(stack());
    let service = stack.layer(client());
    for _ in 0..3 {
        let response = service.clone().oneshot(upstream.get("/")).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let error: Error = response.into_body().collect().await.unwrap_err();
        assert!(error.is::<hyper::Error>(), "{error:?}");
    }
    assert_eq!(breaker(&stack, &upstream).state(), State::Open);
    // A call whose head was handed up is committed: it is not sent again.
    assert_eq!(upstream.requests(), 3);
}

#[tokio::test]
async fn the_total_limit_covers_the_body() {
    let upstream = Upstream::always(Reply::Unfinished(200)).await;
    let stack = build(
        stack().total(|timeout| timeout.total(SOON)).attempt(|timeout| timeout.attempt(SOON)),
    );
    let started = Instant::from(tokio::time::Instant::now());
    let response = stack.layer(client()).oneshot(upstream.get("/")).await.unwrap();
    let error = response.into_body().collect().await.unwrap_err();
    assert!(error.is::<Elapsed>(), "{error:?}");
    let took = started.elapsed();
    assert!(took >= SOON && took < SOON * 3, "{took:?}");

    assert_eq!(breaker(&stack, &upstream).snapshot().counts.failures, 1);
    eventually("the stalled connection is closed", || upstream.connections() == 0).await;
}

#[tokio::test]
async fn an_idle_limit_ends_a_stalled_stream_and_counts_for_the_breaker_below_it() {
    let upstream = Upstream::always(Reply::Unfinished(200)).await;
    let stack = build(stack().total(|timeout| timeout.idle(SOON)));
    let response = stack.layer(client()).oneshot(upstream.get("/")).await.unwrap();
    let error = response.into_body().collect().await.unwrap_err();
    assert_eq!(error.find::<Elapsed>().unwrap().phase(), Phase::Idle);
    assert_eq!(breaker(&stack, &upstream).snapshot().counts.failures, 1);
}

#[tokio::test]
async fn whoever_reads_the_status_and_drops_the_body_leaves_a_success() {
    let upstream = Upstream::always(Reply::Unfinished(200)).await;
    let stack = build(stack());
    let service = stack.layer(client());
    for _ in 0..5 {
        drop(service.clone().oneshot(upstream.get("/")).await.unwrap());
    }
    let counts = breaker(&stack, &upstream).snapshot().counts;
    assert_eq!((counts.total, counts.failures), (5, 0));
}

#[tokio::test]
async fn the_verdict_waits_for_the_end() {
    let upstream = Upstream::always(Reply::Whole(200, "all of it")).await;
    let stack = build(stack());
    let response = stack.layer(client()).oneshot(upstream.get("/")).await.unwrap();
    assert_eq!(breaker(&stack, &upstream).snapshot().counts.total, 0);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "all of it");
    assert_eq!(breaker(&stack, &upstream).snapshot().counts.total, 1);
}

#[tokio::test]
async fn a_response_without_a_body_is_over_at_its_head() {
    let upstream = Upstream::always(Reply::Whole(204, "")).await;
    let stack = build(stack());
    let response = stack.layer(client()).oneshot(upstream.get::<Full<Bytes>>("/")).await.unwrap();
    assert_eq!(breaker(&stack, &upstream).snapshot().counts.total, 1);
    drop(response);
    assert_eq!(breaker(&stack, &upstream).snapshot().counts.total, 1);
}

#[tokio::test(start_paused = true)]
async fn a_limit_around_a_handler_holds_when_a_body_it_began_to_read_moves_to_another_task() {
    let (_upstream, stalled) = Channel::<Bytes>::new(1);
    let layer = TimeoutLayer::builder("upstream").idle(SOON).classify(HttpClassifier::new());
    let response = layer
        .build()
        .unwrap()
        .layer(service_fn(async |stalled| Ok::<_, Infallible>(Response::new(stalled))))
        .oneshot(stalled)
        .await
        .unwrap();
    let handler = service_fn(async |mut body: portcullis::http::Body<Channel<Bytes>>| {
        std::future::poll_fn(|cx| {
            assert!(body.frame().poll_unpin(cx).is_pending());
            std::task::Poll::Ready(())
        })
        .await;
        // From now on its timer wakes that task, which has nothing to say for ever.
        tokio::spawn(async move {
            assert!(body.frame().await.unwrap().is_err());
            pending::<()>().await;
        });
        pending::<Result<(), BoxError>>().await
    });
    let handler = TimeoutLayer::total("handler", SOON * 2).unwrap().layer(handler);

    let start = tokio::time::Instant::now();
    let ended =
        tokio::time::timeout(Duration::from_secs(60), handler.oneshot(response.into_body()));
    let error = ended.await.unwrap().unwrap_err();
    assert_eq!(error.find::<Elapsed>().unwrap().phase(), Phase::Total);
    assert_eq!(start.elapsed(), SOON * 2);
}
