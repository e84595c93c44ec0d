//! The response.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use portcullis_core::{BoxError, Classify, Completion, Error, Outcome, clock};

use crate::handle::Lane;

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
            // Dropped before the completion, so that the inner call is over when its end is told.
            #[pin]
            future: F,
            // `None` once the response was handed up.
            done: Option<Completion>,
            // Where to tell of the head, if the call is a probe.
            probe: Option<Arc<Lane>>,
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
    pub(crate) fn called(
        future: F,
        done: Completion,
        probe: Option<Arc<Lane>>,
        classifier: C,
    ) -> Self {
        Self { state: State::Called { future, done: Some(done), probe, classifier } }
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
            StateProj::Called { future, done, probe, classifier } => {
                let Poll::Ready(result) = future.poll(cx) else { return Poll::Pending };
                let Some(done) = done.take() else {
                    // The inner future answered twice; that its contract was broken first is no
                    // reason to panic here.
                    return Poll::Pending;
                };
                let result = result.map_err(Error::inner);
                let now = clock::now();
                if let Some(lane) = probe.take() {
                    let so_far = classifier.at_head(result.as_ref()).outcome();
                    lane.probe_head(&done, so_far == Outcome::Success, now);
                }
                Poll::Ready(classifier.classify(result, done.with_head(now)))
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
