//! Callers that give up, at every stage and of every kind of call; and other orders of the layers.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use portcullis::{
    GrpcStack,
    breaker::BreakerLayer,
    http::{BufferBody, GrpcCallLayer, GrpcClassifier, PropagateLayer, RejectionsLayer},
    retry::{Backoff, RetryLayer},
    timeout::TimeoutLayer,
    trace::TraceLayer,
};
use portcullis_testkit::{Leave, give_up};
use tonic::{
    Code, Request, Status,
    body::Body,
    client::GrpcService,
    codegen::{Bytes, StdError},
};
use tower::{Layer, ServiceBuilder};

use super::{
    kit::{breaker, channel, client, guarded, stack},
    server::Upstream,
    wire::{EchoClient, ask},
};
use crate::support::{LATE, eventually};

/// One whole call of each kind.
async fn whole_call(kind: usize, stack: &GrpcStack<Body>, server: &Upstream) -> Result<(), Status> {
    let mut client = client(stack, server.addr());
    match kind {
        0 => drop(client.say(ask("hello")).await?),
        1 => drop(client.collect(stream::iter(["a", "b"].map(ask))).await?),
        2 => {
            let mut answers = client.count(ask("3")).await?.into_inner();
            while answers.message().await?.is_some() {}
        }
        _ => {
            let asks = stream::iter(["a", "b"].map(ask));
            let mut answers = client.chat(asks).await?.into_inner();
            while answers.message().await?.is_some() {}
        }
    }
    Ok(())
}

#[tokio::test]
async fn whatever_stage_a_call_is_dropped_at_everything_comes_back() {
    // The first attempt fails, so that waits and replays are among the stages.
    let fails_first = |nth: usize| match nth {
        0 => Err(Status::unavailable("not yet")),
        _ => Ok(()),
    };
    for kind in 0..4 {
        for leave in [Leave::AtOnce, Leave::Woken] {
            for polls in 0.. {
                assert!(polls < 100, "the call never ends: {kind}");
                let server = Upstream::new(fails_first).await;
                let stack = stack().breaker(|breaker| breaker.probes(1, 1)).build().unwrap();
                let call = give_up(whole_call(kind, &stack, &server), polls, leave);
                let over = guarded(call).await;
                let at = format!("kind {kind}, {polls} polls, {leave:?}");
                assert_eq!(stack.retry().budget().unwrap().waiting(), 0, "{at}");
                if let Some(breaker) = stack.breaker().handles().get("echo") {
                    assert_eq!(breaker.snapshot().probes, 0, "{at}");
                }
                eventually(&at, || server.under_way() == 0).await;
                if let Some(result) = over {
                    result.unwrap();
                    break;
                }
            }
        }
    }
}

#[tokio::test]
async fn a_probe_that_is_given_up_hands_its_slot_to_the_next() {
    let server = Upstream::new(|nth| match nth {
        0 | 1 => Err(Status::internal("down")),
        _ => Ok(()),
    })
    .await;
    let open = Duration::from_millis(1);
    let stack = stack()
        .breaker(|breaker| {
            breaker.consecutive_failures(2).open_time(open, open).probes(1, 1).ramp(None)
        })
        .build()
        .unwrap();
    let mut client = client(&stack, server.addr());
    guarded(async {
        for _ in 0..2 {
            assert_eq!(client.say(ask("hello")).await.unwrap_err().code(), Code::Internal);
        }
        let breaker = breaker(&stack);
        assert_eq!(breaker.state(), portcullis::State::Open);
        tokio::time::sleep(open * 2).await;

        let mut prober = client.clone();
        let probe = tokio::spawn(async move { prober.say(ask("hang")).await });
        eventually("the probe is out", || breaker.snapshot().probes == 1).await;
        probe.abort();
        eventually("its slot is back", || breaker.snapshot().probes == 0).await;
        client.say(ask("hello")).await.unwrap();
        assert_eq!(breaker.state(), portcullis::State::Closed);
    })
    .await;
}

// ===== other orders =====

/// What holds in front of a channel, whatever the order of the layers.
async fn holds<S>(name: &str, server: &Upstream, service: S)
where
    S: GrpcService<Body> + Clone,
    S::Error: Into<StdError>,
    S::ResponseBody: http_body::Body<Data = Bytes> + Send + 'static,
    <S::ResponseBody as http_body::Body>::Error: Into<StdError> + Send,
{
    let mut client = EchoClient::new(service);
    let before = server.calls();
    guarded(async {
        // The server fails every other call.
        assert_eq!(client.say(ask("hello")).await.unwrap().into_inner().text, "hello", "{name}");
        assert_eq!(server.calls() - before, 2, "{name}");

        let asks = stream::iter(["a", "b"].map(ask));
        let answers = client.chat(asks).await.unwrap().into_inner();
        let answers: Vec<_> = answers.map(|answer| answer.unwrap().text).collect().await;
        assert_eq!(answers, ["hello", "a", "b"], "{name}");

        let mut late = Request::new(ask("hang"));
        late.set_timeout(Duration::from_millis(50));
        let late = client.say(late).await.unwrap_err();
        assert_eq!(late.code(), Code::DeadlineExceeded, "{name}: {late:?}");
        eventually(name, || server.under_way() == 0).await;
    })
    .await;
}

#[tokio::test]
async fn every_order_is_correct_in_front_of_a_channel() {
    let server = Upstream::new(|nth| match nth % 2 {
        0 => Err(Status::unavailable("not yet")),
        _ => Ok(()),
    })
    .await;
    let grpc = GrpcClassifier::new();
    let retry = || {
        let retry = RetryLayer::builder("echo", BufferBody::new(Body::new));
        retry
            .backoff(Backoff::fixed(Duration::from_millis(1)))
            .classify(grpc.clone())
            .build()
            .unwrap()
    };
    let total =
        || TimeoutLayer::builder("echo").total(LATE).classify(grpc.clone()).build().unwrap();
    let attempt =
        || TimeoutLayer::builder("echo").attempt(LATE).classify(grpc.clone()).build().unwrap();
    let breaker = || BreakerLayer::builder("echo").classify(grpc.clone()).build().unwrap();
    let trace = || TraceLayer::builder("echo").classify(grpc.clone()).build().unwrap();
    let (calls, refusals) = (GrpcCallLayer::new, RejectionsLayer::new);
    let channel = || channel(server.addr());
    let outer = || ServiceBuilder::new().layer(refusals()).layer(calls());

    let usual = outer().layer(trace()).layer(total()).layer(retry()).layer(breaker());
    let usual = usual.layer(attempt()).layer(PropagateLayer::new());
    holds("as usual", &server, usual.service(channel())).await;

    let inside = outer().layer(retry()).layer(total()).layer(breaker());
    let inside = inside.layer(PropagateLayer::new());
    holds("total inside retry", &server, inside.service(channel())).await;

    let once = outer().layer(breaker()).layer(retry()).layer(attempt());
    holds("retry inside the breaker, nothing told", &server, once.service(channel())).await;

    let early = outer().layer(PropagateLayer::new()).layer(trace()).layer(retry()).layer(total());
    holds("propagate outside", &server, early.service(channel())).await;

    let inner = ServiceBuilder::new().layer(refusals()).layer(total()).layer(retry());
    let inner = inner.layer(calls()).layer(attempt()).layer(PropagateLayer::new());
    holds("the call's own word inside retry", &server, inner.service(channel())).await;

    let buffered = outer().buffer(8).layer(total()).layer(retry()).layer(PropagateLayer::new());
    let buffered = buffered.service(channel());
    let lost = EchoClient::new(buffered).say(ask("hello")).await;
    assert_eq!(lost.unwrap().into_inner().text, "hello", "a buffer loses the call, no more");
    let _ = outer().service(stack().build().unwrap().layer(channel()));
}
