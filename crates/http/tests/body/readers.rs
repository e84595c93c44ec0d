//! Who is to blame when a limit runs out: a server that was waited for, or a reader who was away.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody, channel::Channel};
use portcullis_core::{
    BoxError, Call, Completion, Elapsed, Error, FaultKind, How, Outcome, Phase, Replay, Until,
    Watch, clock,
};
use portcullis_http::{Body, GRPC_STATUS};

use super::{SECOND, Seen, Stalled, data, frames, grpc, http, status};

/// A layer below the one with the limit, that one, and one above it: as a breaker stands below a
/// total limit and above one of attempts.
struct Layers {
    below: Arc<Seen>,
    limited: Arc<Seen>,
    above: Arc<Seen>,
}

impl Layers {
    fn new() -> Self {
        Self { below: Seen::new(), limited: Seen::new(), above: Seen::new() }
    }

    /// Under a limit of a second, watched by these classifiers.
    fn around<A, B, C, D>(
        &self,
        body: A,
        below: impl FnOnce(A, Completion) -> B,
        limited: impl FnOnce(B, Completion) -> C,
        above: impl FnOnce(C, Completion) -> D,
    ) -> D {
        let total = Until::new(clock::now(), Phase::Total, SECOND);
        let watch = Watch { until: Some(total), idle: None };
        let call = Call::new().with_deadline(total.at);
        let body = below(body, self.below.completion_in(call));
        let body = limited(body, self.limited.completion().with_watch(watch));
        above(body, self.above.completion())
    }

    fn assert_saw(&self, expected: Outcome) {
        let how = How::Elapsed { phase: Phase::Total, limit: SECOND };
        assert_eq!(*self.limited.ends.lock(), [(expected, how)]);
        assert_eq!(self.below.outcomes(), [expected], "below");
        assert_eq!(self.above.outcomes(), [expected], "above");
    }
}

fn over_http<B>(layers: &Layers, body: B) -> Body<Body<Body<B>>>
where
    B: http_body::Body,
    B::Error: Into<BoxError>,
{
    layers.around(body, http, http, http)
}

fn over_grpc<B>(layers: &Layers, body: B) -> Body<Body<Body<B>>>
where
    B: http_body::Body,
    B::Error: Into<BoxError>,
{
    layers.around(body, grpc, grpc, grpc)
}

fn assert_cut(frame: Option<Result<Frame<Bytes>, Error>>) {
    let error = frame.unwrap().unwrap_err();
    assert_eq!(error.find(), Some(&Elapsed::new("search", Phase::Total, SECOND)));
}

fn assert_cut_by_trailers(frame: Option<Result<Frame<Bytes>, Error>>) {
    let frame = frame.unwrap().unwrap();
    assert_eq!(frame.trailers_ref().unwrap()[GRPC_STATUS], "4");
}

#[tokio::test(start_paused = true)]
async fn a_reader_who_was_away_is_cut_and_the_server_is_not_blamed() {
    let layers = Layers::new();
    let there = || frames::<Infallible>(vec![data("a"), data("b"), data("c")]);
    let mut body = over_http(&layers, there());
    body.frame().await.unwrap().unwrap();
    tokio::time::advance(SECOND).await;
    assert_cut(body.frame().await);
    assert!(body.frame().await.is_none());
    layers.assert_saw(Outcome::Success);

    let layers = Layers::new();
    let mut body = over_grpc(&layers, there());
    body.frame().await.unwrap().unwrap();
    tokio::time::advance(SECOND).await;
    assert_cut_by_trailers(body.frame().await);
    layers.assert_saw(Outcome::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn a_reader_who_comes_when_it_is_over_has_not_waited() {
    // The client reads ahead only so far: that nothing is there yet is the reader's doing.
    let layers = Layers::new();
    let mut body = over_http(&layers, Stalled(Arc::default()));
    tokio::time::advance(SECOND).await;
    assert_cut(body.frame().await);
    layers.assert_saw(Outcome::Success);

    let layers = Layers::new();
    let mut body = over_grpc(&layers, Stalled(Arc::default()));
    tokio::time::advance(SECOND).await;
    assert_cut_by_trailers(body.frame().await);
    layers.assert_saw(Outcome::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn a_stream_without_end_is_cut_and_its_server_not_blamed() {
    let layers = Layers::new();
    let endless = StreamBody::new(futures_util::stream::repeat_with(|| data::<Infallible>("x")));
    let mut body = over_http(&layers, endless);
    for _ in 0..10 {
        body.frame().await.unwrap().unwrap();
        tokio::time::advance(SECOND / 10).await;
    }
    assert_cut(body.frame().await);
    layers.assert_saw(Outcome::Success);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_was_waited_for_is_blamed_by_every_layer() {
    let layers = Layers::new();
    assert_cut(over_http(&layers, Stalled(Arc::default())).frame().await);
    layers.assert_saw(Outcome::timeout());

    let layers = Layers::new();
    assert_cut_by_trailers(over_grpc(&layers, Stalled(Arc::default())).frame().await);
    let how = How::Elapsed { phase: Phase::Total, limit: SECOND };
    assert_eq!(*layers.limited.ends.lock(), [(Outcome::timeout(), how)]);
    assert_eq!(layers.below.outcomes(), [Outcome::timeout()]);
    // The status it gets is ours, and no word of the server's.
    assert_eq!(layers.above.outcomes(), [Outcome::timeout()]);
}

#[tokio::test(start_paused = true)]
async fn a_server_whose_head_came_too_late_is_blamed_for_the_body_that_is_not_there() {
    let layers = Layers::new();
    let late = clock::now() + SECOND;
    let mut body = layers.around(
        Stalled(Arc::default()),
        http,
        |body, done| http(body, done.with_head(late)),
        http,
    );
    tokio::time::advance(SECOND).await;
    assert_cut(body.frame().await);
    layers.assert_saw(Outcome::timeout());

    let layers = Layers::new();
    let late = clock::now() + SECOND;
    let mut body = layers.around(
        Stalled(Arc::default()),
        grpc,
        |body, done| grpc(body, done.with_head(late)),
        grpc,
    );
    tokio::time::advance(SECOND).await;
    assert_cut_by_trailers(body.frame().await);
    for seen in [layers.below, layers.limited, layers.above] {
        assert_eq!(seen.outcomes(), [Outcome::timeout()]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_comes_too_late_for_whoever_waited_is_a_timeout() {
    let layers = Layers::new();
    let (mut sender, channel) = Channel::<Bytes, Infallible>::new(1);
    let mut body = over_http(&layers, channel);
    assert!(futures_util::poll!(body.frame()).is_pending());
    tokio::time::advance(SECOND).await;
    sender.send_data(Bytes::from("late")).await.unwrap();
    assert_cut(body.frame().await);
    assert_eq!(layers.limited.outcomes(), [Outcome::timeout()]);
    assert_eq!(layers.above.outcomes(), [Outcome::timeout()]);
}

#[tokio::test(start_paused = true)]
async fn an_exceeded_deadline_that_the_server_tells_of_counts_whoever_waited() {
    let layers = Layers::new();
    let mut body = over_grpc(&layers, frames::<Infallible>(vec![Ok(Frame::trailers(status("4")))]));
    tokio::time::advance(SECOND * 2).await;
    assert_cut_by_trailers(body.frame().await);
    let exceeded = Outcome::failure(FaultKind::Grpc(4), Replay::IfIdempotent);
    for seen in [layers.below, layers.limited, layers.above] {
        assert_eq!(*seen.ends.lock(), [(exceeded, How::Reported)]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_grpc_body_dropped_after_the_deadline_is_a_timeout_only_to_whoever_waited() {
    for (polled, expected) in [(false, Outcome::Cancelled), (true, Outcome::timeout())] {
        let call = Call::new().with_deadline(clock::now() + SECOND);
        let seen = Seen::new();
        let mut body = grpc(Stalled(Arc::default()), seen.completion_in(call));
        if polled {
            assert!(futures_util::poll!(body.frame()).is_pending());
        }
        tokio::time::advance(SECOND).await;
        drop(body);
        assert_eq!(seen.outcomes(), [expected]);
    }
}
