//! The limits that hold until the end.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, StreamBody, channel::Channel};
use portcullis_core::{Elapsed, Error, How, Outcome, Phase, clock};
use portcullis_http::GRPC_STATUS;
use tokio::task::coop;

use super::{SECOND, Seen, Stalled, data, frames, grpc, http, idle, until};

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
    assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(0), true));
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

/// A body that goes through what nobody wants, as fast as it comes, and lets other tasks run.
struct Skipping;

impl http_body::Body for Skipping {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        loop {
            ready!(coop::poll_proceed(cx)).made_progress();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_uses_up_the_tasks_budget_is_ended_in_time() {
    let seen = Seen::new();
    let mut body = http(Skipping, seen.completion().with_watch(until(Phase::Body, SECOND)));
    let reading = tokio::spawn(async move { body.frame().await });
    for _ in 0..3 {
        tokio::task::yield_now().await;
    }
    tokio::time::advance(SECOND).await;
    for _ in 0..3 {
        tokio::task::yield_now().await;
    }
    assert!(reading.is_finished());
    assert!(reading.await.unwrap().unwrap().is_err());
}
