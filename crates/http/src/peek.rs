//! Looking one frame ahead, so that a gRPC call that fails right after its head can be retried.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Buf;
use http::{HeaderMap, HeaderName, Request, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use portcullis_core::{Call, clock};
use tokio::time::{Sleep, sleep_until};
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    GRPC_STATUS,
    body::unseen,
    grpc::{has_failed, is_grpc},
};

/// Makes [`Peek`] services, which look at what comes right after the head of a gRPC response. Belongs
/// beneath retry, best right above the client.
///
/// A server that fails an RPC before it has said anything should answer with a head that is all there is
/// (gRFC A6), and retry acts on such a head. But some send response headers first and their status in the
/// trailers right after; proxies do, too. Where those trailers are there already when the head comes, and
/// say that the RPC failed, they are put into the head, and the response ends there.
///
/// It polls the body once and never waits for it, so a server that waits for the client to speak is not
/// waited for. Data that was there is handed up in front of the rest, and an error in its place.
///
/// # Waiting
///
/// For [methods that are told](Self::wait_for), it waits for the first frame of the body. They should be
/// such in which the server sends its first message only when it is as good as done, as it does where it
/// sends one alone; a head that waits for its message is of no use to anybody there anyway. Nothing more
/// than that one frame is held. If the call's deadline passes, the response is handed up as it is.
///
/// ```
/// use portcullis_http::PeekLayer;
///
/// let peek = PeekLayer::new().wait_for(|path| path.starts_with("/shop.Cart/"));
/// # let _ = peek;
/// ```
#[derive(Clone, Default)]
pub struct PeekLayer {
    waits: Option<Arc<Waits>>,
}

type Waits = dyn Fn(&str) -> bool + Send + Sync;

/// Puts trailers that are there with the head, and say that the RPC failed, into the head. Made by
/// [`PeekLayer`].
///
/// # Panics
///
/// Where it [waits](PeekLayer::wait_for), a call that has a deadline panics outside a tokio runtime with
/// its timer enabled.
///
/// # Cancellation
///
/// Dropping the response future drops the inner one, or the response whose body it was looking at.
#[derive(Clone, Debug)]
pub struct Peek<S> {
    inner: S,
    layer: PeekLayer,
}

pin_project! {
    /// The future of [`Peek`].
    #[must_use = "futures do nothing unless polled"]
    pub struct PeekFuture<F, B: Body> {
        #[pin]
        state: State<F, B>,
        waits: bool,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, B: Body> {
        Calling {
            #[pin]
            future: F,
        },
        // The head is there, and the first frame is not.
        Waiting {
            head: Option<Response<B>>,
            // To the call's deadline.
            #[pin]
            timer: Option<Sleep>,
        },
    }
}

/// The body of a response that [`Peek`] has looked at.
pub struct PeekBody<B: Body> {
    /// What was there when it was looked at, and is to be handed up first.
    front: Option<Result<Frame<B::Data>, B::Error>>,
    /// `None` once it has ended.
    rest: Option<B>,
}

// ===== impl PeekLayer =====

impl PeekLayer {
    /// Looks at what is there, and waits for nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Waits for the first frame of the responses to requests of these paths, as `/shop.Cart/Add`. Not for
    /// methods whose server may wait for the client to go on: such a call would hang until its deadline.
    #[must_use]
    pub fn wait_for(mut self, paths: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        self.waits = Some(Arc::new(paths));
        self
    }
}

impl<S> Layer<S> for PeekLayer {
    type Service = Peek<S>;

    fn layer(&self, inner: S) -> Peek<S> {
        Peek { inner, layer: self.clone() }
    }
}

impl fmt::Debug for PeekLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeekLayer").field("waits", &self.waits.is_some()).finish()
    }
}

// ===== impl Peek =====

impl<S> Peek<S> {
    /// The inner service.
    #[must_use]
    pub fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl<S, R, B> Service<Request<R>> for Peek<S>
where
    S: Service<Request<R>, Response = Response<B>>,
    B: Body + Unpin,
{
    type Response = Response<PeekBody<B>>;
    type Error = S::Error;
    type Future = PeekFuture<S::Future, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, req: Request<R>) -> Self::Future {
        let waits = self.layer.waits.as_ref().is_some_and(|waits| waits(req.uri().path()));
        PeekFuture { state: State::Calling { future: self.inner.call(req) }, waits }
    }
}

// ===== impl PeekFuture =====

impl<F, B, E> Future for PeekFuture<F, B>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body + Unpin,
{
    type Output = Result<Response<PeekBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let StateProj::Calling { future } = this.state.as_mut().project() {
            let mut response = ready!(future.poll(cx))?;
            if !may_fail_in_trailers(&response) {
                return Poll::Ready(Ok(response.map(PeekBody::untouched)));
            }
            if !*this.waits {
                // Nobody waits for what is not there: no limit's time begins for that.
                let polled = unseen(|| Pin::new(response.body_mut()).poll_frame(cx));
                return Poll::Ready(Ok(match polled {
                    Poll::Pending => response.map(PeekBody::untouched),
                    Poll::Ready(first) => settled(response, first),
                }));
            }
            let timer = Call::current().deadline().map(|at| sleep_until(at.into()));
            this.state.set(State::Waiting { head: Some(response), timer });
        }
        let StateProj::Waiting { head, timer } = this.state.project() else {
            return Poll::Pending;
        };
        let response = head.as_mut().expect("a response future was polled after it was ready");
        let first = match Pin::new(response.body_mut()).poll_frame(cx) {
            Poll::Ready(first) => Some(first),
            Poll::Pending => {
                let timer = timer.as_pin_mut();
                ready!(timer.map_or(Poll::Pending, |timer| clock::run_out(timer, cx)));
                None
            }
        };
        let response = head.take().expect("it was there a moment ago");
        Poll::Ready(Ok(match first {
            Some(first) => settled(response, first),
            None => response.map(PeekBody::untouched),
        }))
    }
}

impl<F, B: Body> fmt::Debug for PeekFuture<F, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeekFuture").field("waits", &self.waits).finish_non_exhaustive()
    }
}

/// Whether what comes after the head may be a status that retry should know.
fn may_fail_in_trailers<B: Body>(response: &Response<B>) -> bool {
    response.status() == StatusCode::OK
        && is_grpc(response.headers())
        && !response.headers().contains_key(GRPC_STATUS)
        && !response.body().is_end_stream()
}

/// The response whose body begins, or ends, with `first`.
fn settled<B: Body>(
    response: Response<B>,
    first: Option<Result<Frame<B::Data>, B::Error>>,
) -> Response<PeekBody<B>> {
    let (mut head, body) = response.into_parts();
    let body = match first {
        None => PeekBody::ended(),
        Some(Ok(frame)) => match frame.into_trailers() {
            Ok(trailers) if has_failed(&trailers) => {
                merge(&mut head.headers, &trailers);
                PeekBody::ended()
            }
            Ok(trailers) => PeekBody { front: Some(Ok(Frame::trailers(trailers))), rest: None },
            Err(frame) => PeekBody { front: Some(Ok(frame)), rest: Some(body) },
        },
        Some(Err(error)) => PeekBody { front: Some(Err(error)), rest: None },
    };
    Response::from_parts(head, body)
}

/// Adds trailers to a head, but for what would change how its body is read: there is none any more.
fn merge(head: &mut HeaderMap, trailers: &HeaderMap) {
    const OF_THE_BODY: [HeaderName; 5] = [
        header::CONTENT_ENCODING,
        header::CONTENT_LENGTH,
        header::CONTENT_TYPE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
    ];
    for (name, value) in trailers.iter().filter(|(name, _)| !OF_THE_BODY.contains(name)) {
        // More of them than a map can hold are left out.
        let _ = head.try_append(name, value.clone());
    }
}

// ===== impl PeekBody =====

impl<B: Body> PeekBody<B> {
    fn untouched(rest: B) -> Self {
        Self { front: None, rest: Some(rest) }
    }

    fn ended() -> Self {
        Self { front: None, rest: None }
    }
}

/// Whatever lies in front is moved out by value.
impl<B: Body + Unpin> Unpin for PeekBody<B> {}

impl<B: Body + Unpin> Body for PeekBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.get_mut();
        if let Some(front) = this.front.take() {
            return Poll::Ready(Some(front));
        }
        match &mut this.rest {
            Some(rest) => Pin::new(rest).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.front.is_none() && self.rest.as_ref().is_none_or(B::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let rest = match &self.rest {
            Some(rest) => rest.size_hint(),
            None => SizeHint::with_exact(0),
        };
        let front = match &self.front {
            Some(Ok(frame)) => frame.data_ref().map_or(0, |data| data.remaining() as u64),
            Some(Err(_)) | None => 0,
        };
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(front));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(front));
        }
        hint
    }
}

impl<B: Body + Default> Default for PeekBody<B> {
    fn default() -> Self {
        Self::untouched(B::default())
    }
}

impl<B: Body> fmt::Debug for PeekBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (front, ended) = (self.front.is_some(), self.rest.is_none());
        f.debug_struct("PeekBody").field("front", &front).field("ended", &ended).finish()
    }
}
