//! The upstreams: one client service that answers for all of them, from a script, without a socket.

use std::{
    collections::VecDeque,
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderName, Request, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use portcullis::http::trace_context::TRACEPARENT;
use portcullis_core::{SpanId, clock, sync::Mutex};
use portcullis_testkit::Seed;
use tokio::time::{Sleep, sleep, sleep_until};
use tower::Service;

use crate::{
    forecast::{Forecast, Weather},
    journal::Journal,
    script::{Answer, Ending, Head},
};

/// The header that says which call a request is for.
pub(crate) const CALL: HeaderName = HeaderName::from_static("x-call");
/// The header that says which attempt it is, from 1.
pub(crate) const ATTEMPT: HeaderName = HeaderName::from_static("x-attempt");

/// How the client fails where a request never left it, and where the server's transport gave it back.
pub(crate) const UNSENT: io::ErrorKind = io::ErrorKind::NotConnected;
pub(crate) const UNPROCESSED: io::ErrorKind = io::ErrorKind::ConnectionAborted;

/// A request, as its upstream saw it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access {
    pub(crate) call: u32,
    pub(crate) attempt: u32,
    pub(crate) host: usize,
    /// The parent that the request named.
    pub(crate) span: Option<SpanId>,
    pub(crate) begun: Instant,
    /// When its body had ended, it had failed, or whoever wanted it let go of it; `None` while it is
    /// in flight.
    pub(crate) ended: Option<Instant>,
}

/// A client in front of every upstream. It is `io::Error`s that it fails with, as a client of sockets.
///
/// It holds callers to Tower's contract: called on an instance that is not ready, it panics.
pub(crate) struct Upstream {
    shared: Arc<Shared>,
    readied: bool,
    /// Until it is ready.
    busy: Option<Pin<Box<Sleep>>>,
}

struct Shared {
    forecast: Arc<Forecast>,
    journal: Journal,
    state: Mutex<State>,
}

struct State {
    /// One for each upstream, so that what is asked of one does not change what another does.
    seeds: Vec<Seed>,
    readiness: Seed,
    accesses: Vec<Access>,
    in_flight: usize,
    most_in_flight: usize,
}

/// A request in flight: over when dropped.
#[derive(Debug)]
struct Flight {
    shared: Arc<Shared>,
    place: usize,
}

/// An answer on its way.
pub(crate) struct Answering {
    wait: Pin<Box<Sleep>>,
    answer: Option<(Answer, Flight)>,
}

/// The body of an answer.
pub(crate) struct ScriptedBody {
    /// How long each frame takes.
    frames: VecDeque<Duration>,
    ending: Ending,
    wait: Option<Pin<Box<Sleep>>>,
    /// `None` once it has ended.
    flight: Option<Flight>,
}

// ===== impl Upstream =====

impl Upstream {
    /// Upstreams that answer as the forecast has it.
    pub(crate) fn new(forecast: Arc<Forecast>, journal: Journal, seed: &mut Seed) -> Self {
        let state = State {
            seeds: (0..forecast.hosts()).map(|_| seed.split()).collect(),
            readiness: seed.split(),
            accesses: Vec::new(),
            in_flight: 0,
            most_in_flight: 0,
        };
        let shared = Shared { forecast, journal, state: Mutex::new(state) };
        Self { shared: Arc::new(shared), readied: false, busy: None }
    }

    /// How the host of an upstream is called.
    pub(crate) fn host(host: usize) -> String {
        format!("h{host}.test")
    }

    /// Which upstream has this host.
    pub(crate) fn of_host(host: &str) -> Option<usize> {
        host.strip_prefix('h')?.strip_suffix(".test")?.parse().ok()
    }

    /// Requests in flight at this moment.
    pub(crate) fn in_flight(&self) -> usize {
        self.shared.state.lock().in_flight
    }

    /// The most requests that were in flight at one moment.
    pub(crate) fn most_in_flight(&self) -> usize {
        self.shared.state.lock().most_in_flight
    }

    /// Every request there was, in the order they came.
    pub(crate) fn accesses(&self) -> Vec<Access> {
        self.shared.state.lock().accesses.clone()
    }
}

impl<B> Service<Request<B>> for Upstream {
    type Response = Response<ScriptedBody>;
    type Error = io::Error;
    type Future = Answering;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        if self.readied {
            return Poll::Ready(Ok(()));
        }
        if self.busy.is_none()
            && let Some(busy) = self.shared.busy_for()
        {
            self.busy = Some(Box::pin(sleep(busy)));
        }
        if let Some(busy) = &mut self.busy {
            ready!(busy.as_mut().poll(cx));
            self.busy = None;
        }
        self.readied = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Answering {
        assert!(std::mem::take(&mut self.readied), "called on an instance that is not ready");
        let (answer, flight) = self.shared.begin(&request);
        let wait = match answer.head {
            Head::Never => sleep_until(far()),
            _ => sleep(answer.after),
        };
        Answering { wait: Box::pin(wait), answer: Some((answer, flight)) }
    }
}

impl Clone for Upstream {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), readied: false, busy: None }
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("readied", &self.readied).finish_non_exhaustive()
    }
}

/// Beyond every limit of the run.
fn far() -> tokio::time::Instant {
    tokio::time::Instant::now() + Duration::from_secs(86_400)
}

// ===== impl Shared =====

impl Shared {
    /// How long an instance is not ready. Where any upstream is slow, the client's connections are
    /// taken now and then.
    fn busy_for(&self) -> Option<Duration> {
        let since_start = clock::now().saturating_duration_since(self.journal.start());
        let slow = |host| self.forecast.at(host, since_start).weather == Weather::Slow;
        let readiness = &mut self.state.lock().readiness;
        ((0..self.forecast.hosts()).any(slow) && readiness.chance(0.05))
            .then(|| Duration::from_millis(readiness.within(1..30)))
    }

    fn begin<B>(self: &Arc<Self>, request: &Request<B>) -> (Answer, Flight) {
        let number = |name| request.headers().get(name)?.to_str().ok()?.parse().ok();
        let (call, attempt) = (number(CALL).unwrap_or(u32::MAX), number(ATTEMPT).unwrap_or(0));
        let span = || {
            let parent = request.headers().get(TRACEPARENT)?.to_str().ok()?;
            parent.split('-').nth(2)?.parse().ok()
        };
        let host = request.uri().host().and_then(Upstream::of_host).unwrap_or(0);
        let begun = clock::now();
        let since_start = begun.saturating_duration_since(self.journal.start());
        let part = self.forecast.at(host, since_start);

        let mut state = self.state.lock();
        let answer = Answer::draw(&mut state.seeds[host], part, since_start);
        let place = state.accesses.len();
        state.accesses.push(Access { call, attempt, host, span: span(), begun, ended: None });
        state.in_flight += 1;
        state.most_in_flight = state.most_in_flight.max(state.in_flight);
        drop(state);
        self.journal.note(
            begun,
            format_args!("call {call}: attempt {attempt} at {host}, {}: {answer:?}", part.weather),
        );
        (answer, Flight { shared: self.clone(), place })
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

// ===== impl Flight =====

impl Drop for Flight {
    fn drop(&mut self) {
        let now = clock::now();
        let mut state = self.shared.state.lock();
        state.in_flight -= 1;
        let access = &mut state.accesses[self.place];
        access.ended = Some(now);
        let Access { call, attempt, .. } = *access;
        drop(state);
        let line = format_args!("call {call}: attempt {attempt} has left the upstream");
        self.shared.journal.note(now, line);
    }
}

// ===== impl Answering =====

impl Future for Answering {
    type Output = Result<Response<ScriptedBody>, io::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        ready!(self.wait.as_mut().poll(cx));
        let (answer, flight) = self.answer.take().expect("polled after it had answered");
        let status = match answer.head {
            Head::Refused => return Poll::Ready(Err(io::ErrorKind::ConnectionRefused.into())),
            Head::Broken => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            Head::Unsent => return Poll::Ready(Err(UNSENT.into())),
            Head::Unprocessed => return Poll::Ready(Err(UNPROCESSED.into())),
            Head::Never => return Poll::Pending,
            Head::Status(status) => status,
        };
        let Answer { retry_after, frames, ending, .. } = answer;
        let mut response =
            Response::new(ScriptedBody { frames, ending, wait: None, flight: Some(flight) });
        *response.status_mut() = StatusCode::from_u16(status).expect("it is one of ours");
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        Poll::Ready(Ok(response))
    }
}

impl fmt::Debug for Answering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answering").field("answer", &self.answer).finish_non_exhaustive()
    }
}

// ===== impl ScriptedBody =====

impl Body for ScriptedBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let Some(&after) = self.frames.front() else {
            let end = match self.ending {
                Ending::Whole => None,
                Ending::Cut => Some(Err(io::ErrorKind::ConnectionReset.into())),
                // Never woken.
                Ending::Never => return Poll::Pending,
            };
            self.flight = None;
            return Poll::Ready(end);
        };
        if !after.is_zero() {
            let wait = self.wait.get_or_insert_with(|| Box::pin(sleep(after)));
            ready!(wait.as_mut().poll(cx));
            self.wait = None;
        }
        self.frames.pop_front();
        if self.is_end_stream() {
            self.flight = None;
        }
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"frame")))))
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && self.ending == Ending::Whole
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

impl fmt::Debug for ScriptedBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left = self.frames.len();
        f.debug_struct("ScriptedBody").field("left", &left).field("ending", &self.ending).finish()
    }
}
