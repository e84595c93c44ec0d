//! Responses from a script, over HTTP and over gRPC, without a socket.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body::{Body, Frame};
use http_body_util::Full;
use portcullis_testkit::{ScriptedService, Step};
use tokio::time::{Sleep, sleep};

/// The client below the stack.
pub(super) type Client = ScriptedService<Request<Full<Bytes>>, Response<ReplyBody>, io::Error>;

/// What one request is answered.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    /// A head after this time, and a body.
    Head { after: Duration, status: u16, headers: Headers, frames: Vec<Duration>, end: End },
    /// No connection.
    Refused,
    /// Nothing.
    Hang,
}

/// Names and values.
pub(super) type Headers = &'static [(&'static str, &'static str)];

/// What comes after the last frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Whole,
    /// The connection breaks.
    Cut,
    /// Nothing.
    Hang,
    /// Trailers with this gRPC status.
    Status(&'static str),
}

/// A body that is alive as long as it holds the `Arc` that all of them share.
#[derive(Debug)]
pub(super) struct ReplyBody {
    frames: VecDeque<Duration>,
    end: End,
    wait: Option<Pin<Box<Sleep>>>,
    _alive: Arc<()>,
}

pub(super) const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

// ===== impl Reply =====

impl Reply {
    /// A head at once, and a body of so many frames, of which every second takes 5 ms.
    pub(super) fn head(status: u16, frames: usize, end: End) -> Self {
        let frames = (0..frames).map(|n| millis(5) * (n % 2) as u32).collect();
        Self::Head { after: Duration::ZERO, status, headers: &[], frames, end }
    }

    /// The same, with these headers.
    pub(super) fn with(mut self, with: Headers) -> Self {
        if let Self::Head { headers, .. } = &mut self {
            *headers = with;
        }
        self
    }

    /// The same, with a head that takes its time.
    pub(super) fn after(mut self, time: Duration) -> Self {
        if let Self::Head { after, .. } = &mut self {
            *after = time;
        }
        self
    }

    /// The same as a step of the client's; its body holds `alive`.
    pub(super) fn step(self, alive: &Arc<()>) -> Step<Response<ReplyBody>, io::Error> {
        let Self::Head { after, status, headers, frames, end } = self else {
            return match self {
                Self::Hang => Step::Hang,
                _ => Step::Err(io::ErrorKind::ConnectionRefused.into()),
            };
        };
        let frames = frames.into();
        let body = ReplyBody { frames, end, wait: None, _alive: alive.clone() };
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        let step = Step::Ok(response.body(body).unwrap());
        if after.is_zero() { step } else { step.after(after) }
    }
}

// ===== impl ReplyBody =====

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(&after) = self.frames.front() {
            if !after.is_zero() {
                let wait = self.wait.get_or_insert_with(|| Box::pin(sleep(after)));
                ready!(wait.as_mut().poll(cx));
                self.wait = None;
            }
            self.frames.pop_front();
            return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"frame")))));
        }
        match std::mem::replace(&mut self.end, End::Whole) {
            End::Whole => Poll::Ready(None),
            End::Cut => Poll::Ready(Some(Err(io::ErrorKind::ConnectionReset.into()))),
            End::Hang => {
                self.end = End::Hang;
                Poll::Pending
            }
            End::Status(status) => {
                let name = HeaderName::from_static("grpc-status");
                let trailers = HeaderMap::from_iter([(name, HeaderValue::from_static(status))]);
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && self.end == End::Whole
    }
}
