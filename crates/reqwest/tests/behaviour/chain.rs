//! The ready-made stack as one of several middlewares.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use futures_util::{TryFutureExt, future::MapErr, stream};
use http::Extensions;
use portcullis::{
    BoxError, Elapsed, Error, FaultKind, Phase, RejectionKind, State, breaker::Open, call,
};
use portcullis_reqwest::{Middleware, rejection};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Next, Result};
use tower::{Layer, Service};

use crate::support::{
    BOTH, Protocol, Reply, SOON, Upstream, breaker, build, builder, eventually, stack,
};

fn chain(protocol: Protocol, middleware: impl reqwest_middleware::Middleware) -> ClientBuilder {
    ClientBuilder::new(builder(protocol).build().unwrap()).with(middleware)
}

fn client(
    protocol: Protocol,
    middleware: impl reqwest_middleware::Middleware,
) -> ClientWithMiddleware {
    chain(protocol, middleware).build()
}

/// Counts the runs of the rest of the chain, and what it found in the extensions.
#[derive(Clone, Debug, Default)]
struct Counting {
    runs: Arc<AtomicUsize>,
}

/// What the caller gives along.
#[derive(Clone, Debug, PartialEq)]
struct Tenant(&'static str);

/// How often `Counting` was there before.
#[derive(Clone, Debug, PartialEq)]
struct Passed(usize);

#[async_trait::async_trait]
impl reqwest_middleware::Middleware for Counting {
    async fn handle(
        &self,
        req: reqwest::Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<reqwest::Response> {
        self.runs.fetch_add(1, Ordering::SeqCst);
        assert_eq!(extensions.get(), Some(&Tenant("acme")));
        let before = extensions.get().map_or(0, |Passed(before)| *before);
        extensions.insert(Passed(before + 1));
        next.run(req, extensions).await
    }
}

/// Sends what failed or was refused once more, whatever it was: as other people's middlewares do.
#[derive(Debug)]
struct Twice;

#[async_trait::async_trait]
impl reqwest_middleware::Middleware for Twice {
    async fn handle(
        &self,
        req: reqwest::Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<reqwest::Response> {
        let again = req.try_clone();
        let first = next.clone().run(req, extensions).await;
        if first.as_ref().is_ok_and(|response| response.status().is_success()) {
            return first;
        }
        drop(first);
        next.run(again.expect("the request has no body"), extensions).await
    }
}

/// Fails by itself.
#[derive(Debug)]
struct NoToken;

impl std::fmt::Display for NoToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("no token")
    }
}

impl std::error::Error for NoToken {}

#[async_trait::async_trait]
impl reqwest_middleware::Middleware for NoToken {
    async fn handle(
        &self,
        _: reqwest::Request,
        _: &mut Extensions,
        _: Next<'_>,
    ) -> Result<reqwest::Response> {
        Err(reqwest_middleware::Error::Middleware(anyhow::Error::new(NoToken).context("signing")))
    }
}

#[tokio::test]
async fn each_attempt_runs_the_rest_of_the_chain_with_its_extensions() {
    for protocol in BOTH {
        let upstream = Upstream::new(protocol, |asked| {
            assert_eq!(asked.body, "one two");
            Reply::Whole(if asked.index < 2 { 503 } else { 200 }, "there")
        })
        .await;
        let counting = Counting::default();
        let client =
            chain(protocol, Middleware::new(build(stack()))).with(counting.clone()).build();
        let body = stream::iter(["one ", "two"].map(Ok::<_, std::io::Error>));
        let request =
            client.put(upstream.url("/")).body(reqwest::Body::wrap_stream(body)).build().unwrap();
        let mut extensions = Extensions::new();
        extensions.insert(Tenant("acme"));
        let response = client.execute_with_extensions(request, &mut extensions).await.unwrap();

        assert_eq!(response.url().as_str(), upstream.url("/"));
        assert_eq!(response.remote_addr().unwrap().to_string(), upstream.host());
        assert_eq!(response.content_length(), Some(5));
        assert_eq!(response.text().await.unwrap(), "there");
        assert_eq!((counting.runs.load(Ordering::SeqCst), upstream.requests()), (3, 3));
        // What the rest of the chain made of them is there for the next attempt, and for the caller.
        assert_eq!(extensions.get(), Some(&Passed(3)));
        assert_eq!(extensions.get(), Some(&Tenant("acme")));
    }
}

#[tokio::test]
async fn a_host_that_fails_is_refused_with_a_reason_that_is_found() {
    let down = Upstream::always(Protocol::Http1, Reply::Whole(500, "down")).await;
    let up = Upstream::always(Protocol::Http1, Reply::Whole(200, "up")).await;
    let stack = build(stack().retry(|retry| retry.max_attempts(1)));
    let client = client(Protocol::Http1, Middleware::new(stack.clone()));
    for _ in 0..3 {
        assert_eq!(client.get(down.url("/")).send().await.unwrap().status(), 500);
    }
    // The stack is applied anew for each request, and the breaker is the same.
    assert_eq!(breaker(&stack, &down).state(), State::Open);

    let error = client.get(down.url("/")).send().await.unwrap_err();
    assert!(error.is_middleware());
    let refused = rejection(&error).unwrap();
    assert_eq!((refused.name(), refused.kind()), ("upstream", RejectionKind::Open));
    assert!(refused.retry_after().is_some());
    let anyhow = anyhow::Error::from(error);
    assert!(rejection(anyhow.downcast_ref().unwrap()).is_some());

    assert_eq!(client.get(up.url("/")).send().await.unwrap().status(), 200);
    assert_eq!((down.requests(), up.requests()), (3, 1));
}

#[tokio::test]
async fn errors_of_reqwest_and_of_others_come_out_as_they_were() {
    let stack = || Middleware::new(build(stack().retry(|retry| retry.max_attempts(2))));
    let refusing = Upstream::refusing().await;
    let error = client(Protocol::Http1, stack()).post(&refusing).send().await.unwrap_err();
    assert!(error.is_connect() && error.is_request() && !error.is_middleware());
    assert!(rejection(&error).is_none());

    let hung = Upstream::always(Protocol::Http1, Reply::Hang).await;
    let request = client(Protocol::Http1, stack()).get(hung.url("/")).timeout(SOON / 5);
    let error = request.send().await.unwrap_err();
    assert!(error.is_timeout() && !error.is_middleware());
    assert_eq!(hung.requests(), 2, "the limit is one of each attempt");

    let chain = chain(Protocol::Http1, stack()).with(NoToken).build();
    let error = chain.get(hung.url("/")).send().await.unwrap_err();
    let reqwest_middleware::Error::Middleware(error) = error else { panic!("{error:?}") };
    assert_eq!(format!("{error:#}"), "signing: no token");
    assert!(error.is::<NoToken>());
}

/// Makes errors of statuses, as other people's middlewares do.
#[derive(Debug)]
struct Strict;

#[async_trait::async_trait]
impl reqwest_middleware::Middleware for Strict {
    async fn handle(
        &self,
        req: reqwest::Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<reqwest::Response> {
        Ok(next.run(req, extensions).await?.error_for_status()?)
    }
}

#[tokio::test]
async fn a_status_that_became_an_error_is_judged_as_the_status_it_was() {
    for (status, requests, failures) in [(404, 1, 0), (501, 1, 1), (500, 3, 3), (429, 3, 0)] {
        let upstream = Upstream::always(Protocol::Http1, Reply::Whole(status, "")).await;
        let stack = build(stack().breaker(|breaker| breaker.consecutive_failures(10)));
        let chain = chain(Protocol::Http1, Middleware::new(stack.clone())).with(Strict).build();
        let error = chain.get(upstream.url("/")).send().await.unwrap_err();
        assert_eq!(error.status().unwrap().as_u16(), status);
        assert_eq!(upstream.requests(), requests, "{status}");
        assert_eq!(breaker(&stack, &upstream).snapshot().counts.failures, failures, "{status}");
    }
    // It does not tell whether the one that was asked first did nothing.
    let upstream = Upstream::always(Protocol::Http1, Reply::Whole(429, "")).await;
    let chain = chain(Protocol::Http1, Middleware::new(build(stack()))).with(Strict).build();
    chain.post(upstream.url("/")).send().await.unwrap_err();
    assert_eq!(upstream.requests(), 1);
}

#[tokio::test]
async fn a_post_whose_redirect_leads_to_a_429_is_not_sent_again() {
    let upstream = Upstream::new(Protocol::Http1, |asked| match asked.head.uri.path() {
        "/orders" => Reply::header(303, "location", "/orders/42"),
        _ => Reply::retry_after(429, "0"),
    })
    .await;
    let client = client(Protocol::Http1, Middleware::new(build(stack())));
    let response = client.post(upstream.url("/orders#new")).body("one").send().await.unwrap();
    assert_eq!((response.status().as_u16(), upstream.requests()), (429, 2));
    client.post(upstream.url("/other#new")).body("one").send().await.unwrap();
    assert_eq!(upstream.requests(), 2 + 3);
}

#[tokio::test]
async fn what_time_did_is_found_in_errors_and_in_bodies() {
    let upstream = Upstream::new(Protocol::Http1, |asked| match asked.head.uri.path() {
        "/hang" => Reply::Hang,
        "/busy" => Reply::Whole(503, ""),
        _ => Reply::Unfinished(200),
    })
    .await;
    let with = |limit| {
        let stack = build(stack().attempt(|timeout| timeout.attempt(limit)));
        client(Protocol::Http1, Middleware::new(stack))
    };
    let once = call::with().no_retry();
    let error = once.run(with(SOON).get(upstream.url("/hang")).send()).await.unwrap_err();
    assert_eq!(rejection(&error).unwrap().kind(), RejectionKind::Elapsed);

    let once = call::with().no_retry();
    let response = once.run(with(SOON).get(upstream.url("/")).send()).await.unwrap();
    let error = response.bytes().await.unwrap_err();
    assert_eq!(portcullis::find_rejection(&error).unwrap().kind(), RejectionKind::Elapsed);
    let elapsed = Elapsed::new("upstream", Phase::Attempt, SOON);
    assert_eq!(Error::inner(error).find(), Some(&elapsed));
}

/// Is ready once, whatever the service, and never again.
#[derive(Clone, Debug, Default)]
struct ReadyOnce<S> {
    inner: S,
    readied: Arc<AtomicUsize>,
}

impl<S> Layer<S> for ReadyOnce<()> {
    type Service = ReadyOnce<S>;

    fn layer(&self, inner: S) -> ReadyOnce<S> {
        ReadyOnce { inner, readied: self.readied.clone() }
    }
}

impl<S, Req> Service<Req> for ReadyOnce<S>
where
    S: Service<Req, Error: Into<BoxError>>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = MapErr<S::Future, fn(S::Error) -> BoxError>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::result::Result<(), BoxError>> {
        match self.readied.fetch_add(1, Ordering::SeqCst) {
            0 => Poll::Ready(Ok(())),
            _ => Poll::Ready(Err("gone".into())),
        }
    }

    fn call(&mut self, req: Req) -> Self::Future {
        self.inner.call(req).map_err(Into::into)
    }
}

#[tokio::test]
async fn an_end_of_all_retries_is_found() {
    let upstream = Upstream::always(Protocol::Http1, Reply::Whole(503, "")).await;
    let stack = build(stack()).with_limit(ReadyOnce::default());
    let client = client(Protocol::Http1, Middleware::new(stack));
    let error = client.get(upstream.url("/")).send().await.unwrap_err();
    let refused = rejection(&error).unwrap();
    assert_eq!((refused.name(), refused.kind()), ("upstream", RejectionKind::Exhausted));
    assert_eq!(refused.outcome().kind(), Some(FaultKind::Status(503)));
    assert_eq!(upstream.requests(), 1);
}

#[tokio::test]
async fn it_works_behind_other_peoples_retries_and_behind_another_of_its_kind() {
    let upstream = Upstream::always(Protocol::Http1, Reply::Whole(500, "down")).await;
    let single = || stack().retry(|retry| retry.max_attempts(1));
    let stack = build(single());
    let chain = ClientBuilder::new(builder(Protocol::Http1).build().unwrap());
    let client = chain
        .with(Twice)
        .with(Middleware::new(build(single())))
        .with(Middleware::new(stack.clone()))
        .build();
    client.get(upstream.url("/")).send().await.unwrap();
    assert_eq!(upstream.requests(), 2);
    client.get(upstream.url("/")).send().await.unwrap_err();
    assert_eq!(upstream.requests(), 3);
    assert_eq!(breaker(&stack, &upstream).state(), State::Open);

    let error = client.get(upstream.url("/")).send().await.unwrap_err();
    assert_eq!(rejection(&error).unwrap().kind(), RejectionKind::Open);
    let reqwest_middleware::Error::Middleware(error) = &error else { panic!("{error:?}") };
    assert!(error.downcast_ref::<Error>().unwrap().is::<Open>(), "ours is not wrapped again");
}

#[tokio::test]
async fn a_body_that_breaks_off_is_a_failure_though_reqwest_reads_it() {
    for protocol in BOTH {
        let upstream = Upstream::always(protocol, Reply::Cut).await;
        let stack = build(stack());
        let client = client(protocol, Middleware::new(stack.clone()));
        let response = client.get(upstream.url("/")).send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(breaker(&stack, &upstream).snapshot().counts.total, 0, "not before its end");
        assert!(response.bytes().await.unwrap_err().is_decode());
        assert_eq!(breaker(&stack, &upstream).snapshot().counts.failures, 1);
        eventually("nothing is under way", || upstream.under_way() == 0).await;
    }
}
