//! The response.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use portcullis_core::{BoxError, Classify, Error, Outcome, call};

use crate::pending::Pending;

pin_project! {
    /// The future of a [`Breaker`](crate::Breaker): the inner one's, or a refusal.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F, C> {
        #[pin]
        state: State<F, C>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, C> {
        Called {
            // Dropped before what is pending, so that the inner call is over when its end is told.
            #[pin]
            future: F,
            pending: Pending,
            classifier: C,
        },
        Refused {
            error: Option<Error>,
        },
    }
}

// ===== impl ResponseFuture =====

impl<F, C> ResponseFuture<F, C> {
    #[inline]
    pub(crate) fn called(future: F, pending: Pending, classifier: C) -> Self {
        Self { state: State::Called { future, pending, classifier } }
    }

    pub(crate) fn refused(error: Error) -> Self {
        Self { state: State::Refused { error: Some(error) } }
    }
}

impl<F, C, Res, E> Future for ResponseFuture<F, C>
where
    F: Future<Output = Result<Res, E>>,
    E: Into<BoxError>,
    C: Classify<Res>,
{
    type Output = Result<C::Response, Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Called { future, pending, classifier } => {
                match call::poll(|| future.poll(cx)) {
                    Poll::Ready(Ok(response)) => {
                        Poll::Ready(answered(response, pending, classifier))
                    }
                    Poll::Ready(Err(error)) => {
                        Poll::Ready(failed(Error::inner(error), pending, classifier))
                    }
                    Poll::Pending => Poll::Pending,
                }
            }
            StateProj::Refused { error } => match error.take() {
                Some(error) => Poll::Ready(Err(error)),
                None => Poll::Pending,
            },
        }
    }
}

/// Hands up what the inner service answered. The call's end is told, if its head is that.
#[inline]
fn answered<Res, C>(
    response: Res,
    pending: &mut Pending,
    classifier: &C,
) -> Result<C::Response, Error>
where
    C: Classify<Res>,
{
    let now = pending.call().ended();
    let verdict = || classifier.at_head(Ok(&response)).outcome();
    if classifier.ends_at_head() {
        pending.settle(verdict(), Some(now), now);
        return classifier.hand_up(Ok(response));
    }
    pending.tell_of_head(|| verdict() == Outcome::Success, now);
    classifier.classify(Ok(response), pending.with_result(Some(now)))
}

/// Hands up the inner service's error, which is no head.
#[cold]
fn failed<Res, C>(error: Error, pending: &mut Pending, classifier: &C) -> Result<C::Response, Error>
where
    C: Classify<Res>,
{
    let now = pending.call().ended();
    let verdict = classifier.at_head(Err(&error)).outcome();
    if classifier.ends_at_head() {
        pending.settle(verdict, None, now);
        return classifier.hand_up(Err(error));
    }
    pending.tell_of_head(|| verdict == Outcome::Success, now);
    classifier.classify(Err(error), pending.with_result(None))
}

impl<F, C> fmt::Debug for ResponseFuture<F, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let refused = matches!(self.state, State::Refused { .. });
        f.debug_struct("ResponseFuture").field("refused", &refused).finish_non_exhaustive()
    }
}
