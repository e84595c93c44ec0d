//! The service.

use std::{
    fmt, mem,
    sync::Arc,
    task::{Context, Poll},
};

use portcullis_core::{BoxError, Error, Follow};
use tower_service::Service;

use crate::{ResponseFuture, layer::Shared};

/// Asks on until an operation is done. Made by [`PollLayer`](crate::PollLayer).
///
/// # Readiness
///
/// That of the inner service. A call takes the instance that was readied with it, and makes it ready
/// again for each poll; a clone stands in for it here.
///
/// # Errors
///
/// [`Unfinished`](crate::Unfinished) if the operation was given up; the inner service's error, or that of
/// the [`Follow`], as it is.
///
/// # Cancellation
///
/// Dropping the response future at any moment drops the request, or the look at an answer, that is under
/// way, and the inner service's instance. The peer is not told, and may go on with the operation.
///
/// # Clone
///
/// A clone starts unready, as its inner service does.
pub struct Polling<S, P> {
    inner: S,
    shared: Arc<Shared<P>>,
}

// ===== impl Polling =====

impl<S, P> Polling<S, P> {
    pub(crate) fn new(inner: S, shared: Arc<Shared<P>>) -> Self {
        Self { inner, shared }
    }

    /// The inner service.
    #[must_use]
    pub fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl<S, P, Req> Service<Req> for Polling<S, P>
where
    S: Service<Req> + Clone,
    S::Error: Into<BoxError>,
    P: Follow<Req, S::Response>,
{
    type Response = P::Response;
    type Error = Error;
    type Future = ResponseFuture<S, P, Req>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx).map_err(Error::inner)
    }

    fn call(&mut self, req: Req) -> Self::Future {
        let clone = self.inner.clone();
        let readied = mem::replace(&mut self.inner, clone);
        ResponseFuture::begin(readied, req, self.shared.clone())
    }
}

impl<S: Clone, P> Clone for Polling<S, P> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), shared: self.shared.clone() }
    }
}

impl<S, P> fmt::Debug for Polling<S, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Polling").field("shared", &self.shared).finish_non_exhaustive()
    }
}
