//! A server that answers as it is told.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode, request::Parts};
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpListener, task::JoinSet};

use super::Protocol;

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// What the server does with one request.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// A whole response.
    Whole(u16, &'static str),
    /// A response with these headers.
    With(u16, Vec<(&'static str, String)>),
    /// A good response of three chunks, each a millisecond after the one before, and trailers.
    Stream,
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
    pub(crate) trailers: Option<HeaderMap>,
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
    under_way: AtomicUsize,
}

/// A request, from its head to the end of its response's body.
#[derive(Debug)]
struct UnderWay(Arc<Counts>);

/// A response's body, whose end is the request's.
struct Watched {
    body: Body,
    _under_way: UnderWay,
}

// ===== impl Reply =====

impl Reply {
    pub(crate) fn header(status: u16, name: &'static str, value: &str) -> Self {
        Self::With(status, vec![(name, value.to_owned())])
    }

    pub(crate) fn retry_after(status: u16, value: &str) -> Self {
        Self::header(status, "retry-after", value)
    }
}

// ===== impl Upstream =====

impl Upstream {
    /// A server that answers every request as `answer` says.
    pub(crate) async fn new<F>(protocol: Protocol, answer: F) -> Self
    where
        F: Fn(&Asked) -> Reply + Send + Sync + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let counts = Arc::new(Counts::default());
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(protocol, listener, counts.clone(), Arc::new(answer)));
        Self { addr, counts, _accepting: accepting }
    }

    /// A server that answers every request the same.
    pub(crate) async fn always(protocol: Protocol, reply: Reply) -> Self {
        Self::new(protocol, move |_| reply.clone()).await
    }

    /// A URL where connections are refused.
    pub(crate) async fn refusing() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}/", listener.local_addr().unwrap())
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    /// What a breaker knows it by.
    pub(crate) fn host(&self) -> String {
        self.addr.to_string()
    }

    pub(crate) fn get(&self, path: &str) -> Request<reqwest::Body> {
        self.request(Method::GET, path, reqwest::Body::default())
    }

    pub(crate) fn request<B>(&self, method: Method, path: &str, body: B) -> Request<B> {
        Request::builder().method(method).uri(self.url(path)).body(body).unwrap()
    }

    /// How many requests came in.
    pub(crate) fn requests(&self) -> usize {
        self.counts.requests.load(Ordering::SeqCst)
    }

    /// How many of them are neither answered to the end nor given up.
    pub(crate) fn under_way(&self) -> usize {
        self.counts.under_way.load(Ordering::SeqCst)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

async fn accept<F>(protocol: Protocol, listener: TcpListener, counts: Arc<Counts>, answer: Arc<F>)
where
    F: Fn(&Asked) -> Reply + Send + Sync + 'static,
{
    let mut connections = JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        let (counts, answer) = (counts.clone(), answer.clone());
        connections.spawn(async move {
            let service = service_fn(|request: Request<Incoming>| {
                let index = counts.requests.fetch_add(1, Ordering::SeqCst);
                counts.under_way.fetch_add(1, Ordering::SeqCst);
                let (answer, under_way) = (answer.clone(), UnderWay(counts.clone()));
                async move {
                    let (head, body) = request.into_parts();
                    let read = body.collect().await.ok();
                    let trailers = read.as_ref().and_then(|read| read.trailers().cloned());
                    let body = read.map(http_body_util::Collected::to_bytes).unwrap_or_default();
                    respond(answer(&Asked { index, head, body, trailers }), under_way).await
                }
            });
            // An error is a client that went away, or a body that was told to break off.
            let socket = TokioIo::new(socket);
            let _ = match protocol {
                Protocol::Http1 => http1::Builder::new().serve_connection(socket, service).await,
                Protocol::Http2 => {
                    let builder = http2::Builder::new(TokioExecutor::new());
                    builder.serve_connection(socket, service).await
                }
            };
        });
    }
}

async fn respond(reply: Reply, under_way: UnderWay) -> Result<Response<Body>, Infallible> {
    let (mut response, body) = match reply {
        Reply::Whole(status, text) => (head(status), full(text)),
        Reply::With(status, headers) => {
            let mut response = head(status);
            for (name, value) in headers {
                response.headers_mut().append(name, value.parse().unwrap());
            }
            (response, full("as told"))
        }
        Reply::Stream => {
            let chunks = stream::iter(["one ", "two ", "three"]).then(|text| async move {
                tokio::time::sleep(Duration::from_millis(1)).await;
                chunk(text)
            });
            let name = HeaderName::from_static("x-checksum");
            let trailers = HeaderMap::from_iter([(name, "7".parse().unwrap())]);
            let trailers = stream::once(async { Ok(Frame::trailers(trailers)) });
            let mut response = head(200);
            // HTTP/1.1 sends none that were not announced.
            response.headers_mut().insert("trailer", "x-checksum".parse().unwrap());
            (response, Body::new(StreamBody::new(chunks.chain(trailers))))
        }
        Reply::Unfinished(status) => {
            let frames = stream::iter([chunk("half")]).chain(stream::pending());
            (head(status), Body::new(StreamBody::new(frames)))
        }
        Reply::Cut => {
            let broken = stream::once(async {
                // Or head and chunk would not be sent before the connection is closed.
                tokio::time::sleep(Duration::from_millis(20)).await;
                Err(io::Error::from(io::ErrorKind::BrokenPipe))
            });
            let frames = stream::iter([chunk("half")]).chain(broken);
            (head(200), Body::new(StreamBody::new(frames)))
        }
        Reply::Hang => {
            let _under_way = under_way;
            return std::future::pending().await;
        }
    };
    *response.body_mut() = Body::new(Watched { body, _under_way: under_way });
    Ok(response)
}

fn head(status: u16) -> Response<Body> {
    let mut response = Response::new(full(""));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

fn full(text: &'static str) -> Body {
    Body::new(Full::from(text).map_err(|never| match never {}))
}

fn chunk(text: &'static str) -> io::Result<Frame<Bytes>> {
    Ok(Frame::data(Bytes::from(text)))
}
