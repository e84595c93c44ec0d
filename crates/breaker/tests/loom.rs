//! Every interleaving of a few threads at one engine: no call is lost or counted twice, one of those
//! who find it is time trips, slots come back, and what is over changes nothing.
//!
//! `RUSTFLAGS="--cfg portcullis_loom" LOOM_MAX_PREEMPTIONS=2 cargo test --release --test loom`
//!
//! Built so, a time window has two buckets and a breaker two stripes: the threads of a model count in
//! one each.

#![cfg(portcullis_loom)]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use loom::thread::{self, JoinHandle};
use portcullis_breaker::{
    Admission, BreakerConfig, Changes, Counts, Engine, Mode, Permit, Transition, Window,
};
use portcullis_core::{Outcome, Reason, State, Ticket, clock};

const SECOND: Duration = Duration::from_secs(1);
/// Half of the time window.
const BUCKET: Duration = SECOND;
const OPEN: Duration = Duration::from_secs(10);

const GOOD: Outcome = Outcome::Success;
const BAD: Outcome = Outcome::timeout();

/// Both kinds of window, with room for so many calls.
fn windows(calls: u32) -> [Window; 2] {
    [Window::Time(2 * BUCKET), Window::Count(calls)]
}

fn config(window: Window) -> BreakerConfig {
    let mut config = BreakerConfig::default();
    config.window = window;
    (config.consecutive_failures, config.failure_rate) = (None, None);
    config.minimum_calls = 1;
    (config.open_initial, config.open_cap, config.jitter) = (OPEN, OPEN, false);
    (config.probes, config.probe_successes, config.max_wait) = (1, 1, SECOND);
    config.seed = Some(1);
    config
}

fn model(config: impl Fn() -> BreakerConfig + Sync + Send + 'static, run: fn(Shared)) {
    loom::model(move || {
        let now = clock::now();
        let engine = Arc::new(Engine::new(config(), now).expect("valid settings"));
        run(Shared { engine, now });
    });
}

/// An engine that threads share, and what time it is.
#[derive(Clone)]
struct Shared {
    engine: Arc<Engine>,
    now: Instant,
}

impl Shared {
    fn later(&self, by: Duration) -> Self {
        Self { engine: self.engine.clone(), now: self.now + by }
    }

    fn spawn<R: 'static>(&self, f: impl FnOnce(Self) -> R + 'static) -> JoinHandle<R> {
        let shared = self.clone();
        thread::spawn(move || f(shared))
    }

    fn admit(&self) -> Option<Permit> {
        match self.engine.admit(self.now, &mut Changes::default()) {
            Admission::Admitted(permit) => Some(permit),
            _ => None,
        }
    }

    fn admitted(&self) -> Permit {
        self.admit().expect("it lets calls pass")
    }

    fn record(&self, permit: Permit, outcome: Outcome) -> Vec<Transition> {
        let mut changes = Changes::default();
        self.engine.record(permit, outcome, false, self.now, &mut changes);
        changes.iter().copied().collect()
    }

    /// Admits a call and records its result.
    fn call(&self, outcome: Outcome) -> Vec<Transition> {
        self.record(self.admitted(), outcome)
    }

    fn reset(&self) -> Vec<Transition> {
        let mut changes = Changes::default();
        self.engine.reset(self.now, &mut changes);
        changes.iter().copied().collect()
    }

    /// Trips it, and waits until the open time is over.
    fn tripped(&self) -> Self {
        self.call(BAD);
        assert_eq!(self.engine.state(), State::Open);
        self.later(OPEN)
    }

    fn counts(&self) -> (u64, u64) {
        let Counts { total, failures, .. } = self.engine.counts(self.now);
        (total, failures)
    }

    fn probes_out(&self) -> u32 {
        self.engine.snapshot(self.now, &mut Changes::default()).probes
    }
}

fn count(transitions: &[Vec<Transition>], from: State, to: State) -> usize {
    transitions.iter().flatten().filter(|change| (change.from, change.to) == (from, to)).count()
}

// ----- windows -----

#[test]
fn calls_of_two_threads_are_all_counted_and_no_reader_sees_more_failures_than_calls() {
    for window in windows(10) {
        model(
            move || config(window),
            |shared| {
                let other = shared.spawn(|shared| shared.call(BAD));
                let reader = shared.spawn(|shared| shared.counts());
                shared.call(BAD);
                other.join().unwrap();
                let (total, failures) = reader.join().unwrap();
                assert!(failures <= total && total <= 2);
                assert_eq!(shared.counts(), (2, 2));
            },
        );
    }
}

#[test]
fn threads_that_meet_in_one_stripe_lose_no_call() {
    for window in windows(10) {
        model(
            move || config(window),
            |shared| {
                // Three threads and two stripes: two of them share one.
                let others = [GOOD, BAD].map(|it| shared.spawn(move |shared| shared.call(it)));
                shared.call(GOOD);
                others.into_iter().for_each(|other| drop(other.join().unwrap()));
                assert_eq!(shared.counts(), (3, 1));
            },
        );
    }
}

#[test]
fn a_writer_overtaken_by_a_whole_turn_of_the_ring_spoils_nothing() {
    model(
        || config(Window::Time(2 * BUCKET)),
        |shared| {
            // Three threads on two stripes, each a bucket further: the last one's bucket is where the
            // first one's was, and the first one may come last.
            let others = [2, 1].map(|nth| {
                let then = shared.later(BUCKET * nth);
                then.spawn(|then| then.call(BAD))
            });
            shared.call(BAD);
            others.into_iter().for_each(|other| drop(other.join().unwrap()));
            assert_eq!(shared.later(2 * BUCKET).counts(), (2, 2), "the first is out of the window");
            assert_eq!(shared.later(3 * BUCKET).counts(), (1, 1));
            assert_eq!(shared.later(4 * BUCKET).counts(), (0, 0));
        },
    );
}

#[test]
fn a_reader_never_takes_a_buckets_last_turn_for_this_one() {
    model(
        || config(Window::Time(2 * BUCKET)),
        |shared| {
            shared.call(BAD);
            let turned = shared.later(2 * BUCKET);
            let reader = turned.spawn(|turned| turned.counts());
            turned.call(BAD);
            let (total, failures) = reader.join().unwrap();
            assert!(failures <= total && total <= 1);
            assert_eq!(turned.counts(), (1, 1));
        },
    );
}

#[test]
fn a_count_window_holds_exactly_the_last_calls_whoever_counted_them() {
    model(
        || config(Window::Count(2)),
        |shared| {
            shared.call(BAD);
            let other = shared.spawn(|shared| shared.call(GOOD));
            let reader = shared.spawn(|shared| shared.counts());
            shared.call(GOOD);
            other.join().unwrap();
            let (total, failures) = reader.join().unwrap();
            assert!((1..=2).contains(&total) && failures <= 1);
            assert_eq!(shared.counts(), (2, 0), "the failure is the third last");
        },
    );
}

#[test]
fn failures_of_two_threads_fall_out_of_a_count_window_one_by_one() {
    model(
        || config(Window::Count(2)),
        |shared| {
            let other = shared.spawn(|shared| shared.call(BAD));
            shared.call(BAD);
            other.join().unwrap();
            assert_eq!(shared.counts(), (2, 2));
            shared.call(GOOD);
            assert_eq!(shared.counts(), (2, 1));
            shared.call(GOOD);
            assert_eq!(shared.counts(), (2, 0));
        },
    );
}

// ----- tripping -----

/// Two calls at once of which each alone is too few and both are too many.
fn both_trip_it_once(set: fn(&mut BreakerConfig), calls: [Outcome; 2]) {
    for window in windows(10) {
        let settings = move || {
            let mut config = config(window);
            set(&mut config);
            config
        };
        let run = match calls {
            [GOOD, _] => |shared: Shared| trip_with(&shared, GOOD),
            _ => |shared: Shared| trip_with(&shared, BAD),
        };
        model(settings, run);
    }
}

fn trip_with(shared: &Shared, ours: Outcome) {
    // Admitted before either counts: a call that is refused would prove nothing.
    let (first, second) = (shared.admitted(), shared.admitted());
    let other = shared.spawn(move |shared| shared.record(second, BAD));
    let changes = [shared.record(first, ours), other.join().unwrap()];
    assert_eq!(count(&changes, State::Closed, State::Open), 1);
    assert_eq!(changes.iter().flatten().count(), 1);
    assert_eq!(shared.engine.state(), State::Open);
}

#[test]
fn two_failures_at_once_trip_by_their_rate_once() {
    let set = |config: &mut BreakerConfig| {
        (config.failure_rate, config.minimum_calls) = (Some(1.0), 2);
    };
    both_trip_it_once(set, [BAD, BAD]);
}

#[test]
fn two_failures_at_once_trip_as_a_row_once() {
    both_trip_it_once(|config| config.consecutive_failures = Some(2), [BAD, BAD]);
}

#[test]
fn a_success_and_a_failure_that_make_up_the_minimum_at_once_trip_once() {
    let set = |config: &mut BreakerConfig| {
        (config.failure_rate, config.minimum_calls) = (Some(0.5), 2);
    };
    both_trip_it_once(set, [GOOD, BAD]);
}

// ----- generations -----

#[test]
fn a_result_that_meets_a_reset_counts_before_it_or_not_at_all() {
    for window in windows(2) {
        for outcome in [GOOD, BAD] {
            let settings = move || {
                let mut config = config(window);
                config.consecutive_failures = Some(2);
                config
            };
            let run = match outcome {
                GOOD => |shared: Shared| meet_a_reset(&shared, GOOD),
                _ => |shared: Shared| meet_a_reset(&shared, BAD),
            };
            model(settings, run);
        }
    }
}

fn meet_a_reset(shared: &Shared, late: Outcome) {
    let permit = shared.admitted();
    let other = shared.spawn(move |shared| shared.record(permit, late));
    shared.reset();
    // Nothing of the old generation is in the new one, whenever it was recorded: one more failure
    // would make two in a row.
    let ours = shared.call(BAD);
    let theirs = other.join().unwrap();
    assert!(ours.is_empty() && theirs.is_empty(), "{ours:?} {theirs:?}");
    assert_eq!(shared.counts(), (1, 1));
    assert_eq!(shared.engine.state(), State::Closed);
}

#[test]
fn a_trip_that_meets_a_reset_ends_closed() {
    for window in windows(2) {
        model(
            move || fragile_with(window),
            |shared| {
                let permit = shared.admitted();
                let other = shared.spawn(move |shared| shared.record(permit, BAD));
                shared.reset();
                let theirs = other.join().unwrap();
                assert!(theirs.len() <= 1, "once, before the reset, or never");
                assert_eq!(shared.engine.state(), State::Closed);
                assert_eq!(shared.counts(), (0, 0));
            },
        );
    }
}

#[test]
fn a_call_that_meets_a_reset_counts_in_the_generation_that_let_it_pass() {
    for window in windows(2) {
        for outcome in [GOOD, BAD] {
            let run = match outcome {
                GOOD => |shared: Shared| pass_during_a_reset(&shared, GOOD),
                _ => |shared: Shared| pass_during_a_reset(&shared, BAD),
            };
            model(move || config(window), run);
        }
    }
}

fn pass_during_a_reset(shared: &Shared, outcome: Outcome) {
    let other = shared.spawn(move |shared| {
        let ticket = Ticket::from(shared.admitted());
        shared.record(Permit::from(ticket), outcome);
        ticket
    });
    shared.reset();
    let Ticket(passed_in, _) = other.join().unwrap();
    let Ticket(now, _) = Ticket::from(shared.admitted());
    assert_eq!(shared.counts().0, u64::from(passed_in == now));
}

#[test]
fn a_failure_and_an_order_at_once_end_as_ordered() {
    for window in windows(2) {
        model(
            move || fragile_with(window),
            |shared| {
                let permit = shared.admitted();
                let other = shared.spawn(move |shared| shared.record(permit, BAD));
                let order = |mode| {
                    let mut changes = Changes::default();
                    shared.engine.order(mode, shared.now, &mut changes);
                };
                order(Mode::ForcedClosed);
                other.join().unwrap();
                assert_eq!(shared.engine.state(), State::ForcedClosed);
                shared.call(BAD);
                assert_eq!(shared.engine.state(), State::ForcedClosed);
                assert_eq!(shared.counts(), (1, 1));
            },
        );
    }
}

// ----- probes -----

/// Trips on the first failure.
fn fragile_with(window: Window) -> BreakerConfig {
    let mut config = config(window);
    config.consecutive_failures = Some(1);
    config
}

fn fragile() -> BreakerConfig {
    fragile_with(Window::Count(2))
}

#[test]
fn no_two_probes_are_out_where_one_may_be() {
    model(fragile, |shared| {
        let shared = shared.tripped();
        let other = shared.spawn(|shared| shared.admit());
        let ours = shared.admit();
        let theirs = other.join().unwrap();
        assert!(ours.is_some() != theirs.is_some(), "one probe, and no more than one");
        assert_eq!(shared.probes_out(), 1);
    });
}

#[test]
fn a_probe_that_comes_to_nothing_gives_its_slot_back_once_and_wedges_nobody() {
    model(fragile, |shared| {
        let shared = shared.tripped();
        let try_and_give_up = |shared: Shared| {
            let probe = shared.admit();
            let admitted = probe.is_some();
            if let Some(probe) = probe {
                shared.engine.cancel(probe, shared.now, &mut Changes::default());
            }
            admitted
        };
        let other = shared.spawn(try_and_give_up);
        let ours = try_and_give_up(shared.clone());
        assert!(ours | other.join().unwrap());
        assert_eq!((shared.engine.state(), shared.probes_out()), (State::HalfOpen, 0));
        let probe = shared.admit();
        assert!(probe.is_some_and(|probe| probe.is_probe()) && shared.admit().is_none());
    });
}

#[test]
fn two_probes_that_succeed_at_once_close_once() {
    let settings = || {
        let mut config = fragile();
        (config.probes, config.probe_successes) = (2, 2);
        config
    };
    model(settings, |shared| {
        let shared = shared.tripped();
        let (first, second) = (shared.admitted(), shared.admitted());
        let other = shared.spawn(move |shared| shared.record(second, GOOD));
        let changes = [shared.record(first, GOOD), other.join().unwrap()];
        assert_eq!(count(&changes, State::HalfOpen, State::Closed), 1);
        assert_eq!(shared.engine.state(), State::Closed);
        assert_eq!(shared.counts(), (0, 0), "what probes proved is not in the window");
    });
}

#[test]
fn of_a_probe_that_fails_and_one_that_succeeds_the_failure_stands_or_counts_after_closing() {
    let settings = || {
        let mut config = fragile();
        config.probes = 2;
        config
    };
    model(settings, |shared| {
        let shared = shared.tripped();
        let (first, second) = (shared.admitted(), shared.admitted());
        let other = shared.spawn(move |shared| shared.record(second, BAD));
        let changes = [shared.record(first, GOOD), other.join().unwrap()];
        // Either it failed first, and the success came too late; or it closed first, and the failure
        // trips it as any call's would, in the generation that the probes began.
        assert_eq!(shared.engine.state(), State::Open);
        let closed = count(&changes, State::HalfOpen, State::Closed);
        assert_eq!(count(&changes, State::Closed, State::Open), closed);
        assert_eq!(count(&changes, State::HalfOpen, State::Open), 1 - closed);
    });
}

#[test]
fn an_overdue_probe_is_judged_once_though_its_result_comes_just_then() {
    model(fragile, |shared| {
        let shared = shared.tripped();
        let probe = shared.admitted();
        let late = shared.later(SECOND);
        let other = late.spawn(move |late| late.record(probe, GOOD));
        let mut changes = Changes::default();
        let _ = late.engine.snapshot(late.now, &mut changes);
        let changes = [changes.iter().copied().collect(), other.join().unwrap()];
        assert_eq!(count(&changes, State::HalfOpen, State::Open), 1);
        assert_eq!(changes.iter().flatten().count(), 1);
        let timed_out = Reason::ProbeTimedOut { max_wait: SECOND };
        assert!(changes.iter().flatten().all(|change| change.why == timed_out));
        assert_eq!(late.engine.state(), State::Open);
    });
}

#[test]
fn a_probe_that_meets_a_reset_neither_reopens_nor_holds_a_slot() {
    model(fragile, |shared| {
        let shared = shared.tripped();
        let probe = shared.admitted();
        let other = shared.spawn(move |shared| shared.record(probe, BAD));
        shared.reset();
        other.join().unwrap();
        assert_eq!((shared.engine.state(), shared.probes_out()), (State::Closed, 0));
        assert_eq!(shared.counts(), (0, 0));
    });
}
