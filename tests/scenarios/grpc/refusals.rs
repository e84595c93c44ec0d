//! Refusals of the stack's own, as the statuses that a gRPC caller expects.

use std::time::Duration;

use portcullis::{Registry, breaker::Handles, retry::Backoff};
use tonic::{Code, body::Body};
use tower::Layer;

use super::{
    kit::{Guarded, breaker, channel, client, guarded, stack, status},
    raw::{Play, Raw, Reply},
    server::Upstream,
    wire::{EchoClient, ask},
};
use crate::support::{LATE, SOON};

const MINUTE: Duration = Duration::from_secs(60);

/// The pushback that came with a status, in milliseconds.
fn pushback(status: &tonic::Status) -> Option<u64> {
    let wait = status.metadata().get("grpc-retry-pushback-ms")?;
    Some(wait.to_str().unwrap().parse().unwrap())
}

#[tokio::test]
async fn an_open_breaker_is_unavailable_and_says_when_to_come_back() {
    let server = Raw::playing(vec![Play::Reply(Reply::only(&[("grpc-status", "13")]))]).await;
    let registry = Registry::new();
    let stack = stack()
        .breaker(|breaker| breaker.consecutive_failures(2).open_time(MINUTE, MINUTE).jitter(false))
        .register_in(&registry)
        .build()
        .unwrap();
    let mut client = client(&stack, server.addr());
    for _ in 0..2 {
        let failed = guarded(client.say(ask("hello"))).await.unwrap_err();
        assert_eq!(failed.code(), Code::Internal);
    }
    let refused = guarded(client.say(ask("hello"))).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().starts_with("echo: open, 2 failures in a row"), "{refused:?}");
    let wait = pushback(&refused).unwrap();
    assert!(wait > 50_000 && wait <= 60_000, "{wait}");
    assert_eq!(server.requests(), 2);

    // A channel's requests name no host: its breaker has the stack's name.
    let handles: Handles = registry.get("echo").unwrap();
    let keys: Vec<_> = handles.all().into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["echo".into()]);
}

#[tokio::test]
async fn a_spent_limit_is_resource_exhausted_and_says_when_to_come_back() {
    let server = Upstream::well().await;
    let stack = stack()
        .limit(|limit| limit.rate(1, MINUTE).burst(1).max_wait(Duration::ZERO))
        .build()
        .unwrap();
    let mut client = client(&stack, server.addr());
    guarded(client.say(ask("hello"))).await.unwrap();
    let refused = guarded(client.say(ask("hello"))).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().starts_with("echo"), "{refused:?}");
    let wait = pushback(&refused).unwrap();
    assert!(wait > 50_000 && wait <= 60_000, "{wait}");
    assert_eq!(server.calls(), 1);
}

#[tokio::test]
async fn a_streaming_call_is_refused_alike() {
    let server = Upstream::well().await;
    let stack = stack().build().unwrap();
    let mut client = client(&stack, server.addr());
    guarded(client.say(ask("hello"))).await.unwrap();
    breaker(&stack).force_open();
    let refused = guarded(client.count(ask("3"))).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    let asks = futures_util::stream::pending();
    let refused = guarded(client.chat(asks)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert_eq!(pushback(&refused), None, "nobody knows when it is let go");
    assert_eq!(server.calls(), 1);
}

#[tokio::test]
async fn attempts_that_time_out_are_the_status_of_a_deadline() {
    let server = Raw::playing(vec![Play::Hang]).await;
    let stack = stack()
        .attempt(|timeout| timeout.attempt(SOON))
        .retry(|retry| retry.backoff(Backoff::fixed(LATE)))
        .build()
        .unwrap();
    let failed = guarded(client(&stack, server.addr()).say(ask("hello"))).await.unwrap_err();
    assert_eq!(status(&failed), (Code::DeadlineExceeded, "echo: attempt limit of 300ms ran out"));
}

#[tokio::test]
async fn channels_behind_one_stack_share_its_breaker_and_clones_go_everywhere() {
    let (one, other) = (Upstream::well().await, Upstream::well().await);
    let stack = stack().build().unwrap();
    let behind = |server: &Upstream| -> EchoClient<Guarded> {
        EchoClient::new(stack.clone().layer(channel(server.addr())))
    };
    let (mut first, second) = (behind(&one), behind(&other));
    guarded(first.say(ask("hello"))).await.unwrap();
    breaker(&stack).force_open();
    let task = tokio::spawn({
        let mut second = second.clone();
        async move { second.say(ask("hello")).await.map_err(|status| status.code()) }
    });
    let refused = guarded(task).await.unwrap();
    assert_eq!(refused.unwrap_err(), Code::Unavailable);
    assert_eq!(other.calls(), 0);

    fn goes_everywhere<T: Clone + Send + Sync + 'static>(_: &T) {}
    goes_everywhere(&stack);
    let _: portcullis::GrpcStack<Body> = stack;
}
