//! Requests that an HTTP/2 server gives back before any handler saw them.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use h2::Reason as H2Reason;
use http::{Request, Response, StatusCode, header};
use http_body_util::{Empty, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use portcullis::{
    Event, Reason, What,
    http::{
        CloneBody, GRPC_PREVIOUS_RPC_ATTEMPTS, GRPC_STATUS, GrpcClassifier, HttpClassifier,
        PropagateLayer,
    },
    retry::{Backoff, RetryLayer},
    sync::Mutex,
};
use tokio::net::TcpListener;
use tower::{Layer, ServiceExt};

/// What the server does with a stream.
#[derive(Clone, Copy, Debug)]
enum Does {
    /// Refuses it.
    Refuse,
    /// Says that it processes no further stream, on a connection of its own, and closes that.
    GoAway,
    Answer,
}

/// What retry told: the attempt, and the reason.
type Told = Arc<Mutex<Vec<(u32, &'static str, Reason)>>>;

/// A server that does these one after the other; and what it was told of earlier attempts in the requests
/// that it answered.
async fn server(does: Vec<Does>) -> (SocketAddr, Arc<Mutex<Vec<Option<String>>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (does, seen) = (Arc::new(Mutex::new(does.into_iter())), Arc::new(Mutex::new(Vec::new())));
    let noted = seen.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (does, seen) = (does.clone(), noted.clone());
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let next = does.lock().next().unwrap_or(Does::Answer);
                    match next {
                        Does::Refuse => respond.send_reset(H2Reason::REFUSED_STREAM),
                        Does::GoAway => {
                            respond.send_reset(H2Reason::REFUSED_STREAM);
                            connection.graceful_shutdown();
                        }
                        Does::Answer => {
                            let previous = request.headers().get(GRPC_PREVIOUS_RPC_ATTEMPTS);
                            let previous = previous.map(|it| it.to_str().unwrap().to_owned());
                            seen.lock().push(previous);
                            let head = Response::builder().header(GRPC_STATUS, 0).body(()).unwrap();
                            respond.send_response(head, true).unwrap();
                        }
                    }
                }
            });
        }
    });
    (address, seen)
}

fn heard(told: &Told) -> impl Fn(&Event<'_>) + Send + Sync + 'static {
    let told = told.clone();
    move |event| match event.what {
        What::Resending { attempt, reason, .. } => {
            told.lock().push((attempt, "resending", reason));
        }
        What::Retrying { attempt, reason, .. } => told.lock().push((attempt, "retrying", reason)),
        What::GaveUp { attempt, reason, .. } => told.lock().push((attempt, "gave up", reason)),
        _ => {}
    }
}

#[tokio::test]
async fn a_refused_stream_is_sent_again_at_once_and_then_by_the_ordinary_rules() {
    let (address, seen) = server(vec![Does::Refuse, Does::Refuse]).await;
    let told = Told::default();
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http::<Full<Bytes>>();
    let retry = RetryLayer::builder("shop", CloneBody)
        .backoff(Backoff::fixed(Duration::from_millis(1)))
        .classify(GrpcClassifier::new())
        .observe(heard(&told))
        .build()
        .unwrap();
    let request = Request::post(format!("http://{address}/shop.Cart/Add"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .body(Full::from("message"))
        .unwrap();
    let service = retry.layer(PropagateLayer::new().layer(client));
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(response.headers()[GRPC_STATUS], "0");
    // To the server's handler, attempt 2 is the first one after attempt 1.
    assert_eq!(*seen.lock(), [Some("1".to_owned())]);
    assert_eq!(
        *told.lock(),
        [(1, "resending", Reason::Unprocessed), (1, "retrying", Reason::Backoff { retry: 1 }),]
    );
}

#[tokio::test]
async fn a_stream_refused_by_a_server_that_leaves_is_sent_again_on_another_connection() {
    let (address, seen) = server(vec![Does::GoAway]).await;
    let told = Told::default();
    let client =
        Client::builder(TokioExecutor::new()).http2_only(true).build_http::<Empty<Bytes>>();
    // Though no retries are allowed, and a POST is not idempotent: nobody saw it.
    let retry = RetryLayer::builder("shop", CloneBody)
        .max_attempts(1)
        .classify(HttpClassifier::new())
        .observe(heard(&told))
        .build()
        .unwrap();
    let request = Request::post(format!("http://{address}/")).body(Empty::new()).unwrap();
    let response = retry.layer(client).oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(seen.lock().len(), 1);
    assert_eq!(*told.lock(), [(1, "resending", Reason::Unprocessed)]);
}
