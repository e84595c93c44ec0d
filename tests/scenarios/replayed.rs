//! Requests that are streams.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use futures_util::stream;
use http::{Method, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use portcullis::{
    Error, Stack,
    http::{BufferBody, ReplayBody},
    sync::Mutex,
};
use tower::{Layer, ServiceExt};

use crate::support::{Reply, Upstream};

/// What the client sends: not `Clone`.
type Outgoing = UnsyncBoxBody<Bytes, Error>;

fn streamed(chunks: usize) -> impl http_body::Body<Data = Bytes, Error = Infallible> {
    let chunks = (0..chunks).map(|_| Ok(Frame::data(Bytes::from_static(&[b'x'; 1_000]))));
    StreamBody::new(stream::iter(chunks.collect::<Vec<_>>()))
}

async fn send(chunks: usize, upstream: &Upstream) -> StatusCode {
    let client = Client::builder(TokioExecutor::new()).build_http::<Outgoing>();
    let stack = Stack::production("upstream")
        .keep(BufferBody::new(|body: ReplayBody<_>| Outgoing::new(body)))
        .build()
        .unwrap();
    let request = upstream.request(Method::PUT, "/", streamed(chunks));
    let response = stack.layer(client).oneshot(request).await.unwrap();
    let status = response.status();
    response.into_body().collect().await.unwrap();
    status
}

async fn failing_once() -> (Upstream, Arc<Mutex<Vec<usize>>>) {
    let lengths = Arc::new(Mutex::new(Vec::new()));
    let seen = lengths.clone();
    let upstream = Upstream::new(move |asked| {
        seen.lock().push(asked.body.len());
        match asked.index {
            0 => Reply::Whole(503, "not yet"),
            _ => Reply::Whole(200, "there"),
        }
    })
    .await;
    (upstream, lengths)
}

#[tokio::test]
async fn a_streamed_request_is_sent_again_from_its_start() {
    let (upstream, lengths) = failing_once().await;
    assert_eq!(send(10, &upstream).await, StatusCode::OK);
    assert_eq!(*lengths.lock(), [10_000, 10_000]);
}

#[tokio::test]
async fn one_that_is_too_long_to_be_kept_is_sent_once_and_whole() {
    let (upstream, lengths) = failing_once().await;
    assert_eq!(send(100, &upstream).await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(*lengths.lock(), [100_000]);
}
