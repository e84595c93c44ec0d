//! The server under test.

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::State as Shared,
    response::{IntoResponse, Response},
    routing::any,
};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderName, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use portcullis::{
    Error, HttpStack, RejectionKind,
    http::PropagateLayer,
    inbound::InboundLayer,
    trace::{Query, Recorder, Trace},
};
use std::sync::Arc;
use tokio::{net::TcpListener, task::JoinSet};
use tower::{Layer, ServiceExt};

use crate::support::{HyperClient, Upstream, client, stack};

pub(crate) const X_TIMEOUT: HeaderName = HeaderName::from_static("x-timeout-ms");

/// A server that asks an upstream. It ends when it is dropped.
pub(crate) struct Gateway {
    addr: SocketAddr,
    pub(crate) recorder: Recorder,
    pub(crate) stack: HttpStack,
    _serving: JoinSet<std::io::Result<()>>,
}

#[derive(Clone)]
struct Out {
    service: <HttpStack as Layer<HyperClient>>::Service,
    uri: String,
}

// ===== impl Gateway =====

impl Gateway {
    pub(crate) async fn new(upstream: &Upstream) -> Self {
        let recorder = Recorder::builder().sample_rate(1.0).build().unwrap();
        let stack = stack()
            .recorder(&recorder)
            .propagate(PropagateLayer::new().with_timeout_header(X_TIMEOUT))
            .build()
            .unwrap();
        let inbound = InboundLayer::builder("gateway")
            .timeout_header(X_TIMEOUT)
            .recorder(&recorder)
            .build()
            .unwrap();
        let out = Out { service: stack.layer(client()), uri: upstream.uri("/behind").to_string() };
        let app = Router::new()
            .route("/one", any(one))
            .route("/stream", any(three))
            .route("/shop.Items/Get", any(one))
            .with_state(out)
            .layer(inbound);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let mut serving = JoinSet::new();
        serving.spawn(axum::serve(listener, app).into_future());
        Self { addr, recorder, stack, _serving: serving }
    }

    pub(crate) fn get(&self, path: &str, headers: &[(&str, &[u8])]) -> Request<Full<Bytes>> {
        let mut request = Request::get(format!("http://{}{path}", self.addr));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Full::default()).unwrap()
    }

    /// The response as a whole.
    pub(crate) async fn ask(&self, path: &str, headers: &[(&str, &[u8])]) -> (StatusCode, Bytes) {
        let response = client().request(self.get(path, headers)).await.unwrap();
        let status = response.status();
        (status, response.into_body().collect().await.unwrap().to_bytes())
    }

    /// The traces that were recorded, once there are so many.
    pub(crate) async fn traces(&self, many: u64) -> Vec<Arc<Trace>> {
        let recorder = self.recorder.clone();
        crate::support::eventually("so many traces are over", || recorder.counts().seen == many)
            .await;
        self.recorder.flush().await;
        self.recorder.store().query(&Query::new()).unwrap().traces
    }
}

/// Asks once. What the request was of, the question is of, too.
async fn one(Shared(out): Shared<Out>, headers: HeaderMap) -> Response {
    match out.ask(headers.get(header::CONTENT_TYPE).cloned()).await {
        Ok(text) => text.into_response(),
        Err(error) => {
            let refused = error.rejection().map(portcullis::Rejection::kind);
            let late = refused == Some(RejectionKind::Elapsed);
            let status = if late { StatusCode::GATEWAY_TIMEOUT } else { StatusCode::BAD_GATEWAY };
            (status, error.to_string()).into_response()
        }
    }
}

/// Asks three times, for each part of its answer when that is to be sent.
async fn three(Shared(out): Shared<Out>) -> Response {
    let parts = stream::iter(0..3).then(move |_| {
        let out = out.clone();
        async move {
            let text = out.ask(None).await.unwrap_or_else(|error| error.to_string().into());
            Ok::<_, Infallible>(text)
        }
    });
    Body::from_stream(parts).into_response()
}

// ===== impl Out =====

impl Out {
    async fn ask(&self, kind: Option<http::HeaderValue>) -> Result<Bytes, Error> {
        let mut request = Request::get(&self.uri).body(Full::default()).unwrap();
        if let Some(kind) = kind {
            request.headers_mut().insert(header::CONTENT_TYPE, kind);
        }
        let response = self.service.clone().oneshot(request).await?;
        Ok(response.into_body().collect().await?.to_bytes())
    }
}

/// A time limit as a header says it.
pub(crate) fn millis(text: &str) -> Duration {
    Duration::from_millis(text.parse().unwrap())
}
