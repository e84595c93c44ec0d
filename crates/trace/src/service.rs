//! The service.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use portcullis_core::{BoxError, ByResult, Call, Classify, Error, What};
use tower_service::Service;

use crate::{Capture, Describe, NoCapture, ResponseFuture, Undescribed, layer::Shared, live::Live};

/// Records the calls of the inner service. Made by [`TraceLayer`](crate::TraceLayer).
///
/// A call is a child of the [scope](crate::TraceScope) it is made in, or of the call whose handler
/// makes it; outside of any it is a trace of its own.
///
/// # Errors
///
/// The inner service's; it refuses nothing, and nothing that happens to a record is the call's
/// concern.
///
/// # Cancellation
///
/// A future or a body that is dropped is recorded as `cancelled`, or as `timeout` where a limit or the
/// call's deadline had run out.
///
/// # Clone
///
/// Clones write to the same recorder. A clone starts unready.
pub struct Traced<S, C = ByResult, D = Undescribed, O = NoCapture> {
    inner: S,
    shared: Arc<Shared>,
    classify: C,
    describe: Arc<D>,
    capture: Arc<O>,
}

// ===== impl Traced =====

impl<S, C, D, O> Traced<S, C, D, O> {
    pub(crate) fn new(
        inner: S,
        shared: Arc<Shared>,
        classify: C,
        describe: Arc<D>,
        capture: Arc<O>,
    ) -> Self {
        Self { inner, shared, classify, describe, capture }
    }

    /// The inner service.
    #[must_use]
    pub fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl<S, C, D, O, Req> Service<Req> for Traced<S, C, D, O>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    C: Classify<S::Response> + Clone,
    D: Describe<Req>,
    O: Capture<S::Response>,
{
    type Response = C::Response;
    type Error = Error;
    type Future = ResponseFuture<S::Future, C, O>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx).map_err(Error::inner)
    }

    #[inline]
    fn call(&mut self, req: Req) -> Self::Future {
        let call = Call::here();
        let now = call.now();
        let (child, mut writing) =
            Live::call(&self.shared, call, now, |about| self.describe.describe(&req, about));
        let child = child.with_attempt(0);
        if let Some(voice) = &self.shared.voice {
            // Whoever hears it is in the call around this one, whose record is to be at hand.
            let told = writing.run(|| child.clone());
            voice.tell(&told, now, || What::Started);
        }
        let inner = writing.run(|| child.enter(now, || self.inner.call(req)));
        let capture = O::TAKES.then(|| self.capture.clone());
        ResponseFuture::new(inner, writing, now, self.classify.clone(), capture)
    }
}

impl<S: Clone, C: Clone, D, O> Clone for Traced<S, C, D, O> {
    fn clone(&self) -> Self {
        Self::new(
            self.inner.clone(),
            self.shared.clone(),
            self.classify.clone(),
            self.describe.clone(),
            self.capture.clone(),
        )
    }
}

impl<S, C, D, O> fmt::Debug for Traced<S, C, D, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Traced")
            .field("name", &self.shared.name)
            .field("recorder", &self.shared.recorder)
            .finish_non_exhaustive()
    }
}
