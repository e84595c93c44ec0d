//! The service.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use portcullis_core::{BoxError, ByResult, Call, Classify, Error, clock};
use tokio::time::Sleep;
use tower_service::Service;

use crate::{Handle, Refusal, ResponseFuture, Select, Single, WhenOpen};

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

/// This service's place among those that wait for the breaker.
struct Waiting {
    handle: Handle,
    number: u64,
    sleep: Option<Pin<Box<Sleep>>>,
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
        self.waiting = None;
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

    fn call(&mut self, req: Req) -> Self::Future {
        let call = Call::current();
        let now = call.now();
        let readied = std::mem::replace(&mut self.readied, Readied::Inner);
        let admission = self.select.with(&req, call, |handle, call| match readied {
            Readied::Inner => handle.enter(call, now),
            Readied::Refusing(refusal) => Err(handle.reject(refusal, &call, now)),
        });
        match admission {
            // Admitted first: a call that panics or is dropped has its completion by then.
            Ok(admitted) => {
                let future = self.inner.call(req);
                ResponseFuture::called(future, admitted, self.classifier.clone())
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

// ===== impl Waiting =====

impl Waiting {
    fn new(handle: Handle) -> Self {
        let number = handle.waiting().number();
        Self { handle, number, sleep: None }
    }

    /// Ready once a call would not be refused.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            // Registered before the look: a change after the look wakes, one before it is seen.
            self.handle.waiting().register(self.number, cx.waker());
            let Some(refusal) = self.handle.outlook() else { return Poll::Ready(()) };
            let Some(at) = refusal.retry_at else {
                self.sleep = None;
                return Poll::Pending;
            };
            let at = tokio::time::Instant::from_std(at);
            let sleep = match &mut self.sleep {
                Some(sleep) if sleep.deadline() == at => sleep,
                sleep => sleep.insert(Box::pin(tokio::time::sleep_until(at))),
            };
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            // The timer may be ahead of the clock by less than its own resolution: look again at
            // what the breaker says, and wait on if it must be.
            self.sleep = None;
            if clock::now() < at.into_std() {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.handle.waiting().forget(self.number);
    }
}
