//! Every kind of streaming, through tonic's generated client, and requests that are sent again.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures_util::{StreamExt, stream};
use http_body::Frame;
use http_body_util::StreamBody;
use portcullis::http::BufferBody;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service, ServiceExt};

use super::{
    kit::{Ear, channel, client, guarded, stack, status},
    raw::{Play, Raw, Reply},
    server::Upstream,
    wire::{EchoClient, answer, ask, framed},
};

/// Fails the first so many calls before it reads their bodies.
fn failing(calls: usize) -> impl Fn(usize) -> Result<(), Status> + Send + Sync + 'static {
    move |nth| if nth < calls { Err(Status::unavailable("not yet")) } else { Ok(()) }
}

#[tokio::test]
async fn every_kind_of_call_comes_through_and_fails_with_its_status() {
    let server = Upstream::well().await;
    let ear = Ear::default();
    let stack = stack().observe(ear.clone()).build().unwrap();
    let mut client = client(&stack, server.addr());
    guarded(async {
        assert_eq!(client.say(ask("one")).await.unwrap().into_inner().text, "one");

        let asks = stream::iter(["a", "b", "c"].map(ask));
        assert_eq!(client.collect(asks).await.unwrap().into_inner().text, "abc");

        let answers = client.count(ask("3")).await.unwrap().into_inner();
        let answers: Vec<_> = answers.map(|answer| answer.unwrap().text).collect().await;
        assert_eq!(answers, ["1", "2", "3"]);

        let mut answers = client.count(ask("-2")).await.unwrap().into_inner();
        assert_eq!(answers.message().await.unwrap().unwrap().text, "1");
        assert_eq!(answers.message().await.unwrap().unwrap().text, "2");
        let lost = answers.message().await.unwrap_err();
        assert_eq!(status(&lost), (Code::DataLoss, "lost count"));
    })
    .await;
    assert_eq!(ear.heard().calls, ["success", "success", "success", "failure (grpc status 15)"]);
}

#[tokio::test]
async fn a_chat_whose_client_speaks_second_does_not_hang() {
    let server = Upstream::well().await;
    let ear = Ear::default();
    let stack = stack().observe(ear.clone()).build().unwrap();
    guarded(async {
        let (say, said) = mpsc::unbounded_channel();
        let chat = client(&stack, server.addr()).chat(UnboundedReceiverStream::new(said)).await;
        let mut answers = chat.unwrap().into_inner();
        assert_eq!(answers.message().await.unwrap().unwrap().text, "hello");
        for text in ["how", "are", "you"] {
            say.send(ask(text)).unwrap();
            assert_eq!(answers.message().await.unwrap().unwrap().text, text);
        }
        drop(say);
        assert_eq!(answers.message().await.unwrap(), None);
    })
    .await;
    assert_eq!(ear.heard().calls, ["success"]);
}

#[tokio::test]
async fn every_kind_of_request_is_sent_again() {
    for calls in 1..3 {
        let server = Upstream::new(failing(calls)).await;
        let stack = stack().build().unwrap();
        let asks = || stream::iter(["a", "b", "c"].map(ask));
        let text = guarded(async { client(&stack, server.addr()).collect(asks()).await });
        assert_eq!(text.await.unwrap().into_inner().text, "abc");
        assert_eq!(server.calls(), calls + 1);
    }
    let server = Upstream::new(failing(2)).await;
    let stack = stack().build().unwrap();
    guarded(async {
        let (say, said) = mpsc::unbounded_channel();
        // The first part is sent three times, the rest once.
        say.send(ask("first")).unwrap();
        let chat = client(&stack, server.addr()).chat(UnboundedReceiverStream::new(said)).await;
        let mut answers = chat.unwrap().into_inner();
        assert_eq!(answers.message().await.unwrap().unwrap().text, "hello");
        assert_eq!(answers.message().await.unwrap().unwrap().text, "first");
        say.send(ask("second")).unwrap();
        assert_eq!(answers.message().await.unwrap().unwrap().text, "second");
    })
    .await;
    assert_eq!(server.calls(), 3);
}

/// A stream of messages that says how many were taken of it.
fn counted(
    texts: impl Iterator<Item = String> + Send + 'static,
) -> (Arc<AtomicUsize>, impl futures_util::Stream<Item = super::wire::Ask> + Send + 'static) {
    let taken = Arc::new(AtomicUsize::new(0));
    let count = taken.clone();
    let asks = stream::iter(texts.map(move |text| {
        count.fetch_add(1, Ordering::SeqCst);
        ask(&text)
    }));
    (taken, asks)
}

#[tokio::test]
async fn a_request_beyond_the_cap_is_sent_once_and_a_shorter_one_again() {
    for (cap, requests) in [(4 * 1024, 1), (1024 * 1024, 3)] {
        let down = Reply::only(&[("grpc-status", "14")]);
        // It has read the request whole when it answers.
        let server = Raw::playing(vec![Play::ReadThen(down)]).await;
        let ear = Ear::default();
        let buffer = BufferBody::new(Body::new as portcullis::Rewrap<Body>).with_cap(cap);
        let stack = stack().keep(buffer).observe(ear.clone()).build().unwrap();
        let (taken, asks) = counted((0..10).map(|_| "x".repeat(1000)));
        let mut client = EchoClient::new(stack.layer(channel(server.addr())));
        let failed = guarded(client.collect(asks)).await.unwrap_err();
        assert_eq!(failed.code(), Code::Unavailable);
        assert_eq!(server.requests(), requests, "cap {cap}: {:?}", ear.heard());
        assert_eq!(taken.load(Ordering::SeqCst), 10, "each message is made once");
        let bodies = server.bodies();
        assert!(bodies.iter().all(|length| *length > 10_000), "{bodies:?}");
        assert_eq!(bodies.len(), requests);
    }
}

#[tokio::test]
async fn a_long_stream_is_no_failure_when_its_reader_goes() {
    let server = Upstream::well().await;
    let ear = Ear::default();
    let stack = stack().observe(ear.clone()).build().unwrap();
    guarded(async {
        let mut answers =
            client(&stack, server.addr()).count(ask("on")).await.unwrap().into_inner();
        assert_eq!(answers.message().await.unwrap().unwrap().text, "1");
        drop(answers);
        crate::support::eventually("the server learns it", || server.under_way() == 0).await;
    })
    .await;
    assert_eq!(ear.heard().calls, ["cancelled"]);
}

#[tokio::test]
async fn a_request_that_breaks_off_is_the_callers_doing() {
    let server = Upstream::well().await;
    for after in [0, 1] {
        let ear = Ear::default();
        let stack = stack().observe(ear.clone()).build().unwrap();
        let frames = (0..after).map(|_| Ok(Frame::data(framed(&answer("hello")))));
        let broken = Err(Status::internal("out of paper"));
        let body = Body::new(StreamBody::new(stream::iter(frames.chain([broken]))));
        let request = http::Request::post("http://echo/test.Echo/Collect")
            .header("content-type", "application/grpc")
            .body(body)
            .unwrap();
        let mut service = stack.layer(channel(server.addr()));
        let response = guarded(async { service.ready().await?.call(request).await }).await;
        let status = Status::from_error(response.expect_err("nobody can answer it").into());
        assert_eq!(ear.heard().attempts, ["ignored"], "after {after}: {status:?}");
        assert_eq!(ear.heard().calls, ["ignored"], "after {after}: {status:?}");
        assert!(server.calls() <= 1);
    }
}
