//! A job on a real server, followed by 202s to its end.
#![cfg(feature = "hyper-util")]

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use portcullis_core::{Backoff, BoxError};
use portcullis_http::FollowAccepted;
use portcullis_poll::PollLayer;
use tokio::net::TcpListener;
use tower::ServiceExt;
use tower_layer::Layer;

async fn look(State(looks): State<Arc<AtomicUsize>>, headers: HeaderMap) -> Response {
    assert_eq!(headers["authorization"], "Bearer secret");
    assert!(!headers.contains_key("content-type"));
    match looks.fetch_add(1, Ordering::Relaxed) {
        0 | 1 => (StatusCode::ACCEPTED, [(header::RETRY_AFTER, "0")], "rendering").into_response(),
        _ => "rendered".into_response(),
    }
}

#[tokio::test]
async fn a_job_is_followed_to_its_result() -> Result<(), BoxError> {
    let looks = Arc::new(AtomicUsize::new(0));
    let place = [(header::LOCATION, "jobs/7"), (header::RETRY_AFTER, "0")];
    let app = Router::new()
        .route("/render", post(async move || (StatusCode::ACCEPTED, place, "accepted")))
        .route("/jobs/7", get(look))
        .with_state(looks.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = tokio::spawn(axum::serve(listener, app).into_future());

    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let layer = PollLayer::builder("render", FollowAccepted::new());
    let layer = layer.backoff(Backoff::fixed(std::time::Duration::ZERO)).build()?;
    let request = Request::post(format!("http://{address}/render"))
        .header("authorization", "Bearer secret")
        .header("content-type", "text/plain")
        .body(Full::from("a scene"))?;
    let response = layer.layer(client).oneshot(request).await?;
    let text = response.into_body().collect().await?.to_bytes();
    assert_eq!((&*text, looks.load(Ordering::Relaxed)), (&b"rendered"[..], 3));
    server.abort();
    Ok(())
}
