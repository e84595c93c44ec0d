//! The service.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use portcullis_core::{BoxError, ByResult, Call, Classify, Error, Keep, Kept, What, sync::Mutex};
use tower_service::Service;

use crate::{ResponseFuture, future::FIRST, layer::Shared};

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
    core: Arc<Core<S, C>>,
}

/// What a service, its clones and all their calls share. A call's future holds it by one count,
/// however many an inner service's clone would take.
pub(crate) struct Core<S, C> {
    /// What a call that comes to a second attempt clones for it. In a mutex for inner services that
    /// are `Send` alone; a call that succeeds at once does not come near it.
    template: Mutex<S>,
    shared: Arc<Shared<C>>,
}

// ===== impl Retry =====

impl<S, K, C> Retry<S, K, C> {
    pub(crate) fn new(inner: S, keep: Arc<K>, shared: Arc<Shared<C>>) -> Self
    where
        S: Clone,
    {
        let core = Core { template: Mutex::new(inner.clone()), shared };
        Self { inner, keep, core: Arc::new(core) }
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
        let call = Call::here().with_attempt(FIRST);
        let Shared { policy, voice, .. } = self.core.shared();
        policy.first();

        let (sent, kept) = self.keep.keep(req);
        let word = call.overrides().idempotent;
        let idempotent = word.unwrap_or_else(|| kept.idempotent());
        let kept = policy.keeps(&call).then_some(kept);
        if voice.is_heard(&call) {
            voice.tell(&call, call.now(), || What::Attempting { attempt: FIRST });
        }
        // The instance that was readied is the one called. Other attempts have a clone of their own,
        // which is made ready for each.
        let future = call.enter_unread(|| self.inner.call(sent));
        ResponseFuture::new(future, kept, idempotent, self.core.clone())
    }
}

impl<S: Clone, K, C> Clone for Retry<S, K, C> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), keep: self.keep.clone(), core: self.core.clone() }
    }
}

impl<S, K, C> fmt::Debug for Retry<S, K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry").field("shared", self.core.shared()).finish_non_exhaustive()
    }
}

// ===== impl Core =====

impl<S, C> Core<S, C> {
    #[inline]
    pub(crate) fn shared(&self) -> &Shared<C> {
        &self.shared
    }

    /// A clone of the inner service, for the attempts after the first.
    pub(crate) fn another(&self) -> S
    where
        S: Clone,
    {
        self.template.lock().clone()
    }
}
