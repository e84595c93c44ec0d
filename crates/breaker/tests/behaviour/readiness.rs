//! What `poll_ready` promises.

use std::{
    sync::Arc,
    task::{Context, Wake, Waker},
};

use portcullis_breaker::{Handle, Open, WhenOpen};
use portcullis_core::{Outcome, Reason, Rejection, State, clock};
use portcullis_testkit::{WakeCounter, call, poll_k, ready};
use tokio::time::advance;
use tower_service::Service;

use crate::{SECOND, Told, builder, open, service, trip};

#[tokio::test(start_paused = true)]
async fn a_call_readied_while_open_is_refused_even_after_a_reset() {
    let (mut service, handle) = service(builder());
    trip(&mut service, &handle).await;
    let calls = service.get_ref().journal().calls();
    let polls = service.get_ref().journal().ready_polls();
    ready(&mut service).await.unwrap();
    assert_eq!(service.get_ref().journal().ready_polls(), polls, "the inner was not asked");

    handle.reset();
    assert!(service.call("ok").await.unwrap_err().is::<Open>());
    assert_eq!(service.get_ref().journal().calls(), calls);
    call(&mut service, "ok").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn force_open_stops_calls_that_were_ready_and_force_closed_applies_from_the_next_ready() {
    let (mut service, handle) = service(builder());
    ready(&mut service).await.unwrap();
    handle.force_open();
    let error = service.call("ok").await.unwrap_err();
    assert_eq!(open(&error).state(), State::ForcedOpen);
    assert_eq!((open(&error).reason(), open(&error).retry_after()), (Reason::Manual, None));
    assert_eq!(error.to_string(), "search: forced-open, by hand");

    ready(&mut service).await.unwrap();
    handle.force_closed();
    assert!(service.call("ok").await.unwrap_err().is::<Open>());
    for _ in 0..50 {
        call(&mut service, "fail").await.unwrap_err();
    }
    assert_eq!(handle.state(), State::ForcedClosed);
    assert_eq!(handle.snapshot().counts.failures, 50);
    handle.automatic();
    assert_eq!(handle.snapshot().counts.failures, 0);
    trip(&mut service, &handle).await;
    handle.automatic();
    assert_eq!(handle.state(), State::Open, "it was automatic already");
}

#[tokio::test(start_paused = true)]
async fn what_poll_ready_finds_out_is_told() {
    let told = Told::default();
    let (mut service, handle) =
        service(builder().probes(1, 1).max_wait(5 * SECOND).observe(told.observer()));
    trip(&mut service, &handle).await;
    advance(10 * SECOND).await;
    let probe = handle.admit().unwrap();
    told.take();

    // The probe is overdue, and then the open time that began with it is over as well.
    advance(15 * SECOND).await;
    ready(&mut service).await.unwrap();
    let told = told.take();
    assert!(told[0].contains("half-open → open: a probe had no response within 5s"), "{told:?}");
    drop(probe);
}

#[tokio::test(start_paused = true)]
async fn a_waker_may_do_what_it_likes_when_it_is_dropped() {
    struct Looks(Handle);
    impl Wake for Looks {
        fn wake(self: Arc<Self>) {}
    }
    impl Drop for Looks {
        fn drop(&mut self) {
            self.0.reset();
        }
    }
    let (mut service, handle) = service(builder().when_open(WhenOpen::NotReady));
    trip(&mut service, &handle).await;
    handle.force_open();
    let first = Waker::from(Arc::new(Looks(handle.clone())));
    assert!(service.poll_ready(&mut Context::from_waker(&first)).is_pending());
    drop(first);

    // The second takes the first one's place, whose drop resets the breaker.
    let second = Waker::from(Arc::new(Looks(handle.clone())));
    assert!(service.poll_ready(&mut Context::from_waker(&second)).is_ready());
    assert_eq!(handle.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_clone_takes_no_refusal_along() {
    let (mut service, handle) = service(builder());
    trip(&mut service, &handle).await;
    ready(&mut service).await.unwrap();
    handle.reset();
    call(&mut service.clone(), "ok").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn not_ready_while_open_and_woken_when_the_open_time_is_over() {
    let (mut service, handle) = service(builder().when_open(WhenOpen::NotReady));
    trip(&mut service, &handle).await;
    let tripped = clock::now();
    assert!(poll_k(ready(&mut service), 1).await.is_none());
    ready(&mut service).await.unwrap();
    assert_eq!(clock::now() - tripped, 10 * SECOND);
    assert_eq!((handle.state(), handle.snapshot().probes), (State::Open, 0), "no slot is taken");
    service.call("ok").await.unwrap();
    assert_eq!(handle.state(), State::HalfOpen);
}

#[tokio::test(start_paused = true)]
async fn not_ready_is_woken_by_a_reset_and_by_a_slot_that_is_free() {
    let (mut service, handle) = service(builder().probes(1, 2).when_open(WhenOpen::NotReady));
    handle.force_open();
    let wakes = WakeCounter::new();
    let waker = wakes.waker();
    let mut cx = std::task::Context::from_waker(&waker);
    assert!(service.poll_ready(&mut cx).is_pending());
    advance(3_600 * SECOND).await;
    assert_eq!(wakes.count(), 0, "an order has no end");
    handle.reset();
    assert_eq!(wakes.count(), 1);
    assert!(service.poll_ready(&mut cx).is_ready());

    for _ in 0..2 {
        handle.admit().unwrap().settle(Outcome::timeout());
    }
    advance(10 * SECOND).await;
    let probe = handle.admit().unwrap();
    assert!(service.poll_ready(&mut cx).is_pending());
    let before = wakes.count();
    drop(probe);
    assert_eq!(wakes.count(), before + 1);
    assert!(service.poll_ready(&mut cx).is_ready());
}
