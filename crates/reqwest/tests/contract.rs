//! Tower's contract, as far as it speaks of a client, and facts about the types.

use std::{
    pin::pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body_util::Full;
use portcullis_core::ByResult;
use portcullis_reqwest::{Body, Client, KeepBody, KeptBody, Middleware, ResponseFuture, Rest};
use portcullis_retry::RetryLayer;
use portcullis_testkit::{
    ScriptedService, WakeCounter, assert_clone, assert_debug, assert_send, assert_sync,
    contract::Suite,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::yield_now,
};
use tower_layer::{Identity, Layer};
use tower_service::Service;

type Request = http::Request<Full<Bytes>>;

fn client() -> Client {
    Client::new(reqwest::Client::builder().no_proxy().build().unwrap())
}

#[test]
fn types_are_what_a_stack_needs() {
    assert_clone::<Client>();
    assert_debug::<Client>();
    assert_send::<Client>();
    assert_sync::<Client>();
    assert_debug::<ResponseFuture>();
    assert_send::<ResponseFuture>();
    assert_debug::<Body>();
    assert_send::<Body>();
    assert_clone::<KeepBody>();
    assert_debug::<KeepBody>();
    assert_send::<KeptBody>();
    assert_sync::<KeptBody>();
    assert_clone::<Middleware<Identity>>();
    assert_debug::<Middleware<Identity>>();
    assert_sync::<Middleware<Identity>>();
    assert_clone::<Rest<'static>>();
    assert_debug::<Rest<'static>>();
    assert_send::<Rest<'static>>();
}

#[test]
fn the_client_is_ready_at_once_and_so_is_its_clone() {
    let (wakes, mut client) = (WakeCounter::new(), client());
    let waker = wakes.waker();
    let cx = &mut Context::from_waker(&waker);
    assert!(matches!(Service::<Request>::poll_ready(&mut client, cx), Poll::Ready(Ok(()))));
    let mut clone = client.clone();
    assert!(matches!(Service::<Request>::poll_ready(&mut clone, cx), Poll::Ready(Ok(()))));
    assert_eq!(wakes.count(), 0);
}

#[tokio::test]
async fn the_latest_waker_of_a_response_is_woken() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}/", listener.local_addr().unwrap());
    let request = Request::new(Full::default());
    let (mut head, body) = request.into_parts();
    head.uri = uri.parse().unwrap();
    let mut future = pin!(client().call(Request::from_parts(head, body)));

    // The first is polled with as long as the request takes to get there, and the other once.
    let [first, latest] = [WakeCounter::new(), WakeCounter::new()];
    let waker = first.waker();
    assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    let (mut socket, _) = listener.accept().await.unwrap();
    while first.count() == 0 {
        yield_now().await;
    }
    loop {
        assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        let mut byte = [0];
        let read = tokio::select! {
            biased;
            read = socket.read(&mut byte) => read.unwrap(),
            () = yield_now() => 0,
        };
        if read > 0 {
            break;
        }
    }
    let waker = latest.waker();
    assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    let woken = first.count();

    socket.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
    while latest.count() == 0 {
        yield_now().await;
    }
    assert_eq!(first.count(), woken);
    let polled = future.poll(&mut Context::from_waker(&waker));
    assert!(matches!(polled, Poll::Ready(Ok(response)) if response.status() == 204));
}

#[tokio::test(start_paused = true)]
async fn retries_that_keep_reqwests_bodies_keep_towers_contract() {
    let retry = RetryLayer::builder("contract", KeepBody::new()).classify(ByResult);
    let retry = retry.build().unwrap();
    let layered = |inner: ScriptedService<http::Request<reqwest::Body>, http::Response<()>>| {
        retry.layer(inner)
    };
    Suite::with(http::Request::default, http::Response::default, layered).run().await;
}
