//! Callers that give up, at every stage.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use portcullis::{HttpStack, State, retry::Backoff};
use std::{pin::pin, task::Poll, time::Duration};
use tower::{Layer, ServiceExt};

use crate::support::{Reply, SOON, Upstream, breaker, build, client, eventually, stack};

fn nothing_is_out(stack: &HttpStack, upstream: &Upstream) -> bool {
    breaker(stack, upstream).snapshot().probes == 0
        && stack.retry().budget().unwrap().waiting() == 0
}

/// Polls the whole call, its body included, `polls` times, and drops it. Whether it was over by then.
async fn give_up_after(polls: usize, stack: &HttpStack, upstream: &Upstream) -> bool {
    let service = stack.layer(client());
    let mut call = pin!(async {
        let response = service.oneshot(upstream.get::<Full<Bytes>>("/")).await?;
        response.into_body().collect().await
    });
    let mut left = polls;
    std::future::poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(false);
        }
        left -= 1;
        call.as_mut().poll(cx).map(|_| true)
    })
    .await
}

#[tokio::test]
async fn whatever_stage_a_call_is_dropped_at_everything_comes_back() {
    let replies = [
        Reply::Whole(200, "fine"),
        Reply::Whole(503, "no"),
        Reply::RetryAfter(429, "0"),
        Reply::Cut,
    ];
    for reply in replies {
        let upstream = Upstream::always(reply.clone()).await;
        for polls in 0.. {
            assert!(polls < 100, "the call never ends: {reply:?}");
            let stack = build(stack());
            let over = give_up_after(polls, &stack, &upstream).await;
            assert!(nothing_is_out(&stack, &upstream), "{reply:?} after {polls} polls");
            if over {
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_probe_that_is_given_up_hands_its_slot_to_the_next() {
    let upstream = Upstream::new(|asked| match asked.head.uri.path() {
        "/hang" => Reply::Hang,
        "/fail" => Reply::Whole(500, "down"),
        _ => Reply::Whole(200, "up"),
    })
    .await;
    let stack = build(stack().retry(|retry| retry.max_attempts(1)).breaker(|breaker| {
        let open = Duration::from_millis(1);
        breaker.open_time(open, open).probes(1, 1).ramp(None)
    }));
    let service = stack.layer(client());
    for _ in 0..3 {
        let response = service.clone().oneshot(upstream.get("/fail")).await.unwrap();
        let _ = response.into_body().collect().await;
    }
    let breaker = breaker(&stack, &upstream);
    assert_eq!(breaker.state(), State::Open);
    tokio::time::sleep(Duration::from_millis(2)).await;

    // The only probe hangs, and is given up long before anything would time out.
    let probe = tokio::spawn(service.clone().oneshot(upstream.get::<Full<Bytes>>("/hang")));
    eventually("the probe is out", || upstream.requests() == 4).await;
    assert_eq!((breaker.state(), breaker.snapshot().probes), (State::HalfOpen, 1));
    probe.abort();
    eventually("its slot is back", || breaker.snapshot().probes == 0).await;
    assert_eq!(breaker.state(), State::HalfOpen, "it proves nothing");

    let response = service.oneshot(upstream.get("/")).await.unwrap();
    response.into_body().collect().await.unwrap();
    assert_eq!(breaker.state(), State::Closed);
}

#[tokio::test]
async fn a_wait_that_is_given_up_gives_the_budget_its_token_back() {
    let upstream = Upstream::always(Reply::Whole(503, "no")).await;
    let stack = build(stack().retry(|retry| retry.backoff(Backoff::fixed(SOON * 10))));
    let budget = stack.retry().budget().unwrap().clone();
    let call = tokio::spawn(stack.layer(client()).oneshot(upstream.get::<Full<Bytes>>("/")));
    eventually("the retry waits", || budget.waiting() == 1).await;
    call.abort();
    eventually("its token is back", || budget.waiting() == 0).await;
    assert_eq!(upstream.requests(), 1);
}
