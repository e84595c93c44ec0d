//! The service.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use http::{Request, Response};
use portcullis_core::{Call, Completion, Ticket, Watch};
use portcullis_http::{is_grpc, trace_context};
use portcullis_trace::TraceScope;
use tower_service::Service;

use super::{Body, Head, ResponseFuture, layer::Shared};

/// Serves each request in a scope of its own. Made by [`InboundLayer`](super::InboundLayer).
///
/// The scope reaches from the inner service's call to the end of the response's body: polls and drop of
/// the body included, so that a handler that streams may make calls on the way. It has
///
/// - the trace that the request belongs to. With a recorder the request is recorded as a scope of
///   that trace, or of a new one; its status is the response's, at the end of the body;
/// - the deadline: what the request's headers say, or the default, and no more than the maximum. A
///   scope around it, such as that of a timeout layer outside, can only be shortened.
///
/// A request whose deadline has passed when it comes is refused, and the inner service not called. One
/// that passes before the response's head drops the inner future, and the answer is the same: 504, or
/// for gRPC `DEADLINE_EXCEEDED`. One that passes later ends the body with an
/// [`Elapsed`](portcullis_core::Elapsed) error, or for gRPC with trailers. What is there when it passes
/// is not taken away: a handler whose call gave up at that deadline may say so in its own words, to the
/// first that is not there at once.
/// [`without_refusals`](super::InboundBuilder::without_refusals) leaves all that out.
///
/// Within a trace, such as that of a layer of this kind on the router around, it continues that one,
/// whatever the headers say.
///
/// # Errors
///
/// The inner service's.
///
/// # Panics
///
/// A request that is pending under a deadline panics outside a tokio runtime with its timer enabled, as
/// tokio's own timers do.
///
/// # Cancellation
///
/// A server drops the future, or the body, when the client has gone. That drops the inner one within
/// the scope, and with it the calls that it awaits; the request is recorded as `cancelled`.
///
/// # Allocations
///
/// Without a recorder: none; one for a trace to continue, two more for its `tracestate`; one for a body
/// that is pending under a deadline. With one, once its buffers are warm: one for the scope, two for a
/// `tracestate`, and what the name takes, which is none unless it is set, and one for gRPC.
///
/// # Clone
///
/// Clones share the layer's settings and recorder. A clone starts unready.
pub struct Inbound<S> {
    inner: S,
    shared: Arc<Shared>,
}

// ===== impl Inbound =====

impl<S> Inbound<S> {
    pub(super) fn new(inner: S, shared: Arc<Shared>) -> Self {
        Self { inner, shared }
    }

    /// The inner service.
    #[must_use]
    pub fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl<S, ReqB, ResB> Service<Request<ReqB>> for Inbound<S>
where
    S: Service<Request<ReqB>, Response = Response<ResB>>,
    ResB: http_body::Body,
{
    type Response = Response<Body<ResB>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, req: Request<ReqB>) -> Self::Future {
        // Whoever calls it in this task: what is served is no attempt of its handler's calls.
        let outer = Call::current().with_attempt(0);
        let now = outer.now();
        let grpc = is_grpc(req.headers());
        let until = self.shared.until(req.headers(), &outer, now);
        let outer = outer.with_deadline(until.map(|until| until.at));
        let until = until.filter(|_| self.shared.keeps_deadline);
        let (call, done) = self.shared.open(&req, outer, now, grpc);
        let done = done.with_watch(Watch { until, idle: None });
        if until.is_some_and(|until| until.at <= now) {
            // The inner service stays ready for another request.
            return ResponseFuture::refused(until, grpc, done);
        }
        let inner = call.enter(now, || self.inner.call(req));
        ResponseFuture::called(inner, until, grpc, done)
    }
}

impl<S: Clone> Clone for Inbound<S> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), self.shared.clone())
    }
}

impl<S> fmt::Debug for Inbound<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbound").field("shared", &self.shared).finish_non_exhaustive()
    }
}

// ===== impl Shared =====

impl Shared {
    /// Opens a request's scope in `outer`: the call that it is served in, and the duty to tell how it
    /// ended.
    fn open<B>(
        self: &Arc<Self>,
        req: &Request<B>,
        outer: Call,
        now: Instant,
        grpc: bool,
    ) -> (Call, Completion) {
        // A layer around this one has read the header already, or is not to trust it.
        let reads = self.trusts_trace && outer.trace().is_none();
        let remote = reads.then(|| trace_context::from_headers(req.headers())).flatten();
        let Some(recorder) = &self.recorder else {
            let call = match remote {
                Some(remote) => outer.with_trace(remote),
                None => outer,
            };
            // Nobody is told of the end, but a limit of the body is kept, and has a name.
            let done = Completion::new(self.clone(), Ticket::default(), call.clone(), now);
            return (call, done.muted());
        };
        let head = Head {
            method: req.method(),
            uri: req.uri(),
            headers: req.headers(),
            extensions: req.extensions(),
        };
        let name = self.name_of(&head, grpc);
        TraceScope::start(name).recorder(recorder).parent(remote).open(outer)
    }
}
