//! The body of a response, which runs on in its request's scope.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;
use portcullis_core::{BoxError, Error, call::Scoped};
use portcullis_http::Body as Watched;

pin_project! {
    /// The body of a response that came through [`Inbound`](super::Inbound): it is polled and dropped in
    /// the scope of its request, which ends when it does. A refusal has an empty one.
    ///
    /// It allocates nothing until it is pending under a deadline; then a timer, once.
    ///
    /// # Cancellation
    ///
    /// Dropped while more of it is awaited, the request is recorded as `cancelled`: the client has gone.
    pub struct Body<B> {
        #[pin]
        inner: Option<Scoped<Watched<B>>>,
    }
}

// ===== impl Body =====

impl<B> Body<B> {
    pub(super) fn new(inner: Scoped<Watched<B>>) -> Self {
        Self { inner: Some(inner) }
    }

    fn get_ref(&self) -> Option<&Watched<B>> {
        self.inner.as_ref()?.get_ref()
    }
}

impl<B> http_body::Body for Body<B>
where
    B: http_body::Body,
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, Error>>> {
        let inner = self.project().inner.as_pin_mut();
        let polled = inner.and_then(|inner| inner.with(|body| body.poll_frame(cx)));
        polled.unwrap_or(Poll::Ready(None))
    }

    fn is_end_stream(&self) -> bool {
        self.get_ref().is_none_or(Watched::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.get_ref().map_or_else(|| SizeHint::with_exact(0), Watched::size_hint)
    }
}

impl<B> Default for Body<B> {
    fn default() -> Self {
        Self { inner: None }
    }
}

impl<B> fmt::Debug for Body<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("inner", &self.get_ref()).finish()
    }
}
