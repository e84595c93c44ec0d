//! The future of a recorded call.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use portcullis_core::{BoxError, Classify, Completion, Error, Ticket, call::Scoped, clock};

use crate::{
    Capture,
    live::{Live, as_std},
};

pin_project! {
    /// The future of a [`Traced`](crate::Traced): the response's head, or the error.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F, C, O> {
        #[pin]
        inner: Scoped<F>,
        // `None` once the call's end is told, or handed to the classifier to be told.
        live: Option<Arc<Live>>,
        classify: C,
        capture: Arc<O>,
    }

    impl<F, C, O> PinnedDrop for ResponseFuture<F, C, O> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if let Some(live) = this.live.take() {
                // From the inside out, as calls end: the layers below tell theirs first.
                this.inner.as_mut().clear();
                drop(completion(live, &this.inner));
            }
        }
    }
}

// ===== impl ResponseFuture =====

impl<F, C, O> ResponseFuture<F, C, O> {
    #[inline]
    pub(crate) fn new(inner: Scoped<F>, live: Arc<Live>, classify: C, capture: Arc<O>) -> Self {
        Self { inner, live: Some(live), classify, capture }
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

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let result = ready!(this.inner.as_mut().poll(cx)).map_err(Error::inner);
        let Some(live) = this.live.take() else {
            // The inner future answered twice; that its contract was broken first is no reason to
            // panic here.
            return Poll::Pending;
        };
        match result {
            Ok(response) => {
                if let Some(text) = this.capture.capture(&response) {
                    live.output(&text);
                }
                let done = completion(live, &this.inner).with_head(clock::now());
                Poll::Ready(this.classify.classify(Ok(response), done))
            }
            Err(error) => {
                live.error(as_std(&error));
                let done = completion(live, &this.inner);
                Poll::Ready(this.classify.classify(Err(error), done))
            }
        }
    }
}

impl<F, C, O> fmt::Debug for ResponseFuture<F, C, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("ended", &self.live.is_none())
            .finish_non_exhaustive()
    }
}

/// The duty to tell the record how the call ended.
#[inline]
fn completion<F>(live: Arc<Live>, inner: &Scoped<F>) -> Completion {
    let started = live.started();
    Completion::new(live, Ticket::default(), inner.call().clone(), started)
}
