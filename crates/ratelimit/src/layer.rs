//! The layer and its builder.

use std::{borrow::Cow, fmt, sync::Arc, time::Duration};

use portcullis_core::{ByResult, Hint, Invalid, Observer};
use tower_layer::Layer;

use crate::{
    Both, By, ByKey, KeyedLimiter, Limiter, LimiterBuilder, RateLimit, RateLimitConfig, Rules,
    Single, claim::MOST, select::Count,
};

/// Puts a [`RateLimit`] round services.
///
/// Its state was made when it was built: all services it makes, however often, stand before the same
/// limits.
///
/// ```
/// use portcullis_core::Event;
/// use portcullis_ratelimit::RateLimitLayer;
/// use std::time::Duration;
///
/// let layer = RateLimitLayer::builder("search")
///     .rate(100, Duration::from_secs(60))
///     .burst(20)
///     .max_wait(Duration::from_secs(2))
///     .observe(|event: &Event<'_>| println!("{event}"))
///     .build()?;
/// assert_eq!(layer.limiter().snapshot().left, 20);
/// # Ok::<_, portcullis_core::Invalid>(())
/// ```
#[derive(Clone)]
pub struct RateLimitLayer<C = ByResult, K = Single, W = Rules> {
    classifier: C,
    select: K,
    rules: W,
    max_wait: Duration,
}

/// A rate limit layer in the making. Every setting has a default, see [`RateLimitConfig`].
#[derive(Clone)]
#[must_use = "nothing is built until `build`"]
pub struct RateLimitBuilder<C = ByResult, K = Own, M = (), W = Rules> {
    own: LimiterBuilder,
    classifier: C,
    first: K,
    more: M,
    rules: W,
}

/// Marks a builder whose first limit is one for all calls.
#[derive(Clone, Copy, Debug)]
pub struct Own;

/// Marks a builder whose first limit is one for each key, and finds the key.
#[derive(Clone, Copy)]
pub struct KeyFn<F>(F);

/// Marks a builder whose first limit there was already.
#[derive(Clone, Debug)]
pub struct Given<K>(K);

/// What a builder makes its first limit from.
pub trait First: sealed::Sealed {
    /// The limit.
    type Select: Count;

    #[doc(hidden)]
    fn build(self, own: LimiterBuilder) -> Result<(Self::Select, Duration), Invalid>;
}

/// What a builder adds to its first limit: nothing, or other limits.
pub trait More<K>: sealed::Sealed {
    /// The limits altogether.
    type Select: Count;

    #[doc(hidden)]
    fn add(self, first: K) -> Self::Select;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Own {}
    impl<F> Sealed for super::KeyFn<F> {}
    impl<K> Sealed for super::Given<K> {}
    impl Sealed for () {}
    impl<M, B> Sealed for (M, B) {}
}

// ===== impl RateLimitLayer =====

impl RateLimitLayer {
    /// Begins to build one limit for all calls.
    pub fn builder(name: impl Into<Arc<str>>) -> RateLimitBuilder {
        RateLimitBuilder::with_first(Limiter::builder(name), Own)
    }

    /// Begins to build a limit for each key that `key` finds in a request, unless the
    /// [caller](portcullis_core::call::With::key) names it.
    ///
    /// ```
    /// use portcullis_ratelimit::{Limiter, RateLimitLayer};
    /// use std::{borrow::Cow, time::Duration};
    ///
    /// struct Request { user: String, host: String }
    ///
    /// let everybody = Limiter::builder("everybody").rate(1_000, Duration::from_secs(1)).build()?;
    /// let hosts = Limiter::builder("hosts").rate(50, Duration::from_secs(1)).build_keyed()?;
    /// let layer = RateLimitLayer::keyed("users", |req: &Request| Cow::from(&*req.user))
    ///     .rate(10, Duration::from_secs(1))
    ///     .and_keyed(hosts, |req: &Request| Cow::from(&*req.host))
    ///     .and(everybody)
    ///     .build()?;
    /// # let _ = layer;
    /// # Ok::<_, portcullis_core::Invalid>(())
    /// ```
    pub fn keyed<Req, F>(name: impl Into<Arc<str>>, key: F) -> RateLimitBuilder<ByResult, KeyFn<F>>
    where
        F: for<'r> Fn(&'r Req) -> Cow<'r, str>,
    {
        Self::keyed_by(name, key)
    }

    /// The same for a [`Key`](portcullis_core::Key) that is no closure, such as the one by host of
    /// `portcullis-http`.
    pub fn keyed_by<F>(name: impl Into<Arc<str>>, key: F) -> RateLimitBuilder<ByResult, KeyFn<F>> {
        RateLimitBuilder::with_first(Limiter::builder(name), KeyFn(key))
    }

    /// Begins with a limit that there is already. Settings made on the builder are not its own.
    pub fn of(limiter: Limiter) -> RateLimitBuilder<ByResult, Given<Single>> {
        let own = Limiter::builder(limiter.name().clone());
        RateLimitBuilder::with_first(own, Given(Single(limiter)))
    }

    /// Begins with limits by key that there are already. Settings made on the builder are not theirs.
    pub fn of_keyed<Req, F>(
        limiters: KeyedLimiter,
        key: F,
    ) -> RateLimitBuilder<ByResult, Given<ByKey<F>>>
    where
        F: for<'r> Fn(&'r Req) -> Cow<'r, str>,
    {
        Self::of_keyed_by(limiters, key)
    }

    /// The same for a [`Key`](portcullis_core::Key) that is no closure.
    pub fn of_keyed_by<F>(
        limiters: KeyedLimiter,
        key: F,
    ) -> RateLimitBuilder<ByResult, Given<ByKey<F>>> {
        let own = Limiter::builder(limiters.name().clone());
        RateLimitBuilder::with_first(own, Given(ByKey { limiters, key, named: true }))
    }
}

impl<C, K, W> RateLimitLayer<C, K, W> {
    /// The same layer with another classifier.
    #[must_use]
    pub fn with_classifier<D>(self, classifier: D) -> RateLimitLayer<D, K, W> {
        let Self { select, rules, max_wait, .. } = self;
        RateLimitLayer { classifier, select, rules, max_wait }
    }
}

impl<C, W> RateLimitLayer<C, Single, W> {
    /// The limit.
    #[must_use]
    pub fn limiter(&self) -> Limiter {
        self.select.0.clone()
    }
}

impl<C, F, W> RateLimitLayer<C, ByKey<F>, W> {
    /// The limits of all keys.
    #[must_use]
    pub fn limiters(&self) -> KeyedLimiter {
        self.select.limiters.clone()
    }
}

impl<S, C: Clone, K: Clone, W: Clone> Layer<S> for RateLimitLayer<C, K, W> {
    type Service = RateLimit<S, C, K, W>;

    fn layer(&self, inner: S) -> Self::Service {
        let (classifier, select) = (self.classifier.clone(), self.select.clone());
        RateLimit::new(inner, classifier, select, self.rules.clone(), self.max_wait)
    }
}

impl<C, K: fmt::Debug, W> fmt::Debug for RateLimitLayer<C, K, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimitLayer").field("select", &self.select).finish_non_exhaustive()
    }
}

// ===== impl RateLimitBuilder =====

impl<K> RateLimitBuilder<ByResult, K> {
    fn with_first(own: LimiterBuilder, first: K) -> Self {
        Self { own, classifier: ByResult, first, more: (), rules: Rules::default() }
    }
}

impl<C, K, M, W> RateLimitBuilder<C, K, M, W> {
    /// All settings at once, in place of those made so far.
    pub fn config(mut self, config: RateLimitConfig) -> Self {
        self.own = self.own.config(config);
        self
    }

    /// What may pass in each period: `limit` at least 1 and at most one a nanosecond, `per` above 0 and
    /// at most 31 days.
    pub fn rate(mut self, limit: u32, per: Duration) -> Self {
        self.own = self.own.rate(limit, per);
        self
    }

    /// What may pass at one moment, after a pause: at least 1.
    pub fn burst(mut self, burst: u32) -> Self {
        self.own = self.own.burst(burst);
        self
    }

    /// How long a call may wait for its turn: 0 to 1 day; with 0 it is refused at once.
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.own = self.own.max_wait(wait);
        self
    }

    /// How long a peer's hint may hold calls back: 0 to 1 day; with 0 hints are ignored.
    pub fn max_hint(mut self, longest: Duration) -> Self {
        self.own = self.own.max_hint(longest);
        self
    }

    /// Adds somebody who is told of every event.
    pub fn observe(mut self, observer: impl Observer) -> Self {
        self.own = self.own.observe(observer);
        self
    }

    /// Judges calls by this [`Classify`](portcullis_core::Classify). It is asked at the head only, for
    /// the peer's hint; the response is handed up as it is.
    pub fn classify<D>(self, classifier: D) -> RateLimitBuilder<D, K, M, W> {
        let Self { own, first, more, rules, .. } = self;
        RateLimitBuilder { own, classifier, first, more, rules }
    }

    /// Another limit that calls must pass as well: all, or none is charged. Up to four altogether. A
    /// peer's hints move the first limit only, and its `max_wait` is what counts.
    pub fn and(self, limiter: Limiter) -> RateLimitBuilder<C, K, (M, Single), W> {
        self.with_more(Single(limiter))
    }

    /// Limits by key that calls must pass as well: see [`and`](Self::and). The caller's own key does
    /// not go before the function: it is for the first limit.
    pub fn and_keyed<Req, F>(
        self,
        limiters: KeyedLimiter,
        key: F,
    ) -> RateLimitBuilder<C, K, (M, ByKey<F>), W>
    where
        F: for<'r> Fn(&'r Req) -> Cow<'r, str>,
    {
        self.and_keyed_by(limiters, key)
    }

    /// The same for a [`Key`](portcullis_core::Key) that is no closure.
    pub fn and_keyed_by<F>(
        self,
        limiters: KeyedLimiter,
        key: F,
    ) -> RateLimitBuilder<C, K, (M, ByKey<F>), W> {
        self.with_more(ByKey { limiters, key, named: false })
    }

    /// Builds the layer, and its limits.
    ///
    /// # Errors
    ///
    /// If a setting is out of its range, or there are more than four limits.
    pub fn build(self) -> Result<RateLimitLayer<C, M::Select, W>, Invalid>
    where
        K: First,
        M: More<K::Select>,
    {
        let (first, max_wait) = self.first.build(self.own)?;
        if M::Select::COUNT > MOST {
            return Err(Invalid::new("limits", M::Select::COUNT, "1 to 4"));
        }
        let select = self.more.add(first);
        Ok(RateLimitLayer { classifier: self.classifier, select, rules: self.rules, max_wait })
    }

    fn with_more<B>(self, other: B) -> RateLimitBuilder<C, K, (M, B), W> {
        let Self { own, classifier, first, more, rules } = self;
        RateLimitBuilder { own, classifier, first, more: (more, other), rules }
    }
}

impl<C, K, M, F, G, H> RateLimitBuilder<C, K, M, Rules<F, G, H>> {
    /// What a call costs, by its request; 1 unless set, and 0 is taken for 1. The
    /// [caller](portcullis_core::call::With::cost)'s word goes before it.
    pub fn cost<Req, F2>(self, cost: F2) -> RateLimitBuilder<C, K, M, Rules<By<F2>, G, H>>
    where
        F2: Fn(&Req) -> u32,
    {
        let Rules { actual, hint, .. } = self.rules;
        let rules = Rules { cost: By(cost), actual, hint };
        let Self { own, classifier, first, more, .. } = self;
        RateLimitBuilder { own, classifier, first, more, rules }
    }

    /// What a call really cost, by its response's head: what it cost more is charged, what it cost less
    /// is given back as far as it can be, see [`Bucket::settle`](crate::Bucket::settle). For what only
    /// the body says there is [`Tab`](crate::Tab).
    pub fn settle_with<Res, G2>(self, actual: G2) -> RateLimitBuilder<C, K, M, Rules<F, By<G2>, H>>
    where
        G2: Fn(&Res) -> Option<u32>,
    {
        let Rules { cost, hint, .. } = self.rules;
        let rules = Rules { cost, actual: By(actual), hint };
        let Self { own, classifier, first, more, .. } = self;
        RateLimitBuilder { own, classifier, first, more, rules }
    }

    /// What a response advises where its verdict has no hint: a success that says that nothing is left,
    /// for example.
    pub fn hint_with<Res, H2>(self, hint: H2) -> RateLimitBuilder<C, K, M, Rules<F, G, By<H2>>>
    where
        H2: Fn(&Res) -> Hint,
    {
        let Rules { cost, actual, .. } = self.rules;
        let rules = Rules { cost, actual, hint: By(hint) };
        let Self { own, classifier, first, more, .. } = self;
        RateLimitBuilder { own, classifier, first, more, rules }
    }
}

impl<C, F, M, W> RateLimitBuilder<C, KeyFn<F>, M, W> {
    /// Finds the first limit's keys another way, in place of the one so far.
    pub fn key_by<G>(self, key: G) -> RateLimitBuilder<C, KeyFn<G>, M, W> {
        let Self { own, classifier, more, rules, .. } = self;
        RateLimitBuilder { own, classifier, first: KeyFn(key), more, rules }
    }

    /// How many keys there is state for: at least 1.
    pub fn max_keys(mut self, keys: usize) -> Self {
        self.own = self.own.max_keys(keys);
        self
    }
}

impl<C, K, M, W> fmt::Debug for RateLimitBuilder<C, K, M, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimitBuilder").field("own", &self.own).finish_non_exhaustive()
    }
}

// ===== impl First =====

impl First for Own {
    type Select = Single;

    fn build(self, own: LimiterBuilder) -> Result<(Single, Duration), Invalid> {
        let limiter = own.build()?;
        let max_wait = limiter.config().max_wait;
        Ok((Single(limiter), max_wait))
    }
}

impl<F> First for KeyFn<F> {
    type Select = ByKey<F>;

    fn build(self, own: LimiterBuilder) -> Result<(ByKey<F>, Duration), Invalid> {
        let limiters = own.build_keyed()?;
        let max_wait = limiters.config().max_wait;
        Ok((ByKey { limiters, key: self.0, named: true }, max_wait))
    }
}

impl First for Given<Single> {
    type Select = Single;

    fn build(self, _own: LimiterBuilder) -> Result<(Single, Duration), Invalid> {
        let max_wait = self.0.0.config().max_wait;
        Ok((self.0, max_wait))
    }
}

impl<F> First for Given<ByKey<F>> {
    type Select = ByKey<F>;

    fn build(self, _own: LimiterBuilder) -> Result<(ByKey<F>, Duration), Invalid> {
        let max_wait = self.0.limiters.config().max_wait;
        Ok((self.0, max_wait))
    }
}

impl<F> fmt::Debug for KeyFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyFn").finish_non_exhaustive()
    }
}

// ===== impl More =====

impl<K: Count> More<K> for () {
    type Select = K;

    fn add(self, first: K) -> K {
        first
    }
}

impl<K: Count, M: More<K>, B: Count> More<K> for (M, B) {
    type Select = Both<M::Select, B>;

    fn add(self, first: K) -> Self::Select {
        Both(self.0.add(first), self.1)
    }
}
