//! Where the verdict falls.

use std::{convert::Infallible, io, sync::Arc};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, Empty, Full, channel::Channel};
use portcullis_core::{Call, Classify, FaultKind, How, Outcome, Replay, clock};
use portcullis_http::HttpClassifier;

use super::{SECOND, Seen, Stalled, data, frames, grpc, http, status};

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
async fn what_is_to_come_is_told_as_the_body_within_tells_it() {
    let mut body = http(Full::new(Bytes::from("all")), Seen::new().completion());
    assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(3), false));
    body.frame().await.unwrap().unwrap();
    assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(0), true));
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
    for (polled, expected) in [(false, Outcome::Success), (true, Outcome::timeout())] {
        let call = Call::new().with_deadline(clock::now() + SECOND);
        let seen = Seen::new();
        let mut body = http(Stalled(Arc::default()), seen.completion_in(call));
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
