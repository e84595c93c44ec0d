//! A real server, a real client, and the stack between them.

mod upstream;

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use portcullis::{
    HttpStack, Stack, StackBuilder,
    breaker::Handle,
    retry::{Backoff, Jitter},
};

pub(crate) use self::upstream::{Reply, Upstream};

/// The client as its users have it.
pub(crate) type HyperClient = Client<HttpConnector, Full<Bytes>>;

/// A limit that is short to wait for, and long for anything on loopback.
pub(crate) const SOON: Duration = Duration::from_millis(300);

/// A limit that no test should ever wait for.
pub(crate) const LATE: Duration = Duration::from_secs(20);

pub(crate) fn client() -> HyperClient {
    Client::builder(TokioExecutor::new()).build_http()
}

/// A stack that retries after a millisecond, opens after three failures in a row, and times out
/// late.
pub(crate) fn stack() -> StackBuilder {
    Stack::production("upstream")
        .total(|timeout| timeout.total(LATE))
        .attempt(|timeout| timeout.attempt(LATE / 2))
        .retry(|retry| retry.backoff(Backoff::fixed(Duration::from_millis(1))).jitter(Jitter::None))
        .breaker(|breaker| breaker.consecutive_failures(3))
}

pub(crate) fn build(stack: StackBuilder) -> HttpStack {
    stack.build().expect("the settings are valid")
}

/// The breaker of the upstream's host.
pub(crate) fn breaker(stack: &HttpStack, upstream: &Upstream) -> Handle {
    stack.breaker().handles().get_or_create(&upstream.host())
}

/// Lets other tasks run until `condition` holds, or fails the test.
pub(crate) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(tokio::time::timeout(LATE, waiting).await.is_ok(), "never came true: {what}");
}
