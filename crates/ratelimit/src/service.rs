//! The service.

use std::{
    fmt, mem,
    task::{Context, Poll},
    time::Duration,
};

use portcullis_core::{BoxError, ByResult, Call, Classify, Error};
use tower_service::Service;

use crate::{
    ResponseFuture, Rules, Select, Single,
    claim::{Claim, Terms},
    receipt,
    rules::Weigh,
};

/// A service before which calls wait for their turn, or are refused. Made by
/// [`RateLimitLayer`](crate::RateLimitLayer).
///
/// # Readiness
///
/// That of the inner service: which limit a call stands before, and what it costs, is known with the
/// request only. A call that has to wait takes the instance that was readied with it, so that the
/// inner service's readiness (a connection, a slot) is held for as long; a clone stands in for it
/// here. A call that need not wait makes neither a clone nor a timer.
///
/// # Errors
///
/// [`Limited`](crate::Limited) if the call is refused, else the inner service's error.
///
/// # Cancellation
///
/// A call that is dropped while it waits gives its turn back if nobody queued behind it. What was sent
/// is never given back.
///
/// # Clone
///
/// A clone stands before the same limits and starts unready.
pub struct RateLimit<S, C = ByResult, K = Single, W = Rules> {
    inner: S,
    classifier: C,
    select: K,
    rules: W,
    max_wait: Duration,
}

// ===== impl RateLimit =====

impl<S, C, K, W> RateLimit<S, C, K, W> {
    pub(crate) fn new(inner: S, classifier: C, select: K, rules: W, max_wait: Duration) -> Self {
        Self { inner, classifier, select, rules, max_wait }
    }

    /// The inner service.
    #[must_use]
    pub fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl<S, C, K, W, Req> Service<Req> for RateLimit<S, C, K, W>
where
    S: Service<Req> + Clone,
    S::Error: Into<BoxError>,
    C: Classify<S::Response> + Clone,
    K: Select<Req>,
    W: Weigh<Req, S::Response> + Clone,
{
    type Response = S::Response;
    type Error = Error;
    type Future = ResponseFuture<S, Req, K::Slots, C, W>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx).map_err(Error::inner)
    }

    fn call(&mut self, req: Req) -> Self::Future {
        let call = Call::here();
        let now = call.now();
        let cost = call.overrides().cost.unwrap_or_else(|| self.rules.cost(&req));
        let terms = Terms::new(cost, &call, self.max_wait, now);
        let mut claim = Claim::new(self.select.find(&req, &call), terms);
        let (classifier, rules) = (self.classifier.clone(), self.rules.clone());
        match claim.ask(&call, now) {
            Ok(None) => {
                let mut slots = claim.take();
                receipt::note(slots.as_mut());
                let future = self.inner.call(req);
                ResponseFuture::calling(future, slots, call, classifier, rules)
            }
            Ok(Some(turn)) => {
                // The instance that was readied is the one that is called when the turn comes; the
                // clone has no readiness and takes its place here.
                let clone = self.inner.clone();
                let readied = mem::replace(&mut self.inner, clone);
                ResponseFuture::waiting(turn, (readied, req), claim, call, classifier, rules)
            }
            Err(limited) => ResponseFuture::refused(limited, call, classifier, rules),
        }
    }
}

impl<S: Clone, C: Clone, K: Clone, W: Clone> Clone for RateLimit<S, C, K, W> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            classifier: self.classifier.clone(),
            select: self.select.clone(),
            rules: self.rules.clone(),
            max_wait: self.max_wait,
        }
    }
}

impl<S, C, K: fmt::Debug, W> fmt::Debug for RateLimit<S, C, K, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimit").field("select", &self.select).finish_non_exhaustive()
    }
}
