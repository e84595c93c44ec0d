//! What the breakers promise, upstream by upstream.

use std::{collections::HashMap, time::Instant};

use portcullis_core::{LayerKind, Outcome, State, What};

use super::Invariant;
use crate::{
    watch::{Deed, Told},
    world::Run,
};

/// An attempt: of which call, and which of its attempts.
type Attempt = (Option<u32>, u32);

/// What the breaker of one upstream told.
fn told_of(run: &Run, host: usize) -> impl Iterator<Item = &Told> {
    run.told.iter().filter(move |told| told.by == LayerKind::Breaker && told.host == Some(host))
}

fn hosts(run: &Run) -> std::ops::Range<usize> {
    0..run.forecast.hosts()
}

/// Each change begins where the last one ended and is one that there is; nothing passes but in the
/// state that the breaker is in, and nothing while it is open.
pub(super) fn admits_by_its_state(run: &Run) -> Invariant {
    let (mut changes, mut wrong) = (0, 0);
    for host in hosts(run) {
        let mut now = State::Closed;
        for told in told_of(run, host) {
            match told.what {
                Deed::Other(What::StateChanged { from, to, .. }) => {
                    use State::{Closed, HalfOpen, Open};
                    let known = matches!(
                        (from, to),
                        (Closed, Open) | (Open, HalfOpen) | (HalfOpen, Open | Closed)
                    );
                    wrong += usize::from(from != now || !known);
                    (now, changes) = (to, changes + 1);
                }
                Deed::Other(What::Admitted { state, .. }) => {
                    wrong += usize::from(state != now || now == State::Open);
                }
                _ => {}
            }
        }
    }
    Invariant {
        name: "breaker: changes follow one another, and nothing passes while open",
        held: wrong == 0,
        detail: format!("{changes} changes of state, {wrong} wrong"),
    }
}

/// A probe that has held its slot for as long as it may has lost it.
pub(super) fn probes_within_limit(run: &Run) -> Invariant {
    let (mut most, mut all) = (0, 0);
    for host in hosts(run) {
        let mut out: Vec<(Attempt, Instant)> = Vec::new();
        for told in told_of(run, host) {
            let attempt = (told.call, told.attempt);
            match told.what {
                // Each half-open cycle has slots of its own.
                Deed::Other(What::StateChanged { to: State::HalfOpen, .. }) => out.clear(),
                Deed::Other(What::Admitted { state: State::HalfOpen, .. }) => {
                    let held_until = |since: Instant| since + run.settings.probe_wait;
                    out.retain(|(_, since)| told.at < held_until(*since));
                    out.push((attempt, told.at));
                    (most, all) = (most.max(out.len()), all + 1);
                }
                Deed::Other(What::Settled { .. }) => out.retain(|(other, _)| *other != attempt),
                _ => {}
            }
        }
    }
    Invariant {
        name: "breaker: probes at once within the limit",
        held: most <= run.settings.probes as usize,
        detail: format!("{most} of {}, {all} in all", run.settings.probes),
    }
}

/// Once an outage has lasted long enough to be noticed, nothing reaches the upstream but probes: a set
/// of them for each half-open cycle, and one for each that was given up before it proved anything.
pub(super) fn outage_spares_the_upstream(run: &Run) -> Invariant {
    let (mut outages, mut came, mut wrong) = (0, 0, 0);
    for host in hosts(run) {
        for part in run.forecast.of(host).iter().filter(|part| part.weather.is_outage()) {
            let noticed = part.from + run.settings.noticing();
            let within = |at: Instant| (noticed..part.until).contains(&run.since_start(at));
            if noticed >= part.until {
                continue;
            }
            outages += 1;
            let (mut cycles, mut given_up, mut probes, mut others) = (1, 0, 0, 0);
            for told in told_of(run, host).filter(|told| within(told.at)) {
                match told.what {
                    Deed::Other(What::StateChanged { to: State::HalfOpen, .. }) => cycles += 1,
                    Deed::Other(What::Admitted { state: State::HalfOpen, .. }) => probes += 1,
                    Deed::Other(What::Admitted { .. }) => others += 1,
                    Deed::Other(What::Settled { outcome: Outcome::Cancelled, .. }) => given_up += 1,
                    _ => {}
                }
            }
            let allowed = run.settings.probes as usize * cycles + given_up;
            let reached = run.accesses.iter().filter(|it| it.host == host && within(it.begun));
            let reached = reached.count();
            came += reached;
            wrong += usize::from(others > 0 || probes > allowed || reached > probes);
        }
    }
    Invariant {
        name: "outage: nothing but probes reaches the upstream",
        held: wrong == 0,
        detail: format!("{came} requests in {outages} outages, {wrong} of those wrong"),
    }
}

pub(super) fn cycles_and_closes(run: &Run) -> Invariant {
    let (mut cycles, mut wrong) = (0, 0);
    for (host, (at_end, _)) in hosts(run).zip(&run.at_end.breakers) {
        let states = told_of(run, host).filter_map(|told| match told.what {
            Deed::Other(What::StateChanged { to, .. }) => Some(to),
            _ => None,
        });
        let states: Vec<_> = states.collect();
        let whole = [State::Open, State::HalfOpen, State::Closed];
        let of_host = states.windows(3).filter(|three| *three == whole).count();
        let closed = *at_end == State::Closed && states.last().is_none_or(|last| last == at_end);
        wrong += usize::from(!closed || (!states.is_empty() && of_host == 0));
        cycles += of_host;
    }
    Invariant {
        name: "breaker: full cycles, and closed at the end",
        held: wrong == 0,
        detail: format!("{cycles} full cycles, {wrong} breakers not closed or without one"),
    }
}

/// What a breaker let pass is what its upstream saw.
pub(super) fn upstreams_agree(run: &Run) -> Invariant {
    let mut seen: HashMap<(Option<u32>, u32, Option<usize>), isize> = HashMap::new();
    let mut admitted = 0;
    for told in run.told.iter().filter(|told| told.by == LayerKind::Breaker) {
        if let Deed::Other(What::Admitted { .. }) = told.what {
            *seen.entry((told.call, told.attempt, told.host)).or_default() += 1;
            admitted += 1;
        }
    }
    for it in &run.accesses {
        *seen.entry((Some(it.call), it.attempt, Some(it.host))).or_default() -= 1;
    }
    let differ = seen.values().filter(|count| **count != 0).count();
    Invariant {
        name: "breakers and upstreams agree on every attempt",
        held: differ == 0,
        detail: format!("{admitted} admitted, {} seen, {differ} differ", run.accesses.len()),
    }
}

/// Permits that were given and never settled, or settled and never given.
pub(super) fn unsettled(run: &Run) -> usize {
    let mut out: HashMap<(Attempt, Option<usize>), isize> = HashMap::new();
    for told in run.told.iter().filter(|told| told.by == LayerKind::Breaker) {
        let permit = ((told.call, told.attempt), told.host);
        match told.what {
            Deed::Other(What::Admitted { .. }) => *out.entry(permit).or_default() += 1,
            Deed::Other(What::Settled { .. }) => *out.entry(permit).or_default() -= 1,
            _ => {}
        }
    }
    out.values().map(|count| count.unsigned_abs()).sum()
}
