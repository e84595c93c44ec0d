//! Setting and building the ready-made stack.

use std::sync::Arc;

use portcullis_breaker::{BreakerBuilder, BreakerLayer, Handle};
use portcullis_core::{Event, Invalid, Observer, Registry};
use portcullis_http::{CloneBody, HttpClassifier, PropagateLayer};
use portcullis_retry::{RetryBuilder, RetryLayer};
use portcullis_timeout::{TimeoutBuilder, TimeoutLayer};

use super::{HttpStack, Preset, Stack};

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
    total: TimeoutBuilder<C>,
    retry: RetryBuilder<K, C>,
    breaker: BreakerBuilder<C>,
    attempt: TimeoutBuilder<C>,
    propagate: PropagateLayer,
    registry: Option<Registry>,
}

// ===== impl StackBuilder =====

impl StackBuilder {
    /// Begins the stack for the target called `name` with the settings of `preset`.
    pub fn new(name: &str, preset: Preset) -> Self {
        let http = HttpClassifier::new();
        let name: Arc<str> = name.into();
        Self {
            total: TimeoutLayer::builder(name.clone())
                .config(preset.total())
                .classify(http.clone()),
            retry: RetryLayer::builder(name.clone(), CloneBody)
                .config(preset.retry())
                .classify(http.clone()),
            breaker: BreakerLayer::builder(name.clone())
                .config(preset.breaker())
                .classify(http.clone()),
            attempt: TimeoutLayer::builder(name.clone()).config(preset.attempt()).classify(http),
            propagate: PropagateLayer::new(),
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

    /// Sets the breaker.
    pub fn breaker(mut self, set: impl FnOnce(BreakerBuilder<C>) -> BreakerBuilder<C>) -> Self {
        self.breaker = set(self.breaker);
        self
    }

    /// Sets the timeout of each attempt.
    pub fn attempt(mut self, set: impl FnOnce(TimeoutBuilder<C>) -> TimeoutBuilder<C>) -> Self {
        self.attempt = set(self.attempt);
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
            total: self.total,
            retry: self.retry.keep(keep),
            breaker: self.breaker,
            attempt: self.attempt,
            propagate: self.propagate,
            registry: self.registry,
        }
    }

    /// Judges calls another way, in every layer alike.
    pub fn classify<C2: Clone>(self, classify: C2) -> StackBuilder<K, C2> {
        StackBuilder {
            name: self.name,
            total: self.total.classify(classify.clone()),
            retry: self.retry.classify(classify.clone()),
            breaker: self.breaker.classify(classify.clone()),
            attempt: self.attempt.classify(classify),
            propagate: self.propagate,
            registry: self.registry,
        }
    }

    /// Tells `observer` what every layer decides.
    pub fn observe(mut self, observer: impl Observer) -> Self {
        let observer = Arc::new(observer);
        let tell = || {
            let observer = observer.clone();
            move |event: &Event<'_>| observer.on_event(event)
        };
        self.total = self.total.observe(tell());
        self.retry = self.retry.observe(tell());
        self.breaker = self.breaker.observe(tell());
        self.attempt = self.attempt.observe(tell());
        self
    }

    /// Files the breaker's [`Handle`] and the retry [`Budget`](portcullis_retry::Budget) under the
    /// target's name once the stack is built.
    pub fn register_in(mut self, registry: &Registry) -> Self {
        self.registry = Some(registry.clone());
        self
    }

    /// Builds the stack.
    ///
    /// # Errors
    ///
    /// The first setting that is out of its range; nothing is registered then.
    pub fn build(self) -> Result<HttpStack<K, C>, Invalid> {
        let stack = Stack {
            total: self.total.build()?,
            retry: self.retry.build()?,
            breaker: self.breaker.build()?,
            attempt: self.attempt.build()?,
            propagate: self.propagate,
        };
        if let Some(registry) = self.registry {
            let handle: Handle = stack.breaker.handle();
            registry.insert(self.name.clone(), handle);
            if let Some(budget) = stack.retry.budget() {
                registry.insert(self.name, budget.clone());
            }
        }
        Ok(stack)
    }
}
