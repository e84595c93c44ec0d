//! Bodies around bodies: whose limit it was, and in which order the layers learn of the end.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as _, Frame};
use http_body_util::BodyExt;
use portcullis_core::{
    Call, Completion, Elapsed, End, How, Outcome, Phase, Settle, Ticket, Until, Watch, call, clock,
    sync::Mutex,
};
use portcullis_http::GRPC_STATUS;

use super::{SECOND, Seen, Stalled, data, frames, grpc, http};

/// A completion under an absolute limit.
fn limited(seen: &Arc<Seen>, until: Until) -> Completion {
    seen.completion().with_watch(Watch { until: Some(until), idle: None })
}

/// A deadline as the layers see it that inherit it.
fn inherited(until: Until) -> Until {
    Until { phase: Phase::Inherited, ..until }
}

fn total() -> Until {
    Until::new(clock::now(), Phase::Total, SECOND)
}

fn elapsed(phase: Phase, limit: Duration) -> How {
    How::Elapsed { phase, limit }
}

#[tokio::test(start_paused = true)]
async fn a_total_limit_that_runs_out_in_the_body_is_told_by_the_layer_it_belongs_to() {
    let (attempt, breaker, whole) = (Seen::new(), Seen::new(), Seen::named("total"));
    let until = total();
    let body = http(Stalled(Arc::default()), limited(&attempt, inherited(until)));
    let body = http(body, breaker.completion());
    let mut body = http(body, limited(&whole, until));

    let error = body.frame().await.unwrap().unwrap_err();
    assert_eq!(error.find(), Some(&Elapsed::new("total", Phase::Total, SECOND)));
    assert!(body.frame().await.is_none());
    let timeout = Outcome::timeout();
    assert_eq!(*attempt.ends.lock(), [(timeout, elapsed(Phase::Inherited, SECOND))]);
    assert_eq!(*breaker.ends.lock(), [(timeout, How::Reported)]);
    assert_eq!(*whole.ends.lock(), [(timeout, elapsed(Phase::Total, SECOND))]);
}

#[tokio::test(start_paused = true)]
async fn one_timer_serves_the_bodies_directly_around_a_body() {
    struct Task;

    impl Wake for Task {
        fn wake(self: Arc<Self>) {}
    }

    let until = total();
    // By how many nanoseconds the limits around the innermost run out before it.
    for (earlier, timers) in [([0, 0], 1), ([1, 0], 2), ([1, 2], 3)] {
        let seen = Seen::new();
        let around = |by| Until { at: until.at - Duration::from_nanos(by), ..until };
        let body = http(Stalled(Arc::default()), limited(&seen, inherited(until)));
        let body = http(body, limited(&seen, around(earlier[0])));
        let mut body = http(body, limited(&seen, around(earlier[1])));

        let task = Arc::new(Task);
        let waker = Waker::from(task.clone());
        let polled = Pin::new(&mut body).poll_frame(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
        // Each timer holds whom it wakes.
        assert_eq!(Arc::strong_count(&task) - 2, timers);
        drop(body);
        assert_eq!(Arc::strong_count(&task), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_grpc_total_limit_is_told_by_the_layer_it_belongs_to() {
    let (attempt, whole) = (Seen::new(), Seen::named("total"));
    let until = total();
    let body = grpc(Stalled(Arc::default()), limited(&attempt, inherited(until)));
    let mut body = grpc(body, limited(&whole, until));

    let frame = body.frame().await.unwrap().unwrap();
    assert_eq!(frame.trailers_ref().unwrap()[GRPC_STATUS], "4");
    assert!(body.frame().await.is_none());
    assert_eq!(*whole.ends.lock(), [(Outcome::timeout(), elapsed(Phase::Total, SECOND))]);
}

#[tokio::test(start_paused = true)]
async fn a_late_readers_total_limit_is_told_without_blame() {
    let (attempt, whole) = (Seen::new(), Seen::named("total"));
    let until = total();
    let there = frames::<Infallible>(vec![data("a"), data("b")]);
    let body = http(there, limited(&attempt, inherited(until)));
    let mut body = http(body, limited(&whole, until));

    body.frame().await.unwrap().unwrap();
    tokio::time::advance(SECOND).await;
    let error = body.frame().await.unwrap().unwrap_err();
    assert_eq!(error.find::<Elapsed>().unwrap().phase(), Phase::Total);
    assert_eq!(*attempt.ends.lock(), [(Outcome::Success, elapsed(Phase::Inherited, SECOND))]);
    assert_eq!(*whole.ends.lock(), [(Outcome::Success, elapsed(Phase::Total, SECOND))]);
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_the_layer_below_stays_its_own() {
    let (attempt, whole) = (Seen::named("attempt"), Seen::named("total"));
    let until = Until::new(clock::now(), Phase::Attempt, SECOND / 2);
    let body = http(Stalled(Arc::default()), limited(&attempt, until));
    let mut body = http(body, limited(&whole, total()));

    let error = body.frame().await.unwrap().unwrap_err();
    assert_eq!(error.find(), Some(&Elapsed::new("attempt", Phase::Attempt, SECOND / 2)));
    assert_eq!(*whole.ends.lock(), [(Outcome::timeout(), How::Reported)]);
}

// ----- the order of ends -----

type Journal = Arc<Mutex<Vec<&'static str>>>;

/// A layer that notes its end.
struct Notes(Arc<str>, &'static str, Journal);

impl Settle for Notes {
    fn name(&self) -> &Arc<str> {
        &self.0
    }

    fn settle(&self, _: Ticket, _: &End<'_>) {
        self.2.lock().push(self.1);
    }
}

/// A body that never has anything, and notes that it is released.
struct Connection(Journal);

impl http_body::Body for Connection {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.lock().push("released");
    }
}

fn two_layers(journal: &Journal) -> impl http_body::Body<Data = Bytes> + Unpin + use<> {
    let done = |name| {
        let notes = Arc::new(Notes("".into(), name, journal.clone()));
        Completion::new(notes, Ticket::default(), Call::new(), clock::now())
    };
    let body = http(Connection(journal.clone()), done("below"));
    let watch = Watch { until: Some(total()), idle: None };
    http(body, done("above").with_watch(watch))
}

#[tokio::test(start_paused = true)]
async fn ends_are_told_from_the_inside_out_once_the_connection_is_released() {
    let dropped = Journal::default();
    drop(two_layers(&dropped));
    assert_eq!(*dropped.lock(), ["released", "below", "above"]);

    let cut = Journal::default();
    assert!(two_layers(&cut).frame().await.unwrap().is_err());
    assert_eq!(*cut.lock(), ["released", "below", "above"]);
}

#[tokio::test(start_paused = true)]
async fn what_a_limit_drops_from_outside_is_a_timeout_to_every_layer_that_was_waited_on() {
    for (polled, expected) in [(false, Outcome::Success), (true, Outcome::timeout())] {
        let (below, above) = (Seen::new(), Seen::new());
        let body = http(Stalled(Arc::default()), below.completion());
        let mut body = http(body, above.completion());
        if polled {
            assert!(futures_util::poll!(body.frame()).is_pending());
        }
        call::expire(|| drop(body));
        assert_eq!([below.outcomes(), above.outcomes()], [[expected], [expected]]);
    }
}
