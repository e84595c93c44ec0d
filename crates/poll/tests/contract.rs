//! Tower's contract.

use std::{
    convert::Infallible,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use portcullis_core::{Backoff, BoxError, Follow, Look, Next, Progress, follow_async, follow_fn};
use portcullis_poll::{PollBuilder, PollLayer, Polling};
use portcullis_testkit::{
    ScriptedService, assert_clone, assert_debug, assert_send, assert_sync, contract::Suite,
};
use tower::{ServiceExt, buffer::Buffer, service_fn};
use tower_layer::Layer;

struct Opaque;

/// Every other answer is not the last.
fn halting() -> impl Follow<String, u32, Look: Send, Operation: Send, Response = u32> {
    let goes_on = AtomicBool::new(true);
    follow_fn(move |answer: u32| {
        Ok(match goes_on.fetch_xor(true, Ordering::Relaxed) {
            true => Progress::Pending(Next::new(String::new())),
            false => Progress::Done(answer),
        })
    })
}

#[tokio::test(start_paused = true)]
async fn keeps_towers_contract_where_all_is_done_at_once() {
    Suite::new(|inner: ScriptedService<String, u32>| {
        let done = follow_fn(|answer: u32| -> Look<String, u32> { Ok(Progress::Done(answer)) });
        PollLayer::builder("contract", done).build().unwrap().layer(inner)
    })
    .run()
    .await;
    Suite::new(|inner: ScriptedService<String, u32>| {
        let done = follow_async(|answer: u32| async move {
            tokio::task::yield_now().await;
            Ok::<Progress<String, u32>, _>(Progress::Done(answer))
        });
        PollLayer::builder("contract", done).build().unwrap().layer(inner)
    })
    .run()
    .await;
}

#[tokio::test(start_paused = true)]
async fn keeps_towers_contract_while_it_asks_on() {
    for delay in [Duration::ZERO, Duration::from_micros(10)] {
        let suite = Suite::new(move |inner: ScriptedService<String, u32>| {
            let layer = PollLayer::builder("contract", halting()).backoff(Backoff::fixed(delay));
            layer.build().unwrap().layer(inner)
        });
        // All but the clone's readiness: that check holds the inner service unready while a call is
        // answered, and a poll waits for just that.
        suite.calls_the_readied_instance().await;
        suite.drop_frees_everything().await;
        suite.readiness_passes_through_and_wakes().await;
        suite.latest_waker_of_a_response_is_woken().await;
        suite.readiness_error_is_returned().await;
    }
}

#[tokio::test(start_paused = true)]
async fn composes_over_any_error_and_on_both_sides_of_a_buffer() {
    let layer = PollLayer::builder("contract", halting()).build().unwrap();
    let never_fails = service_fn(|_: String| async { Ok::<u32, Infallible>(7) });
    assert_eq!(layer.layer(never_fails).oneshot(String::new()).await.unwrap(), 7);
    let boxed = service_fn(|_: String| async { Err::<u32, BoxError>("reset".into()) });
    assert_eq!(layer.layer(boxed).oneshot(String::new()).await.unwrap_err().to_string(), "reset");

    let inner = ScriptedService::<String, u32>::answering(7);
    let journal = inner.journal();
    let above = Buffer::new(layer.layer(Buffer::new(inner, 4)), 4);
    assert_eq!(above.oneshot(String::new()).await.unwrap(), 7);
    assert_eq!(journal.calls(), 2);
}

#[test]
fn is_send_sync_clone_and_debug_whatever_its_parameters() {
    assert_clone::<PollLayer<Opaque>>();
    assert_debug::<PollLayer<Opaque>>();
    assert_debug::<PollBuilder<Opaque>>();
    assert_debug::<Polling<Opaque, Opaque>>();
    assert_clone::<Polling<(), Opaque>>();

    fn of<P: Follow<String, u32, Look: Send, Operation: Send> + Send + Sync>(_: &P) {
        type Service<P> = Polling<ScriptedService<String, u32>, P>;
        assert_send::<Service<P>>();
        assert_sync::<Service<P>>();
        assert_debug::<<Service<P> as tower_service::Service<String>>::Future>();
        assert_send::<<Service<P> as tower_service::Service<String>>::Future>();
    }
    of(&follow_fn(|answer: u32| -> Look<String, u32> { Ok(Progress::Done(answer)) }));
}
