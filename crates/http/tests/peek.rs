//! Looking one frame ahead.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use portcullis_core::{
    Call, Classify, Completion, End, FaultKind, Outcome, Phase, Replay, Settle, Ticket, Until,
    Watch, clock, sync::Mutex,
};
use portcullis_http::{Body, GRPC_STATUS, GrpcClassifier, PeekBody, PeekLayer};
use portcullis_testkit::TestError;
use tokio::time::{Instant, Sleep, sleep};
use tower::{Layer, ServiceExt, service_fn};

const SECOND: Duration = Duration::from_secs(1);

/// What a body does next.
#[derive(Debug)]
enum Step {
    Data(&'static str),
    Trailers(HeaderMap),
    Broken,
    /// Nothing for a second.
    Wait,
    /// Nothing for ever.
    Hang,
}

/// A body by a script.
#[derive(Debug, Default)]
struct Script {
    steps: VecDeque<Step>,
    wait: Option<Pin<Box<Sleep>>>,
    /// Held by everything that is alive, and counts the polls.
    polls: Arc<Mutex<usize>>,
}

/// What a layer was told.
struct Seen(Arc<str>, Mutex<Vec<Outcome>>);

// ===== impl Script =====

impl Script {
    fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        Self { steps: steps.into_iter().collect(), ..Self::default() }
    }
}

impl http_body::Body for Script {
    type Data = Bytes;
    type Error = TestError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, TestError>>> {
        *self.polls.lock() += 1;
        if let Some(Step::Wait) = self.steps.front() {
            let wait = self.wait.get_or_insert_with(|| Box::pin(sleep(SECOND)));
            std::task::ready!(wait.as_mut().poll(cx));
            (self.wait, _) = (None, self.steps.pop_front());
        }
        Poll::Ready(match self.steps.pop_front() {
            Some(Step::Data(data)) => Some(Ok(Frame::data(Bytes::from(data)))),
            Some(Step::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
            Some(Step::Broken) => Some(Err(TestError("broken"))),
            Some(step) => {
                self.steps.push_front(step);
                return Poll::Pending;
            }
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.steps.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let data = self.steps.iter().map(|step| match step {
            Step::Data(data) => data.len() as u64,
            _ => 0,
        });
        SizeHint::with_exact(data.sum())
    }
}

// ===== impl Seen =====

impl Settle for Seen {
    fn name(&self) -> &Arc<str> {
        &self.0
    }

    fn settle(&self, _: Ticket, end: &End<'_>) {
        self.1.lock().push(end.outcome);
    }
}

fn trailers(status: &'static str) -> Step {
    let mut trailers = HeaderMap::new();
    trailers.insert(GRPC_STATUS, HeaderValue::from_static(status));
    Step::Trailers(trailers)
}

fn head<B>(body: B) -> Response<B> {
    let mut response = Response::new(body);
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(header::CONTENT_TYPE, grpc);
    response
}

/// What a caller gets for this response.
async fn peeked<B>(layer: PeekLayer, response: Response<B>) -> Response<PeekBody<B>>
where
    B: http_body::Body + Unpin,
{
    let mut response = Some(response);
    let service = service_fn(move |_: Request<()>| {
        let response = response.take().expect("it is called once");
        async { Ok::<_, Infallible>(response) }
    });
    let request = Request::post("http://shop/shop.Cart/Add").body(()).unwrap();
    layer.layer(service).oneshot(request).await.unwrap()
}

fn waiting() -> PeekLayer {
    PeekLayer::new().wait_for(|path| path == "/shop.Cart/Add")
}

/// The frames of a body, in words.
async fn frames<B>(mut body: B) -> Vec<String>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let mut frames = Vec::new();
    while let Some(frame) = body.frame().await {
        frames.push(match frame.map(Frame::into_data) {
            Ok(Ok(data)) => String::from_utf8(data.to_vec()).unwrap(),
            Ok(Err(frame)) => format!("{:?}", frame.into_trailers().unwrap()[GRPC_STATUS]),
            Err(error) => error.to_string(),
        });
    }
    frames
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_is_there_with_the_head_is_put_into_it() {
    for layer in [PeekLayer::new(), waiting()] {
        let mut last = HeaderMap::new();
        last.insert(GRPC_STATUS, HeaderValue::from_static("14"));
        last.insert("grpc-retry-pushback-ms", HeaderValue::from_static("7"));
        last.append("x-seen", HeaderValue::from_static("one"));
        last.append("x-seen", HeaderValue::from_static("two"));
        last.insert(header::CONTENT_LENGTH, HeaderValue::from_static("9"));
        let response = peeked(layer, head(Script::new([Step::Trailers(last)]))).await;
        assert_eq!(response.headers()[GRPC_STATUS], "14");
        assert_eq!(response.headers()["grpc-retry-pushback-ms"], "7");
        assert_eq!(response.headers().get_all("x-seen").iter().count(), 2);
        // What would have to do with a body is not for one that has none.
        assert!(!response.headers().contains_key(header::CONTENT_LENGTH));
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/grpc");
        assert!(response.body().is_end_stream());
        assert_eq!(response.body().size_hint().exact(), Some(0));
        assert!(frames(response.into_body()).await.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_status_that_is_none_of_grpcs_is_a_failure_and_ok_stays_where_it_is() {
    let odd = peeked(PeekLayer::new(), head(Script::new([trailers("what")]))).await;
    assert_eq!(odd.headers()[GRPC_STATUS], "what");

    let ok = peeked(PeekLayer::new(), head(Script::new([trailers("0")]))).await;
    assert!(!ok.headers().contains_key(GRPC_STATUS) && !ok.body().is_end_stream());
    assert_eq!(frames(ok.into_body()).await, ["\"0\""]);
}

#[tokio::test(start_paused = true)]
async fn what_was_there_is_handed_up_untouched_in_front_of_the_rest() {
    for layer in [PeekLayer::new(), waiting()] {
        let script =
            || Script::new([Step::Data("one"), Step::Wait, Step::Data("two"), trailers("14")]);
        let whole = script().size_hint().exact();
        let response = peeked(layer.clone(), head(script())).await;
        assert!(!response.headers().contains_key(GRPC_STATUS));
        assert_eq!(response.body().size_hint().exact(), whole);
        assert_eq!(frames(response.into_body()).await, ["one", "two", "\"14\""]);

        let broken = peeked(layer, head(Script::new([Step::Broken]))).await;
        assert!(!broken.body().is_end_stream());
        assert_eq!(frames(broken.into_body()).await, [TestError("broken").to_string()]);
    }
}

#[tokio::test(start_paused = true)]
async fn it_does_not_wait_for_a_server_that_waits_for_the_client() {
    let start = Instant::now();
    for steps in [vec![Step::Hang], vec![Step::Wait, trailers("14")]] {
        let late = !matches!(steps[0], Step::Hang);
        let response = peeked(PeekLayer::new(), head(Script::new(steps))).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert!(!response.headers().contains_key(GRPC_STATUS));
        if late {
            assert_eq!(frames(response.into_body()).await, ["\"14\""]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn where_it_is_told_to_it_waits_for_the_first_frame() {
    let late = Script::new([Step::Wait, trailers("14")]);
    let response = peeked(waiting(), head(late)).await;
    assert_eq!(response.headers()[GRPC_STATUS], "14");

    let late = Script::new([Step::Wait, Step::Data("one"), Step::Hang]);
    let response = peeked(waiting(), head(late)).await;
    assert!(!response.headers().contains_key(GRPC_STATUS));

    let others = PeekLayer::new().wait_for(|path| path == "/shop.Cart/List");
    let late = Script::new([Step::Wait, trailers("14")]);
    assert!(!peeked(others, head(late)).await.headers().contains_key(GRPC_STATUS));
}

#[tokio::test(start_paused = true)]
async fn it_waits_no_longer_than_the_calls_deadline() {
    let start = Instant::now();
    let call = Call::new().with_deadline(clock::now() + SECOND * 3);
    let response = call.in_scope(peeked(waiting(), head(Script::new([Step::Hang])))).await;
    assert_eq!(start.elapsed(), SECOND * 3);
    assert!(!response.headers().contains_key(GRPC_STATUS) && !response.body().is_end_stream());
}

#[tokio::test(start_paused = true)]
async fn what_is_no_call_of_grpcs_that_goes_on_is_not_looked_at() {
    let mut plain = Response::new(Script::new([trailers("14")]));
    plain.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    let mut unavailable = head(Script::new([trailers("14")]));
    *unavailable.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
    let mut settled = head(Script::new([trailers("14")]));
    settled.headers_mut().insert(GRPC_STATUS, HeaderValue::from_static("5"));
    for response in [plain, unavailable, settled, head(Script::default())] {
        let polls = response.body().polls.clone();
        drop(peeked(waiting(), response).await);
        assert_eq!(*polls.lock(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn dropping_it_while_it_waits_frees_the_response() {
    let script = Script::new([Step::Hang]);
    let alive = script.polls.clone();
    let mut future = Box::pin(peeked(waiting(), head(script)));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(future.as_mut().poll(&mut cx).is_pending());
    assert_eq!(Arc::strong_count(&alive), 2);
    drop(future);
    assert_eq!(Arc::strong_count(&alive), 1);
}

/// A body that a layer below watches, by these limits.
fn watched(steps: Vec<Step>, watch: Watch) -> (Arc<Seen>, Response<Body<Script>>) {
    let seen = Arc::new(Seen("below".into(), Mutex::default()));
    let done = Completion::new(seen.clone(), Ticket::default(), Call::new(), clock::now());
    let response =
        GrpcClassifier::new().classify(Ok(head(Script::new(steps))), done.with_watch(watch));
    (seen, response.unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_watched_body_below_reports_its_end_once() {
    let unavailable = Outcome::failure(FaultKind::Grpc(14), Replay::Safe);
    let body = Outcome::failure(FaultKind::Body, Replay::IfIdempotent);
    for (steps, end) in [
        (vec![trailers("14")], unavailable),
        (vec![trailers("0")], Outcome::Success),
        (vec![Step::Broken], body),
        (vec![Step::Data("one"), trailers("14")], unavailable),
        (vec![Step::Wait, trailers("14")], unavailable),
    ] {
        let (seen, response) = watched(steps, Watch::default());
        let response = peeked(PeekLayer::new(), response).await;
        let _ = frames(response.into_body()).await;
        assert_eq!(*seen.1.lock(), [end]);
    }

    let (seen, response) = watched(vec![Step::Data("one"), Step::Hang], Watch::default());
    drop(peeked(PeekLayer::new(), response).await);
    assert_eq!(*seen.1.lock(), [Outcome::Cancelled]);
}

#[tokio::test(start_paused = true)]
async fn to_look_is_not_to_wait() {
    let limit = Until::new(clock::now(), Phase::Body, SECOND);
    let watch = Watch { until: Some(limit), idle: Some(SECOND / 2) };
    // Whoever never reads has not waited when a limit runs out,
    let (seen, response) = watched(vec![Step::Hang], watch);
    let response = peeked(PeekLayer::new(), response).await;
    tokio::time::advance(SECOND * 2).await;
    let _ = frames(response.into_body()).await;
    assert_eq!(*seen.1.lock(), [Outcome::Cancelled]);

    // and where it is told to wait, somebody does.
    let limit = Until::new(clock::now(), Phase::Body, SECOND);
    let (seen, response) = watched(vec![Step::Hang], Watch { until: Some(limit), idle: None });
    let response = peeked(waiting(), response).await;
    assert_eq!(response.headers()[GRPC_STATUS], "4");
    assert_eq!(*seen.1.lock(), [Outcome::timeout()]);
}
