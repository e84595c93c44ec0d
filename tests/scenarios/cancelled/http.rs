//! The ready-made stack over HTTP.

use portcullis::{FaultKind, Outcome, Replay};

use super::{
    bench::{Case, Speaks},
    reply::{End, Reply, millis},
    shelf::Shelf,
};

fn case(script: Vec<Reply>) -> Case {
    let well = Reply::head(200, 2, End::Whole);
    Case { speaks: Speaks::Http, script, well, after_head: Outcome::Success }
}

fn whole() -> Reply {
    Reply::head(200, 3, End::Whole)
}

/// What a 501 is, which no other attempt could mend.
const NOT_IMPLEMENTED: Outcome = Outcome::failure(FaultKind::Status(501), Replay::Forbidden);

async fn survive(cases: Vec<Case>) {
    let shelf = Shelf::default();
    let recorder = shelf.recorder();
    for case in cases {
        let given_up = case.at_every_stage(&shelf, &recorder).await;
        assert!(given_up >= 8, "it was over too soon for anything: {case:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_goes_well_may_be_given_up_at_every_stage() {
    survive(vec![case(vec![whole()]), case(vec![whole().after(millis(20))])]).await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_retried_may_be_given_up_at_every_stage() {
    let failing = || Reply::head(503, 2, End::Whole);
    let throttled = || Reply::head(429, 1, End::Whole).with(&[("retry-after", "1")]);
    survive(vec![
        case(vec![failing(), whole()]),
        case(vec![failing().after(millis(5)), failing(), whole()]),
        case(vec![throttled(), whole()]),
        case(vec![Reply::Refused, whole()]),
        // The breaker opens between the second and the third.
        case(vec![failing(), failing(), failing()]),
        // Not retried: it is handed up as it is.
        Case { after_head: NOT_IMPLEMENTED, ..case(vec![Reply::head(501, 3, End::Whole)]) },
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_hangs_or_breaks_may_be_given_up_at_every_stage() {
    survive(vec![
        case(vec![Reply::Hang, Reply::Hang, Reply::Hang]),
        case(vec![Reply::Hang, whole()]),
        case(vec![Reply::head(200, 0, End::Hang)]),
        case(vec![Reply::head(200, 2, End::Hang)]),
        case(vec![Reply::head(200, 2, End::Cut)]),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_who_has_had_enough_leaves_the_heads_verdict() {
    let recorder = Shelf::default().recorder();
    let good = case(vec![Reply::head(200, 4, End::Hang)]);
    assert_eq!(good.after_frames(4, &recorder).await, vec![Outcome::Success; 5]);

    let failed = case(vec![Reply::head(501, 4, End::Hang)]);
    assert_eq!(failed.after_frames(4, &recorder).await, vec![NOT_IMPLEMENTED; 5]);
}
