//! Polling by hand, and the generator.

use std::{
    future::{Future, pending, poll_fn},
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
};

use portcullis_testkit::{
    Leave, Seed, WakeCounter, assert_send_value, count_polls, give_up, poll_k,
};

#[tokio::test(start_paused = true)]
async fn poll_k_polls_k_times_though_the_future_never_wakes() {
    for k in 0..5 {
        let mut polls = 0;
        let never = poll_fn(|_| {
            polls += 1;
            Poll::<()>::Pending
        });
        assert_eq!(poll_k(never, k).await, None);
        assert_eq!(polls, k);
    }
}

#[tokio::test(start_paused = true)]
async fn poll_k_gives_the_output_that_is_there_in_time() {
    let ready_at_third = || {
        let mut polls = 0;
        poll_fn(move |_| {
            polls += 1;
            if polls == 3 { Poll::Ready("third") } else { Poll::Pending }
        })
    };
    assert_eq!(poll_k(ready_at_third(), 2).await, None);
    assert_eq!(poll_k(ready_at_third(), 3).await, Some("third"));
}

#[test]
fn poll_k_drops_the_future_with_its_last_poll() {
    let held = Arc::new(());
    let future = {
        let held = Arc::clone(&held);
        async move {
            pending::<()>().await;
            drop(held);
        }
    };
    let mut polling = pin!(poll_k(future, 1));
    let wakes = WakeCounter::new();
    let waker = wakes.waker();
    assert!(polling.as_mut().poll(&mut Context::from_waker(&waker)).is_ready());
    assert_eq!(Arc::strong_count(&held), 1, "dropped before `PollK` is");
    assert_eq!(wakes.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn count_polls_counts_the_last_poll_too() {
    assert_eq!(count_polls(async { 5 }).await, (5, 1));
    let twice_yielding = async {
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
    };
    assert_eq!(count_polls(twice_yielding).await, ((), 3));
    assert_send_value(&count_polls(async {}));
}

#[test]
fn the_generator_gives_the_published_numbers() {
    // The first outputs of SplitMix64 for the seed 1234567, as in the reference implementation.
    let mut seed = Seed::new(1_234_567);
    assert_eq!(
        [seed.next_u64(), seed.next_u64(), seed.next_u64()],
        [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
    );
}

#[test]
fn draws_stay_within_their_bounds_and_reach_them() {
    let mut seed = Seed::new(0);
    let mut seen = [false; 6];
    for _ in 0..1_000 {
        let roll = seed.within(1..7);
        seen[roll as usize - 1] = true;
        assert!((0.0..1.0).contains(&seed.unit()));
        assert!(!seed.chance(0.0) && seed.chance(1.0));
        assert!([3, 5].contains(seed.pick(&[3, 5])));
    }
    assert_eq!(seen, [true; 6]);
    assert_eq!(seed.within(u64::MAX - 1..u64::MAX), u64::MAX - 1);
}

#[test]
#[should_panic(expected = "empty range")]
fn nothing_is_drawn_from_an_empty_range() {
    Seed::new(0).within(4..4);
}

#[test]
fn a_split_generator_draws_on_its_own() {
    let mut parent = Seed::new(9);
    let mut child = parent.split();
    let mut twin = Seed::new(9);
    let _ = twin.split();
    for _ in 0..10 {
        child.next_u64();
    }
    assert_eq!(parent, twin);
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_leaves_with_the_last_poll_or_when_woken_for_the_next() {
    use std::time::Duration;
    use tokio::time::{Instant, sleep};
    const SECOND: Duration = Duration::from_secs(1);

    for (leave, polls, gone_after) in [
        (Leave::AtOnce, 0, Duration::ZERO),
        (Leave::AtOnce, 1, Duration::ZERO),
        (Leave::AtOnce, 2, SECOND),
        (Leave::Woken, 0, Duration::ZERO),
        (Leave::Woken, 1, SECOND),
        (Leave::Woken, 2, 2 * SECOND),
    ] {
        let held = Arc::new(());
        let hold = held.clone();
        let start = Instant::now();
        let twice = async move {
            let _hold = hold;
            sleep(SECOND).await;
            sleep(SECOND).await;
        };
        let mut giving_up = pin!(give_up(twice, polls, leave));
        assert_eq!(giving_up.as_mut().await, None);
        assert_eq!((Arc::strong_count(&held), start.elapsed()), (1, gone_after), "{leave:?}");
    }
    assert_eq!(give_up(async { sleep(SECOND).await }, 2, Leave::AtOnce).await, Some(()));
}
