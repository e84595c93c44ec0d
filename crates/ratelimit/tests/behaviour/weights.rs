//! What calls cost, and what they really cost.

use portcullis_core::call as overrides;
use portcullis_ratelimit::{Limits, Tab};
use portcullis_testkit::call;
use tower_layer::Layer;

use crate::{SECOND, Told, inner, layer, limiter};

#[tokio::test(start_paused = true)]
async fn the_request_says_what_it_costs_and_the_callers_word_goes_before_it() {
    let layer = layer(10).cost(|req: &&str| u32::try_from(req.len()).unwrap()).build().unwrap();
    let mut service = layer.layer(inner());
    call(&mut service, "four").await.unwrap();
    assert_eq!(layer.limiter().snapshot().left, 6);
    overrides::with().cost(1).run(call(&mut service, "four")).await.unwrap();
    assert_eq!(layer.limiter().snapshot().left, 5);
    // Nothing is free.
    call(&mut service, "").await.unwrap();
    assert_eq!(layer.limiter().snapshot().left, 4);
}

#[tokio::test(start_paused = true)]
async fn the_response_says_what_it_really_cost() {
    let told = Told::default();
    let layer = layer(20)
        .cost(|_: &&str| 10)
        .settle_with(|length: &u32| (*length != 5).then_some(*length))
        .observe(told.observer())
        .build()
        .unwrap();
    let mut service = layer.layer(inner());
    // Less than it was taken for: given back.
    call(&mut service, "four").await.unwrap();
    assert_eq!(layer.limiter().snapshot().left, 16);
    assert_eq!(
        told.take(),
        ["ratelimit search: took 10, 10 left", "ratelimit search: took 10, cost 4"]
    );
    // More: charged.
    call(&mut service, "a dozen and one more").await.unwrap();
    assert_eq!(layer.limiter().snapshot().left, 0);
    // Debts beyond the burst delay later calls.
    assert_eq!(layer.limiter().snapshot().wait, 5 * SECOND);
    tokio::time::advance(14 * SECOND).await;
    // No opinion: as it was taken for.
    call(&mut service, "fives").await.unwrap();
    assert_eq!(layer.limiter().snapshot().left, 0);
}

#[tokio::test(start_paused = true)]
async fn debts_beyond_the_burst_are_paid_before_the_next_call() {
    let limiter = limiter(3).build().unwrap();
    let charge = limiter.try_acquire().unwrap();
    assert_eq!(charge.cost(), 1);
    limiter.settle(charge, 10);
    // 10 taken of 3: 7 in debt, and one more for the next call.
    assert_eq!(limiter.snapshot().wait, 8 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn what_has_drained_is_not_given_back_for_the_time_could_be_used_twice() {
    let limiter = limiter(10).build().unwrap();
    let charge = limiter.try_acquire_n(10).unwrap();
    tokio::time::advance(10 * SECOND).await;
    limiter.try_acquire_n(10).unwrap();
    limiter.settle(charge, 0);
    assert_eq!(limiter.snapshot().left, 0);

    let limiter = self::limiter(10).build().unwrap();
    let charge = limiter.try_acquire_n(10).unwrap();
    tokio::time::advance(4 * SECOND).await;
    limiter.try_acquire_n(4).unwrap();
    limiter.settle(charge, 0);
    assert_eq!(limiter.snapshot().left, 6);
}

#[tokio::test(start_paused = true)]
async fn a_refund_moves_no_turn_that_was_given() {
    let limiter = limiter(5).max_wait(60 * SECOND).build().unwrap();
    let charge = limiter.try_acquire_n(5).unwrap();
    let mut waiting = Box::pin(limiter.until_ready_n(5));
    assert!(portcullis_testkit::poll_k(&mut waiting, 1).await.is_none());
    // Given back, it would let 5 more pass at the moment when the 5 that wait do.
    limiter.settle(charge, 0);
    tokio::time::advance(5 * SECOND).await;
    waiting.await.unwrap();
    assert_eq!(limiter.snapshot().left, 0);
}

#[tokio::test(start_paused = true)]
async fn a_tab_is_settled_when_the_body_was_read() {
    let layer = layer(100).cost(|_: &&str| 40).settle_with(|_: &u32| Some(1)).build().unwrap();
    let mut service = layer.layer(inner());
    let tab = Tab::new();
    tab.run(call(&mut service, "q")).await.unwrap();
    // Not by the head: the tab goes before it.
    assert_eq!(layer.limiter().snapshot().left, 60);
    tab.settle(15);
    assert_eq!(layer.limiter().snapshot().left, 85);
    tab.settle(0);
    assert_eq!(layer.limiter().snapshot().left, 85);
}

#[tokio::test(start_paused = true)]
async fn of_several_attempts_on_a_tab_the_last_is_settled() {
    let layer = layer(100).cost(|_: &&str| 30).build().unwrap();
    let mut service = layer.layer(inner());
    let tab = Tab::new();
    let attempts = async {
        call(&mut service, "q").await.unwrap();
        call(&mut service, "q").await.unwrap();
    };
    tab.run(attempts).await;
    tab.settle(10);
    assert_eq!(layer.limiter().snapshot().left, 100 - 30 - 10);
}

#[tokio::test(start_paused = true)]
async fn a_debt_closes_a_limit_for_a_day_at_most() {
    let limiter = limiter(10).build().unwrap();
    let charge = limiter.try_acquire().unwrap();
    limiter.settle(charge, u32::MAX);
    let wait = limiter.snapshot().wait;
    assert!(wait > 3_600 * SECOND && wait <= 86_400 * SECOND, "{wait:?}");
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_stands_twice_among_several_is_one_and_charged_once() {
    let limiter = limiter(2).build().unwrap();
    let both = Limits::all([limiter.clone(), limiter.clone()]).unwrap();
    both.try_acquire().unwrap();
    assert_eq!(limiter.snapshot().left, 1);
    both.try_acquire().unwrap();
    assert!(both.try_acquire().is_err());
}
