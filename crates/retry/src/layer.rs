//! The layer and its builder.

use std::{fmt, sync::Arc, time::Duration};

use portcullis_core::{
    ByResult, Call, Classify, Error, Event, Invalid, LayerKind, Observer, Outcome, Voice, What,
    backoff::{Chance, CustomDelay},
};
use tower_layer::Layer;

use crate::{
    Attempt, Backoff, Budget, BudgetConfig, Jitter, OperationConfig, Opinion, Policy, Retry,
    RetryConfig, Throttling, ThrottlingConfig,
    engine::{Brake, OpinionFn},
};

/// Sends a failed request again: makes [`Retry`] services.
///
/// All services of one layer, and of its clones, share one budget.
///
/// ```
/// use portcullis_core::ByClone;
/// use portcullis_retry::{Backoff, RetryLayer};
/// use std::time::Duration;
///
/// # fn main() -> Result<(), portcullis_core::Invalid> {
/// let retry = RetryLayer::builder("search", ByClone::idempotent())
///     .max_attempts(4)
///     .backoff(Backoff::exponential(Duration::from_millis(100), Duration::from_secs(5)))
///     .on_retry(|attempt, outcome, delay| println!("{attempt}: {outcome}, next in {delay:?}"))
///     .build()?;
/// # let _ = retry;
/// # Ok(())
/// # }
/// ```
pub struct RetryLayer<K, C = ByResult> {
    keep: Arc<K>,
    shared: Arc<Shared<C>>,
}

/// A [`RetryLayer`] in the making: see [`RetryLayer::builder`].
#[must_use = "a builder does nothing until `build`"]
pub struct RetryBuilder<K, C = ByResult> {
    keep: K,
    classify: C,
    config: RetryConfig,
    custom: Option<(Duration, CustomDelay)>,
    shared: Brake,
    opinion: Option<OpinionFn>,
    voice: Voice,
    seed: Option<u64>,
}

/// What all services and calls of one layer share.
pub(crate) struct Shared<C> {
    pub(crate) classify: C,
    pub(crate) policy: Policy,
    pub(crate) voice: Voice,
    pub(crate) chance: Chance,
}

// ===== impl RetryLayer =====

impl<K> RetryLayer<K> {
    /// Begins a layer called `name`, which keeps requests by `keep`.
    ///
    /// There is no default for `keep`, because only the user knows whether a request may be sent
    /// twice: [`ByClone::idempotent`](portcullis_core::ByClone::idempotent),
    /// [`ByClone::not_idempotent`](portcullis_core::ByClone::not_idempotent), or a
    /// [`Keep`](portcullis_core::Keep) that asks the request, as the one for HTTP does.
    pub fn builder(name: impl Into<Arc<str>>, keep: K) -> RetryBuilder<K> {
        RetryBuilder {
            keep,
            classify: ByResult,
            config: RetryConfig::default(),
            custom: None,
            shared: Brake::None,
            opinion: None,
            voice: Voice::new(LayerKind::Retry, name),
            seed: None,
        }
    }
}

impl<K, C> RetryLayer<K, C> {
    /// The layer's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.shared.voice.name()
    }

    /// What decides.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.shared.policy
    }

    /// The budget, if there is one.
    #[must_use]
    pub fn budget(&self) -> Option<&Budget> {
        self.shared.policy.budget()
    }

    /// The throttling, if that is what there is in place of a budget.
    #[must_use]
    pub fn throttling(&self) -> Option<&Throttling> {
        self.shared.policy.throttling()
    }
}

impl<S: Clone, K, C> Layer<S> for RetryLayer<K, C> {
    type Service = Retry<S, K, C>;

    fn layer(&self, inner: S) -> Self::Service {
        Retry::new(inner, self.keep.clone(), self.shared.clone())
    }
}

impl<K, C> Clone for RetryLayer<K, C> {
    fn clone(&self) -> Self {
        Self { keep: self.keep.clone(), shared: self.shared.clone() }
    }
}

impl<K, C> fmt::Debug for RetryLayer<K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryLayer").field("shared", &self.shared).finish_non_exhaustive()
    }
}

// ===== impl RetryBuilder =====

impl<K, C> RetryBuilder<K, C> {
    /// All settings at once, in place of those made so far.
    pub fn config(mut self, config: RetryConfig) -> Self {
        self.config = config;
        self.custom = None;
        self.shared = Brake::None;
        self
    }

    /// Attempts for one call, the first included. At least 1, which means no retries; 3 unless set.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.config.max_attempts = attempts;
        self
    }

    /// How long the wait before each retry is. Exponential unless set: 1 s, doubled, at most 30 s.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.config.backoff = backoff;
        self.custom = None;
        self
    }

    /// How long the wait before each retry is, by a function of the retry's number, from 1. A longer
    /// wait than `cap` (at most 1 day) is cut to it; jitter applies.
    pub fn backoff_fn(
        mut self,
        cap: Duration,
        delay: impl Fn(u32) -> Duration + Send + Sync + 'static,
    ) -> Self {
        self.custom = Some((cap, Arc::new(delay)));
        self
    }

    /// What chance does to the waits. [`Jitter::Full`] unless set.
    pub fn jitter(mut self, jitter: Jitter) -> Self {
        self.config.jitter = jitter;
        self
    }

    /// The longest wait that a hint of the peer may ask for, from 0 to 1 day; a longer one ends the
    /// retries. 60 s unless set.
    pub fn max_hint(mut self, longest: Duration) -> Self {
        self.config.max_hint = longest;
        self
    }

    /// Sets what differs for the operation that callers name by `call::with().name(…)`, or for a group
    /// of operations: see [`RetryConfig::operations`]. What is left unset is as for the layer.
    pub fn operation(mut self, name: impl Into<String>, operation: OperationConfig) -> Self {
        self.config.operations.insert(name.into(), operation);
        self
    }

    /// A budget of the layer's own with these settings. There is one with the default settings
    /// unless set.
    pub fn budget(mut self, config: BudgetConfig) -> Self {
        (self.config.budget, self.config.throttling) = (Some(config), None);
        self.shared = Brake::None;
        self
    }

    /// A budget that other layers share.
    pub fn shared_budget(mut self, budget: Budget) -> Self {
        (self.config.budget, self.config.throttling) = (None, None);
        self.shared = Brake::Budget(budget);
        self
    }

    /// gRPC's throttling with these settings, in place of a budget.
    pub fn throttling(mut self, config: ThrottlingConfig) -> Self {
        (self.config.budget, self.config.throttling) = (None, Some(config));
        self.shared = Brake::None;
        self
    }

    /// Throttling that other layers share, in place of a budget.
    pub fn shared_throttling(mut self, throttling: Throttling) -> Self {
        (self.config.budget, self.config.throttling) = (None, None);
        self.shared = Brake::Throttling(throttling);
        self
    }

    /// No budget, and no throttling: an outage multiplies the load by up to `max_attempts`.
    pub fn no_budget(mut self) -> Self {
        (self.config.budget, self.config.throttling) = (None, None);
        self.shared = Brake::None;
        self
    }

    /// A rule of the user's, asked about each attempt that failed or was throttled. It may forbid
    /// another attempt or ask for one, or have no [`Opinion`]; then the classifier's verdict decides.
    ///
    /// ```
    /// use portcullis_core::ByClone;
    /// use portcullis_retry::{Opinion, RetryLayer};
    ///
    /// let retry = RetryLayer::builder("files", ByClone::idempotent()).retry_if(|attempt| {
    ///     match attempt.error.and_then(|error| error.find::<std::io::Error>()) {
    ///         Some(error) if error.kind() == std::io::ErrorKind::NotFound => Opinion::Forbid,
    ///         _ => Opinion::None,
    ///     }
    /// });
    /// # let _ = retry;
    /// ```
    pub fn retry_if(
        mut self,
        rule: impl Fn(&Attempt<'_>) -> Opinion + Send + Sync + 'static,
    ) -> Self {
        self.opinion = Some(Arc::new(rule));
        self
    }

    /// Calls `f` with the number of the attempt that failed (from 1), how it failed, and how long
    /// the wait before the next is. It is an observer: it runs on the path of the call.
    pub fn on_retry(self, f: impl Fn(u32, Outcome, Duration) + Send + Sync + 'static) -> Self {
        self.observe(move |event: &Event<'_>| {
            if let What::Retrying { attempt, outcome, delay, .. } = event.what {
                f(attempt, outcome, delay);
            }
        })
    }

    /// Adds somebody who is told of the layer's events: retrying, and giving up.
    pub fn observe(mut self, observer: impl Observer) -> Self {
        self.voice = self.voice.with_observer(Arc::new(observer));
        self
    }

    /// Who judges the attempts, in place of the rule that any `Ok` is a success. It is asked at the
    /// head only; the response is handed up as it is.
    pub fn classify<D>(self, classify: D) -> RetryBuilder<K, D> {
        RetryBuilder {
            keep: self.keep,
            classify,
            config: self.config,
            custom: self.custom,
            shared: self.shared,
            opinion: self.opinion,
            voice: self.voice,
            seed: self.seed,
        }
    }

    /// Keeps requests another way than was said at the start.
    pub fn keep<L>(self, keep: L) -> RetryBuilder<L, C> {
        RetryBuilder {
            keep,
            classify: self.classify,
            config: self.config,
            custom: self.custom,
            shared: self.shared,
            opinion: self.opinion,
            voice: self.voice,
            seed: self.seed,
        }
    }

    /// Draws jitter from one repeatable sequence, for tests. Otherwise each thread has a generator
    /// of its own.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Makes the layer.
    ///
    /// # Errors
    ///
    /// The first setting that is out of its range.
    pub fn build(self) -> Result<RetryLayer<K, C>, Invalid> {
        let mut policy =
            Policy::with_delays(&self.config, self.custom.as_ref())?.with_opinion(self.opinion);
        if !matches!(self.shared, Brake::None) {
            policy = policy.with_brake(self.shared);
        }
        Ok(RetryLayer {
            keep: Arc::new(self.keep),
            shared: Arc::new(Shared {
                classify: self.classify,
                policy,
                voice: self.voice,
                chance: Chance::of(self.seed),
            }),
        })
    }
}

impl<K, C> fmt::Debug for RetryBuilder<K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryBuilder")
            .field("config", &self.config)
            .field("voice", &self.voice)
            .finish_non_exhaustive()
    }
}

// ===== impl Shared =====

impl<C> Shared<C> {
    /// The verdict at the head of an attempt that was made in the scope of `call`.
    pub(crate) fn judge<Res>(&self, result: &Result<Res, Error>, call: &Call) -> Outcome
    where
        C: Classify<Res>,
    {
        self.classify.for_retry(result.as_ref(), call)
    }
}

impl<C> fmt::Debug for Shared<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("policy", &self.policy)
            .field("voice", &self.voice)
            .finish_non_exhaustive()
    }
}
