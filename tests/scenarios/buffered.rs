//! A stack under and over `tower::buffer`.

use http::StatusCode;
use portcullis::{RejectionKind, State, call, find_rejection};
use tower::{Layer, Service, ServiceExt, buffer::BufferLayer};

use crate::support::{Reply, SOON, Upstream, breaker, build, client, stack};

#[tokio::test]
async fn under_a_buffer_refusals_do_not_kill_it() {
    let upstream = Upstream::new(|asked| match asked.index {
        0..3 => Reply::Whole(500, "down"),
        _ => Reply::Whole(200, "up"),
    })
    .await;
    let stack = build(stack().retry(|retry| retry.max_attempts(1)));
    let mut service = BufferLayer::new(8).layer(stack.layer(client()));
    for _ in 0..3 {
        let _ = service.ready().await.unwrap().call(upstream.get("/")).await.unwrap();
    }
    for _ in 0..3 {
        let error = service.ready().await.unwrap().call(upstream.get("/")).await.unwrap_err();
        assert_eq!(find_rejection(error.as_ref()).unwrap().kind(), RejectionKind::Open);
    }
    breaker(&stack, &upstream).reset();
    let response = service.ready().await.unwrap().call(upstream.get("/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn over_a_buffer_limits_and_counts_hold() {
    let upstream = Upstream::always(Reply::Hang).await;
    let stack = build(
        stack()
            .attempt(|timeout| timeout.attempt(SOON / 3))
            .total(|timeout| timeout.total(SOON * 4)),
    );
    let buffered = BufferLayer::<http::Request<_>>::new(8).layer(client());
    let error = stack.layer(buffered).oneshot(upstream.get("/")).await.unwrap_err();
    assert_eq!(error.rejection().unwrap().kind(), RejectionKind::Elapsed);
    assert_eq!(upstream.requests(), 3);
    assert_eq!(breaker(&stack, &upstream).state(), State::Open);
}

#[tokio::test]
async fn what_the_caller_ordered_reaches_the_stack_below_a_buffer_only_if_carried_over() {
    let upstream = Upstream::always(Reply::Whole(503, "no")).await;
    let stack = build(stack().breaker(|breaker| breaker.consecutive_failures(100)));
    let mut service = BufferLayer::new(8).layer(stack.layer(client()));
    let call = service.ready().await.unwrap().call(upstream.get("/"));
    let _ = call::with().no_retry().run(call).await.unwrap();
    assert_eq!(upstream.requests(), 3, "the buffer's worker is another task");
}
