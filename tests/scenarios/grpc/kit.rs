//! What these tests share: the stack, the client in front of it, and somebody who listens.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use portcullis::{
    Event, GrpcStack, GrpcStackBuilder, LayerKind, Observer, Stack, What,
    breaker::Handle,
    retry::{Backoff, Jitter},
    sync::Mutex,
};
use tonic::{
    Code, Status,
    body::Body,
    transport::{Channel, Endpoint},
};
use tower::Layer;

use super::wire::EchoClient;
use crate::support::LATE;

/// A channel behind the stack.
pub(crate) type Guarded = <GrpcStack<Body> as Layer<Channel>>::Service;

pub(crate) type Client = EchoClient<Guarded>;

/// A stack that retries after a millisecond and whose breaker only counts; limits are far away.
pub(crate) fn stack() -> GrpcStackBuilder<Body> {
    Stack::production("echo")
        .total(|timeout| timeout.total(LATE))
        .attempt(|timeout| timeout.attempt(LATE / 2))
        .retry(|retry| retry.backoff(Backoff::fixed(Duration::from_millis(1))).jitter(Jitter::None))
        .breaker(|breaker| breaker.consecutive_failures(None).failure_rate(None))
        .sample_rate(1.0)
        .grpc(Body::new)
}

pub(crate) fn channel(addr: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{addr}")).unwrap().connect_lazy()
}

pub(crate) fn client(stack: &GrpcStack<Body>, addr: SocketAddr) -> Client {
    EchoClient::new(stack.layer(channel(addr)))
}

/// The one breaker of a stack in front of a channel.
pub(crate) fn breaker(stack: &GrpcStack<Body>) -> Handle {
    stack.breaker().handles().get("echo").expect("there was a call")
}

/// Fails the test rather than to hang.
pub(crate) async fn guarded<F: Future>(test: F) -> F::Output {
    tokio::time::timeout(LATE * 2, test).await.expect("the test does not end")
}

/// The code and the message.
pub(crate) fn status(status: &Status) -> (Code, &str) {
    (status.code(), status.message())
}

/// Hears the verdicts: of each attempt by the breaker, of the call by the trace.
#[derive(Clone, Default)]
pub(crate) struct Ear(Arc<Mutex<Heard>>);

#[derive(Clone, Debug, Default)]
pub(crate) struct Heard {
    /// What the breaker was told of each attempt.
    pub(crate) attempts: Vec<String>,
    /// What the trace was told of each call.
    pub(crate) calls: Vec<String>,
    /// Why there were no more attempts, and how long was waited.
    pub(crate) retry: Vec<String>,
}

impl Ear {
    pub(crate) fn heard(&self) -> Heard {
        self.0.lock().clone()
    }
}

impl Observer for Ear {
    fn on_event(&self, event: &Event<'_>) {
        let mut heard = self.0.lock();
        match (event.layer, &event.what) {
            (LayerKind::Breaker, What::Settled { outcome, .. }) => {
                heard.attempts.push(outcome.to_string());
            }
            (LayerKind::Trace, What::Settled { outcome, .. }) => {
                heard.calls.push(outcome.to_string());
            }
            (LayerKind::Retry, what) => heard.retry.push(what.to_string()),
            _ => {}
        }
    }
}
