//! The layer, its builder, and what all its services share.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use portcullis_core::{
    ByResult, Call, Completion, End, How, Invalid, LayerKind, Observer, Outcome, Settle, Ticket,
    Voice, What,
};
use tower_layer::Layer;

use crate::{
    config::{Limits, TimeoutConfig},
    engine::{Operation, Plan, Policy},
    future::Teller,
    service::Timeout,
};

/// Limits the time a call may take: the whole of it, or its phases.
///
/// # Example
///
/// ```
/// use portcullis_timeout::TimeoutLayer;
/// use std::time::Duration;
///
/// # fn main() -> Result<(), portcullis_core::Invalid> {
/// let total = TimeoutLayer::total("search", Duration::from_secs(2))?;
///
/// // A stream is not cut, as long as its frames keep coming.
/// let stream = TimeoutLayer::builder("chat")
///     .head(Duration::from_secs(5))
///     .idle(Duration::from_secs(30))
///     .slow(Duration::from_secs(1))
///     .build()?;
/// # Ok(())
/// # }
/// ```
///
/// The body's limits are kept by the classifier, which watches the body: that of `portcullis-http`
/// does, [`ByResult`] knows of no body and lets the call end at its head.
#[derive(Clone)]
pub struct TimeoutLayer<C = ByResult> {
    shared: Arc<Shared>,
    classify: C,
}

/// A [`TimeoutLayer`] in the making: see [`TimeoutLayer::builder`].
#[derive(Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct TimeoutBuilder<C = ByResult> {
    voice: Voice,
    config: TimeoutConfig,
    classify: C,
}

/// What the services of one layer share. It also is who learns of the calls' ends.
pub(crate) struct Shared {
    pub(crate) policy: Policy,
    voice: Voice,
}

// ===== impl TimeoutLayer =====

impl TimeoutLayer {
    /// Limits whole calls: readiness, all that the layers below do, and the response's body where a
    /// [classifier](TimeoutBuilder::classify) watches it.
    ///
    /// # Errors
    ///
    /// If the limit is zero.
    pub fn total(name: impl Into<Arc<str>>, limit: Duration) -> Result<Self, Invalid> {
        Self::builder(name).total(limit).build()
    }

    /// Limits each attempt, the response's body included where a
    /// [classifier](TimeoutBuilder::classify) watches it. It stands below the layer that retries.
    ///
    /// # Errors
    ///
    /// If the limit is zero.
    pub fn attempt(name: impl Into<Arc<str>>, limit: Duration) -> Result<Self, Invalid> {
        Self::builder(name).attempt(limit).build()
    }

    /// Begins a layer of this name without any limit.
    pub fn builder(name: impl Into<Arc<str>>) -> TimeoutBuilder {
        TimeoutBuilder {
            voice: Voice::new(LayerKind::Timeout, name),
            config: TimeoutConfig::new(),
            classify: ByResult,
        }
    }
}

impl<C> TimeoutLayer<C> {
    /// The layer's name.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        self.shared.voice.name()
    }

    /// What decides: the limits in force.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.shared.policy
    }
}

impl<S, C: Clone> Layer<S> for TimeoutLayer<C> {
    type Service = Timeout<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        Timeout::new(inner, self.shared.clone(), self.classify.clone())
    }
}

impl<C> fmt::Debug for TimeoutLayer<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimeoutLayer").field("shared", &self.shared).finish_non_exhaustive()
    }
}

// ===== impl TimeoutBuilder =====

impl<C> TimeoutBuilder<C> {
    /// Takes all settings, in place of those made so far.
    pub fn config(mut self, config: TimeoutConfig) -> Self {
        self.config = config;
        self
    }

    /// The limits set so far for calls of no listed operation.
    ///
    /// ```
    /// use portcullis_timeout::TimeoutLayer;
    /// use std::time::Duration;
    ///
    /// let minute = Duration::from_secs(60);
    /// assert_eq!(TimeoutLayer::builder("search").total(minute).limits().total, Some(minute));
    /// ```
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.config.limits
    }

    /// Limits the whole call, its body included. Above 0; unset at first. Either this or
    /// [`attempt`](Self::attempt).
    ///
    /// A total limit cuts streams, however well they run: for those, take [`head`](Self::head) and
    /// [`idle`](Self::idle).
    pub fn total(mut self, limit: Duration) -> Self {
        self.config.limits.total = Some(limit);
        self
    }

    /// Limits each attempt, its body included. Above 0; unset at first.
    pub fn attempt(mut self, limit: Duration) -> Self {
        self.config.limits.attempt = Some(limit);
        self
    }

    /// Limits the wait for readiness. Above 0, at most the whole limit; unset at first.
    pub fn readiness(mut self, limit: Duration) -> Self {
        self.config.limits.readiness = Some(limit);
        self
    }

    /// Limits the time from the call of the inner service to the response's head. Above 0, at most
    /// the whole limit; unset at first.
    pub fn head(mut self, limit: Duration) -> Self {
        self.config.limits.head = Some(limit);
        self
    }

    /// Limits the time from the response's head to the end of its body. Above 0, at most the whole
    /// limit; unset at first.
    pub fn body(mut self, limit: Duration) -> Self {
        self.config.limits.body = Some(limit);
        self
    }

    /// Limits the wait for each frame of the body. Above 0, at most the whole limit; unset at first.
    pub fn idle(mut self, limit: Duration) -> Self {
        self.config.limits.idle = Some(limit);
        self
    }

    /// Tells of calls whose head takes at least so long, and does not stop them. Above 0, below the
    /// whole limit; unset at first.
    pub fn slow(mut self, threshold: Duration) -> Self {
        self.config.limits.slow = Some(threshold);
        self
    }

    /// Sets the limits of the operation that callers name by `call::with().name(…)`, or of a group of
    /// operations: see [`TimeoutConfig::operations`](crate::TimeoutConfig::operations). What they leave
    /// unset is as for the layer.
    pub fn operation(mut self, name: impl Into<String>, limits: Limits) -> Self {
        self.config.operations.insert(name.into(), limits);
        self
    }

    /// Adds somebody who is told of every event of this layer.
    pub fn observe(mut self, observer: impl Observer) -> Self {
        self.voice = self.voice.with_observer(Arc::new(observer));
        self
    }

    /// Replaces the classifier, which judges calls and watches their bodies.
    pub fn classify<D>(self, classify: D) -> TimeoutBuilder<D> {
        TimeoutBuilder { voice: self.voice, config: self.config, classify }
    }

    /// The layer.
    ///
    /// # Errors
    ///
    /// As [`TimeoutConfig::validate`].
    pub fn build(self) -> Result<TimeoutLayer<C>, Invalid> {
        let policy = Policy::new(&self.config)?;
        let shared = Arc::new(Shared { policy, voice: self.voice });
        Ok(TimeoutLayer { shared, classify: self.classify })
    }
}

impl<C> fmt::Debug for TimeoutBuilder<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimeoutBuilder")
            .field("voice", &self.voice)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

// ===== impl Shared =====

impl Shared {
    /// Who tells the end of a call. `watched` says whether its body will be held to limits.
    #[inline(always)]
    pub(crate) fn teller(self: &Arc<Self>, plan: &Plan, call: &Call, watched: bool) -> Teller {
        match self.voice.label() {
            Some(name) if !(watched || self.is_heard(call) || self.policy.limits_heads(plan)) => {
                Teller::Nobody { name }
            }
            _ => Teller::Of(self.clone()),
        }
    }

    /// The duty to tell the end of a call.
    pub(crate) fn completion(self: Arc<Self>, plan: &Plan, call: Call) -> Completion {
        let ticket = Ticket(plan.operation.to_word(), 0);
        let heard = self.is_heard(&call);
        let done = Completion::new(self, ticket, call, plan.started);
        if heard { done } else { done.muted() }
    }

    /// Tells the end of a call whose head, which was there at `head`, is its end: what a
    /// [completion](Self::completion) would do, without what it takes to be kept.
    #[inline]
    pub(crate) fn settle_at(
        &self,
        plan: &Plan,
        call: &Call,
        head: Instant,
        judge: impl FnOnce() -> Outcome,
    ) {
        if self.is_heard(call) {
            let (how, started) = (How::Reported, plan.started);
            let end = End { outcome: judge(), how, started, head: Some(head), ended: head, call };
            self.settle(Ticket(plan.operation.to_word(), 0), &end);
        }
    }

    /// Whether anybody wants to know of this call.
    #[inline]
    pub(crate) fn is_heard(&self, call: &Call) -> bool {
        self.voice.is_heard(call)
    }

    /// Tells of a call that `started` then and whose head was there `at` last, if that is slow.
    #[inline]
    pub(crate) fn tell_if_slow(
        &self,
        operation: Operation,
        call: &Call,
        started: Instant,
        at: Instant,
    ) {
        if let Some(threshold) = self.policy.limits(operation).slow {
            let elapsed = at.saturating_duration_since(started);
            if elapsed >= threshold {
                self.voice.tell(call, at, || What::Slow { elapsed, threshold });
            }
        }
    }
}

impl Settle for Shared {
    fn name(&self) -> &Arc<str> {
        self.voice.name()
    }

    fn settle(&self, ticket: Ticket, end: &End<'_>) {
        if let How::Elapsed { phase, limit } = end.how {
            let what = || What::TimedOut { phase, limit, elapsed: end.elapsed() };
            self.voice.tell(end.call, end.ended, what);
        }
        // A call that had a head was told as slow at that moment; its body may be a long one.
        if end.head.is_none() {
            let operation = Operation::from_word(ticket.0);
            self.tell_if_slow(operation, end.call, end.started, end.ended);
        }
        self.voice.tell_of_end(None, end.outcome, end);
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("voice", &self.voice).field("policy", &self.policy).finish()
    }
}
