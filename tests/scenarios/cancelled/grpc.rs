//! The ready-made stack over gRPC, whose verdict comes with the trailers.

use portcullis::Outcome;

use super::{
    bench::{Case, Speaks},
    reply::{End, Headers, Reply, millis},
    shelf::Shelf,
};

const GRPC: Headers = &[("content-type", "application/grpc")];
const UNAVAILABLE: Headers = &[("content-type", "application/grpc"), ("grpc-status", "14")];
const PUSHED_BACK: Headers =
    &[("content-type", "application/grpc"), ("grpc-status", "8"), ("grpc-retry-pushback-ms", "20")];

fn stream(frames: usize, end: End) -> Reply {
    Reply::head(200, frames, end).with(GRPC)
}

fn case(script: Vec<Reply>) -> Case {
    let well = stream(1, End::Status("0"));
    Case { speaks: Speaks::Grpc, script, well, after_head: Outcome::Cancelled }
}

#[tokio::test(start_paused = true)]
async fn a_grpc_call_may_be_given_up_at_every_stage() {
    let shelf = Shelf::default();
    let recorder = shelf.recorder();
    let whole = || stream(3, End::Status("0"));
    let trailers_only = |headers| Reply::head(200, 0, End::Whole).with(headers);
    let cases = [
        case(vec![whole()]),
        case(vec![whole().after(millis(20))]),
        case(vec![trailers_only(UNAVAILABLE), whole()]),
        case(vec![trailers_only(PUSHED_BACK), whole()]),
        case(vec![stream(2, End::Status("14"))]),
        case(vec![stream(2, End::Hang)]),
        case(vec![stream(2, End::Cut)]),
        case(vec![Reply::Refused, whole()]),
        case(vec![Reply::Hang, whole()]),
    ];
    for case in cases {
        let given_up = case.at_every_stage(&shelf, &recorder).await;
        assert!(given_up >= 8, "it was over too soon for anything: {case:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_dropped_before_its_status_is_cancelled_and_after_it_is_not() {
    let recorder = Shelf::default().recorder();
    let stream = case(vec![stream(3, End::Status("0"))]);
    // The fourth frame is the trailers.
    let outcomes = stream.after_frames(4, &recorder).await;
    let (before, after) = outcomes.split_at(4);
    assert_eq!((before, after), (&[Outcome::Cancelled; 4][..], &[Outcome::Success][..]));
}
