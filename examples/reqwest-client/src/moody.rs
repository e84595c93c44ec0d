//! A server whose answers depend on how often it was asked.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::any,
};
use futures_util::{StreamExt, stream};
use tokio::{net::TcpListener, task::JoinSet};

/// The server, on a port of its own. Stops when dropped.
#[derive(Debug)]
pub(crate) struct Moody {
    addr: SocketAddr,
    _serving: JoinSet<()>,
}

// ===== impl Moody =====

impl Moody {
    pub(crate) async fn begin() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?;
        let app = Router::new()
            .route("/flaky", failing_first(StatusCode::SERVICE_UNAVAILABLE))
            .route("/flaky-again", failing_first(StatusCode::BAD_GATEWAY))
            .route("/busy", failing_first(StatusCode::TOO_MANY_REQUESTS))
            .route("/down", any(|| async { StatusCode::INTERNAL_SERVER_ERROR }))
            .route("/cut", any(|| async { cut() }));
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            // It ends with the program, or not at all.
            let _ = axum::serve(listener, app).await;
        });
        Ok(Self { addr, _serving: serving })
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }
}

/// A route that fails with `status` when it is asked first.
fn failing_first(status: StatusCode) -> axum::routing::MethodRouter {
    let asked = Arc::new(AtomicUsize::new(0));
    any(move |question: Bytes| async move {
        match asked.fetch_add(1, Ordering::Relaxed) {
            0 => (status, [(header::RETRY_AFTER, "1")]).into_response(),
            _ => format!("an answer to {} bytes", question.len()).into_response(),
        }
    })
}

/// A good head, and a body that breaks off.
fn cut() -> Response {
    let half = stream::iter([Ok("half")]);
    let broken = stream::once(async {
        // Or head and half would not be sent before the connection is closed.
        tokio::time::sleep(Duration::from_millis(20)).await;
        Err(io::Error::from(io::ErrorKind::BrokenPipe))
    });
    Body::from_stream(half.chain(broken)).into_response()
}
