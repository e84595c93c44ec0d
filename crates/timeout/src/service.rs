//! The service.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use portcullis_core::{BoxError, ByResult, Call, Classify, Error, clock};
use tower_service::Service;

use crate::{engine::Kept, future::ResponseFuture, layer::Shared};

/// Limits the time that calls of the inner service take. Made by
/// [`TimeoutLayer`](crate::TimeoutLayer).
///
/// # Errors
///
/// [`Elapsed`](portcullis_core::Elapsed), which names the layer, the phase and the limit; or the
/// inner service's own error.
///
/// # Panics
///
/// A call that is pending under a limit panics outside a tokio runtime with its timer enabled, as
/// tokio's own timers do.
///
/// # Cancellation
///
/// When a limit runs out the inner future is dropped before the error is returned, so what it held
/// is free by then, and the layers inside count a timeout and not a caller who gave up. When the
/// caller drops the future, the inner one is dropped as it is.
///
/// # Clone
///
/// Clones share the layer's settings and observers. A clone has not waited for readiness.
pub struct Timeout<S, C = ByResult> {
    inner: S,
    shared: Arc<Shared>,
    classify: C,
    /// Since when the call to come has been waiting for readiness; `None` once it is ready.
    waiting_since: Option<Instant>,
    /// How long it had waited when it was ready. What its caller does until the call is the caller's
    /// own time.
    waited: Option<Duration>,
}

// ===== impl Timeout =====

impl<S, C> Timeout<S, C> {
    pub(crate) fn new(inner: S, shared: Arc<Shared>, classify: C) -> Self {
        Self { inner, shared, classify, waiting_since: None, waited: None }
    }

    /// The inner service.
    #[must_use]
    pub fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl<S, C, Req> Service<Req> for Timeout<S, C>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    C: Classify<S::Response> + Clone,
{
    type Response = C::Response;
    type Error = Error;
    type Future = ResponseFuture<S::Future, C>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        match self.inner.poll_ready(cx) {
            Poll::Pending => {
                // Whoever waits here must wait on: the time is charged to the call, which can be
                // refused without an end to the service.
                self.waiting_since.get_or_insert_with(clock::now);
                Poll::Pending
            }
            Poll::Ready(Ok(())) => {
                if let Some(since) = self.waiting_since.take() {
                    let more = clock::now().saturating_duration_since(since);
                    self.waited = Some(self.waited.unwrap_or_default() + more);
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => {
                (self.waiting_since, self.waited) = (None, None);
                Poll::Ready(Err(Error::inner(error)))
            }
        }
    }

    #[inline]
    fn call(&mut self, req: Req) -> Self::Future {
        let call = Call::here();
        let now = call.now();
        let since = self.waited.take().and_then(|waited| now.checked_sub(waited));
        let plan = self.shared.policy.plan(&call, since, now);
        let teller = self.shared.teller(&plan, &call, self.classify.watches());
        let classify = self.classify.clone();

        if let Some(ran_out) = self.shared.policy.overdue(&plan) {
            // The inner service stays ready for another call.
            return ResponseFuture::refused(call, plan.ended_by(ran_out), classify, teller);
        }
        let kept = Kept::of(&plan);
        let inner = call.with_deadline(plan.deadline).enter(now, || self.inner.call(req));
        ResponseFuture::called(inner, kept, classify, teller)
    }
}

impl<S: Clone, C: Clone> Clone for Timeout<S, C> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), self.shared.clone(), self.classify.clone())
    }
}

impl<S, C> fmt::Debug for Timeout<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timeout")
            .field("shared", &self.shared)
            .field("waiting_since", &self.waiting_since)
            .field("waited", &self.waited)
            .finish_non_exhaustive()
    }
}
