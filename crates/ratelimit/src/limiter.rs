//! One limit, shared by all who use it, with or without a service.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

// Loom's is counted where its models see it.
#[cfg(portcullis_loom)]
use loom::sync::Arc as Counted;
use portcullis_core::{Call, Invalid, LayerKind, Observer, Reason, Voice, What, clock};
use smol_str::SmolStr;
#[cfg(not(portcullis_loom))]
use std::sync::Arc as Counted;

use crate::{
    Bucket, Charge, KeyedLimiter, Limited, Quota, RateLimitConfig, Refusal, Snapshot, UntilReady,
    claim::{Slot, Terms},
};

/// A rate limit: `limit` in each period at the full rate, `burst` at one moment.
///
/// In any interval of length t, what it lets pass costs no more than `burst + t·limit/per`. A call
/// that waits passes at its turn, a timer's lateness after that at most.
///
/// # Clone
///
/// Clones are the same limit. So are the services of the layers it is given to.
///
/// ```
/// use portcullis_ratelimit::Limiter;
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let limiter = Limiter::builder("search")
///     .rate(10, Duration::from_secs(1))
///     .burst(2)
///     .max_wait(Duration::from_secs(1))
///     .build()?;
/// assert!(limiter.try_acquire().is_ok());
/// assert!(limiter.try_acquire().is_ok());
/// let limited = limiter.try_acquire().unwrap_err();
/// assert_eq!(limited.to_string(), "search: limit of 10 in 1s (burst 2); try again in 100.0ms");
///
/// limiter.until_ready().await?; // 100 ms later
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Limiter {
    pub(crate) inner: Counted<Inner>,
}

/// What there is of a limit for each key.
pub(crate) struct Inner {
    pub(crate) shared: Arc<Shared>,
    key: Option<SmolStr>,
    pub(crate) bucket: Bucket,
}

/// What the limits of all keys share.
pub(crate) struct Shared {
    pub(crate) voice: Voice,
    pub(crate) config: RateLimitConfig,
    pub(crate) quota: Quota,
}

/// A limit in the making. Every setting has a default, see [`RateLimitConfig`].
#[derive(Clone)]
#[must_use = "nothing is built until `build`"]
pub struct LimiterBuilder {
    voice: Voice,
    config: RateLimitConfig,
}

// ===== impl Limiter =====

impl Limiter {
    /// Begins to build a limit called `name`.
    pub fn builder(name: impl Into<Arc<str>>) -> LimiterBuilder {
        LimiterBuilder {
            voice: Voice::new(LayerKind::RateLimit, name),
            config: RateLimitConfig::default(),
        }
    }

    pub(crate) fn with_bucket(shared: Arc<Shared>, key: Option<&str>, bucket: Bucket) -> Self {
        Self { inner: Counted::new(Inner { shared, key: key.map(SmolStr::from), bucket }) }
    }

    /// The limit's name.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        self.inner.shared.voice.name()
    }

    /// The key it is for, if it is one of many.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.inner.key.as_deref()
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &RateLimitConfig {
        &self.inner.shared.config
    }

    /// Passes now, at a cost of 1, or not at all.
    ///
    /// # Errors
    ///
    /// [`Limited`], which says when it could.
    #[inline]
    pub fn try_acquire(&self) -> Result<Charge, Limited> {
        self.try_acquire_n(1)
    }

    /// Passes now, at this cost, or not at all. A cost of 0 is taken for 1.
    ///
    /// The charge may be [settled](Self::settle) later, or dropped.
    ///
    /// # Errors
    ///
    /// [`Limited`], which says when it could, or that it never can if the cost is above the burst.
    #[inline]
    pub fn try_acquire_n(&self, cost: u32) -> Result<Charge, Limited> {
        let call = Call::here();
        let mut now = call.now();
        let mut taken = self.bucket().take(self.quota(), cost, now);
        if taken.is_err() {
            // It may be long since `now` was read, by a layer above or before this thread was put to
            // sleep, and others have passed meanwhile: what is refused then may pass now.
            now = clock::now();
            taken = self.bucket().take(self.quota(), cost, now);
        }
        match taken {
            Ok(charge) => {
                self.tell_of_pass(&charge, &call, now);
                Ok(charge)
            }
            Err(refusal) => {
                Err(self.inner.shared.refuse_now(self.key(), cost, refusal, &call, now))
            }
        }
    }

    /// Passes at a cost of 1, having waited for its turn if need be.
    pub fn until_ready(&self) -> UntilReady {
        self.until_ready_n(1)
    }

    /// Passes at this cost, having waited for its turn if need be: no longer than `max_wait`, and not
    /// beyond the deadline of the [`Call`] it is in.
    ///
    /// Turns are given in the order in which the futures are first polled. What would wait too long is
    /// refused then, and not after having waited.
    ///
    /// # Errors
    ///
    /// The future's output is a [`Limited`] if it may not wait for so long, if a hint lengthened the
    /// wait meanwhile, or if the deadline has passed when it is woken for its turn.
    ///
    /// # Cancellation
    ///
    /// Dropped while it waits, its turn is given back if nobody queued behind it; otherwise it is lost.
    pub fn until_ready_n(&self, cost: u32) -> UntilReady {
        UntilReady::new([Some(Slot::new(self.clone()))], cost)
    }

    /// Says what a call that passed really cost. What it cost more is charged, and later calls wait for
    /// it; what it cost less is given back as far as it has not drained, see [`Bucket::settle`].
    ///
    /// The charge must be one of this limit.
    pub fn settle(&self, charge: Charge, actual: u32) {
        let call = Call::here();
        let now = call.now();
        self.settle_for(charge, actual, &call, now);
    }

    /// The peer asks to be left alone for so long: until then nothing passes, then one call, and more
    /// at the full rate. A wait above `max_hint` is cut down to it.
    pub fn hint(&self, wait: Duration) {
        let call = Call::here();
        let now = call.now();
        self.hold_for(wait, &call, now);
    }

    /// Everything there is to know, now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::of(self.bucket(), self.quota(), clock::now())
    }

    #[inline]
    pub(crate) fn bucket(&self) -> &Bucket {
        &self.inner.bucket
    }

    #[inline]
    pub(crate) fn quota(&self) -> &Quota {
        &self.inner.shared.quota
    }

    pub(crate) fn settle_for(&self, charge: Charge, actual: u32, call: &Call, now: Instant) {
        let taken = charge.cost();
        self.bucket().settle(self.quota(), charge, actual, now);
        self.tell(call, now, || What::Adjusted { taken, actual });
    }

    pub(crate) fn hold_for(&self, wait: Duration, call: &Call, now: Instant) {
        let hold = wait.min(self.config().max_hint);
        if !hold.is_zero() {
            self.bucket().hold(self.quota(), hold, now);
            self.tell(call, now, || What::HeldBack { hold, reason: Reason::Hinted { hint: wait } });
        }
    }

    /// The refusal of a call, told to whoever listens.
    #[cold]
    pub(crate) fn refuse(
        &self,
        terms: &Terms,
        refusal: Refusal,
        call: &Call,
        now: Instant,
    ) -> Limited {
        self.inner.shared.refuse(self.key(), terms, refusal, call, now)
    }

    #[inline]
    pub(crate) fn tell_of_pass(&self, charge: &Charge, call: &Call, now: Instant) {
        self.inner.shared.tell_of_pass(self.key(), charge, call, now);
    }

    #[inline]
    pub(crate) fn tell(&self, call: &Call, at: Instant, what: impl FnOnce() -> What<'static>) {
        let Inner { shared, key, .. } = &*self.inner;
        shared.voice.tell_of(key.as_deref(), call, at, what);
    }

    /// Whether it is the same limit.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Counted::ptr_eq(&self.inner, &other.inner)
    }

    /// Whether it may be forgotten: nobody but the map that asks has it, and a new one would do as
    /// well. What was taken from it by those who have let go of it is seen.
    pub(crate) fn is_expendable(&mut self, now: Instant) -> bool {
        Counted::get_mut(&mut self.inner)
            .is_some_and(|inner| inner.bucket.is_idle(&inner.shared.quota, now))
    }
}

impl fmt::Debug for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limiter")
            .field("name", self.name())
            .field("key", &self.key())
            .field("quota", self.quota())
            .finish_non_exhaustive()
    }
}

// ===== impl Shared =====

impl Shared {
    #[inline]
    pub(crate) fn tell_of_pass(
        &self,
        key: Option<&str>,
        charge: &Charge,
        call: &Call,
        now: Instant,
    ) {
        let left = || self.quota.left_behind(charge, now);
        self.voice.tell_of(key, call, now, || What::Acquired { cost: charge.cost(), left: left() });
    }

    /// The refusal of a call that does not wait, told to whoever listens.
    #[cold]
    #[inline(never)]
    pub(crate) fn refuse_now(
        &self,
        key: Option<&str>,
        cost: u32,
        refusal: Refusal,
        call: &Call,
        now: Instant,
    ) -> Limited {
        self.refuse(key, &Terms::new(cost, call, Duration::ZERO, now), refusal, call, now)
    }

    fn refuse(
        &self,
        key: Option<&str>,
        terms: &Terms,
        refusal: Refusal,
        call: &Call,
        now: Instant,
    ) -> Limited {
        let (reason, retry_after) = terms.explain(&self.quota, refusal, call, now);
        let name = self.voice.name().clone();
        let limited = Limited::new(name, key.map(SmolStr::from), terms.cost, reason, retry_after);
        self.voice.tell_of_refusal(key, call, now, &limited);
        limited
    }
}

// ===== impl LimiterBuilder =====

impl LimiterBuilder {
    /// All settings at once, in place of those made so far.
    pub fn config(mut self, config: RateLimitConfig) -> Self {
        self.config = config;
        self
    }

    /// What may pass in each period: `limit` at least 1 and at most one a nanosecond, `per` above 0 and
    /// at most 31 days.
    pub fn rate(mut self, limit: u32, per: Duration) -> Self {
        (self.config.limit, self.config.per) = (limit, per);
        self
    }

    /// What may pass at one moment, after a pause: at least 1.
    pub fn burst(mut self, burst: u32) -> Self {
        self.config.burst = burst;
        self
    }

    /// How long a call may wait for its turn: 0 to 1 day; with 0 it is refused at once.
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.config.max_wait = wait;
        self
    }

    /// How long a peer's hint may hold calls back: 0 to 1 day; with 0 hints are ignored.
    pub fn max_hint(mut self, longest: Duration) -> Self {
        self.config.max_hint = longest;
        self
    }

    /// How many keys there is state for, if it is [keyed](Self::build_keyed): at least 1.
    pub fn max_keys(mut self, keys: usize) -> Self {
        self.config.max_keys = keys;
        self
    }

    /// Adds somebody who is told of every event.
    pub fn observe(mut self, observer: impl Observer) -> Self {
        self.voice = self.voice.with_observer(Arc::new(observer));
        self
    }

    /// Builds one limit for all.
    ///
    /// # Errors
    ///
    /// If a setting is out of its range.
    pub fn build(self) -> Result<Limiter, Invalid> {
        Ok(Limiter::with_bucket(self.share()?, None, Bucket::new()))
    }

    /// Builds a limit for each key. They are made as their keys are met.
    ///
    /// # Errors
    ///
    /// If a setting is out of its range.
    pub fn build_keyed(self) -> Result<KeyedLimiter, Invalid> {
        Ok(KeyedLimiter::new(self.share()?))
    }

    fn share(self) -> Result<Arc<Shared>, Invalid> {
        let Self { voice, config } = self;
        let quota = Quota::new(&config, clock::now())?;
        Ok(Arc::new(Shared { voice, config, quota }))
    }
}

impl fmt::Debug for LimiterBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LimiterBuilder")
            .field("name", self.voice.name())
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
