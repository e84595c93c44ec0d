//! Waiting for a turn.

use std::{pin::pin, time::Duration};

use portcullis_core::{Call, Reason, Rejection, call as overrides, clock};
use portcullis_ratelimit::{Limiter, Limits};
use portcullis_testkit::{ScriptedService, Step, call, poll_k, ready};
use tokio::{
    task::JoinSet,
    time::{advance, timeout},
};
use tower_layer::Layer;
use tower_service::Service;

use crate::{SECOND, Told, inner, layer, limited, limiter};

fn patient(burst: u32) -> Limiter {
    limiter(burst).max_wait(10 * SECOND).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn calls_wait_for_their_turn_in_the_order_they_came() {
    let limiter = patient(1);
    let start = clock::now();
    let mut tasks = JoinSet::new();
    for number in 0..5 {
        let limiter = limiter.clone();
        tasks.spawn(async move {
            limiter.until_ready().await.unwrap();
            (number, clock::now() - start)
        });
        tokio::task::yield_now().await;
    }
    for number in 0..5 {
        let (who, when) = tasks.join_next().await.unwrap().unwrap();
        assert_eq!((who, when), (number, number * SECOND));
    }
}

#[tokio::test(start_paused = true)]
async fn what_would_wait_too_long_is_refused_at_once() {
    let limiter = limiter(1).max_wait(2 * SECOND).build().unwrap();
    limiter.try_acquire().unwrap();
    let mut one = pin!(limiter.until_ready());
    let mut two = pin!(limiter.until_ready());
    assert!(poll_k(&mut one, 1).await.is_none());
    assert!(poll_k(&mut two, 1).await.is_none());

    let start = clock::now();
    let refused = limiter.until_ready().await.unwrap_err();
    assert_eq!(clock::now(), start);
    assert_eq!(refused.reason(), Reason::WaitTooLong { needed: 3 * SECOND, max: 2 * SECOND });
    assert_eq!(refused.retry_after(), Some(3 * SECOND));
    one.await.unwrap();
    two.await.unwrap();
    assert_eq!(clock::now() - start, 2 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_is_woken_for_after_the_deadline_is_given_back_and_nothing_is_sent() {
    let layer = layer(1).max_wait(10 * SECOND).build().unwrap();
    let inner = inner();
    let journal = inner.journal();
    let mut service = layer.layer(inner);
    call(&mut service, "q").await.unwrap();
    let within = overrides::with().deadline(clock::now() + 2 * SECOND);
    let mut waiting = pin!(within.run(call(&mut service, "late")));
    assert!(poll_k(&mut waiting, 1).await.is_none());
    // The turn came after one.
    tokio::time::advance(2 * SECOND).await;
    let error = waiting.await.unwrap_err();
    let reason = Reason::DeadlineTooClose { left: Duration::ZERO, needed: Duration::ZERO };
    assert_eq!(limited(&error).reason(), reason);
    assert_eq!(journal.calls(), 1);
    assert!(layer.limiter().try_acquire().is_ok(), "its turn is somebody else's");
}

#[tokio::test(start_paused = true)]
async fn no_call_waits_beyond_its_deadline() {
    let layer = layer(1).max_wait(10 * SECOND).build().unwrap();
    let mut service = layer.layer(inner());
    call(&mut service, "q").await.unwrap();
    let deadline = clock::now() + SECOND / 2;
    let error =
        overrides::with().deadline(deadline).run(call(&mut service, "q")).await.unwrap_err();
    assert_eq!(clock::now(), deadline - SECOND / 2);
    assert_eq!(
        limited(&error).reason(),
        Reason::DeadlineTooClose { left: SECOND / 2, needed: SECOND }
    );
    // It took no turn.
    assert_eq!(layer.limiter().snapshot().wait, SECOND);
    // With the deadline it comes too late as well.
    let left = |left| overrides::with().deadline(clock::now() + left);
    let error = left(SECOND).run(call(&mut service, "q")).await.unwrap_err();
    let reason = Reason::DeadlineTooClose { left: SECOND, needed: SECOND };
    assert_eq!(limited(&error).reason(), reason);
    left(SECOND + Duration::from_millis(1)).run(call(&mut service, "q")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_is_just_short_enough_is_refused_for_the_deadline_alone() {
    let layer = layer(1).max_wait(SECOND).build().unwrap();
    let mut service = layer.layer(inner());
    call(&mut service, "q").await.unwrap();
    let within = overrides::with().deadline(clock::now() + SECOND / 2);
    let error = within.run(call(&mut service, "q")).await.unwrap_err();
    let reason = Reason::DeadlineTooClose { left: SECOND / 2, needed: SECOND };
    assert_eq!(limited(&error).reason(), reason);
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_gives_the_turn_back_if_nobody_queued_behind() {
    let limiter = patient(1);
    limiter.try_acquire().unwrap();
    let mut ahead = Box::pin(limiter.until_ready());
    let mut last = Box::pin(limiter.until_ready());
    assert!(poll_k(&mut ahead, 1).await.is_none());
    assert!(poll_k(&mut last, 1).await.is_none());
    assert_eq!(limiter.snapshot().wait, 3 * SECOND);

    drop(last);
    assert_eq!(limiter.snapshot().wait, 2 * SECOND);
    let mut last = Box::pin(limiter.until_ready());
    assert!(poll_k(&mut last, 1).await.is_none());
    // Lost: the one behind has been told its time.
    drop(ahead);
    assert_eq!(limiter.snapshot().wait, 3 * SECOND);
    let start = clock::now();
    last.await.unwrap();
    assert_eq!(clock::now() - start, 2 * SECOND);
    // What passed is never given back.
    assert_eq!(limiter.snapshot().wait, SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_who_give_up_leave_the_line_as_it_was() {
    let limiter = limiter(1).max_wait(3_600 * SECOND).build().unwrap();
    limiter.try_acquire().unwrap();
    let mut waiting: Vec<_> = (0..1_000).map(|_| Box::pin(limiter.until_ready())).collect();
    for one in &mut waiting {
        assert!(poll_k(one, 1).await.is_none());
    }
    while let Some(last) = waiting.pop() {
        drop(last);
    }
    assert_eq!(limiter.snapshot().wait, SECOND);
}

#[tokio::test(start_paused = true)]
async fn the_instance_that_was_readied_waits_and_is_called() {
    let told = Told::default();
    let layer = layer(1).max_wait(10 * SECOND).observe(told.observer()).build().unwrap();
    let inner = inner();
    let journal = inner.journal();
    let mut service = layer.layer(inner);
    call(&mut service, "q").await.unwrap();
    told.take();

    ready(&mut service).await.unwrap();
    let waiting = service.call("four");
    assert_eq!((journal.calls(), journal.instances()), (1, 2));
    // The clone in its place has to be made ready of its own; the strict inner service would panic
    // on a call without.
    ready(&mut service).await.unwrap();
    let behind = service.call("fives");
    assert_eq!(waiting.await.unwrap(), 4);
    assert_eq!(behind.await.unwrap(), 5);
    assert_eq!(journal.instances(), 1);
    assert_eq!(
        told.take(),
        [
            "ratelimit search: waited 1.0s: limit of 1 in 1s (burst 1)",
            "ratelimit search: took 1, 0 left",
            "ratelimit search: waited 2.0s: limit of 1 in 1s (burst 1)",
            "ratelimit search: took 1, 0 left",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_waiting_call_that_is_dropped_frees_everything_and_is_never_sent() {
    for polls in [0, 1, 3] {
        let layer = layer(1).max_wait(10 * SECOND).build().unwrap();
        let inner = inner();
        let journal = inner.journal();
        let mut service = layer.layer(inner);
        call(&mut service, "q").await.unwrap();
        ready(&mut service).await.unwrap();
        assert!(poll_k(service.call("q"), polls).await.is_none());
        assert_eq!((journal.calls(), journal.instances()), (1, 1));
        assert_eq!(layer.limiter().snapshot().wait, SECOND);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_is_not_refunded_when_its_call_is_dropped() {
    let layer = layer(2).build().unwrap();
    let mut service = layer.layer(inner());
    assert!(timeout(SECOND / 8, call(&mut service, "hang")).await.is_err());
    assert_eq!(layer.limiter().snapshot().left, 1);
}

#[tokio::test(start_paused = true)]
async fn keys_wait_in_lines_of_their_own() {
    let limiters = limiter(1).max_wait(10 * SECOND).build_keyed().unwrap();
    for _ in 0..3 {
        assert!(poll_k(limiters.until_ready("never polled"), 0).await.is_none());
    }
    assert_eq!(limiters.limiter("never polled").snapshot().left, 1);

    let start = clock::now();
    for _ in 0..3 {
        limiters.until_ready("ada").await.unwrap();
    }
    assert_eq!(clock::now() - start, 2 * SECOND);
    limiters.until_ready("grace").await.unwrap();
    assert_eq!(clock::now() - start, 2 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn several_limits_are_waited_for_together() {
    let slow = patient(1);
    let fast = limiter(1).rate(2, SECOND).build().unwrap();
    let both = Limits::all([slow.clone(), fast.clone()]).unwrap();
    let start = clock::now();
    both.until_ready().await.unwrap();
    both.until_ready().await.unwrap();
    assert_eq!(clock::now() - start, SECOND);
    // Nothing is reserved in the fast one meanwhile: others are served.
    let mut waiting = Box::pin(both.until_ready());
    assert!(poll_k(&mut waiting, 1).await.is_none());
    tokio::time::advance(SECOND / 2).await;
    fast.try_acquire().unwrap();
    tokio::time::advance(SECOND / 4).await;
    // When the turn comes in the slow one, the fast one has one left.
    waiting.await.unwrap();
    assert_eq!(clock::now() - start, 2 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn if_another_limit_refuses_when_the_turn_comes_the_call_waits_for_that_one() {
    let slow = patient(1);
    let other = limiter(1).build().unwrap();
    let both = Limits::all([slow.clone(), other.clone()]).unwrap();
    let start = clock::now();
    slow.try_acquire().unwrap();
    let mut waiting = Box::pin(both.until_ready());
    assert!(poll_k(&mut waiting, 1).await.is_none());
    tokio::time::advance(SECOND / 2).await;
    other.try_acquire().unwrap();
    waiting.await.unwrap();
    assert_eq!(clock::now() - start, SECOND * 3 / 2);
    assert_eq!((slow.snapshot().left, other.snapshot().left), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_one_limit_gave_is_given_back_when_another_refuses() {
    let slow = patient(1);
    let [free, other] = [limiter(1), limiter(1)].map(|limit| limit.build().unwrap());
    let all = Limits::all([slow.clone(), free.clone(), other.clone()]).unwrap();
    slow.try_acquire().unwrap();
    let mut waiting = Box::pin(all.until_ready());
    assert!(poll_k(&mut waiting, 1).await.is_none());
    advance(SECOND / 2).await;
    other.try_acquire().unwrap();
    advance(SECOND / 2).await;
    // Its turn has come in the slow one, and it waits for the other.
    assert!(poll_k(&mut waiting, 1).await.is_none());
    assert_eq!((slow.snapshot().left, free.snapshot().left), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_one_limit_who_can_never_pass_another() {
    let (wide, narrow) = (patient(3), limiter(2).build().unwrap());
    wide.try_acquire_n(3).unwrap();
    let both = Limits::all([wide.clone(), narrow]).unwrap();
    let mut waiting = pin!(both.until_ready_n(3));
    let refused = poll_k(&mut waiting, 1).await.unwrap().unwrap_err();
    assert_eq!(refused.reason(), Reason::CostTooLarge { cost: 3, burst: 2 });
    assert_eq!(wide.snapshot().wait, SECOND);
}

#[tokio::test(start_paused = true)]
async fn of_limits_that_refuse_until_the_same_moment_the_first_is_named() {
    let limit = |name| Limiter::builder(name).rate(1, SECOND).burst(1).build().unwrap();
    let both = Limits::all([limit("one"), limit("two")]).unwrap();
    both.try_acquire().unwrap();
    assert_eq!(both.try_acquire().unwrap_err().name(), "one");
}

#[tokio::test(start_paused = true)]
async fn a_peers_error_comes_up_after_a_wait_as_well() {
    let failing: ScriptedService<&str, u32> =
        ScriptedService::respond_with(|_, _| Step::Err(portcullis_testkit::TestError("reset")));
    let layer = layer(1).max_wait(2 * SECOND).build().unwrap();
    let mut service = layer.layer(failing);
    for _ in 0..2 {
        let error = call(&mut service, "q").await.unwrap_err();
        assert!(error.is::<portcullis_testkit::TestError>());
    }
    assert!(Duration::ZERO < layer.limiter().snapshot().wait);
}

/// Burst 10 at 10 000 a second: 1 ms after others took it all, all of it is there again.
#[tokio::test(start_paused = true)]
async fn a_clock_that_was_read_long_ago_refuses_nobody_who_may_pass_now() {
    let builder = || Limiter::builder("search").rate(10_000, SECOND).burst(10);
    let (limiter, keyed) = (builder().build().unwrap(), builder().build_keyed().unwrap());
    let read = clock::now();
    advance(SECOND).await;
    for _ in 0..10 {
        limiter.try_acquire().unwrap();
        keyed.try_acquire("ada").unwrap();
    }
    let limits = Limits::all([limiter.clone(), keyed.limiter("grace")]).unwrap();
    advance(SECOND / 1_000).await;

    // As a layer above hands its clock on, or a thread that was put to sleep after it read it.
    let _ = Call::new().enter(read, || {
        limiter.try_acquire().unwrap();
        keyed.try_acquire("ada").unwrap();
        limits.try_acquire().unwrap();
    });
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_was_read_long_ago_lets_nobody_wait_who_may_pass_now() {
    let layer = layer(1).max_wait(10 * SECOND).build().unwrap();
    let read = clock::now();
    advance(60 * SECOND).await;
    layer.limiter().try_acquire().unwrap();
    advance(SECOND).await;

    let mut service = layer.layer(inner());
    ready(&mut service).await.unwrap();
    let mut called = pin!(Call::new().enter(read, || service.call("hello")));
    assert!(poll_k(&mut called, 1).await.unwrap().is_ok());
}
