//! Keeping a request whose body is a stream, while it is being sent.

use std::{
    fmt, mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue, Request, request::Parts};
use http_body::{Body, Frame, SizeHint};
use portcullis_core::{BoxError, Error, Keep, Kept, sync::Mutex};

use super::is_idempotent;

/// Keeps HTTP requests of any body, copying what is sent up to a cap.
///
/// A body longer than the cap is sent once and its request is not retried. Trailers count with their
/// names and values. The copy takes no more memory than the cap: it is made in one piece, whatever
/// frames the body came in and whatever buffers those were parts of; a body that is sent again comes
/// in fewer frames.
///
/// What goes to the inner service is a [`ReplayBody`], put into the client's own type by `wrap`:
///
/// ```
/// use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
/// use portcullis_http::{BufferBody, ReplayBody};
///
/// type Outgoing = UnsyncBoxBody<bytes::Bytes, portcullis_core::Error>;
///
/// # fn keep<B>() where B: http_body::Body + Send + 'static, B::Error: Into<portcullis_core::BoxError> {
/// let keep = BufferBody::new(|body: ReplayBody<B>| Outgoing::new(body)).with_cap(16 * 1024);
/// # let _ = keep; }
/// ```
#[derive(Clone)]
pub struct BufferBody<F> {
    wrap: F,
    cap: usize,
}

/// A request that [`BufferBody`] keeps.
pub struct KeptBuffer<B, F> {
    head: Parts,
    shared: Arc<Mutex<Shared<B>>>,
    wrap: F,
}

/// A body that is kept while it is being sent, and can be sent again from the start.
///
/// Only the latest copy reads on. One of an earlier attempt that still waits for a frame is woken
/// when the request is sent again, and ends with an error, which tells its connection that the request
/// was given up.
pub struct ReplayBody<B> {
    shared: Arc<Mutex<Shared<B>>>,
    /// Which copy this is.
    copy: u32,
    /// How many of the kept pieces it has sent.
    sent: usize,
    trailers_sent: bool,
}

struct Shared<B> {
    cap: usize,
    /// The copy that may read on.
    latest: u32,
    /// Who waits for the latest copy's next frame.
    reader: Option<Waker>,
    /// What was sent before the latest copy began: a piece for each attempt at the most.
    pieces: Vec<Bytes>,
    /// What the latest copy has sent since. Copied, for a frame may be a small part of a large buffer,
    /// and would keep all of it.
    growing: Vec<u8>,
    /// How much of the cap is used up.
    kept: usize,
    trailers: Option<HeaderMap>,
    rest: Rest<B>,
    replayable: bool,
}

enum Rest<B> {
    Body(Pin<Box<B>>),
    Ended,
}

/// An earlier copy of a request's body was polled after a later one had been made.
#[derive(Debug)]
struct Superseded;

// ===== impl BufferBody =====

impl<F> BufferBody<F> {
    /// How much of a body is kept unless set otherwise: 64 KiB.
    pub const DEFAULT_CAP: usize = 64 * 1024;

    /// Keeps up to 64 KiB of a request's body.
    pub const fn new(wrap: F) -> Self {
        Self { wrap, cap: Self::DEFAULT_CAP }
    }

    /// Keeps up to `bytes` of a request's body; with 0, only requests without a body are kept.
    #[must_use]
    pub fn with_cap(mut self, bytes: usize) -> Self {
        self.cap = bytes;
        self
    }
}

impl<B, F, Out> Keep<Request<B>> for BufferBody<F>
where
    B: Body,
    B::Error: Into<BoxError>,
    F: Fn(ReplayBody<B>) -> Out + Clone,
{
    type Sent = Request<Out>;
    type Kept = KeptBuffer<B, F>;

    fn keep(&self, req: Request<B>) -> (Request<Out>, KeptBuffer<B, F>) {
        let (head, body) = req.into_parts();
        let rest = if body.is_end_stream() { Rest::Ended } else { Rest::Body(Box::pin(body)) };
        let shared = Arc::new(Mutex::new(Shared {
            cap: self.cap,
            latest: 0,
            reader: None,
            pieces: Vec::new(),
            growing: Vec::new(),
            kept: 0,
            trailers: None,
            rest,
            replayable: true,
        }));
        let first = (self.wrap)(ReplayBody::new(shared.clone(), 0));
        let kept = KeptBuffer { head: head.clone(), shared, wrap: self.wrap.clone() };
        (Request::from_parts(head, first), kept)
    }
}

impl<F> fmt::Debug for BufferBody<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferBody").field("cap", &self.cap).finish_non_exhaustive()
    }
}

// ===== impl KeptBuffer =====

impl<B, F, Out> Kept for KeptBuffer<B, F>
where
    F: Fn(ReplayBody<B>) -> Out,
{
    type Sent = Request<Out>;

    fn idempotent(&self) -> bool {
        is_idempotent(&self.head)
    }

    fn again(&self, _attempt: u32) -> Option<Request<Out>> {
        let mut shared = self.shared.lock();
        let copy = shared.supersede()?;
        // From here on, whatever the body wakes is the new copy's reader. The earlier one's would
        // wait for ever, and its connection with it.
        let reader = shared.reader.take();
        drop(shared);
        if let Some(reader) = reader {
            reader.wake();
        }
        let body = (self.wrap)(ReplayBody::new(self.shared.clone(), copy));
        Some(Request::from_parts(self.head.clone(), body))
    }
}

impl<B, F> fmt::Debug for KeptBuffer<B, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptBuffer").field("head", &self.head).finish_non_exhaustive()
    }
}

// ===== impl ReplayBody =====

impl<B> ReplayBody<B> {
    fn new(shared: Arc<Mutex<Shared<B>>>, copy: u32) -> Self {
        Self { shared, copy, sent: 0, trailers_sent: false }
    }
}

impl<B> Body for ReplayBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        // Nobody waits for this lock but an earlier copy that is about to learn that it is one.
        let mut shared = this.shared.lock();
        if shared.latest != this.copy {
            return Poll::Ready(Some(Err(Error::inner(Superseded))));
        }
        if let Some(piece) = shared.pieces.get(this.sent) {
            this.sent += 1;
            return Poll::Ready(Some(Ok(Frame::data(piece.clone()))));
        }
        let polled = ready!(shared.poll_rest(cx));
        match &polled {
            Some(Ok(frame)) => this.trailers_sent |= frame.is_trailers(),
            Some(Err(_)) => {}
            None if this.trailers_sent => {}
            None => {
                this.trailers_sent = true;
                return Poll::Ready(shared.trailers.clone().map(Frame::trailers).map(Ok));
            }
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        let shared = self.shared.lock();
        let sent = self.sent >= shared.pieces.len();
        // Those of an earlier copy are to come, though the body itself is over.
        let trailers = self.trailers_sent || shared.trailers.is_none();
        let ended = match &shared.rest {
            Rest::Body(rest) => rest.is_end_stream(),
            Rest::Ended => true,
        };
        shared.latest == self.copy && sent && trailers && ended
    }

    fn size_hint(&self) -> SizeHint {
        let shared = self.shared.lock();
        let kept = shared.pieces.iter().skip(self.sent).map(Bytes::len).sum::<usize>() as u64;
        let rest = match &shared.rest {
            Rest::Body(rest) => rest.size_hint(),
            Rest::Ended => SizeHint::with_exact(0),
        };
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(kept));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(kept));
        }
        hint
    }
}

impl<B> fmt::Debug for ReplayBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplayBody").field("copy", &self.copy).finish_non_exhaustive()
    }
}

// ===== impl Shared =====

impl<B> Shared<B> {
    /// Makes way for a new copy; `None` if what was sent is not kept.
    fn supersede(&mut self) -> Option<u32> {
        if !self.replayable {
            return None;
        }
        if !self.growing.is_empty() {
            self.pieces.push(mem::take(&mut self.growing).into());
        }
        self.latest += 1;
        Some(self.latest)
    }

    /// Uses up some of the cap; if there is less, the request goes out once.
    fn charge(&mut self, bytes: usize) {
        self.kept = self.kept.saturating_add(bytes);
        if self.kept > self.cap {
            self.give_up();
        }
    }

    /// Keeps nothing from here on.
    fn give_up(&mut self) {
        self.replayable = false;
        self.pieces = Vec::new();
        self.growing = Vec::new();
        self.trailers = None;
    }
}

impl<B> Shared<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    /// The next frame that was never sent, kept as it goes out.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Rest::Body(rest) = &mut self.rest else {
            return Poll::Ready(None);
        };
        let Poll::Ready(polled) = rest.as_mut().poll_frame(cx) else {
            match &mut self.reader {
                Some(reader) => reader.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        };
        self.reader = None;
        let frame = match polled {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                self.rest = Rest::Ended;
                self.give_up();
                return Poll::Ready(Some(Err(Error::inner(error))));
            }
            None => {
                self.rest = Rest::Ended;
                return Poll::Ready(None);
            }
        };
        let to_come = rest.size_hint().lower();
        let frame = frame.map_data(|mut data| data.copy_to_bytes(data.remaining()));
        if let Some(data) = frame.data_ref() {
            self.keep(data, to_come);
        } else if let Some(trailers) = frame.trailers_ref() {
            self.rest = Rest::Ended;
            self.keep_trailers(trailers);
        }
        Poll::Ready(Some(Ok(frame)))
    }

    /// Copies what goes out, while at least `to_come` more bytes follow it.
    fn keep(&mut self, data: &[u8], to_come: u64) {
        let room = self.cap.saturating_sub(self.kept);
        self.charge(data.len());
        if !self.replayable {
            return;
        }
        // One that must grow doubles, or many small frames would cost the square of their number;
        // but never beyond what it can come to hold.
        if self.growing.capacity() - self.growing.len() < data.len() {
            let announced = usize::try_from(to_come).unwrap_or(room);
            let wanted = data.len().saturating_add(announced).max(self.growing.len());
            self.growing.reserve_exact(wanted.min(room));
        }
        self.growing.extend_from_slice(data);
    }

    fn keep_trailers(&mut self, trailers: &HeaderMap) {
        let size = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len();
        self.charge(trailers.iter().map(size).sum());
        self.trailers = self.replayable.then(|| trailers.clone());
    }
}

// ===== impl Superseded =====

impl fmt::Display for Superseded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the request was given up and is being sent again")
    }
}

impl std::error::Error for Superseded {}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    #[tokio::test]
    async fn what_is_kept_takes_no_more_memory_than_the_cap() {
        for lengths in [[40, 24, 0], [1, 2, 61], [30, 30, 4]] {
            let frames = lengths
                .map(|length| Ok::<_, Infallible>(Frame::data(Bytes::from(vec![b'x'; length]))));
            let body = StreamBody::new(futures_util::stream::iter(frames));
            let keep = BufferBody::new(|body: ReplayBody<_>| body).with_cap(64);
            let (sent, kept) = keep.keep(Request::put("/").body(body).unwrap());
            let all = sent.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(all.len(), 64);
            let shared = kept.shared.lock();
            assert_eq!((shared.growing.len(), shared.growing.capacity()), (64, 64), "{lengths:?}");
        }
    }
}
