//! The service.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use portcullis_core::{BoxError, ByResult, Call, Classify, Error, Keep, Kept, What};
use tower_service::Service;

use crate::{
    ResponseFuture,
    future::{FIRST, Spare},
    layer::Shared,
};

/// Sends a failed request again. Made by [`RetryLayer`](crate::RetryLayer).
///
/// # Errors
///
/// The inner service's last error itself, where it gave up on one; [`Exhausted`](crate::Exhausted)
/// where time or readiness ran out after the last response had been dropped.
///
/// # Cancellation
///
/// Dropping the response future at any moment drops the attempt, the wait, the kept request and the
/// clone of the inner service, and gives back the budget's token of a retry that was not yet sent.
///
/// # Clone
///
/// Clones share the layer's budget. A clone starts unready, as its inner service does.
pub struct Retry<S, K, C = ByResult> {
    inner: S,
    keep: Arc<K>,
    shared: Arc<Shared<C>>,
}

// ===== impl Retry =====

impl<S, K, C> Retry<S, K, C> {
    pub(crate) fn new(inner: S, keep: Arc<K>, shared: Arc<Shared<C>>) -> Self {
        Self { inner, keep, shared }
    }

    /// The inner service.
    #[must_use]
    pub fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl<S, K, C, Req> Service<Req> for Retry<S, K, C>
where
    K: Keep<Req>,
    S: Service<K::Sent> + Clone,
    S::Error: Into<BoxError>,
    C: Classify<S::Response>,
{
    type Response = S::Response;
    type Error = Error;
    type Future = ResponseFuture<S, K::Kept, C>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx).map_err(Error::inner)
    }

    #[inline]
    fn call(&mut self, req: Req) -> Self::Future {
        let call = Call::current();
        let now = call.now();
        self.shared.policy.first(now);

        let (sent, kept) = self.keep.keep(req);
        let word = call.overrides().idempotent;
        let idempotent = word.unwrap_or_else(|| kept.idempotent());
        // The instance that was readied is the one called now. The clone has no readiness, and none
        // is needed: it is made ready before each attempt of its own.
        let spare = (self.shared.policy.max_attempts(&call) > 1)
            .then(|| Spare { service: self.inner.clone(), kept });
        let attempt = call.with_attempt(FIRST);
        self.shared.voice.tell(&attempt, now, || What::Attempting { attempt: FIRST });
        let future = attempt.enter(now, || self.inner.call(sent));
        ResponseFuture::new(future, spare, idempotent, self.shared.clone())
    }
}

impl<S: Clone, K, C> Clone for Retry<S, K, C> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), keep: self.keep.clone(), shared: self.shared.clone() }
    }
}

impl<S, K, C> fmt::Debug for Retry<S, K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry").field("shared", &self.shared).finish_non_exhaustive()
    }
}
