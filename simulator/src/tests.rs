//! Runs from seeds: each keeps every promise, and is the same each time.

use portcullis_testkit::effort;

use crate::{journal::digest, report::Report, world};

/// The calls of a run in the tests, which must be quick.
const CALLS: u32 = 2_000;

fn report(seed: u64) -> Report {
    let run = world::run(seed, CALLS).expect("it runs");
    Report::of(seed, CALLS, &run)
}

#[test]
fn every_seed_keeps_every_promise() {
    for seed in 0..u64::from(effort(8, 1_000)) {
        if let Some(complaint) = report(seed).complaint() {
            panic!("{complaint}");
        }
    }
}

#[test]
fn a_seed_gives_the_same_log_to_the_byte_and_another_seed_another() {
    let log = |seed| world::run(seed, CALLS).expect("it runs").log;
    let (once, other, again) = (log(7), log(8), log(7));
    // Not compared as such: the difference of two logs of megabytes is no message.
    let differ = once.lines().zip(again.lines()).find(|(one, two)| one != two);
    assert_eq!(differ, None);
    assert_eq!((once.len(), digest(&once)), (again.len(), digest(&again)));
    assert_ne!(digest(&once), digest(&other));
}

#[test]
fn a_run_on_another_thread_is_the_same() {
    let here = report(3).digest;
    let there = std::thread::spawn(|| report(3).digest).join().expect("it runs there too");
    assert_eq!(here, there);
}

#[test]
fn thousands_of_calls_are_in_flight_at_once() {
    // Of one whose limits let bursts through.
    let most = world::run(2, 20_000).expect("it runs").most_in_flight;
    assert!(most >= 2_000, "{most}");
}

#[test]
fn every_weather_leaves_its_mark_on_the_calls() {
    use crate::calls::Fate;
    use portcullis_core::RejectionKind::{Elapsed, Limited, Open};
    let run = world::run(1, CALLS).expect("it runs");
    let fates = [
        Fate::Whole,
        Fate::Enough,
        Fate::GaveUp,
        Fate::Cut,
        Fate::Failed(std::io::ErrorKind::ConnectionRefused),
        Fate::Rejected(Open),
        Fate::Rejected(Limited),
        Fate::Rejected(Elapsed),
    ];
    for fate in fates {
        assert!(run.called.iter().any(|called| called.fate == fate), "no call ended as {fate:?}");
    }
    for status in [200, 429, 500, 503] {
        let with = |called: &&crate::calls::Called| {
            called.head.is_some_and(|(head, _)| head.as_u16() == status)
        };
        assert!(run.called.iter().any(|called| with(&called)), "no call was answered {status}");
    }
}

#[test]
fn a_broken_promise_is_reported_with_the_command_that_shows_it_again() {
    let mut report = report(3);
    assert_eq!(report.complaint(), None);
    report.invariants[0].held = false;
    let complaint = report.complaint().expect("there is one");
    assert!(complaint.contains(report.invariants[0].name));
    let command = format!("cargo run --release -p simulator -- --seed 3 --calls {CALLS} --log");
    assert!(complaint.ends_with(&command), "{complaint}");
}
