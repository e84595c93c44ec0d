//! Setting and building the ready-made stack.

use std::{fmt, sync::Arc};

use portcullis_breaker::{self as breaker, BreakerBuilder, BreakerLayer};
use portcullis_core::{Invalid, Observer, Registry};
use portcullis_http::{
    BufferBody, ByHost, ByHostOr, CloneBody, GrpcCallLayer, GrpcClassifier, HttpClassifier,
    PropagateLayer, RejectionsLayer, ReplayBody,
};
use portcullis_ratelimit::{self as ratelimit, RateLimitBuilder, RateLimitLayer};
use portcullis_retry::{RetryBuilder, RetryLayer};
use portcullis_timeout::{TimeoutBuilder, TimeoutLayer};
use portcullis_trace::{Recorder, TraceBuilder, TraceConfig, TraceLayer};
use tower_layer::Identity;

use super::{DescribeHttp, GrpcOutermost, Preset, Rewrap, Stack};

/// A [`Stack`] in the making. Begin one with [`Stack::production`], [`Stack::staging`] or
/// [`Stack::development`].
///
/// ```
/// use portcullis::{Event, Registry, Stack};
/// use std::time::Duration;
///
/// # fn main() -> Result<(), portcullis::Invalid> {
/// let registry = Registry::new();
/// let payments = Stack::production("payments")
///     .total(|timeout| timeout.total(Duration::from_secs(5)))
///     .attempt(|timeout| timeout.attempt(Duration::from_secs(2)))
///     .retry(|retry| retry.max_attempts(4))
///     .breaker(|breaker| breaker.failure_rate(0.3))
///     .observe(|event: &Event<'_>| println!("{event}"))
///     .register_in(&registry)
///     .build()?;
/// # let _ = payments;
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct StackBuilder<K = CloneBody, C = HttpClassifier, By = ByHost, Outermost = Identity> {
    name: Arc<str>,
    outermost: Outermost,
    trace: TraceBuilder<C, DescribeHttp>,
    recorder: Option<Recorder>,
    traces: TraceConfig,
    total: TimeoutBuilder<C>,
    retry: RetryBuilder<K, C>,
    limit: LimitBuilder<C, By>,
    breaker: KeyedBreakerBuilder<C, By>,
    attempt: TimeoutBuilder<C>,
    propagate: PropagateLayer,
    observers: Observers,
    registry: Option<Registry>,
}

/// Who is told of everything.
#[derive(Default)]
struct Observers(Vec<Arc<dyn Observer>>);

/// A [`StackBuilder`] of a [`GrpcStack`](super::GrpcStack): see [`StackBuilder::grpc`].
pub type GrpcStackBuilder<B, Out = B> =
    StackBuilder<BufferBody<Rewrap<B, Out>>, GrpcClassifier, ByHostOr, GrpcOutermost>;

/// What [`StackBuilder::build`] makes of its parts.
type Built<K, C, By, O> = Stack<
    TraceLayer<C, DescribeHttp>,
    TimeoutLayer<C>,
    RetryLayer<K, C>,
    RateLimitLayer<C, ratelimit::ByKey<By>>,
    BreakerLayer<C, breaker::ByKey<By>>,
    TimeoutLayer<C>,
    PropagateLayer,
    O,
>;

type LimitBuilder<C, By> = RateLimitBuilder<C, ratelimit::KeyFn<By>>;
type KeyedBreakerBuilder<C, By> = BreakerBuilder<C, breaker::KeyFn<By>>;

// ===== impl StackBuilder =====

impl StackBuilder {
    /// Begins the stack for the target called `name` with the settings of `preset`.
    pub fn new(name: &str, preset: Preset) -> Self {
        let http = HttpClassifier::new();
        let name: Arc<str> = name.into();
        let timeout = || TimeoutLayer::builder(name.clone()).classify(http.clone());
        Self {
            outermost: Identity::new(),
            trace: TraceLayer::builder(name.clone()).describe(DescribeHttp).classify(http.clone()),
            recorder: None,
            traces: preset.trace(),
            total: timeout().config(preset.total()),
            retry: RetryLayer::builder(name.clone(), CloneBody)
                .config(preset.retry())
                .classify(http.clone()),
            limit: RateLimitLayer::keyed_by(name.clone(), ByHost)
                .config(preset.limit())
                .classify(http.clone()),
            breaker: BreakerLayer::keyed_by(name.clone(), ByHost)
                .config(preset.breaker())
                .classify(http.clone()),
            attempt: timeout().config(preset.attempt()),
            propagate: PropagateLayer::new(),
            observers: Observers::default(),
            registry: None,
            name,
        }
    }
}

impl<K> StackBuilder<K, HttpClassifier> {
    /// Makes it a stack for gRPC, in front of tonic's channel or of any other client of gRPC over
    /// HTTP/2. What was set so far stays, but for the way calls are judged and requests are kept: a
    /// classifier of gRPC's, or a service config, is set after it.
    ///
    /// `wrap` puts a body that is kept while it is sent into the client's own type: for tonic,
    /// `tonic::body::Body::new`.
    ///
    /// - Calls are judged by their status, by [`GrpcClassifier`].
    /// - Requests are kept by [`BufferBody`], up to 64 KiB; longer ones are sent once.
    /// - [`GrpcCallLayer`] makes the method the operation, and `grpc-timeout` the deadline.
    /// - [`RejectionsLayer`] stands outermost: a refusal reaches the caller as a status, with its code,
    ///   its message and a pushback. Other errors of the client are handed up as they are.
    /// - Requests that name no host, such as those of tonic's channel, share one breaker and one limit,
    ///   under the stack's name. A channel is for one target: that is its breaker, though it balances
    ///   between many servers.
    ///
    /// ```
    /// use bytes::Bytes;
    /// use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
    /// use portcullis::{Error, GrpcStack, Invalid, Stack};
    ///
    /// type Body = UnsyncBoxBody<Bytes, Error>; // tonic's is tonic::body::Body
    ///
    /// fn greeter() -> Result<GrpcStack<Body>, Invalid> {
    ///     Stack::production("greeter").grpc(Body::new).build()
    /// }
    /// # greeter().unwrap();
    /// ```
    pub fn grpc<B, Out>(self, wrap: fn(ReplayBody<B>) -> Out) -> GrpcStackBuilder<B, Out> {
        let by_name = ByHostOr::new(self.name.clone());
        let grpc =
            self.keep(BufferBody::new(wrap as Rewrap<B, Out>)).classify(GrpcClassifier::new());
        StackBuilder {
            outermost: tower_layer::Stack::new(GrpcCallLayer::new(), RejectionsLayer::new()),
            name: grpc.name,
            trace: grpc.trace,
            recorder: grpc.recorder,
            traces: grpc.traces,
            total: grpc.total,
            retry: grpc.retry,
            limit: grpc.limit.key_by(by_name.clone()),
            breaker: grpc.breaker.key_by(by_name),
            attempt: grpc.attempt,
            propagate: grpc.propagate,
            observers: grpc.observers,
            registry: grpc.registry,
        }
    }
}

impl<K, C, By, O> StackBuilder<K, C, By, O> {
    /// Sets the total timeout.
    pub fn total(mut self, set: impl FnOnce(TimeoutBuilder<C>) -> TimeoutBuilder<C>) -> Self {
        self.total = set(self.total);
        self
    }

    /// Sets the retries.
    pub fn retry(mut self, set: impl FnOnce(RetryBuilder<K, C>) -> RetryBuilder<K, C>) -> Self {
        self.retry = set(self.retry);
        self
    }

    /// Sets the rate limits, one for each host.
    pub fn limit(mut self, set: impl FnOnce(LimitBuilder<C, By>) -> LimitBuilder<C, By>) -> Self {
        self.limit = set(self.limit);
        self
    }

    /// Sets the breakers, one for each host.
    pub fn breaker(
        mut self,
        set: impl FnOnce(KeyedBreakerBuilder<C, By>) -> KeyedBreakerBuilder<C, By>,
    ) -> Self {
        self.breaker = set(self.breaker);
        self
    }

    /// Sets the timeout of each attempt.
    pub fn attempt(mut self, set: impl FnOnce(TimeoutBuilder<C>) -> TimeoutBuilder<C>) -> Self {
        self.attempt = set(self.attempt);
        self
    }

    /// Has traces recorded by a recorder that there is already, which several stacks and scopes may
    /// share. Without one, the stack has a recorder of its own, with a store in memory.
    pub fn recorder(mut self, recorder: &Recorder) -> Self {
        self.recorder = Some(recorder.clone());
        self
    }

    /// The share of unremarkable traces that the stack's own recorder keeps, from 0 to 1.
    pub fn sample_rate(mut self, rate: f64) -> Self {
        self.traces.sample_rate = rate;
        self
    }

    /// Sets what the server is told.
    pub fn propagate(mut self, propagate: PropagateLayer) -> Self {
        self.propagate = propagate;
        self
    }

    /// Keeps requests another way, for clients whose body is not `Clone`: see
    /// [`BufferBody`](portcullis_http::BufferBody).
    pub fn keep<K2>(self, keep: K2) -> StackBuilder<K2, C, By, O> {
        StackBuilder {
            outermost: self.outermost,
            name: self.name,
            trace: self.trace,
            recorder: self.recorder,
            traces: self.traces,
            total: self.total,
            retry: self.retry.keep(keep),
            limit: self.limit,
            breaker: self.breaker,
            attempt: self.attempt,
            propagate: self.propagate,
            observers: self.observers,
            registry: self.registry,
        }
    }

    /// Judges calls another way, in every layer alike.
    pub fn classify<C2: Clone>(self, classify: C2) -> StackBuilder<K, C2, By, O> {
        StackBuilder {
            outermost: self.outermost,
            name: self.name,
            trace: self.trace.classify(classify.clone()),
            recorder: self.recorder,
            traces: self.traces,
            total: self.total.classify(classify.clone()),
            retry: self.retry.classify(classify.clone()),
            limit: self.limit.classify(classify.clone()),
            breaker: self.breaker.classify(classify.clone()),
            attempt: self.attempt.classify(classify),
            propagate: self.propagate,
            observers: self.observers,
            registry: self.registry,
        }
    }

    /// Timeouts and retries as a gRPC service config has them, and calls judged as gRPC's, with the
    /// retryable codes of the config. What is set afterwards stands above it.
    ///
    /// In a stack [for gRPC](Self::grpc) it comes after that, which judges calls in a way of its own:
    ///
    /// ```
    /// use bytes::Bytes;
    /// use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
    /// use portcullis::{Error, ServiceConfig, Stack};
    ///
    /// type Body = UnsyncBoxBody<Bytes, Error>;
    ///
    /// let config = ServiceConfig::parse("{}")?;
    /// let stack = Stack::production("shop").grpc::<Body, Body>(Body::new).service_config(&config);
    /// # let _ = stack.build()?;
    /// # Ok::<_, portcullis::Invalid>(())
    /// ```
    ///
    /// ```compile_fail,E0599
    /// # use bytes::Bytes;
    /// # use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
    /// # use portcullis::{Error, ServiceConfig, Stack};
    /// # type Body = UnsyncBoxBody<Bytes, Error>;
    /// # let config = ServiceConfig::parse("{}")?;
    /// let stack = Stack::production("shop").service_config(&config).grpc::<Body, Body>(Body::new);
    /// # Ok::<_, portcullis::Invalid>(())
    /// ```
    #[cfg(feature = "service-config")]
    pub fn service_config(
        self,
        config: &crate::ServiceConfig,
    ) -> StackBuilder<K, portcullis_http::GrpcClassifier, By, O> {
        self.total(|timeout| config.timeouts(timeout))
            .retry(|retry| config.retries(retry))
            .classify(config.classifier())
    }

    /// Tells `observer` what every layer decides.
    pub fn observe(mut self, observer: impl Observer) -> Self {
        let observer = Arc::new(observer);
        self.trace = self.trace.observe(observer.clone());
        self.total = self.total.observe(observer.clone());
        self.retry = self.retry.observe(observer.clone());
        self.limit = self.limit.observe(observer.clone());
        self.breaker = self.breaker.observe(observer.clone());
        self.attempt = self.attempt.observe(observer.clone());
        // Told when the stack is built: the layer may still be replaced.
        self.observers.0.push(observer);
        self
    }

    /// Files under the target's name, once the stack is built, what it can be watched and steered by:
    /// [`breaker::Handles`], [`ratelimit::KeyedLimiter`], the retry
    /// [`Budget`](portcullis_retry::Budget) or [`Throttling`](portcullis_retry::Throttling), and the
    /// [`Recorder`].
    pub fn register_in(mut self, registry: &Registry) -> Self {
        self.registry = Some(registry.clone());
        self
    }

    /// Builds the stack.
    ///
    /// # Errors
    ///
    /// The first setting that is out of its range, with the part it belongs to; nothing is registered
    /// then.
    pub fn build(self) -> Result<Built<K, C, By, O>, Invalid> {
        let Self { name, registry, .. } = &self;
        let (name, registry) = (name.clone(), registry.clone());
        let at = |part: &'static str| {
            let name = name.clone();
            move |invalid: Invalid| invalid.within(format!("{name}: {part}"))
        };
        let recorder = match self.recorder {
            Some(recorder) => recorder,
            None => Recorder::builder().config(self.traces).build().map_err(at("trace"))?,
        };
        let propagate = self.observers.0.into_iter().fold(self.propagate, |propagate, observer| {
            propagate.with_observer(name.clone(), observer)
        });
        let stack = Stack {
            outermost: self.outermost,
            trace: self.trace.recorder(&recorder).build().map_err(at("trace"))?,
            total: self.total.build().map_err(at("total"))?,
            retry: self.retry.build().map_err(at("retry"))?,
            limit: self.limit.build().map_err(at("limit"))?,
            breaker: self.breaker.build().map_err(at("breaker"))?,
            attempt: self.attempt.build().map_err(at("attempt"))?,
            propagate,
        };
        if let Some(registry) = registry {
            registry.insert(name.clone(), stack.breaker.handles());
            registry.insert(name.clone(), stack.limit.limiters());
            if let Some(budget) = stack.retry.budget() {
                registry.insert(name.clone(), budget.clone());
            }
            if let Some(throttling) = stack.retry.throttling() {
                registry.insert(name.clone(), throttling.clone());
            }
            registry.insert(name, recorder);
        }
        Ok(stack)
    }
}

impl fmt::Debug for Observers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.len().fmt(f)
    }
}
