//! Keeping a request of reqwest's, so that it can be sent again.

use bytes::Bytes;
use http::Request;
use http_body::Body as HttpBody;
use portcullis_core::{BoxError, Keep, Kept};
use portcullis_http::{BufferBody, CloneBody, KeptBuffer, KeptClone, ReplayBody};

use crate::body::{body, whole};

/// Keeps requests that reqwest sends: whole bodies as they are, streams as they are sent.
///
/// A body that is in memory is sent again from there, whatever its size: nothing is copied. Of a stream, a
/// copy is kept while it is sent, of up to 64 KiB unless set otherwise; one that is longer is sent once,
/// and its request is not retried. See [`BufferBody`], which keeps it.
///
/// What goes to the client is a [`reqwest::Body`], whatever came: see [`body`](crate::body).
///
/// ```
/// use portcullis_core::{Keep, Kept};
/// use portcullis_reqwest::KeepBody;
///
/// let request = http::Request::put("http://files.internal/42").body("contents".to_owned()).unwrap();
/// let (sent, kept) = KeepBody::new().keep(request);
/// assert_eq!(sent.body().as_bytes(), kept.again(2).unwrap().body().as_bytes());
/// assert!(kept.idempotent());
/// ```
#[derive(Clone, Debug)]
pub struct KeepBody {
    streams: BufferBody<Wrap>,
}

/// A request that [`KeepBody`] keeps.
#[derive(Debug)]
pub struct KeptBody(Repr);

#[derive(Debug)]
enum Repr {
    Whole(KeptClone<Bytes>),
    Stream(KeptBuffer<reqwest::Body, Wrap>),
}

type Wrap = fn(ReplayBody<reqwest::Body>) -> reqwest::Body;

// ===== impl KeepBody =====

impl KeepBody {
    /// Keeps bodies in memory, and up to 64 KiB of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self { streams: BufferBody::new(reqwest::Body::wrap) }
    }

    /// Keeps up to `bytes` of a stream; with 0, none that is not empty.
    #[must_use]
    pub fn with_cap(mut self, bytes: usize) -> Self {
        self.streams = self.streams.with_cap(bytes);
        self
    }
}

impl Default for KeepBody {
    fn default() -> Self {
        Self::new()
    }
}

impl<B> Keep<Request<B>> for KeepBody
where
    B: HttpBody + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Sent = Request<reqwest::Body>;
    type Kept = KeptBody;

    fn keep(&self, req: Request<B>) -> (Request<reqwest::Body>, KeptBody) {
        let mut req = req.map(body);
        if req.body().as_bytes().is_some() {
            let whole = whole(req.body_mut()).unwrap_or_default();
            let (sent, kept) = CloneBody.keep(req.map(|_| whole));
            (sent.map(reqwest::Body::from), KeptBody(Repr::Whole(kept)))
        } else {
            let (sent, kept) = self.streams.keep(req);
            (sent, KeptBody(Repr::Stream(kept)))
        }
    }
}

// ===== impl KeptBody =====

impl Kept for KeptBody {
    type Sent = Request<reqwest::Body>;

    fn idempotent(&self) -> bool {
        match &self.0 {
            Repr::Whole(kept) => kept.idempotent(),
            Repr::Stream(kept) => kept.idempotent(),
        }
    }

    fn again(&self, attempt: u32) -> Option<Request<reqwest::Body>> {
        match &self.0 {
            Repr::Whole(kept) => Some(kept.again(attempt)?.map(reqwest::Body::from)),
            Repr::Stream(kept) => kept.again(attempt),
        }
    }
}
