//! Keeping a request whose body is a stream, while it is being sent.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use http::{HeaderMap, Request, request::Parts};
use http_body::{Body, Frame, SizeHint};
use portcullis_core::{BoxError, Error, Keep, Kept, sync::Mutex};

use super::is_idempotent;

/// Keeps HTTP requests of any body, copying what is sent up to a cap.
///
/// A body longer than the cap is sent once and its request is not retried. What goes to the inner
/// service is a [`ReplayBody`], put into the client's own type by `wrap`:
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
/// Only the latest copy reads on: one of an earlier attempt that is still polled ends with an error,
/// which tells its connection that the request was given up.
pub struct ReplayBody<B> {
    shared: Arc<Mutex<Shared<B>>>,
    /// Which copy this is.
    copy: u32,
    /// How many of the kept frames it has sent.
    sent: usize,
    trailers_sent: bool,
}

struct Shared<B> {
    cap: usize,
    /// The copy that may read on.
    latest: u32,
    frames: Vec<Bytes>,
    kept_bytes: usize,
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
            frames: Vec::new(),
            kept_bytes: 0,
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
        let copy = self.shared.lock().supersede()?;
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
        if let Some(kept) = shared.frames.get(this.sent) {
            this.sent += 1;
            return Poll::Ready(Some(Ok(Frame::data(kept.clone()))));
        }
        let polled = std::task::ready!(shared.poll_rest(cx));
        if let Some(Ok(frame)) = &polled {
            this.sent = shared.frames.len();
            this.trailers_sent |= frame.is_trailers();
        }
        if polled.is_none() && !this.trailers_sent {
            this.trailers_sent = true;
            return Poll::Ready(shared.trailers.clone().map(Frame::trailers).map(Ok));
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        let shared = self.shared.lock();
        let sent = self.sent == shared.frames.len();
        let ended = match &shared.rest {
            Rest::Body(rest) => rest.is_end_stream(),
            Rest::Ended => self.trailers_sent || shared.trailers.is_none(),
        };
        shared.latest == self.copy && sent && ended
    }

    fn size_hint(&self) -> SizeHint {
        let shared = self.shared.lock();
        let kept: usize =
            shared.frames[self.sent.min(shared.frames.len())..].iter().map(Bytes::len).sum();
        let kept = kept as u64;
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
        self.replayable.then(|| {
            self.latest += 1;
            self.latest
        })
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
        let frame = match std::task::ready!(rest.as_mut().poll_frame(cx)) {
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
        let frame = frame.map_data(|mut data| data.copy_to_bytes(data.remaining()));
        match frame.into_data() {
            Ok(data) => {
                self.keep(&data);
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Err(frame) => {
                if self.replayable {
                    self.trailers = frame.trailers_ref().cloned();
                }
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    fn keep(&mut self, data: &Bytes) {
        if !self.replayable {
            return;
        }
        self.kept_bytes += data.len();
        if self.kept_bytes > self.cap {
            self.give_up();
        } else {
            self.frames.push(data.clone());
        }
    }

    /// Keeps nothing from here on: the request goes out once.
    fn give_up(&mut self) {
        self.replayable = false;
        self.frames = Vec::new();
        self.trailers = None;
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

    use http_body_util::{BodyExt, Full, StreamBody, channel::Channel};

    use super::*;

    fn kept<B>(cap: usize, body: B) -> (ReplayBody<B>, impl Kept<Sent = Request<ReplayBody<B>>>)
    where
        B: Body,
        B::Error: Into<BoxError>,
    {
        let keep = BufferBody::new(|body: ReplayBody<B>| body).with_cap(cap);
        let (sent, kept) = keep.keep(Request::put("/").body(body).unwrap());
        (sent.into_body(), kept)
    }

    async fn read<B>(body: ReplayBody<B>) -> (Bytes, Option<HeaderMap>)
    where
        B: Body,
        B::Error: Into<BoxError>,
    {
        let all = body.collect().await.unwrap();
        let trailers = all.trailers().cloned();
        (all.to_bytes(), trailers)
    }

    fn two_frames_and_trailers() -> impl Body<Data = Bytes, Error = Infallible> {
        let mut trailers = HeaderMap::new();
        trailers.insert("checksum", "7".parse().unwrap());
        StreamBody::new(futures_util::stream::iter([
            Ok(Frame::data(Bytes::from("ab"))),
            Ok(Frame::data(Bytes::from("cd"))),
            Ok(Frame::trailers(trailers)),
        ]))
    }

    #[tokio::test]
    async fn a_streamed_body_is_sent_again_with_its_trailers() {
        let (first, kept) = kept(64, two_frames_and_trailers());
        let first = read(first).await;
        assert_eq!(first.0, "abcd");
        assert_eq!(first.1.as_ref().unwrap()["checksum"], "7");
        for attempt in 2..4 {
            assert_eq!(read(kept.again(attempt).unwrap().into_body()).await, first);
        }
    }

    #[tokio::test]
    async fn a_body_beyond_the_cap_goes_through_once() {
        let (first, kept) = kept(3, two_frames_and_trailers());
        assert_eq!(read(first).await.0, "abcd");
        assert!(kept.again(2).is_none());
    }

    #[tokio::test]
    async fn a_body_of_exactly_the_cap_is_kept() {
        let (first, kept) = kept(4, Full::new(Bytes::from("abcd")));
        read(first).await;
        assert_eq!(read(kept.again(2).unwrap().into_body()).await.0, "abcd");
    }

    #[tokio::test]
    async fn a_request_given_up_half_way_is_sent_from_the_start_and_then_read_on() {
        let (mut sender, channel) = Channel::<Bytes, Infallible>::new(4);
        let (mut first, kept) = kept(64, channel);
        sender.send_data(Bytes::from("ab")).await.unwrap();
        first.frame().await.unwrap().unwrap();

        let second = kept.again(2).unwrap().into_body();
        assert!(first.frame().await.unwrap().is_err(), "the earlier copy learns that it is one");

        sender.send_data(Bytes::from("cd")).await.unwrap();
        drop(sender);
        assert_eq!(read(second).await.0, "abcd");
    }

    #[tokio::test]
    async fn the_length_of_a_known_body_stays_known() {
        let (first, kept) = kept(64, Full::new(Bytes::from("abcd")));
        assert_eq!(first.size_hint().exact(), Some(4));
        read(first).await;
        let again = kept.again(2).unwrap().into_body();
        assert_eq!(again.size_hint().exact(), Some(4));
        assert!(!again.is_end_stream());
    }

    #[tokio::test]
    async fn a_request_without_a_body_is_kept_whatever_the_cap() {
        let (first, kept) = kept(0, http_body_util::Empty::<Bytes>::new());
        assert!(first.is_end_stream());
        assert!(kept.again(2).unwrap().into_body().is_end_stream());
    }
}
