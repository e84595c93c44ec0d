//! A server that answers as it is told.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{Method, Request, Response, Uri, request::Parts};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, task::JoinSet};

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// What the server does with one request.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// A whole response.
    Whole(u16, &'static str),
    /// A refusal that says when to come back.
    RetryAfter(u16, &'static str),
    /// A head with this status and one chunk; then nothing, with the connection open.
    Unfinished(u16),
    /// A good head and one chunk; then the connection is closed.
    Cut,
    /// Nothing at all, with the connection open.
    Hang,
}

/// A request as the server read it.
#[derive(Debug)]
pub(crate) struct Asked {
    /// How many came before it.
    pub(crate) index: usize,
    pub(crate) head: Parts,
    pub(crate) body: Bytes,
}

/// A server on a port of its own. Stops, and closes its connections, when dropped.
#[derive(Debug)]
pub(crate) struct Upstream {
    addr: SocketAddr,
    counts: Arc<Counts>,
    _accepting: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Counts {
    requests: AtomicUsize,
    connections: AtomicUsize,
}

// ===== impl Upstream =====

impl Upstream {
    /// A server that answers every request as `answer` says.
    pub(crate) async fn new<F>(answer: F) -> Self
    where
        F: Fn(&Asked) -> Reply + Send + Sync + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let counts = Arc::new(Counts::default());
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, counts.clone(), Arc::new(answer)));
        Self { addr, counts, _accepting: accepting }
    }

    /// A server that answers every request the same.
    pub(crate) async fn always(reply: Reply) -> Self {
        Self::new(move |_| reply.clone()).await
    }

    /// An address that refuses connections.
    pub(crate) async fn refusing() -> Uri {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        uri(listener.local_addr().unwrap(), "/")
    }

    pub(crate) fn uri(&self, path: &str) -> Uri {
        uri(self.addr, path)
    }

    /// What a breaker knows it by.
    pub(crate) fn host(&self) -> String {
        self.addr.to_string()
    }

    pub(crate) fn get<B: Default>(&self, path: &str) -> Request<B> {
        self.request(Method::GET, path, B::default())
    }

    pub(crate) fn request<B>(&self, method: Method, path: &str, body: B) -> Request<B> {
        Request::builder().method(method).uri(self.uri(path)).body(body).unwrap()
    }

    /// How many requests came in.
    pub(crate) fn requests(&self) -> usize {
        self.counts.requests.load(Ordering::SeqCst)
    }

    /// How many connections are open.
    pub(crate) fn connections(&self) -> usize {
        self.counts.connections.load(Ordering::SeqCst)
    }
}

fn uri(addr: SocketAddr, path: &str) -> Uri {
    format!("http://{addr}{path}").parse().unwrap()
}

async fn accept<F>(listener: TcpListener, counts: Arc<Counts>, answer: Arc<F>)
where
    F: Fn(&Asked) -> Reply + Send + Sync + 'static,
{
    let mut connections = JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        let (counts, answer) = (counts.clone(), answer.clone());
        connections.spawn(async move {
            counts.connections.fetch_add(1, Ordering::SeqCst);
            let service = service_fn(|request: Request<Incoming>| {
                let index = counts.requests.fetch_add(1, Ordering::SeqCst);
                let answer = answer.clone();
                async move {
                    let (head, body) = request.into_parts();
                    let body = body
                        .collect()
                        .await
                        .map(http_body_util::Collected::to_bytes)
                        .unwrap_or_default();
                    respond(answer(&Asked { index, head, body })).await
                }
            });
            // An error is a client that went away, or a body that was told to break off.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
            counts.connections.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

async fn respond(reply: Reply) -> Result<Response<Body>, Infallible> {
    let chunk = |text: &'static str| Ok(Frame::data(Bytes::from(text)));
    let response = Response::builder();
    let response = match reply {
        Reply::Whole(status, text) => {
            let body = http_body_util::Full::from(text).map_err(|never| match never {});
            response.status(status).body(Body::new(body))
        }
        Reply::RetryAfter(status, wait) => {
            let body = http_body_util::Full::from("later").map_err(|never| match never {});
            response.status(status).header("retry-after", wait).body(Body::new(body))
        }
        Reply::Cut => {
            let broken = stream::once(async {
                // Or head and chunk would not be sent before the connection is closed.
                tokio::time::sleep(Duration::from_millis(20)).await;
                Err(io::Error::from(io::ErrorKind::BrokenPipe))
            });
            let frames = stream::iter([chunk("half")]).chain(broken);
            response.body(Body::new(StreamBody::new(frames)))
        }
        Reply::Unfinished(status) => {
            let frames = stream::iter([chunk("half")]).chain(stream::pending());
            response.status(status).body(Body::new(StreamBody::new(frames)))
        }
        Reply::Hang => std::future::pending().await,
    };
    Ok(response.unwrap())
}
