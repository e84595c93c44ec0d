//! The ready-made stack for one target.

mod builder;
mod check;
mod describe;
mod preset;

use portcullis_breaker::{self as breaker, BreakerLayer};
use portcullis_http::{
    Body, BufferBody, ByHost, ByHostOr, CloneBody, GrpcCallLayer, GrpcClassifier, HttpClassifier,
    PropagateLayer, RejectionsBody, RejectionsLayer, ReplayBody,
};
use portcullis_ratelimit::{self as ratelimit, RateLimitLayer};
use portcullis_retry::RetryLayer;
use portcullis_timeout::TimeoutLayer;
use portcullis_trace::TraceLayer;
use tower_layer::{Identity, Layer};

pub use self::{
    builder::{GrpcStackBuilder, StackBuilder},
    check::{Finding, Inspect, Part, Report, Severity, check_order},
    describe::DescribeHttp,
    preset::Preset,
};

/// The layers in front of one target, in the order that serves HTTP clients best:
///
/// ```text
/// request → trace → total timeout → retry → rate limit → breaker → attempt timeout → propagate
///         → client
/// ```
///
/// Every decision is in the call's trace; the deadline of the call is known to all; each attempt of a
/// retry pays for itself, is admitted, counted and timed by itself; the verdict falls at the end of the
/// response's body. Limits and breakers are kept by host.
///
/// A stack is a [`Layer`]. It holds the state: apply it, or a clone, as often as you like, and all
/// its services share one budget, and one breaker and one limit for each host.
///
/// ```
/// use bytes::Bytes;
/// use http_body_util::Full;
/// use hyper_util::{client::legacy::Client, rt::TokioExecutor};
/// use portcullis::Stack;
/// use tower::{Layer, ServiceExt};
///
/// # async fn run() -> anyhow::Result<()> {
/// let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
/// let stack = Stack::production("payments").build()?;
///
/// let request = http::Request::get("http://payments.internal/health").body(Full::default())?;
/// let response = stack.layer(client).oneshot(request).await?;
/// println!("{}", response.status());
/// for (host, breaker) in stack.breaker().handles().all() {
///     println!("{host}: {}", breaker.state());
/// }
/// # Ok(()) }
/// ```
///
/// Every part can be set through the [builder](StackBuilder), and replaced by any other layer
/// through `with_…`, or left out through `without_…`.
#[derive(Clone, Debug)]
pub struct Stack<Trace, Total, Retry, Limit, Breaker, Attempt, Propagate, Outermost = Identity> {
    outermost: Outermost,
    trace: Trace,
    total: Total,
    retry: Retry,
    limit: Limit,
    breaker: Breaker,
    attempt: Attempt,
    propagate: Propagate,
}

/// A [`Stack`] as its builder makes it.
pub type HttpStack<K = CloneBody, C = HttpClassifier> = Stack<
    TraceLayer<C, DescribeHttp>,
    TimeoutLayer<C>,
    RetryLayer<K, C>,
    RateLimitLayer<C, ratelimit::ByKey<ByHost>>,
    BreakerLayer<C, breaker::ByKey<ByHost>>,
    TimeoutLayer<C>,
    PropagateLayer,
>;

/// The body of a response that has come through an [`HttpStack`].
pub type ResponseBody<B> = Body<Body<Body<Body<B>>>>;

/// A [`Stack`] for gRPC, as [`StackBuilder::grpc`] begins it: from requests of body `B` to those of
/// body `Out`, which the client takes. For tonic both are `tonic::body::Body`.
pub type GrpcStack<B, Out = B> = Stack<
    TraceLayer<GrpcClassifier, DescribeHttp>,
    TimeoutLayer<GrpcClassifier>,
    RetryLayer<BufferBody<Rewrap<B, Out>>, GrpcClassifier>,
    RateLimitLayer<GrpcClassifier, ratelimit::ByKey<ByHostOr>>,
    BreakerLayer<GrpcClassifier, breaker::ByKey<ByHostOr>>,
    TimeoutLayer<GrpcClassifier>,
    PropagateLayer,
    GrpcOutermost,
>;

/// Puts a body that is kept while it is sent into the client's own type.
pub type Rewrap<B, Out = B> = fn(ReplayBody<B>) -> Out;

/// What stands outermost in a [`GrpcStack`]: refusals become statuses, and within that the call takes
/// its operation and its deadline from the request.
pub type GrpcOutermost = tower_layer::Stack<GrpcCallLayer, RejectionsLayer>;

/// The body of a response that has come through a [`GrpcStack`].
pub type GrpcResponseBody<B> = RejectionsBody<ResponseBody<B>>;

// ===== impl Stack =====

impl HttpStack {
    /// Begins the stack for the target called `name`, as for a program under development: patient,
    /// one quick retry, and a breaker that only tells what it would have done.
    pub fn development(name: &str) -> StackBuilder {
        StackBuilder::new(name, Preset::Development)
    }

    /// Begins the stack for the target called `name`, as in production but quicker to open and to
    /// probe, so that failures show.
    pub fn staging(name: &str) -> StackBuilder {
        StackBuilder::new(name, Preset::Staging)
    }

    /// Begins the stack for the target called `name`, as in production.
    pub fn production(name: &str) -> StackBuilder {
        StackBuilder::new(name, Preset::Production)
    }
}

impl<Tr, T, R, Li, B, A, P, O> Stack<Tr, T, R, Li, B, A, P, O> {
    /// What stands outside of the trace layer: nothing in an [`HttpStack`].
    pub const fn outermost(&self) -> &O {
        &self.outermost
    }

    /// The trace layer.
    pub const fn trace(&self) -> &Tr {
        &self.trace
    }

    /// The total timeout.
    pub const fn total(&self) -> &T {
        &self.total
    }

    /// The retries.
    pub const fn retry(&self) -> &R {
        &self.retry
    }

    /// The rate limit.
    pub const fn limit(&self) -> &Li {
        &self.limit
    }

    /// The breaker.
    pub const fn breaker(&self) -> &B {
        &self.breaker
    }

    /// The timeout of each attempt.
    pub const fn attempt(&self) -> &A {
        &self.attempt
    }

    /// Another layer in place of the trace layer.
    pub fn with_trace<L>(self, trace: L) -> Stack<L, T, R, Li, B, A, P, O> {
        let Self { outermost, total, retry, limit, breaker, attempt, propagate, .. } = self;
        Stack { outermost, trace, total, retry, limit, breaker, attempt, propagate }
    }

    /// Another layer in place of the total timeout.
    pub fn with_total<L>(self, total: L) -> Stack<Tr, L, R, Li, B, A, P, O> {
        let Self { outermost, trace, retry, limit, breaker, attempt, propagate, .. } = self;
        Stack { outermost, trace, total, retry, limit, breaker, attempt, propagate }
    }

    /// Another layer in place of the retries.
    pub fn with_retry<L>(self, retry: L) -> Stack<Tr, T, L, Li, B, A, P, O> {
        let Self { outermost, trace, total, limit, breaker, attempt, propagate, .. } = self;
        Stack { outermost, trace, total, retry, limit, breaker, attempt, propagate }
    }

    /// Another layer in place of the rate limit.
    pub fn with_limit<L>(self, limit: L) -> Stack<Tr, T, R, L, B, A, P, O> {
        let Self { outermost, trace, total, retry, breaker, attempt, propagate, .. } = self;
        Stack { outermost, trace, total, retry, limit, breaker, attempt, propagate }
    }

    /// Another layer in place of the breaker, such as one that several stacks share.
    pub fn with_breaker<L>(self, breaker: L) -> Stack<Tr, T, R, Li, L, A, P, O> {
        let Self { outermost, trace, total, retry, limit, attempt, propagate, .. } = self;
        Stack { outermost, trace, total, retry, limit, breaker, attempt, propagate }
    }

    /// Another layer in place of the timeout of each attempt.
    pub fn with_attempt<L>(self, attempt: L) -> Stack<Tr, T, R, Li, B, L, P, O> {
        let Self { outermost, trace, total, retry, limit, breaker, propagate, .. } = self;
        Stack { outermost, trace, total, retry, limit, breaker, attempt, propagate }
    }

    /// Another layer in place of the one that tells the server what the call knows.
    pub fn with_propagate<L>(self, propagate: L) -> Stack<Tr, T, R, Li, B, A, L, O> {
        let Self { outermost, trace, total, retry, limit, breaker, attempt, .. } = self;
        Stack { outermost, trace, total, retry, limit, breaker, attempt, propagate }
    }

    /// Another layer in place of what stands outside of the trace layer, such as the
    /// [`RejectionsLayer`] that answers refusals by responses.
    pub fn with_outermost<L>(self, outermost: L) -> Stack<Tr, T, R, Li, B, A, P, L> {
        let Self { trace, total, retry, limit, breaker, attempt, propagate, .. } = self;
        Stack { outermost, trace, total, retry, limit, breaker, attempt, propagate }
    }

    /// No traces.
    pub fn without_trace(self) -> Stack<Identity, T, R, Li, B, A, P, O> {
        self.with_trace(Identity::new())
    }

    /// No total timeout.
    pub fn without_total(self) -> Stack<Tr, Identity, R, Li, B, A, P, O> {
        self.with_total(Identity::new())
    }

    /// No retries.
    pub fn without_retry(self) -> Stack<Tr, T, Identity, Li, B, A, P, O> {
        self.with_retry(Identity::new())
    }

    /// No rate limit.
    pub fn without_limit(self) -> Stack<Tr, T, R, Identity, B, A, P, O> {
        self.with_limit(Identity::new())
    }

    /// No breaker.
    pub fn without_breaker(self) -> Stack<Tr, T, R, Li, Identity, A, P, O> {
        self.with_breaker(Identity::new())
    }

    /// No timeout of each attempt.
    pub fn without_attempt(self) -> Stack<Tr, T, R, Li, B, Identity, P, O> {
        self.with_attempt(Identity::new())
    }
}

impl<S, Tr, T, R, Li, B, A, P, O> Layer<S> for Stack<Tr, T, R, Li, B, A, P, O>
where
    P: Layer<S>,
    A: Layer<P::Service>,
    B: Layer<A::Service>,
    Li: Layer<B::Service>,
    R: Layer<Li::Service>,
    T: Layer<R::Service>,
    Tr: Layer<T::Service>,
    O: Layer<Tr::Service>,
{
    type Service = O::Service;

    fn layer(&self, inner: S) -> O::Service {
        let inner = self.attempt.layer(self.propagate.layer(inner));
        let inner = self.retry.layer(self.limit.layer(self.breaker.layer(inner)));
        self.outermost.layer(self.trace.layer(self.total.layer(inner)))
    }
}
