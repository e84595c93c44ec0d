//! The watched body: where the verdict falls, and which limits hold until then.

mod limits;
mod nested;
mod readers;
mod verdicts;

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use http_body::Frame;
use http_body_util::{Full, StreamBody};
use portcullis_core::{
    BoxError, Call, Classify, Completion, End, How, Outcome, Phase, Settle, Ticket, Until, Watch,
    clock, sync::Mutex,
};
use portcullis_http::{Body, GRPC_STATUS, GrpcClassifier, HttpClassifier};

const SECOND: Duration = Duration::from_secs(1);

/// What a layer was told.
struct Seen {
    name: Arc<str>,
    ends: Mutex<Vec<(Outcome, How)>>,
}

impl Seen {
    fn new() -> Arc<Self> {
        Self::named("search")
    }

    fn named(name: &str) -> Arc<Self> {
        Arc::new(Self { name: name.into(), ends: Mutex::default() })
    }

    fn completion(self: &Arc<Self>) -> Completion {
        self.completion_in(Call::new())
    }

    fn completion_in(self: &Arc<Self>, call: Call) -> Completion {
        Completion::new(self.clone(), Ticket::default(), call, clock::now())
    }

    fn outcomes(&self) -> Vec<Outcome> {
        self.ends.lock().iter().map(|(outcome, _)| *outcome).collect()
    }
}

impl Settle for Seen {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn settle(&self, _: Ticket, end: &End<'_>) {
        self.ends.lock().push((end.outcome, end.how));
    }
}

/// A body that never has anything, and tells when it is dropped.
struct Stalled(Arc<AtomicBool>);

impl http_body::Body for Stalled {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }
}

impl Drop for Stalled {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn http<B>(body: B, done: Completion) -> Body<B>
where
    B: http_body::Body,
{
    HttpClassifier::new().classify(Ok(Response::new(body)), done).unwrap().into_body()
}

fn grpc<B>(body: B, done: Completion) -> Body<B>
where
    B: http_body::Body,
{
    GrpcClassifier::new().classify(Ok(Response::new(body)), done).unwrap().into_body()
}

fn until(phase: Phase, limit: Duration) -> Watch {
    Watch { until: Some(Until::new(clock::now(), phase, limit)), idle: None }
}

fn idle(limit: Duration) -> Watch {
    Watch { until: None, idle: Some(limit) }
}

fn status(code: &'static str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert(GRPC_STATUS, HeaderValue::from_static(code));
    trailers
}

fn frames<E>(
    frames: Vec<Result<Frame<Bytes>, E>>,
) -> impl http_body::Body<Data = Bytes, Error = E> + Unpin {
    StreamBody::new(futures_util::stream::iter(frames))
}

fn data<E>(text: &'static str) -> Result<Frame<Bytes>, E> {
    Ok(Frame::data(Bytes::from(text)))
}

#[test]
fn a_body_is_send_and_unpin_and_fits_where_errors_are_boxed() {
    fn fits<B>()
    where
        B: http_body::Body + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
    }
    fits::<Body<Full<Bytes>>>();
    fits::<Body<Body<Full<Bytes>>>>();
}
