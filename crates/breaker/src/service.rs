//! The service.

use std::{
    fmt,
    task::{Context, Poll},
};

use portcullis_core::{BoxError, ByResult, Call, Classify, Error};
use tower_service::Service;

use crate::{Refusal, ResponseFuture, Select, Single, WhenOpen, waiting::Waiting};

/// A service behind a circuit breaker: it refuses calls while the inner service is failing.
///
/// # Readiness
///
/// While the breaker is open the service is ready without asking the inner one, and the call that
/// follows is refused, even if the breaker was reset in between: nobody has readied the inner
/// service for it. Otherwise readiness is the inner service's. See [`WhenOpen`] for a service that is
/// not ready instead. Keyed breakers are as ready as the inner service, and refuse in `call`.
///
/// An inner service that fails to become ready counts as a failed call; not so for keyed breakers,
/// where nobody knows which key it failed for.
///
/// # Errors
///
/// [`Open`](crate::Open) if the call is refused, else the inner service's error.
///
/// # Cancellation
///
/// A future or a body that is dropped gives a probe's slot back. A call dropped before its response's
/// head may count as a timeout, see [`Abandoned`](crate::Abandoned).
///
/// # Clone
///
/// A clone is behind the same breaker and starts unready.
pub struct Breaker<S, C = ByResult, K = Single> {
    inner: S,
    classifier: C,
    select: K,
    readied: Readied,
    waiting: Option<Waiting>,
}

/// What the last `poll_ready` leaves for `call`.
enum Readied {
    /// The call goes to the inner service, if the breaker still lets it.
    Inner,
    /// The inner service was not asked: the call is refused, whatever the breaker says by then.
    Refusing(Refusal),
}

// ===== impl Breaker =====

impl<S, C, K> Breaker<S, C, K> {
    pub(crate) fn new(inner: S, classifier: C, select: K) -> Self {
        Self { inner, classifier, select, readied: Readied::Inner, waiting: None }
    }

    /// The inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl<S, C, K, Req> Service<Req> for Breaker<S, C, K>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    C: Classify<S::Response> + Clone,
    K: Select<Req>,
{
    type Response = C::Response;
    type Error = Error;
    type Future = ResponseFuture<S::Future, C>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.readied = Readied::Inner;
        if let Some(handle) = self.select.single()
            && let Some(refusal) = handle.outlook()
        {
            match handle.config().when_open {
                WhenOpen::Reject => {
                    self.readied = Readied::Refusing(refusal);
                    return Poll::Ready(Ok(()));
                }
                WhenOpen::NotReady => {
                    let waiting = self.waiting.get_or_insert_with(|| Waiting::new(handle.clone()));
                    if waiting.poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                }
            }
        }
        if self.waiting.is_some() {
            self.waiting = None;
        }
        match self.inner.poll_ready(cx) {
            Poll::Ready(Err(error)) => {
                let error = Error::inner(error);
                if let Some(handle) = self.select.single() {
                    handle.not_ready(error.outcome());
                }
                Poll::Ready(Err(error))
            }
            Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
        }
    }

    #[inline]
    fn call(&mut self, req: Req) -> Self::Future {
        let call = Call::here();
        let now = call.now();
        let admission = self.select.with(&req, &call, |handle| match self.readied {
            Readied::Inner => handle.enter(&call, now),
            Readied::Refusing(refusal) => Err(handle.reject(refusal, &call, now)),
        });
        self.readied = Readied::Inner;
        match admission {
            Ok(admitted) => {
                // Before the inner call: should that panic, its end is told all the same.
                let pending = admitted.begin(call, now);
                let future = self.inner.call(req);
                ResponseFuture::called(future, pending, self.classifier.clone())
            }
            Err(refused) => ResponseFuture::refused(refused),
        }
    }
}

impl<S: Clone, C: Clone, K: Clone> Clone for Breaker<S, C, K> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), self.classifier.clone(), self.select.clone())
    }
}

impl<S: fmt::Debug, C, K: fmt::Debug> fmt::Debug for Breaker<S, C, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breaker")
            .field("inner", &self.inner)
            .field("select", &self.select)
            .finish_non_exhaustive()
    }
}
