//! The future of a request.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use http::Response;
use pin_project_lite::pin_project;
use portcullis_core::{Completion, Error, FaultKind, Outcome, Replay, Until, call::Scoped, clock};
use portcullis_http::inbound;
use tokio::time::{Sleep, sleep_until};

use super::Body;

pin_project! {
    /// The future of an [`Inbound`](super::Inbound): the response's head, or the inner service's error.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F> {
        // `None` if the request was refused when it came.
        #[pin]
        inner: Option<Scoped<F>>,
        // Made when the inner future is first found pending under a deadline.
        #[pin]
        timer: Option<Sleep>,
        until: Option<Until>,
        grpc: bool,
        // `None` once the end is told, or handed to the body to be told.
        done: Option<Completion>,
    }

    impl<F> PinnedDrop for ResponseFuture<F> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            // From the inside out, as calls end: the calls within tell theirs first.
            if let Some(inner) = this.inner.as_pin_mut() {
                inner.clear();
            }
            drop(this.done.take());
        }
    }
}

// ===== impl ResponseFuture =====

impl<F> ResponseFuture<F> {
    pub(super) fn called(
        inner: Scoped<F>,
        until: Option<Until>,
        grpc: bool,
        done: Completion,
    ) -> Self {
        Self { inner: Some(inner), timer: None, until, grpc, done: Some(done) }
    }

    #[cold]
    pub(super) fn refused(until: Option<Until>, grpc: bool, done: Completion) -> Self {
        Self { inner: None, timer: None, until, grpc, done: Some(done) }
    }
}

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: http_body::Body,
{
    type Output = Result<Response<Body<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Some(mut inner) = this.inner.as_mut().as_pin_mut() {
            if this.done.is_none() {
                // Polled after it had answered; that its contract was broken is no reason to panic here.
                return Poll::Pending;
            }
            // The response goes before the timer: what is there is not taken away.
            if let Poll::Ready(result) = inner.as_mut().poll(cx) {
                let Some(done) = this.done.take() else { return Poll::Pending };
                return Poll::Ready(finish(result, &inner, *this.grpc, done));
            }
            let Some(until) = this.until else { return Poll::Pending };
            if this.timer.is_none() {
                this.timer.set(Some(sleep_until(until.at.into())));
            }
            if let Some(timer) = this.timer.as_mut().as_pin_mut()
                && clock::run_out(timer, cx).is_pending()
            {
                return Poll::Pending;
            }
            // Dropped before the answer is given, within the scope: the calls it awaits take that for
            // the timeout it is.
            inner.expire();
            this.timer.set(None);
        }
        match (*this.until, this.done.take()) {
            (Some(until), Some(done)) => {
                let error = done.elapsed(until.phase, until.limit);
                Poll::Ready(Ok(refusal(&error, *this.grpc)))
            }
            _ => Poll::Pending,
        }
    }
}

impl<F> fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("until", &self.until)
            .field("ended", &self.done.is_none())
            .finish_non_exhaustive()
    }
}

/// Hands up what the inner service answered; the body runs on in the scope.
fn finish<F, B, E>(
    result: Result<Response<B>, E>,
    inner: &Scoped<F>,
    grpc: bool,
    done: Completion,
) -> Result<Response<Body<B>>, E>
where
    B: http_body::Body,
{
    let call = inner.call();
    match result {
        Ok(response) => {
            // What a handler says when its own calls have given up at the deadline does not break off
            // after the head. Nothing that comes any later gets here.
            let response = inbound::watch(response, grpc, done.with_head(call.ended()));
            Ok(response.map(|body| Body::new(call.clone().in_scope(body))))
        }
        Err(error) => {
            done.settle(Outcome::failure(FaultKind::Other, Replay::IfIdempotent));
            Err(error)
        }
    }
}

/// The whole response to a request whose deadline has passed.
fn refusal<B>(error: &Error, grpc: bool) -> Response<Body<B>> {
    let response = error.rejection().map(|elapsed| inbound::refusal(elapsed, grpc));
    response.unwrap_or_default().map(|()| Body::default())
}
