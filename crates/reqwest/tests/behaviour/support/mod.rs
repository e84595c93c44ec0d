//! A real server, a real client, and the stack between them.

mod upstream;

use std::time::Duration;

use portcullis::{
    HttpStack, Stack, StackBuilder,
    breaker::Handle,
    retry::{Backoff, Jitter},
};
use portcullis_reqwest::{Client, KeepBody};

pub(crate) use self::upstream::{Reply, Upstream};

/// A limit that is short to wait for, and long for anything on loopback.
pub(crate) const SOON: Duration = Duration::from_millis(300);

/// A limit that no test should ever wait for.
pub(crate) const LATE: Duration = Duration::from_secs(20);

/// The protocol that client and server speak, known to both before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

pub(crate) const BOTH: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

pub(crate) fn builder(protocol: Protocol) -> reqwest::ClientBuilder {
    let builder = reqwest::Client::builder().no_proxy();
    match protocol {
        Protocol::Http1 => builder.http1_only(),
        Protocol::Http2 => builder.http2_prior_knowledge(),
    }
}

pub(crate) fn client(protocol: Protocol) -> Client {
    Client::new(builder(protocol).build().unwrap())
}

/// A stack that retries after a millisecond, opens after three failures in a row, and times out
/// late.
pub(crate) fn stack() -> StackBuilder<KeepBody> {
    Stack::production("upstream")
        .keep(KeepBody::new())
        .total(|timeout| timeout.total(LATE))
        .attempt(|timeout| timeout.attempt(LATE / 2))
        .retry(|retry| retry.backoff(Backoff::fixed(Duration::from_millis(1))).jitter(Jitter::None))
        .breaker(|breaker| breaker.consecutive_failures(3))
}

pub(crate) fn build(stack: StackBuilder<KeepBody>) -> HttpStack<KeepBody> {
    stack.build().expect("the settings are valid")
}

/// The breaker of the upstream's host.
pub(crate) fn breaker(stack: &HttpStack<KeepBody>, upstream: &Upstream) -> Handle {
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
