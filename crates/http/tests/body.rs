//! The watched body: where the verdict falls, and which limits hold until then.

use std::{
    convert::Infallible,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, Empty, Full, StreamBody, channel::Channel};
use portcullis_core::{
    BoxError, Call, Classify, Completion, Elapsed, End, Error, FaultKind, How, Outcome, Phase,
    Replay, Settle, Ticket, Until, Watch, clock, sync::Mutex,
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
        Arc::new(Self { name: "search".into(), ends: Mutex::default() })
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

// ----- where the verdict falls -----

#[tokio::test]
async fn the_verdict_falls_at_the_end_of_the_body() {
    let seen = Seen::new();
    let mut body = http(frames::<Infallible>(vec![data("a"), data("b")]), seen.completion());
    body.frame().await.unwrap().unwrap();
    body.frame().await.unwrap().unwrap();
    assert_eq!(seen.outcomes(), []);
    assert!(body.frame().await.is_none());
    assert_eq!(seen.outcomes(), [Outcome::Success]);
}

#[tokio::test]
async fn a_body_that_says_it_is_over_is_not_polled_for_it() {
    let seen = Seen::new();
    let mut body = http(Full::new(Bytes::from("all")), seen.completion());
    body.frame().await.unwrap().unwrap();
    assert_eq!(seen.outcomes(), [Outcome::Success]);
}

#[tokio::test]
async fn an_empty_body_is_settled_at_the_head() {
    let seen = Seen::new();
    let body = http(Empty::<Bytes>::new(), seen.completion());
    assert_eq!(seen.outcomes(), [Outcome::Success]);
    assert!(body.is_end_stream());
    drop(body);
    assert_eq!(seen.outcomes().len(), 1);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_a_failure_after_a_good_head() {
    let seen = Seen::new();
    let reset = io::Error::from(io::ErrorKind::ConnectionReset);
    let body = http(frames(vec![data("half"), Err(reset)]), seen.completion());
    let error = body.collect().await.unwrap_err();
    assert!(error.find::<io::Error>().is_some());
    assert_eq!(seen.outcomes(), [Outcome::failure(FaultKind::Body, Replay::IfIdempotent)]);
}

#[tokio::test]
async fn a_body_that_is_dropped_leaves_the_heads_verdict() {
    for code in [StatusCode::OK, StatusCode::BAD_GATEWAY] {
        let seen = Seen::new();
        let mut response = Response::new(Full::new(Bytes::from("text")));
        *response.status_mut() = code;
        let expected = HttpClassifier::new().at_head(Ok(&response)).outcome();
        drop(HttpClassifier::new().classify(Ok(response), seen.completion()).unwrap());
        assert_eq!(*seen.ends.lock(), [(expected, How::Dropped)]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_dropped_by_somebody_who_waited_past_the_deadline_is_a_timeout() {
    let call = Call::new().with_deadline(clock::now() + SECOND);
    for (polled, expected) in [(false, Outcome::Success), (true, Outcome::timeout())] {
        let seen = Seen::new();
        let mut body = http(Stalled(Arc::default()), seen.completion_in(call.clone()));
        if polled {
            assert!(futures_util::poll!(body.frame()).is_pending());
        }
        tokio::time::advance(SECOND).await;
        drop(body);
        assert_eq!(seen.outcomes(), [expected]);
    }
}

#[tokio::test]
async fn a_grpc_status_settles_the_call_on_its_frame() {
    // tonic's unary client drops the body then, and never polls it to its end.
    let seen = Seen::new();
    let body = frames::<Infallible>(vec![data("reply"), Ok(Frame::trailers(status("14")))]);
    let mut body = grpc(body, seen.completion());
    body.frame().await.unwrap().unwrap();
    assert_eq!(seen.outcomes(), []);
    assert!(body.frame().await.unwrap().unwrap().is_trailers());
    assert_eq!(seen.outcomes(), [Outcome::failure(FaultKind::Grpc(14), Replay::Safe)]);
}

#[tokio::test]
async fn a_grpc_call_without_a_status_is_unknown_and_one_dropped_before_it_cancelled() {
    let seen = Seen::new();
    grpc(frames::<Infallible>(vec![data("reply")]), seen.completion()).collect().await.unwrap();
    assert_eq!(seen.outcomes(), [Outcome::failure(FaultKind::Grpc(2), Replay::Forbidden)]);

    let seen = Seen::new();
    drop(grpc(frames::<Infallible>(vec![data("reply")]), seen.completion()));
    assert_eq!(seen.outcomes(), [Outcome::Cancelled]);
}

#[tokio::test]
async fn the_head_is_handed_up_before_any_frame_is_there() {
    // A streaming call whose client speaks second would wait for ever otherwise.
    let seen = Seen::new();
    let (_sender, channel) = Channel::<Bytes, Infallible>::new(1);
    let mut body = grpc(channel, seen.completion());
    assert!(futures_util::poll!(body.frame()).is_pending());
    assert_eq!(seen.outcomes(), []);
}

// ----- limits -----

#[tokio::test(start_paused = true)]
async fn an_absolute_limit_ends_a_stalled_body_and_releases_it() {
    let seen = Seen::new();
    let released = Arc::new(AtomicBool::new(false));
    let done = seen.completion().with_watch(until(Phase::Body, SECOND));
    let mut body = http(Stalled(released.clone()), done);

    let start = clock::now();
    let error = body.frame().await.unwrap().unwrap_err();
    assert_eq!(clock::now() - start, SECOND);
    assert_eq!(error.find(), Some(&Elapsed::new("search", Phase::Body, SECOND)));
    assert!(released.load(Ordering::Relaxed));
    assert!(body.frame().await.is_none());
    let how = How::Elapsed { phase: Phase::Body, limit: SECOND };
    assert_eq!(*seen.ends.lock(), [(Outcome::timeout(), how)]);
}

#[tokio::test(start_paused = true)]
async fn an_absolute_limit_cuts_a_body_that_always_has_something() {
    let seen = Seen::new();
    let endless = StreamBody::new(futures_util::stream::repeat_with(|| data::<Infallible>("x")));
    let mut body = http(endless, seen.completion().with_watch(until(Phase::Total, SECOND)));
    body.frame().await.unwrap().unwrap();
    tokio::time::advance(SECOND).await;
    assert!(body.frame().await.unwrap().unwrap_err().is::<Elapsed>());
}

#[tokio::test(start_paused = true)]
async fn the_end_that_is_already_there_is_not_taken_away() {
    let seen = Seen::new();
    let done = seen.completion().with_watch(until(Phase::Total, SECOND));
    let mut body = http(frames::<Infallible>(vec![data("all")]), done);
    body.frame().await.unwrap().unwrap();
    tokio::time::advance(SECOND * 2).await;
    assert!(body.frame().await.is_none());
    assert_eq!(seen.outcomes(), [Outcome::Success]);
}

#[tokio::test(start_paused = true)]
async fn an_idle_limit_starts_anew_with_each_frame() {
    let seen = Seen::new();
    let (mut sender, channel) = Channel::<Bytes, Infallible>::new(1);
    let mut body = http(channel, seen.completion().with_watch(idle(SECOND)));
    let feed = async {
        for _ in 0..5 {
            tokio::time::sleep(SECOND * 9 / 10).await;
            sender.send_data(Bytes::from("x")).await.unwrap();
        }
        std::future::pending::<()>().await;
    };
    let read = async {
        for _ in 0..5 {
            body.frame().await.unwrap().unwrap();
        }
        let stalled = clock::now();
        let error = body.frame().await.unwrap().unwrap_err();
        assert_eq!(error.find::<Elapsed>().unwrap().phase(), Phase::Idle);
        assert_eq!(clock::now() - stalled, SECOND);
    };
    tokio::select! {
        () = read => {}
        () = feed => unreachable!(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_is_not_an_idle_server() {
    let seen = Seen::new();
    let mut body = http(
        frames::<Infallible>(vec![data("a"), data("b")]),
        seen.completion().with_watch(idle(SECOND)),
    );
    body.frame().await.unwrap().unwrap();
    tokio::time::advance(SECOND * 10).await;
    body.frame().await.unwrap().unwrap();
    assert!(body.frame().await.is_none());
    assert_eq!(seen.outcomes(), [Outcome::Success]);
}

#[tokio::test(start_paused = true)]
async fn a_grpc_body_is_ended_with_trailers_that_say_so() {
    let seen = Seen::new();
    let done = seen.completion().with_watch(until(Phase::Total, SECOND));
    let mut body = grpc(Stalled(Arc::default()), done);
    let frame = body.frame().await.unwrap().unwrap();
    assert_eq!(frame.trailers_ref().unwrap()[GRPC_STATUS], "4");
    assert!(body.frame().await.is_none());
    assert_eq!(seen.outcomes(), [Outcome::timeout()]);
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_one_layer_is_a_timeout_to_all_of_them() {
    // The breaker stands below the layer with the idle limit, and then above it.
    let (below, above) = (Seen::new(), Seen::new());
    let limited = Seen::new();
    let body = http(Stalled(Arc::default()), below.completion());
    let body = http(body, limited.completion().with_watch(idle(SECOND)));
    let body = http(body, above.completion());

    let error: Error = body.collect().await.unwrap_err();
    assert!(error.is::<Elapsed>());
    for seen in [below, limited, above] {
        assert_eq!(seen.outcomes(), [Outcome::timeout()]);
    }
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
