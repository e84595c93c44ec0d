//! The engine on many threads at once.

use std::time::Instant;

use portcullis_breaker::{Admission, BreakerConfig, Changes, Engine, Permit, Window};
use portcullis_core::{Outcome, State, clock, sync::Mutex};

use crate::SECOND;

fn on_threads(f: impl Fn(u32) + Sync) {
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let f = &f;
            scope.spawn(move || f(thread));
        }
    });
}

fn admitted(engine: &Engine, now: Instant) -> Option<Permit> {
    match engine.admit(now, &mut Changes::default()) {
        Admission::Admitted(permit) => Some(permit),
        _ => None,
    }
}

#[test]
fn no_call_is_lost_on_many_threads() {
    for window in [Window::Time(60 * SECOND), Window::Count(60_000)] {
        let mut config = BreakerConfig::default();
        (config.window, config.consecutive_failures) = (window, None);
        (config.failure_rate, config.minimum_calls) = (Some(1.0), 60_000);
        let now = clock::now();
        let engine = Engine::new(config, now).unwrap();
        on_threads(|thread| {
            for _ in 0..10_000 {
                let permit = admitted(&engine, now).unwrap();
                let outcome = [Outcome::Success, Outcome::timeout()][thread as usize % 2];
                engine.record(permit, outcome, thread == 0, now, &mut Changes::default());
            }
        });
        let counts = engine.counts(now);
        assert_eq!((counts.total, counts.failures, counts.slow), (40_000, 20_000, 10_000));
    }
}

#[test]
fn it_trips_once_and_exactly_on_many_threads() {
    for window in [Window::Time(60 * SECOND), Window::Count(400)] {
        for _ in 0..200 {
            let mut config = BreakerConfig::default();
            (config.window, config.consecutive_failures) = (window, None);
            (config.failure_rate, config.minimum_calls) = (Some(1.0), 400);
            let now = clock::now();
            let engine = Engine::new(config, now).unwrap();
            let permits: Mutex<Vec<_>> =
                Mutex::new((0..400).filter_map(|_| admitted(&engine, now)).collect());
            let trips = Mutex::new(0);
            on_threads(|_| {
                loop {
                    let Some(permit) = permits.lock().pop() else { break };
                    let mut changes = Changes::default();
                    engine.record(permit, Outcome::timeout(), false, now, &mut changes);
                    *trips.lock() += changes.iter().count();
                }
            });
            assert_eq!((engine.state(), *trips.lock()), (State::Open, 1));
        }
    }
}

#[test]
fn slots_are_neither_lost_nor_given_twice_on_many_threads() {
    let mut config = BreakerConfig::default();
    (config.consecutive_failures, config.probes, config.probe_successes) = (Some(1), 2, u32::MAX);
    config.max_wait = 3_600 * SECOND;
    let start = clock::now();
    let engine = Engine::new(config, start).unwrap();
    let mut changes = Changes::default();
    engine.fail(Outcome::timeout(), start, &mut changes);
    assert_eq!(engine.state(), State::Open);
    let now = start + 60 * SECOND;
    let out = Mutex::new((0_u32, 0_u32));
    on_threads(|thread| {
        for turn in 0..10_000 {
            let Some(permit) = admitted(&engine, now) else { continue };
            {
                let mut out = out.lock();
                out.0 += 1;
                out.1 = out.1.max(out.0);
            }
            // Counted down first: a slot that is free again may be taken before we come to it.
            out.lock().0 -= 1;
            match (thread + turn) % 2 {
                0 => engine.cancel(permit, now, &mut Changes::default()),
                _ => engine.record(permit, Outcome::Success, false, now, &mut Changes::default()),
            }
        }
    });
    assert!(out.lock().1 <= 2);
    let snapshot = engine.snapshot(now, &mut changes);
    assert_eq!((snapshot.state, snapshot.probes), (State::HalfOpen, 0));
}
