//! Scopes whose end is reported rather than a future's.

use portcullis_core::{Call, Completion, Error, Outcome, Phase, clock};
use portcullis_testkit::{ScriptedService, Step, call as send};
use portcullis_trace::{Recorder, Status, TraceLayer, TraceScope, fail};
use tower_layer::Layer;

use crate::fakes::{MS, one, recorder, stored};

fn open(recorder: &Recorder, outer: Call) -> (Call, Completion) {
    TraceScope::start("request").recorder(recorder).attribute("user", 7).open(outer)
}

#[tokio::test(start_paused = true)]
async fn it_is_over_when_its_end_is_reported_and_has_the_calls_until_then() {
    let recorder = recorder();
    let inner = ScriptedService::<(), u16>::respond_with(|(), _| Step::Ok(200).after(10 * MS));
    let layer = TraceLayer::builder("client").recorder(&recorder).build().unwrap();
    let mut client = layer.layer(inner);
    let (call, done) = open(&recorder, Call::new());
    for _ in 0..2 {
        call.clone().in_scope(send(&mut client, ())).await.unwrap();
    }
    assert_eq!(stored(&recorder).await.len(), 0);
    done.settle(Outcome::Success);

    let trace = one(&recorder).await;
    assert_eq!((trace.status, trace.duration, trace.calls.len()), (Status::Success, 20 * MS, 2));
    assert!(trace.calls.iter().all(|call| call.parent == Some(trace.span)));
    assert_eq!(trace.attributes, [("user".to_owned(), "7".to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn dropped_without_a_report_it_is_cancelled_or_timed_out() {
    let soon = Call::new().with_deadline(clock::now() + 5 * MS);
    for (outer, expected) in [(Call::new(), Status::Cancelled), (soon, Status::Timeout)] {
        let recorder = recorder();
        let opened = open(&recorder, outer);
        tokio::time::advance(5 * MS).await;
        drop(opened);
        assert_eq!(one(&recorder).await.status, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_ended_it_is_named_unless_it_had_failed_before() {
    for (failed, status, text) in [
        (false, Status::Timeout, "request: total limit of 5ms ran out"),
        (true, Status::Error, "no stock"),
    ] {
        let recorder = recorder();
        let (call, done) = open(&recorder, Call::new());
        if failed {
            call.in_scope(async { fail(&Error::inner("no stock")) }).await;
        }
        let _ = done.elapsed(Phase::Total, 5 * MS);
        let trace = one(&recorder).await;
        assert_eq!((trace.status, trace.error.as_deref()), (status, Some(text)));
    }
}
