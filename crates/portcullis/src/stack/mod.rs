//! The ready-made stack for one target.

mod builder;
mod preset;

use portcullis_breaker::BreakerLayer;
use portcullis_http::{Body, CloneBody, HttpClassifier, PropagateLayer};
use portcullis_retry::RetryLayer;
use portcullis_timeout::TimeoutLayer;
use tower_layer::{Identity, Layer};

pub use self::{builder::StackBuilder, preset::Preset};

/// The layers in front of one target, in the order that serves HTTP clients best:
///
/// ```text
/// request → total timeout → retry → breaker → attempt timeout → propagate → client
/// ```
///
/// The deadline of the call is known to all; each attempt of a retry is admitted, counted and timed
/// by itself; the verdict falls at the end of the response's body.
///
/// A stack is a [`Layer`]. It holds the state: apply it, or a clone, as often as you like, and all
/// its services share one breaker and one budget.
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
/// println!("{} with the breaker {}", response.status(), stack.breaker().handle().state());
/// # Ok(()) }
/// ```
///
/// Every part can be set through the [builder](StackBuilder), and replaced by any other layer
/// through `with_…`, or left out through `without_…`.
#[derive(Clone, Debug)]
pub struct Stack<Total, Retry, Breaker, Attempt, Propagate> {
    total: Total,
    retry: Retry,
    breaker: Breaker,
    attempt: Attempt,
    propagate: Propagate,
}

/// A [`Stack`] as its builder makes it.
pub type HttpStack<K = CloneBody, C = HttpClassifier> =
    Stack<TimeoutLayer<C>, RetryLayer<K, C>, BreakerLayer<C>, TimeoutLayer<C>, PropagateLayer>;

/// The body of a response that has come through an [`HttpStack`].
pub type ResponseBody<B> = Body<Body<Body<B>>>;

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

impl<T, R, B, A, P> Stack<T, R, B, A, P> {
    /// The total timeout.
    pub const fn total(&self) -> &T {
        &self.total
    }

    /// The retries.
    pub const fn retry(&self) -> &R {
        &self.retry
    }

    /// The breaker.
    pub const fn breaker(&self) -> &B {
        &self.breaker
    }

    /// The timeout of each attempt.
    pub const fn attempt(&self) -> &A {
        &self.attempt
    }

    /// Another layer in place of the total timeout.
    pub fn with_total<L>(self, total: L) -> Stack<L, R, B, A, P> {
        let Self { retry, breaker, attempt, propagate, .. } = self;
        Stack { total, retry, breaker, attempt, propagate }
    }

    /// Another layer in place of the retries.
    pub fn with_retry<L>(self, retry: L) -> Stack<T, L, B, A, P> {
        let Self { total, breaker, attempt, propagate, .. } = self;
        Stack { total, retry, breaker, attempt, propagate }
    }

    /// Another layer in place of the breaker, such as one that several stacks share.
    pub fn with_breaker<L>(self, breaker: L) -> Stack<T, R, L, A, P> {
        let Self { total, retry, attempt, propagate, .. } = self;
        Stack { total, retry, breaker, attempt, propagate }
    }

    /// Another layer in place of the timeout of each attempt.
    pub fn with_attempt<L>(self, attempt: L) -> Stack<T, R, B, L, P> {
        let Self { total, retry, breaker, propagate, .. } = self;
        Stack { total, retry, breaker, attempt, propagate }
    }

    /// Another layer in place of the one that tells the server what the call knows.
    pub fn with_propagate<L>(self, propagate: L) -> Stack<T, R, B, A, L> {
        let Self { total, retry, breaker, attempt, .. } = self;
        Stack { total, retry, breaker, attempt, propagate }
    }

    /// No total timeout.
    pub fn without_total(self) -> Stack<Identity, R, B, A, P> {
        self.with_total(Identity::new())
    }

    /// No retries.
    pub fn without_retry(self) -> Stack<T, Identity, B, A, P> {
        self.with_retry(Identity::new())
    }

    /// No breaker.
    pub fn without_breaker(self) -> Stack<T, R, Identity, A, P> {
        self.with_breaker(Identity::new())
    }

    /// No timeout of each attempt.
    pub fn without_attempt(self) -> Stack<T, R, B, Identity, P> {
        self.with_attempt(Identity::new())
    }
}

impl<S, T, R, B, A, P> Layer<S> for Stack<T, R, B, A, P>
where
    P: Layer<S>,
    A: Layer<P::Service>,
    B: Layer<A::Service>,
    R: Layer<B::Service>,
    T: Layer<R::Service>,
{
    type Service = T::Service;

    fn layer(&self, inner: S) -> T::Service {
        let inner = self.attempt.layer(self.propagate.layer(inner));
        self.total.layer(self.retry.layer(self.breaker.layer(inner)))
    }
}
