//! Every interleaving of a few threads at one limit: never more passes than the bound allows, whatever
//! is given back, given up or held back meanwhile.
//!
//! `RUSTFLAGS="--cfg portcullis_loom" LOOM_MAX_PREEMPTIONS=2 cargo test --release --test loom`

#![cfg(portcullis_loom)]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use loom::thread;
use portcullis_core::{Call, clock};
use portcullis_ratelimit::{
    Bucket, Charge, KeyedLimiter, Limiter, LimiterBuilder, Limits, Quota, RateLimitConfig,
    Reservation,
};

/// T.
const SECOND: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(1_000);

/// A bucket that threads share, and what time it is.
#[derive(Clone)]
struct Shared {
    quota: Quota,
    bucket: Arc<Bucket>,
    now: Instant,
}

fn model(burst: u32, run: fn(Shared)) {
    loom::model(move || {
        let now = clock::now();
        let mut config = RateLimitConfig::default();
        (config.limit, config.per, config.burst) = (1, SECOND, burst);
        let quota = Quota::new(&config, now).expect("valid settings");
        run(Shared { quota, bucket: Arc::new(Bucket::new()), now });
    });
}

impl Shared {
    fn spawn<R: 'static>(&self, run: impl FnOnce(&Self) -> R + 'static) -> thread::JoinHandle<R> {
        let shared = self.clone();
        thread::spawn(move || run(&shared))
    }

    fn take(&self, cost: u32) -> Option<Charge> {
        self.bucket.take(&self.quota, cost, self.now).ok()
    }

    fn take_after(&self, seconds: u32) -> Option<Charge> {
        self.bucket.take(&self.quota, 1, self.now + seconds * SECOND).ok()
    }

    fn reserve(&self) -> Reservation {
        self.bucket.reserve(&self.quota, 1, self.now, self.now + LONG).expect("in time")
    }

    fn cancel(&self, place: Reservation) {
        self.bucket.cancel(&self.quota, place, self.now);
    }

    fn give_back(&self, charge: Charge) {
        self.bucket.settle(&self.quota, charge, 0, self.now);
    }

    fn left(&self) -> u32 {
        self.bucket.left(&self.quota, self.now)
    }

    /// In seconds from now, when who comes last may pass.
    fn next(&self) -> u64 {
        (self.reserve().at() - self.now).as_secs()
    }
}

fn join<R>(thread: thread::JoinHandle<R>) -> R {
    thread.join().expect("no panic")
}

#[test]
fn three_at_one_moment_get_what_there_is_and_no_more() {
    model(2, |shared| {
        let others = [(); 2].map(|()| shared.spawn(|shared| shared.take(1).is_some()));
        let one = shared.take(1).is_some();
        let passed = others.into_iter().filter_map(|other| join(other).then_some(()));
        assert_eq!(passed.count() + usize::from(one), 2);
        assert_eq!(shared.left(), 0);
    });
}

#[test]
fn who_comes_late_with_an_earlier_time_gets_no_more() {
    model(1, |shared| {
        let other = shared.spawn(|shared| shared.take_after(1).is_some());
        let one = shared.take(1).is_some();
        // Both pass in the order of their instants; in the other the earlier one is too late.
        assert!(join(other));
        assert!(one || shared.take(1).is_none());
        assert!(shared.take_after(2).is_some() && shared.take_after(2).is_none());
    });
}

#[test]
fn what_is_given_back_is_taken_once() {
    model(2, |shared| {
        let (one, two) = (shared.take(1).expect("room"), shared.take(1).expect("room"));
        let other = shared.spawn(move |shared| {
            shared.give_back(one);
            u32::from(shared.take(1).is_some())
        });
        shared.give_back(two);
        let spent = u32::from(shared.take(1).is_some()) + join(other);
        // One beside the other may give back less than it could, never more.
        assert!(spent + shared.left() <= 2, "{spent} spent, {} left", shared.left());
    });
}

#[test]
fn what_was_moved_by_refunds_beside_each_other_drains_as_much_earlier() {
    // Pieces of one second each, end to end.
    model(3, |shared| {
        let [one, two, three] = [(); 3].map(|()| shared.take(1).expect("room"));
        let other = shared.spawn(move |shared| shared.give_back(one));
        shared.give_back(two);
        join(other);
        // The third reached to one second after that: now nothing is left of it.
        let later = shared.now + SECOND * 3 / 2;
        let _ = shared.bucket.take(&shared.quota, 1, later).expect("room");
        shared.bucket.settle(&shared.quota, three, 0, later);
        let refused = shared.bucket.check(&shared.quota, 3, later).expect_err("one is taken");
        assert_eq!(refused.at(), Some(later + SECOND));
    });
}

#[test]
fn a_hint_that_finds_it_closed_for_as_long_is_not_lost_beside_a_refund() {
    model(8, |shared| {
        let charge = shared.take(8).expect("room");
        let other = shared.spawn(move |shared| shared.give_back(charge));
        shared.bucket.hold(&shared.quota, SECOND, shared.now);
        join(other);
        assert!(shared.take(1).is_none());
    });
}

#[test]
fn a_refund_moves_nobody_before_a_turn_that_was_given() {
    model(1, |shared| {
        let charge = shared.take(1).expect("room");
        let other = shared.spawn(Shared::reserve);
        shared.give_back(charge);
        let turn = (join(other).at() - shared.now).as_secs();
        assert!(turn <= 1);
        assert!(shared.next() > turn, "two at {turn}");
    });
}

#[test]
fn places_in_line_are_given_once_though_some_are_given_up() {
    model(1, |shared| {
        let _ = shared.take(1).expect("room");
        let given_up = shared.reserve();
        let others = [(); 2].map(|()| shared.spawn(|shared| shared.reserve().at()));
        shared.cancel(given_up);
        let mut turns = others.map(join);
        turns.sort_unstable();
        assert!(turns[1] - turns[0] >= SECOND && turns[0] > shared.now);
        // One place at most is lost.
        assert!(turns[1] - shared.now <= 3 * SECOND);
        assert!(shared.now + SECOND * shared.next() as u32 >= turns[1] + SECOND);
    });
}

#[test]
fn nothing_passes_while_it_is_held_back_whatever_is_given_back_or_up() {
    model(1, |shared| {
        let charge = shared.take(1).expect("room");
        let place = shared.reserve();
        let others = [
            shared.spawn(move |shared| shared.give_back(charge)),
            shared.spawn(move |shared| shared.cancel(place)),
        ];
        shared.bucket.hold(&shared.quota, 5 * SECOND, shared.now);
        others.into_iter().for_each(join);
        assert!(shared.take_after(4).is_none());
        assert!(shared.next() >= 5);
    });
}

#[test]
fn debts_beside_each_other_are_all_paid() {
    model(1, |shared| {
        let charge = shared.take(1).expect("room");
        let other = shared.spawn(move |shared| {
            shared.bucket.settle(&shared.quota, charge, 4, shared.now);
        });
        let place = shared.reserve();
        join(other);
        assert!(place.at() - shared.now == SECOND || place.at() - shared.now == 4 * SECOND);
        assert_eq!(shared.next(), 5);
    });
}

fn limiter(burst: u32) -> LimiterBuilder {
    Limiter::builder("limit").rate(1, LONG).burst(burst)
}

/// Runs `f` with the clock at one moment.
fn at<R>(now: Instant, f: impl FnOnce() -> R) -> R {
    let mut done = None;
    drop(Call::new().enter(now, || done = Some(f())));
    done.expect("it was run")
}

#[test]
fn several_at_once_are_taken_whole_or_not_at_all() {
    loom::model(|| {
        let now = clock::now();
        let three = [(); 3].map(|()| limiter(1).build().expect("valid settings"));
        let last = three[2].clone();
        let other = thread::spawn(move || at(now, || last.try_acquire().is_ok()));
        let limits = Limits::all(three.clone()).expect("three");
        let all = at(now, || limits.try_acquire().is_ok());
        assert!(join(other) != all);
        let left = three.map(|limiter| at(now, || limiter.try_acquire().is_ok()));
        assert_eq!(left, [!all, !all, false]);
    });
}

#[test]
fn several_in_both_orders_pass_once_at_most() {
    loom::model(|| {
        let now = clock::now();
        let [one, two] = [(); 2].map(|()| limiter(1).build().expect("valid settings"));
        let there = Limits::all([one.clone(), two.clone()]).expect("two");
        let back = Limits::all([two, one]).expect("two");
        let other = thread::spawn(move || at(now, || back.try_acquire().is_ok()));
        let passed = at(now, || there.try_acquire().is_ok());
        assert!(!(join(other) && passed));
    });
}

fn keyed(room: usize) -> KeyedLimiter {
    limiter(1).max_keys(room).build_keyed().expect("valid settings")
}

#[test]
fn a_key_passes_once_though_another_wants_its_room() {
    loom::model(|| {
        let now = clock::now();
        let limiters = keyed(1);
        // The room is that of a key that may be forgotten.
        drop(limiters.limiter("idle"));
        let other = thread::spawn({
            let limiters = limiters.clone();
            move || {
                at(now, || [limiters.try_acquire("b").is_ok(), limiters.try_acquire("a").is_ok()])
            }
        });
        let one = at(now, || limiters.try_acquire("a").is_ok());
        let [b, two] = join(other);
        assert!(!(one && two), "a passed twice");
        assert!(one || two || b);
    });
}

#[test]
fn a_key_that_is_taken_in_hand_while_it_is_asked_passes_once() {
    loom::model(|| {
        let now = clock::now();
        let limiters = keyed(1);
        let other = thread::spawn({
            let limiters = limiters.clone();
            move || at(now, || limiters.limiter("a").try_acquire().is_ok())
        });
        let one = at(now, || limiters.try_acquire("a").is_ok());
        assert!(join(other) != one);
    });
}

#[test]
fn a_key_that_gets_room_between_two_calls_passes_once() {
    loom::model(|| {
        let now = clock::now();
        let limiters = keyed(1);
        let in_hand = limiters.limiter("other");
        let other = thread::spawn(move || drop(in_hand));
        // From the limit that keys share, or from its own.
        assert!(at(now, || limiters.try_acquire("a").is_ok()));
        assert!(at(now, || limiters.try_acquire("a").is_err()));
        join(other);
    });
}
