//! Over clients: hyper's pooled one with any body, and its connections by themselves.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::{future::BoxFuture, stream};
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Body, Incoming},
    client::conn::{http1, http2},
};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
};
use portcullis::{
    BoxError, Error, RejectionKind, State,
    http::{BufferBody, CloneBody, ReplayBody},
    sync::Mutex,
};
use tokio::{net::TcpStream, task::JoinSet};
use tower::{Layer, Service, ServiceExt, buffer::BufferLayer};

use crate::support::{Reply, Upstream, breaker, build, stack};

/// A server that fails once, and what each request brought.
async fn failing_once() -> (Upstream, Arc<Mutex<Vec<Bytes>>>) {
    let bodies = Arc::new(Mutex::new(Vec::new()));
    let seen = bodies.clone();
    let upstream = Upstream::new(move |asked| {
        seen.lock().push(asked.body.clone());
        match asked.index {
            0 => Reply::Whole(503, "not yet"),
            _ => Reply::Whole(200, "there"),
        }
    })
    .await;
    (upstream, bodies)
}

/// Sends a body through the stack and hyper's client, whose own body type is `B`.
async fn sent<K, B, Q>(keep: K, body: Q) -> Vec<Bytes>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
    Q: Send + 'static,
    K: portcullis::Keep<
            Request<Q>,
            Sent = Request<B>,
            Kept: portcullis::Kept<Sent = Request<B>> + Send,
        > + Clone
        + Send,
{
    let (upstream, bodies) = failing_once().await;
    let client = Client::builder(TokioExecutor::new()).build_http::<B>();
    let service = stack().keep(keep).build().unwrap().layer(client);
    let request = upstream.request(Method::PUT, "/", body);
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "there");
    let bodies = bodies.lock().clone();
    assert_eq!(bodies.len(), 2, "a retry");
    bodies
}

#[tokio::test]
async fn hypers_client_takes_any_body_and_each_is_sent_again_whole() {
    let text = Full::new(Bytes::from("all of it"));
    assert_eq!(sent(CloneBody, text.clone()).await, ["all of it"; 2]);
    assert_eq!(sent(CloneBody, Empty::<Bytes>::new()).await, [""; 2]);

    let boxed = |body: ReplayBody<_>| BoxBody::new(body);
    assert_eq!(sent(BufferBody::new(boxed), BoxBody::new(text)).await, ["all of it"; 2]);

    let frames =
        ["all ", "of ", "it"].map(|part| Ok::<_, Infallible>(Frame::data(Bytes::from(part))));
    let streamed = StreamBody::new(stream::iter(frames));
    let unboxed = |body: ReplayBody<_>| body;
    assert_eq!(sent(BufferBody::new(unboxed), streamed).await, ["all of it"; 2]);
}

/// A connection of HTTP/1 as a service. It sends one request after the other, so it has no clones.
struct Http1(http1::SendRequest<Full<Bytes>>);

impl Service<Request<Full<Bytes>>> for Http1 {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = BoxFuture<'static, Result<Response<Incoming>, hyper::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// A connection of HTTP/2 as a service.
#[derive(Clone)]
struct Http2(http2::SendRequest<Full<Bytes>>);

impl Service<Request<Full<Bytes>>> for Http2 {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = BoxFuture<'static, Result<Response<Incoming>, hyper::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

async fn connect(upstream: &Upstream) -> TokioIo<TcpStream> {
    TokioIo::new(TcpStream::connect(upstream.host()).await.unwrap())
}

#[tokio::test]
async fn one_connection_of_http_1_is_retried_over_a_buffer_and_judged_without() {
    let (upstream, _) = failing_once().await;
    let mut driving = JoinSet::new();
    let (sender, connection) = http1::handshake(connect(&upstream).await).await.unwrap();
    driving.spawn(connection);
    // What waits before it calls, as retries and limits do, needs clones of the service; a buffer has
    // some.
    let shared = BufferLayer::new(4).layer(Http1(sender));
    let retried = build(stack()).layer(shared).oneshot(upstream.get("/")).await.unwrap();
    assert_eq!(retried.status(), StatusCode::OK);
    assert_eq!(upstream.requests(), 2);

    let upstream = Upstream::always(Reply::Cut).await;
    let stack = build(stack().breaker(|breaker| breaker.consecutive_failures(1)));
    let (sender, connection) = http1::handshake(connect(&upstream).await).await.unwrap();
    driving.spawn(connection);
    let mut service = stack.clone().without_retry().without_limit().layer(Http1(sender));
    let response = service.ready().await.unwrap().call(upstream.get("/")).await.unwrap();
    let error: Error = response.into_body().collect().await.unwrap_err();
    assert!(error.is::<hyper::Error>());
    assert_eq!(
        breaker(&stack, &upstream).state(),
        State::Open,
        "the verdict fell at the body's end"
    );
}

#[tokio::test]
async fn one_connection_of_http_2_is_retried_judged_and_refused() {
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = server.local_addr().unwrap().to_string();
    let versions = Arc::new(Mutex::new(Vec::new()));
    let seen = versions.clone();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let (socket, _) = server.accept().await.unwrap();
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            seen.lock().push(request.version());
            let answer = answer(request.uri().path());
            async { Ok::<_, Infallible>(answer) }
        });
        let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(socket), service)
            .await;
    });
    let socket = TokioIo::new(TcpStream::connect(&host).await.unwrap());
    let (sender, connection) = http2::handshake(TokioExecutor::new(), socket).await.unwrap();
    tasks.spawn(async {
        let _ = connection.await;
    });

    let stack = build(stack());
    let service = stack.layer(Http2(sender));
    let get = |path: &str| {
        let uri = format!("http://{host}{path}");
        service.clone().oneshot(Request::get(uri).body(Full::<Bytes>::default()).unwrap())
    };
    let response = get("/").await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "there");
    assert_eq!(get("/down").await.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
    let error = get("/").await.unwrap_err();
    assert_eq!(error.rejection().unwrap().kind(), RejectionKind::Open);
    assert_eq!(*versions.lock(), [Version::HTTP_2; 4], "one, three attempts, and none");
}

fn answer(path: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from("there"));
    if path == "/down" {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}
