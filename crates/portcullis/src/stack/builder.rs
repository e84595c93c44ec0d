//! Setting and building the ready-made stack.

use std::{fmt, sync::Arc};

use portcullis_breaker::{self as breaker, BreakerBuilder, BreakerLayer};
use portcullis_core::{Invalid, Observer, Registry};
use portcullis_http::{ByHost, CloneBody, HttpClassifier, PropagateLayer};
use portcullis_ratelimit::{self as ratelimit, RateLimitBuilder, RateLimitLayer};
use portcullis_retry::{RetryBuilder, RetryLayer};
use portcullis_timeout::{TimeoutBuilder, TimeoutLayer};
use portcullis_trace::{Recorder, TraceBuilder, TraceConfig, TraceLayer};

use super::{DescribeHttp, HttpStack, Preset, Stack};

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
pub struct StackBuilder<K = CloneBody, C = HttpClassifier> {
    name: Arc<str>,
    trace: TraceBuilder<C, DescribeHttp>,
    recorder: Option<Recorder>,
    traces: TraceConfig,
    total: TimeoutBuilder<C>,
    retry: RetryBuilder<K, C>,
    limit: LimitBuilder<C>,
    breaker: HostBreakerBuilder<C>,
    attempt: TimeoutBuilder<C>,
    propagate: PropagateLayer,
    observers: Observers,
    registry: Option<Registry>,
}

/// Who is told of everything.
#[derive(Default)]
struct Observers(Vec<Arc<dyn Observer>>);

type LimitBuilder<C> = RateLimitBuilder<C, ratelimit::KeyFn<ByHost>>;
type HostBreakerBuilder<C> = BreakerBuilder<C, breaker::KeyFn<ByHost>>;

// ===== impl StackBuilder =====

impl StackBuilder {
    /// Begins the stack for the target called `name` with the settings of `preset`.
    pub fn new(name: &str, preset: Preset) -> Self {
        let http = HttpClassifier::new();
        let name: Arc<str> = name.into();
        let timeout = || TimeoutLayer::builder(name.clone()).classify(http.clone());
        Self {
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

impl<K, C> StackBuilder<K, C> {
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
    pub fn limit(mut self, set: impl FnOnce(LimitBuilder<C>) -> LimitBuilder<C>) -> Self {
        self.limit = set(self.limit);
        self
    }

    /// Sets the breakers, one for each host.
    pub fn breaker(
        mut self,
        set: impl FnOnce(HostBreakerBuilder<C>) -> HostBreakerBuilder<C>,
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
    pub fn keep<K2>(self, keep: K2) -> StackBuilder<K2, C> {
        StackBuilder {
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
    pub fn classify<C2: Clone>(self, classify: C2) -> StackBuilder<K, C2> {
        StackBuilder {
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
    #[cfg(feature = "service-config")]
    pub fn service_config(
        self,
        config: &crate::ServiceConfig,
    ) -> StackBuilder<K, portcullis_http::GrpcClassifier> {
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
    pub fn build(self) -> Result<HttpStack<K, C>, Invalid> {
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
