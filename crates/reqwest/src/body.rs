//! Bodies on their way into reqwest and out of it.

use std::{
    any::Any,
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::Full;
use pin_project_lite::pin_project;
use portcullis_core::{BoxError, Error};
use sync_wrapper::SyncWrapper;

use crate::judge;

pin_project! {
    /// A response's body as reqwest reads it: every frame, trailers included, as it comes.
    ///
    /// Its error holds reqwest's own, and its verdict where reqwest ended it: a timeout of reqwest's is a
    /// timeout for every layer.
    pub struct Body {
        #[pin]
        inner: reqwest::Body,
    }
}

pin_project! {
    /// Any body as one that reqwest takes, which must be `Sync`.
    struct Outgoing<B> {
        #[pin]
        inner: SyncWrapper<B>,
        // What is asked of a shared reference, which the wrapper gives to nobody.
        hint: SizeHint,
        ended: bool,
    }
}

/// Any body as one of reqwest's.
///
/// One of reqwest's own comes out as it is. What is whole in memory (`Full<Bytes>`, `String`, and whatever
/// has ended before it began) stays so, which lets reqwest send it again where a redirect asks for that.
/// Everything else is a stream, of which trailers are a part.
///
/// ```
/// use http_body_util::Full;
///
/// let whole = portcullis_reqwest::body(Full::new(bytes::Bytes::from("a question")));
/// assert_eq!(whole.as_bytes(), Some(&b"a question"[..]));
/// ```
pub fn body<B>(body: B) -> reqwest::Body
where
    B: HttpBody + Send + 'static,
    B::Error: Into<BoxError>,
{
    if body.is_end_stream() {
        return reqwest::Body::default();
    }
    let mut body = Some(body);
    if let Some(own) = taken::<_, reqwest::Body>(&mut body) {
        return own;
    }
    if let Some(text) = taken::<_, String>(&mut body) {
        return text.into();
    }
    if let Some(mut full) = taken::<_, Full<Bytes>>(&mut body) {
        return whole(&mut full).unwrap_or_default().into();
    }
    body.map(|body| reqwest::Body::wrap(Outgoing::new(body))).unwrap_or_default()
}

/// The bytes of a body that has them all at hand.
pub(crate) fn whole<B: HttpBody<Data = Bytes> + Unpin>(body: &mut B) -> Option<Bytes> {
    let mut nobody = Context::from_waker(std::task::Waker::noop());
    match Pin::new(body).poll_frame(&mut nobody) {
        Poll::Ready(Some(Ok(frame))) => frame.into_data().ok(),
        _ => None,
    }
}

/// Takes what is there if it is of type `T`.
fn taken<B: 'static, T: 'static>(body: &mut Option<B>) -> Option<T> {
    (body as &mut dyn Any).downcast_mut::<Option<T>>()?.take()
}

// ===== impl Body =====

impl Body {
    pub(crate) fn new(inner: reqwest::Body) -> Self {
        Self { inner }
    }

    /// The body as reqwest's own type.
    #[must_use]
    pub fn into_inner(self) -> reqwest::Body {
        self.inner
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.project().inner.poll_frame(cx).map_err(judge::body)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::new(reqwest::Body::default())
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("ended", &self.is_end_stream()).finish_non_exhaustive()
    }
}

// ===== impl Outgoing =====

impl<B: HttpBody> Outgoing<B> {
    fn new(inner: B) -> Self {
        let (hint, ended) = (inner.size_hint(), inner.is_end_stream());
        Self { inner: SyncWrapper::new(inner), hint, ended }
    }
}

impl<B: HttpBody> HttpBody for Outgoing<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        let mut inner = this.inner.get_pin_mut();
        let polled = ready!(inner.as_mut().poll_frame(cx));
        (*this.hint, *this.ended) = (inner.size_hint(), inner.is_end_stream());
        let bytes = |mut data: B::Data| data.copy_to_bytes(data.remaining());
        Poll::Ready(polled.map(|frame| frame.map(|frame| frame.map_data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        self.hint
    }
}
