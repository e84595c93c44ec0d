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
                let result = match call::poll(|| future.poll(cx)) {
                    Poll::Ready(Ok(response)) => Ok(response),
                    Poll::Ready(Err(error)) => Err(Error::inner(error)),
                    Poll::Pending => return Poll::Pending,
                };
                let now = pending.call().ended();
                // An error is no head.
                let head = result.is_ok().then_some(now);
                if classifier.ends_at_head() {
                    let verdict = classifier.at_head(result.as_ref());
                    pending.settle(verdict.outcome(), head, now);
                    return Poll::Ready(classifier.hand_up(result));
                }
                let good = || classifier.at_head(result.as_ref()).outcome() == Outcome::Success;
                pending.tell_of_head(good, now);
                Poll::Ready(classifier.classify(result, pending.with_result(head)))
            }
            StateProj::Refused { error } => match error.take() {
                Some(error) => Poll::Ready(Err(error)),
                None => Poll::Pending,
            },
        }
    }
}

impl<F, C> fmt::Debug for ResponseFuture<F, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let refused = matches!(self.state, State::Refused { .. });
        f.debug_struct("ResponseFuture").field("refused", &refused).finish_non_exhaustive()
    }
}
