//! Levels, looked at when metrics are collected.

use opentelemetry::{KeyValue, metrics::Meter};
use portcullis_breaker::{Handle, Handles};
use portcullis_core::{Registry, State, clock};
use portcullis_retry::Budget;
use portcullis_trace::{Counts, Recorder};

use crate::names::{attribute, metric};

const STATES: [State; 6] = [
    State::Closed,
    State::Open,
    State::HalfOpen,
    State::ForcedOpen,
    State::ForcedClosed,
    State::Disabled,
];

/// Has what is in a registry observed at each collection.
pub(crate) fn levels(meter: &Meter, registry: &Registry) {
    breakers(meter, registry.clone());
    budgets(meter, registry.clone());
    recorders(meter, registry);
}

fn breakers(meter: &Meter, registry: Registry) {
    meter
        .u64_observable_gauge(metric::BREAKER_STATE)
        .with_unit("{breaker}")
        .with_description("Breakers in each state.")
        .with_callback(move |gauge| {
            for (name, handles) in registry.all::<Handles>() {
                // The shared one takes part once something has gone to it.
                let shared = handles.overflow().state();
                let shared = (shared != State::Closed).then_some(shared);
                let states = handles.all().into_iter().map(|(_, handle)| handle.state());
                let states: Vec<_> = states.chain(shared).collect();
                for state in STATES {
                    let count = states.iter().filter(|other| **other == state).count() as u64;
                    gauge.observe(count, &in_state(&name, state));
                }
            }
            for (name, handle) in registry.all::<Handle>() {
                for state in STATES {
                    gauge.observe(u64::from(handle.state() == state), &in_state(&name, state));
                }
            }
        })
        .build();
}

fn in_state(name: &str, state: State) -> [KeyValue; 2] {
    [target(name), KeyValue::new(attribute::STATE, state.as_str().to_owned())]
}

fn budgets(meter: &Meter, registry: Registry) {
    meter
        .f64_observable_gauge(metric::RETRY_BUDGET)
        .with_unit("{retry}")
        .with_description("Retries that the budget would pay for now.")
        .with_callback(move |gauge| {
            let now = clock::now();
            for (name, budget) in registry.all::<Budget>() {
                gauge.observe(budget.balance(now), &[target(&name)]);
            }
        })
        .build();
}

fn recorders(meter: &Meter, registry: &Registry) {
    let counter = |name, what, read: fn(&Counts) -> u64| {
        let registry = registry.clone();
        meter
            .u64_observable_counter(name)
            .with_unit("{trace}")
            .with_description(what)
            .with_callback(move |counter| counter.observe(sum(&registry, read), &[]))
            .build();
    };
    counter(metric::TRACES_ENDED, "Traces that came to their end.", |counts| counts.seen);
    counter(metric::TRACES_KEPT, "Traces that the sampling chose to keep.", |counts| counts.kept);
    counter(metric::TRACES_STORED, "Traces that the store took.", |counts| counts.stored);
    counter(metric::TRACES_LOST, "Traces that the store failed to take.", |counts| counts.lost);
    let dropped = registry.clone();
    meter
        .u64_observable_counter(metric::TRACES_DROPPED)
        .with_unit("{trace}")
        .with_description("Chosen traces that found no room in the queue to the store.")
        .with_callback(move |counter| {
            let successes = sum(&dropped, |counts| counts.dropped_successes);
            let others = sum(&dropped, |counts| counts.dropped_others);
            counter.observe(successes, &[KeyValue::new(attribute::CLASS, "success")]);
            counter.observe(others, &[KeyValue::new(attribute::CLASS, "other")]);
        })
        .build();
    let waiting = registry.clone();
    meter
        .u64_observable_gauge(metric::TRACES_WAITING)
        .with_unit("{trace}")
        .with_description("Traces that wait to be stored.")
        .with_callback(move |gauge| gauge.observe(sum(&waiting, |counts| counts.waiting), &[]))
        .build();
}

/// A number of all recorders together. One that several stacks share is in the registry under the name
/// of each, and counted once.
fn sum(registry: &Registry, read: impl Fn(&Counts) -> u64) -> u64 {
    let mut known: Vec<Recorder> = Vec::new();
    for (_, recorder) in registry.all::<Recorder>() {
        if !known.iter().any(|other| other.is_same_as(&recorder)) {
            known.push(recorder);
        }
    }
    known.iter().map(|recorder| read(&recorder.counts())).sum()
}

fn target(name: &str) -> KeyValue {
    KeyValue::new(attribute::TARGET, name.to_owned())
}
