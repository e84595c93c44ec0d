//! The future of a recorded call.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use pin_project_lite::pin_project;
use portcullis_core::{BoxError, Classify, Completion, End, Error, How, Ticket, call::Scoped};

use crate::{
    Capture,
    desk::Writing,
    live::{Live, as_std},
};

pin_project! {
    /// The future of a [`Traced`](crate::Traced): the response's head, or the error.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F, C, O> {
        #[pin]
        inner: Scoped<F>,
        // `None` once the call's end is told, or handed to the classifier to be told.
        writing: Option<Writing>,
        started: Instant,
        classify: C,
        // `None` where nothing is captured.
        capture: Option<Arc<O>>,
    }

    impl<F, C, O> PinnedDrop for ResponseFuture<F, C, O> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if let Some(mut writing) = this.writing.take() {
                // From the inside out, as calls end: the layers below tell theirs first.
                writing.run(|| this.inner.as_mut().clear());
                drop(completion(writing.put_back(), *this.started, &this.inner));
            }
        }
    }
}

// ===== impl ResponseFuture =====

impl<F, C, O> ResponseFuture<F, C, O> {
    #[inline]
    pub(crate) fn new(
        inner: Scoped<F>,
        writing: Writing,
        started: Instant,
        classify: C,
        capture: Option<Arc<O>>,
    ) -> Self {
        Self { inner, writing: Some(writing), started, classify, capture }
    }
}

impl<F, C, O, Res, E> Future for ResponseFuture<F, C, O>
where
    F: Future<Output = Result<Res, E>>,
    E: Into<BoxError>,
    C: Classify<Res>,
    O: Capture<Res>,
{
    type Output = Result<C::Response, Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let Some(writing) = this.writing.as_mut() else {
            // Polled after it had answered; that its contract was broken is no reason to panic here.
            return Poll::Pending;
        };
        let result = ready!(writing.run(|| this.inner.as_mut().poll(cx))).map_err(Error::inner);
        let now = this.inner.call().ended();
        let Some(writing) = this.writing.take() else { return Poll::Pending };
        match result {
            Ok(response) if this.capture.is_none() && this.classify.ends_at_head() => {
                writing.finish(&End {
                    outcome: this.classify.at_head(Ok(&response)).outcome(),
                    how: How::Reported,
                    started: *this.started,
                    head: Some(now),
                    ended: now,
                    call: this.inner.call(),
                });
                Poll::Ready(this.classify.hand_up(Ok(response)))
            }
            Ok(response) => {
                let live = writing.put_back();
                if let (Some(live), Some(capture)) = (&live, this.capture) {
                    live.output_of(|| capture.capture(&response));
                }
                let done = completion(live, *this.started, &this.inner).with_head(now);
                Poll::Ready(this.classify.classify(Ok(response), done))
            }
            Err(error) => {
                let live = writing.put_back();
                if let Some(live) = &live {
                    live.error(as_std(&error));
                }
                let done = completion(live, *this.started, &this.inner);
                Poll::Ready(this.classify.classify(Err(error), done))
            }
        }
    }
}

impl<F, C, O> fmt::Debug for ResponseFuture<F, C, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("ended", &self.writing.is_none())
            .finish_non_exhaustive()
    }
}

/// The duty to tell the record how the call ended.
fn completion<F>(live: Option<Arc<Live>>, started: Instant, inner: &Scoped<F>) -> Completion {
    match live {
        Some(live) => {
            let call = inner.call().clone().with_record(live.clone());
            Completion::new(live, Ticket::default(), call, started)
        }
        None => Completion::none(),
    }
}
