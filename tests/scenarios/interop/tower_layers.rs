//! Among Tower's own layers: boxes, limits of concurrency, shedding of load, timeouts.

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use portcullis::{
    BoxError, Error, RejectionKind, ResponseBody, State,
    breaker::{Abandoned, Open},
    find_rejection,
};
use tower::{
    Layer, Service, ServiceBuilder, ServiceExt,
    limit::ConcurrencyLimitLayer,
    load_shed::{LoadShedLayer, error::Overloaded},
    util::{BoxCloneService, BoxCloneSyncService},
};

use crate::support::{LATE, Reply, SOON, Upstream, breaker, build, client, eventually, stack};

type Ask = Request<Full<Bytes>>;
type Answer = Response<ResponseBody<Incoming>>;

#[tokio::test]
async fn in_a_box_it_is_shared_by_tasks_and_its_error_is_still_ours() {
    let upstream = Upstream::always(Reply::Whole(500, "down")).await;
    let stack = build(stack().retry(|retry| retry.max_attempts(1)));
    let shared: BoxCloneSyncService<Ask, Answer, Error> =
        BoxCloneSyncService::new(stack.layer(client()));
    for _ in 0..3 {
        let request = upstream.get("/");
        let response = tokio::spawn(shared.clone().oneshot(request)).await.unwrap().unwrap();
        response.into_body().collect().await.unwrap();
    }
    assert!(shared.oneshot(upstream.get("/")).await.unwrap_err().is::<Open>());

    let again: BoxCloneService<Ask, Answer, BoxError> =
        BoxCloneService::new(stack.layer(client()).map_err(BoxError::from));
    let error = again.oneshot(upstream.get("/")).await.unwrap_err();
    assert_eq!(find_rejection(error.as_ref()).unwrap().kind(), RejectionKind::Open);
    assert_eq!(upstream.requests(), 3);
}

#[tokio::test]
async fn over_a_limit_of_one_call_at_a_time_a_retry_has_the_place_of_the_attempt_before() {
    let upstream = Upstream::new(|asked| match asked.index {
        0 => Reply::Hang,
        1 => Reply::Whole(503, "not yet"),
        _ => Reply::Whole(200, "there"),
    })
    .await;
    let stack = build(stack().attempt(|timeout| timeout.attempt(SOON)));
    let service = stack.layer(ConcurrencyLimitLayer::new(1).layer(client()));
    let response = tokio::time::timeout(LATE, service.oneshot(upstream.get("/"))).await;
    assert_eq!(response.expect("nothing is wedged").unwrap().status(), StatusCode::OK);
    assert_eq!(upstream.requests(), 3);
}

#[tokio::test]
async fn what_waits_for_a_place_below_is_timed_out_and_gives_up_its_place_in_the_queue() {
    let upstream = Upstream::always(Reply::Hang).await;
    let limit = ConcurrencyLimitLayer::new(1).layer(client());
    let patient = tokio::spawn(limit.clone().oneshot(upstream.get("/")));
    eventually("the place is taken", || upstream.requests() == 1).await;

    let stack = build(stack().total(|timeout| timeout.total(SOON)));
    let mut service = stack.layer(limit.clone());
    let waiting = async {
        // Readiness is waited for without an end: the call is charged for it.
        service.ready().await.unwrap().call(upstream.get("/")).await
    };
    assert!(tokio::time::timeout(SOON, waiting).await.is_err());
    drop(service);
    patient.abort();
    let free = tokio::time::timeout(LATE, limit.oneshot(upstream.get("/next")));
    let (free, ()) = tokio::join!(tokio::time::timeout(SOON, free), async {
        eventually("somebody else has the place", || upstream.requests() == 2).await;
    });
    assert!(free.is_err(), "it hangs, but was sent");
}

#[tokio::test]
async fn what_is_shed_outside_is_no_call_and_refusals_pass_through_the_shedder() {
    let upstream = Upstream::new(|asked| match asked.index {
        0 => Reply::Hang,
        _ => Reply::Whole(500, "down"),
    })
    .await;
    let stack = build(stack().retry(|retry| retry.max_attempts(1)));
    let service = ServiceBuilder::new()
        .layer(LoadShedLayer::new())
        .layer(ConcurrencyLimitLayer::new(1))
        .layer(stack.clone())
        .service(client());
    let hanging = tokio::spawn(service.clone().oneshot(upstream.get("/")));
    eventually("the first is under way", || upstream.requests() == 1).await;
    let error = service.clone().oneshot(upstream.get("/")).await.unwrap_err();
    assert!(error.is::<Overloaded>());
    assert!(find_rejection(error.as_ref()).is_none());
    hanging.abort();
    let _ = hanging.await;
    // It was cancelled, which says nothing of the server; and what was shed never was a call.
    assert_eq!(breaker(&stack, &upstream).snapshot().counts.failures, 0);

    for _ in 0..3 {
        let response = service.clone().oneshot(upstream.get("/")).await.unwrap();
        response.into_body().collect().await.unwrap();
    }
    let error = service.oneshot(upstream.get("/")).await.unwrap_err();
    assert_eq!(find_rejection(error.as_ref()).unwrap().kind(), RejectionKind::Open);
}

#[tokio::test]
async fn what_is_shed_inside_is_a_failure_that_its_cause_tells() {
    let upstream = Upstream::always(Reply::Hang).await;
    let limit = ConcurrencyLimitLayer::new(1).layer(client());
    let hanging = tokio::spawn(limit.clone().oneshot(upstream.get("/")));
    eventually("the place is taken", || upstream.requests() == 1).await;

    let stack = build(stack());
    let error = stack
        .layer(LoadShedLayer::new().layer(limit))
        .oneshot(upstream.get("/"))
        .await
        .unwrap_err();
    assert!(error.is::<Overloaded>(), "{error:?}");
    assert!(error.rejection().is_none(), "it is no layer of ours that refused");
    assert_eq!(breaker(&stack, &upstream).state(), State::Open, "three attempts were shed");
    assert_eq!(upstream.requests(), 1);
    hanging.abort();
}

#[tokio::test]
async fn calls_that_towers_timeout_drops_open_the_breaker() {
    let upstream = Upstream::always(Reply::Hang).await;
    let stack =
        build(stack().breaker(|breaker| {
            breaker.consecutive_failures(2).abandoned(Abandoned::After(SOON / 2))
        }));
    let service = ServiceBuilder::new().timeout(SOON).layer(stack.clone()).service(client());
    for _ in 0..2 {
        let error = service.clone().oneshot(upstream.get("/")).await.unwrap_err();
        assert!(error.is::<tower::timeout::error::Elapsed>());
    }
    assert_eq!(breaker(&stack, &upstream).state(), State::Open);
    // The stack waits for the breaker before another attempt, but not beyond its own deadline; what
    // the caller gets is the sooner of both.
    let error = service.oneshot(upstream.get("/")).await.unwrap_err();
    let ours = find_rejection(error.as_ref()).map(portcullis::Rejection::kind);
    assert!(ours == Some(RejectionKind::Open) || error.is::<tower::timeout::error::Elapsed>());
    assert_eq!(upstream.requests(), 2);
    eventually("nothing is left behind", || upstream.connections() == 0).await;
}
