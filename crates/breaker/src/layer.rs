//! The layer and its builder.

use std::{borrow::Cow, fmt, sync::Arc, time::Duration};

use portcullis_core::{ByResult, Invalid, LayerKind, Observer, Voice};
use tower_layer::Layer;

use crate::{
    Abandoned, Breaker, BreakerConfig, ByKey, Handle, Handles, Mode, Ramp, Single, SlowPhase,
    WhenOpen, Window,
};

/// Puts a [`Breaker`] round services.
///
/// Its state was made when it was built: all services it makes, however often, are behind the same
/// breaker.
///
/// ```
/// use portcullis_breaker::{BreakerLayer, Window};
/// use std::time::Duration;
///
/// let layer = BreakerLayer::builder("search")
///     .window(Window::Time(Duration::from_secs(30)))
///     .failure_rate(0.3)
///     .observe(|event: &portcullis_core::Event<'_>| println!("{event}"))
///     .build()?;
/// layer.handle().force_open();
/// # Ok::<_, portcullis_core::Invalid>(())
/// ```
#[derive(Clone)]
pub struct BreakerLayer<C = ByResult, K = Single> {
    classifier: C,
    select: K,
}

/// A breaker layer in the making. Every setting has a default, see [`BreakerConfig`].
#[derive(Clone)]
#[must_use = "nothing is built until `build`"]
pub struct BreakerBuilder<C = ByResult, K = Unkeyed> {
    voice: Voice,
    config: BreakerConfig,
    classifier: C,
    keys: K,
}

/// Marks a builder of one breaker for all calls.
#[derive(Clone, Copy, Debug)]
pub struct Unkeyed;

/// Marks a builder of a breaker for each key, and finds the key.
#[derive(Clone, Copy)]
pub struct KeyFn<F>(F);

// ===== impl BreakerLayer =====

impl BreakerLayer {
    /// Begins to build one breaker for all calls.
    pub fn builder(name: impl Into<Arc<str>>) -> BreakerBuilder {
        BreakerBuilder {
            voice: Voice::new(LayerKind::Breaker, name),
            config: BreakerConfig::default(),
            classifier: ByResult,
            keys: Unkeyed,
        }
    }

    /// Begins to build a breaker for each key that `key` finds in a request.
    ///
    /// ```
    /// use portcullis_breaker::BreakerLayer;
    /// use std::borrow::Cow;
    ///
    /// struct Request { host: String }
    ///
    /// let layer = BreakerLayer::keyed("upstream", |req: &Request| Cow::from(&*req.host))
    ///     .max_keys(100)
    ///     .build()?;
    /// assert!(layer.handles().is_empty());
    /// # Ok::<_, portcullis_core::Invalid>(())
    /// ```
    pub fn keyed<Req, F>(name: impl Into<Arc<str>>, key: F) -> BreakerBuilder<ByResult, KeyFn<F>>
    where
        F: for<'r> Fn(&'r Req) -> Cow<'r, str>,
    {
        Self::keyed_by(name, key)
    }

    /// The same for a [`Key`](portcullis_core::Key) that is no closure, such as the one by host of
    /// `portcullis-http`.
    pub fn keyed_by<F>(name: impl Into<Arc<str>>, key: F) -> BreakerBuilder<ByResult, KeyFn<F>> {
        let BreakerBuilder { voice, config, classifier, .. } = Self::builder(name);
        BreakerBuilder { voice, config, classifier, keys: KeyFn(key) }
    }

    /// Puts services behind a breaker that there is already.
    #[must_use]
    pub fn new(handle: Handle) -> Self {
        Self { classifier: ByResult, select: Single(handle) }
    }
}

impl<C, K> BreakerLayer<C, K> {
    /// The same layer with another classifier.
    #[must_use]
    pub fn with_classifier<D>(self, classifier: D) -> BreakerLayer<D, K> {
        BreakerLayer { classifier, select: self.select }
    }
}

impl<C> BreakerLayer<C, Single> {
    /// The breaker.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.select.0.clone()
    }
}

impl<C, F> BreakerLayer<C, ByKey<F>> {
    /// The breakers of all keys.
    #[must_use]
    pub fn handles(&self) -> Handles {
        self.select.handles.clone()
    }
}

impl<S, C: Clone, K: Clone> Layer<S> for BreakerLayer<C, K> {
    type Service = Breaker<S, C, K>;

    fn layer(&self, inner: S) -> Self::Service {
        Breaker::new(inner, self.classifier.clone(), self.select.clone())
    }
}

impl<C, K: fmt::Debug> fmt::Debug for BreakerLayer<C, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BreakerLayer").field("select", &self.select).finish_non_exhaustive()
    }
}

// ===== impl BreakerBuilder =====

impl<C, K> BreakerBuilder<C, K> {
    /// All settings at once, in place of those made so far.
    pub fn config(mut self, config: BreakerConfig) -> Self {
        self.config = config;
        self
    }

    /// Whether it judges by itself or follows an order from the start.
    pub fn mode(mut self, mode: Mode) -> Self {
        self.config.mode = mode;
        self
    }

    /// Which calls the rates are taken over: 100 ms to 1 day, or 1 to 1 000 000 calls.
    pub fn window(mut self, window: Window) -> Self {
        self.config.window = window;
        self
    }

    /// No rate trips while the window holds fewer calls: at least 1, at most N for a window of N.
    pub fn minimum_calls(mut self, calls: u32) -> Self {
        self.config.minimum_calls = calls;
        self
    }

    /// So many failures in a row trip: at least 1; `None` is off.
    pub fn consecutive_failures(mut self, failures: impl Into<Option<u32>>) -> Self {
        self.config.consecutive_failures = failures.into();
        self
    }

    /// This share of failures in the window trips: above 0, at most 1; `None` is off.
    pub fn failure_rate(mut self, rate: impl Into<Option<f64>>) -> Self {
        self.config.failure_rate = rate.into();
        self
    }

    /// This share of slow calls in the window trips: above 0, at most 1; `None` is off. Needs a
    /// [slow threshold](Self::slow_threshold).
    pub fn slow_rate(mut self, rate: impl Into<Option<f64>>) -> Self {
        self.config.slow_rate = rate.into();
        self
    }

    /// A call that takes longer is slow: above 0; `None` is unset.
    pub fn slow_threshold(mut self, threshold: impl Into<Option<Duration>>) -> Self {
        self.config.slow_threshold = threshold.into();
        self
    }

    /// Which part of a call is held against the slow threshold.
    pub fn slow_phase(mut self, phase: SlowPhase) -> Self {
        self.config.slow_phase = phase;
        self
    }

    /// How long it stays open the first time, from 1 ms, and what that may grow to by doubling, to
    /// 1 day. Twice the same time is a fixed one.
    pub fn open_time(mut self, initial: Duration, cap: Duration) -> Self {
        self.config.open_initial = initial;
        self.config.open_cap = cap;
        self
    }

    /// Whether an open time d is drawn from [d/2, d).
    pub fn jitter(mut self, jitter: bool) -> Self {
        self.config.jitter = jitter;
        self
    }

    /// What a peer's hint may lengthen the open time to: 0 to 1 day.
    pub fn max_hint(mut self, most: Duration) -> Self {
        self.config.max_hint = most;
        self
    }

    /// How many probes may be out at once, from 1 to 1000, and how many must succeed to close, at
    /// least 1.
    pub fn probes(mut self, at_once: u32, successes: u32) -> Self {
        self.config.probes = at_once;
        self.config.probe_successes = successes;
        self
    }

    /// How long a probe may wait for its head, or hold its slot while its body streams: 1 ms to
    /// 1 day.
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.config.max_wait = wait;
        self
    }

    /// Whether a throttled call counts as a failure.
    pub fn throttled_is_failure(mut self, is_failure: bool) -> Self {
        self.config.throttled_is_failure = is_failure;
        self
    }

    /// Whether a throttled probe is a failed probe.
    pub fn throttled_fails_probe(mut self, fails: bool) -> Self {
        self.config.throttled_fails_probe = fails;
        self
    }

    /// Which calls that were dropped before their head count as timeouts.
    pub fn abandoned(mut self, abandoned: Abandoned) -> Self {
        self.config.abandoned = abandoned;
        self
    }

    /// How admission grows after closing; `None` is at once.
    pub fn ramp(mut self, ramp: impl Into<Option<Ramp>>) -> Self {
        self.config.ramp = ramp.into();
        self
    }

    /// What `poll_ready` answers while open.
    pub fn when_open(mut self, when_open: WhenOpen) -> Self {
        self.config.when_open = when_open;
        self
    }

    /// Makes the jitter and the ramp the same in every run. For tests.
    pub fn seed(mut self, seed: u64) -> Self {
        self.config.seed = Some(seed);
        self
    }

    /// Adds somebody who is told of every event.
    pub fn observe(mut self, observer: impl Observer) -> Self {
        self.voice = self.voice.with_observer(Arc::new(observer));
        self
    }

    /// Judges calls by this [`Classify`](portcullis_core::Classify).
    pub fn classify<D>(self, classifier: D) -> BreakerBuilder<D, K> {
        let Self { voice, config, keys, .. } = self;
        BreakerBuilder { voice, config, classifier, keys }
    }
}

impl<C> BreakerBuilder<C> {
    /// Builds the layer, and its breaker.
    ///
    /// # Errors
    ///
    /// If a setting is out of its range.
    pub fn build(self) -> Result<BreakerLayer<C>, Invalid> {
        self.config.validate()?;
        let select = Single(Handle::with_voice(self.voice, None, self.config));
        Ok(BreakerLayer { classifier: self.classifier, select })
    }
}

impl<C, F> BreakerBuilder<C, KeyFn<F>> {
    /// Finds keys another way, in place of the one so far.
    pub fn key_by<G>(self, key: G) -> BreakerBuilder<C, KeyFn<G>> {
        let Self { voice, config, classifier, .. } = self;
        BreakerBuilder { voice, config, classifier, keys: KeyFn(key) }
    }

    /// How many keys there is state for: at least 1.
    pub fn max_keys(mut self, keys: usize) -> Self {
        self.config.max_keys = keys;
        self
    }

    /// Builds the layer. Breakers are made as their keys are met.
    ///
    /// # Errors
    ///
    /// If a setting is out of its range.
    pub fn build(self) -> Result<BreakerLayer<C, ByKey<F>>, Invalid> {
        self.config.validate()?;
        let handles = Handles::new(self.voice, self.config);
        let select = ByKey { key: self.keys.0, handles };
        Ok(BreakerLayer { classifier: self.classifier, select })
    }
}

impl<C, K> fmt::Debug for BreakerBuilder<C, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BreakerBuilder")
            .field("voice", &self.voice)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

// ===== impl KeyFn =====

impl<F> fmt::Debug for KeyFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyFn").finish_non_exhaustive()
    }
}
