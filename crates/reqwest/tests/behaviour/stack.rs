//! The ready-made stack in front of the client as a service.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::stream;
use http::{Method, Request};
use http_body_util::BodyExt;
use portcullis::{
    Elapsed, Event, FaultKind, LayerKind, Outcome, Phase, RejectionKind, State, What,
    breaker::Open, call, sync::Mutex,
};
use portcullis_reqwest::{Client, KeepBody, response};
use tower::{Layer, ServiceExt};

use crate::support::{
    BOTH, Protocol, Reply, SOON, Upstream, breaker, build, builder, client, eventually, stack,
};

/// A body that comes in pieces, and that nothing can clone.
fn streamed(pieces: &'static [&'static str]) -> reqwest::Body {
    let pieces = pieces.iter().map(|piece| Ok::<_, std::io::Error>(*piece));
    reqwest::Body::wrap_stream(stream::iter(pieces))
}

#[tokio::test]
async fn a_streamed_request_is_sent_again_from_the_start() {
    for protocol in BOTH {
        let upstream = Upstream::new(protocol, |asked| {
            assert_eq!(asked.body, "one two three");
            Reply::Whole(if asked.index < 2 { 503 } else { 200 }, "")
        })
        .await;
        let body = streamed(&["one ", "two ", "three"]);
        let request = upstream.request(Method::PUT, "/", body);
        let answer = build(stack()).layer(client(protocol)).oneshot(request).await.unwrap();
        assert_eq!((answer.status().as_u16(), upstream.requests()), (200, 3), "{protocol:?}");
    }
}

#[tokio::test]
async fn a_stream_beyond_the_cap_is_sent_once() {
    let upstream = Upstream::always(Protocol::Http1, Reply::Whole(503, "")).await;
    let stack = build(stack().keep(KeepBody::new().with_cap(10)));
    let request = upstream.request(Method::PUT, "/", streamed(&["one ", "two ", "three"]));
    let answer = stack.layer(client(Protocol::Http1)).oneshot(request).await.unwrap();
    assert_eq!((answer.status().as_u16(), upstream.requests()), (503, 1));
}

#[tokio::test]
async fn a_post_is_sent_again_where_no_connection_was_made() {
    let refusing = Upstream::refusing().await;
    let stack = build(stack().breaker(|breaker| breaker.consecutive_failures(10)));
    let request = Request::post(&refusing).body(streamed(&["one"])).unwrap();
    let error = stack.layer(client(Protocol::Http1)).oneshot(request).await.unwrap_err();
    assert!(error.find::<reqwest::Error>().unwrap().is_connect());
    let (host, breaker) = stack.breaker().handles().all().remove(0);
    assert!(refusing.contains(&*host));
    assert_eq!(breaker.snapshot().counts.failures, 3);
}

#[tokio::test]
async fn one_host_that_fails_is_refused_and_no_other() {
    for protocol in BOTH {
        let down = Upstream::always(protocol, Reply::Whole(500, "down")).await;
        let up = Upstream::always(protocol, Reply::Whole(200, "up")).await;
        let stack = build(stack().retry(|retry| retry.max_attempts(1)));
        let service = stack.layer(client(protocol));
        for _ in 0..3 {
            assert_eq!(service.clone().oneshot(down.get("/")).await.unwrap().status(), 500);
        }
        let error = service.clone().oneshot(down.get("/")).await.unwrap_err();
        assert_eq!(error.rejection().unwrap().kind(), RejectionKind::Open);
        assert!(error.rejection().unwrap().retry_after().is_some());
        assert!(error.is::<Open>());
        assert_eq!(down.requests(), 3);

        assert_eq!(service.oneshot(up.get("/")).await.unwrap().status(), 200);
        assert_eq!(breaker(&stack, &down).state(), State::Open);
        assert_eq!(breaker(&stack, &up).state(), State::Closed);
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_after_a_good_head_is_a_failure_to_every_layer() {
    for protocol in BOTH {
        let upstream = Upstream::always(protocol, Reply::Cut).await;
        let settled = Arc::new(Mutex::new(Vec::new()));
        let seen = settled.clone();
        let stack = build(stack().observe(move |event: &Event<'_>| {
            if let What::Settled { outcome, .. } = event.what {
                seen.lock().push((event.layer, outcome.kind()));
            }
        }));
        let answer = stack.layer(client(protocol)).oneshot(upstream.get("/")).await.unwrap();
        assert_eq!(answer.status(), 200);
        let error = response(answer).bytes().await.unwrap_err();
        assert!(error.is_decode(), "{error:?}");

        assert_eq!(breaker(&stack, &upstream).snapshot().counts.failures, 1, "{protocol:?}");
        let settled = settled.lock();
        for layer in [LayerKind::Breaker, LayerKind::Timeout, LayerKind::Trace] {
            assert!(settled.contains(&(layer, Some(FaultKind::Body))), "{layer:?}: {settled:?}");
        }
    }
}

#[tokio::test]
async fn a_limit_ends_the_wait_for_a_head_and_for_a_body() {
    for protocol in BOTH {
        for reply in [Reply::Hang, Reply::Unfinished(200)] {
            let upstream = Upstream::always(protocol, reply.clone()).await;
            let stack = build(
                stack()
                    .attempt(|timeout| timeout.attempt(SOON))
                    .retry(|retry| retry.max_attempts(1)),
            );
            let elapsed = Elapsed::new("upstream", Phase::Attempt, SOON);
            match stack.layer(client(protocol)).oneshot(upstream.get("/")).await {
                Ok(answer) => {
                    let error = response(answer).bytes().await.unwrap_err();
                    assert_eq!(portcullis::Error::inner(error).find(), Some(&elapsed));
                }
                Err(error) => assert_eq!(error.find(), Some(&elapsed)),
            }
            assert_eq!(breaker(&stack, &upstream).snapshot().counts.failures, 1, "{reply:?}");
            eventually("the request is given up", || upstream.under_way() == 0).await;
        }
    }
}

#[tokio::test]
async fn reqwests_own_limits_are_timeouts_to_the_layers_and_to_the_caller() {
    for protocol in BOTH {
        for reply in [Reply::Hang, Reply::Unfinished(200)] {
            let upstream = Upstream::always(protocol, reply.clone()).await;
            let settled = Arc::new(Mutex::new(Vec::new()));
            let seen = settled.clone();
            let stack = build(stack().retry(|retry| retry.max_attempts(1)).observe(
                move |event: &Event<'_>| {
                    if let What::Settled { outcome, .. } = event.what {
                        seen.lock().push(outcome);
                    }
                },
            ));
            let client = Client::new(builder(protocol).timeout(SOON).build().unwrap());
            let call = stack.layer(client).oneshot(upstream.get("/"));
            match call.await {
                Ok(answer) => {
                    let error = response(answer).bytes().await.unwrap_err();
                    assert!(error.is_timeout(), "{error:?}");
                }
                Err(error) => assert!(error.find::<reqwest::Error>().unwrap().is_timeout()),
            }
            let settled = settled.lock();
            assert!(!settled.is_empty());
            assert!(settled.iter().all(|end| *end == Outcome::timeout()), "{reply:?}: {settled:?}");
        }
    }
}

#[tokio::test]
async fn a_hint_of_the_servers_is_waited_for() {
    let upstream = Upstream::new(Protocol::Http2, |asked| match asked.index {
        0 => Reply::retry_after(429, "1"),
        _ => Reply::Whole(200, "there"),
    })
    .await;
    let started = Instant::from(tokio::time::Instant::now());
    // A 429 did nothing, so a POST may be sent again.
    let request = upstream.request(Method::POST, "/", streamed(&["one"]));
    let answer = build(stack()).layer(client(Protocol::Http2)).oneshot(request).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_hint_that_makes_no_sense_is_as_if_absent_or_ends_the_retries() {
    let huge = "9".repeat(4_000);
    for (values, requests) in [
        (vec!["whenever".to_owned()], 3),
        (vec!["-1".to_owned()], 3),
        (vec!["0".to_owned(), "never".to_owned()], 3),
        (vec!["\u{fc}".to_owned()], 3),
        // A day is as long as is believed, and longer than anything is waited for.
        (vec![huge.clone()], 1),
        (vec![huge; 4], 1),
    ] {
        let headers: Vec<_> = values.iter().map(|value| ("retry-after", value.clone())).collect();
        let upstream = Upstream::always(Protocol::Http1, Reply::With(429, headers)).await;
        let service = build(stack()).layer(client(Protocol::Http1));
        let answer = service.oneshot(upstream.get("/")).await.unwrap();
        assert_eq!((answer.status().as_u16(), upstream.requests()), (429, requests), "{values:?}");
    }
}

#[tokio::test]
async fn redirects_are_followed_inside_an_attempt_and_charged_to_the_first_host() {
    let last = Upstream::always(Protocol::Http1, Reply::Whole(500, "down")).await;
    let first =
        Upstream::always(Protocol::Http1, Reply::header(302, "location", &last.url("/"))).await;
    let stack = build(stack().retry(|retry| retry.max_attempts(1)));
    let answer = stack.layer(client(Protocol::Http1)).oneshot(first.get("/")).await.unwrap();
    assert_eq!(response(answer).url().as_str(), last.url("/"));
    assert_eq!((first.requests(), last.requests()), (1, 1));
    assert_eq!(breaker(&stack, &first).snapshot().counts.failures, 1);
    assert!(stack.breaker().handles().get(&last.host()).is_none());
}

// The one case that cannot be told from a request nobody saw; the guide says what to do about it.
#[tokio::test]
async fn a_post_whose_redirect_leads_to_a_refusal_looks_as_if_never_sent() {
    let nowhere = Upstream::refusing().await;
    let upstream =
        Upstream::always(Protocol::Http1, Reply::header(303, "location", &nowhere)).await;
    let post = || upstream.request(Method::POST, "/", streamed(&["one"]));
    let service = build(stack()).layer(client(Protocol::Http1));
    let error = service.oneshot(post()).await.unwrap_err();
    assert!(error.find::<reqwest::Error>().unwrap().is_connect());
    assert_eq!(upstream.requests(), 3);

    let careful = builder(Protocol::Http1).redirect(reqwest::redirect::Policy::none());
    let service = build(stack()).layer(Client::new(careful.build().unwrap()));
    assert_eq!(service.oneshot(post()).await.unwrap().status(), 303);
    assert_eq!(upstream.requests(), 4);
}

#[tokio::test]
async fn a_post_whose_redirect_leads_to_a_429_was_heard_by_the_first() {
    for protocol in BOTH {
        let upstream = Upstream::new(protocol, |asked| match asked.head.uri.path() {
            "/orders" => Reply::header(303, "location", "/orders/42"),
            _ => Reply::retry_after(429, "0"),
        })
        .await;
        let service = build(stack()).layer(client(protocol));
        let post = || upstream.request(Method::POST, "/orders", "one".to_owned());
        assert_eq!(service.clone().oneshot(post()).await.unwrap().status(), 429);
        assert_eq!(upstream.requests(), 2, "the order is placed once");

        // What does no more when it is done twice is sent again all the same, and so is what was
        // answered where it was sent.
        service.clone().oneshot(upstream.get("/orders")).await.unwrap();
        assert_eq!(upstream.requests(), 2 + 3 * 2);
        service.oneshot(upstream.request(Method::POST, "/a/../b", String::new())).await.unwrap();
        assert_eq!(upstream.requests(), 2 + 3 * 2 + 3);
    }
}

#[tokio::test]
async fn the_server_is_told_the_trace_and_the_callers_orders_are_obeyed() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let heads = seen.clone();
    let upstream = Upstream::new(Protocol::Http1, move |asked| {
        heads.lock().push(asked.head.headers["traceparent"].clone());
        Reply::Whole(503, "no")
    })
    .await;
    let stack = build(stack().breaker(|breaker| breaker.consecutive_failures(10)));
    let service = stack.layer(client(Protocol::Http1));
    service.clone().oneshot(upstream.get("/")).await.unwrap();
    {
        let parents = seen.lock();
        assert_eq!(parents.len(), 3);
        assert!(parents[0] != parents[1] && parents[1] != parents[2], "{parents:?}");
    }

    let once = call::with().no_retry().run(service.clone().oneshot(upstream.get("/"))).await;
    assert_eq!(once.unwrap().status(), 503);
    assert_eq!(upstream.requests(), 4);

    let hung = Upstream::always(Protocol::Http1, Reply::Hang).await;
    let soon = call::with().timeout(SOON).no_retry();
    let error = soon.run(service.oneshot(hung.get("/"))).await.unwrap_err();
    assert_eq!(error.rejection().unwrap().kind(), RejectionKind::Elapsed);
}

#[tokio::test]
async fn the_default_stack_takes_any_body_that_can_be_cloned() {
    let upstream = Upstream::new(Protocol::Http1, |asked| {
        assert_eq!(asked.body, "a question");
        Reply::Whole(if asked.index == 0 { 503 } else { 200 }, "an answer")
    })
    .await;
    let stack = portcullis::Stack::development("upstream").build().unwrap();
    let request = upstream.request(Method::PUT, "/", "a question".to_owned());
    let answer = stack.layer(client(Protocol::Http1)).oneshot(request).await.unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "an answer");
}
