//! What upstreams are promised by budget and rate limit.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use portcullis_core::What;

use super::{Invariant, TIMER};
use crate::{watch::Deed, world::Run};

/// It is summed up in floating point.
const ROUNDING: f64 = 0.001;

/// Judges retries by when they were sent, which is when their tokens were spent. One thread tells of
/// them in the order of the deeds, so the bound is exact.
pub(super) fn retries_within_budget(run: &Run) -> Invariant {
    let attempts = |first: bool| -> Vec<Instant> {
        let begun = run.told.iter().filter(|told| {
            matches!(told.what, Deed::Other(What::Attempting { attempt }) if (attempt == 1) == first)
        });
        begun.map(|told| told.at).collect()
    };
    let (first, retries) = (attempts(true), attempts(false));
    let bound = run.settings.retries();
    let worst = bound.worst(&retries, &first, Duration::ZERO);
    let drawn = worst.map_or(0.0, |worst| worst.drawn);
    Invariant {
        name: "retries within the budget in every interval",
        held: drawn <= bound.capacity + ROUNDING,
        detail: format!("{drawn:.1} of {:.0}, {} retries", bound.capacity, retries.len()),
    }
}

/// A call that waited passes for the instant of its turn, and is told of when a timer has woken it: the
/// bound holds for an interval that is longer by as much as a timer may be late.
pub(super) fn rate_within_bound(run: &Run) -> Invariant {
    let bound = run.settings.quota();
    let allowed = bound.capacity + bound.per_second * TIMER.as_secs_f64();
    let worst = (0..run.forecast.hosts()).map(|host| {
        let passed = run.told.iter().filter(|told| told.host == Some(host));
        let passed = passed.flat_map(|told| match told.what {
            Deed::Other(What::Acquired { cost, .. }) => vec![told.at; cost as usize],
            _ => Vec::new(),
        });
        let passed: Vec<_> = passed.collect();
        bound.worst(&passed, &[], Duration::ZERO).map_or(0.0, |worst| worst.drawn)
    });
    let worst = worst.fold(0.0, f64::max);
    Invariant {
        name: "limit: burst + rate · t in every interval, for each upstream",
        held: worst <= allowed + ROUNDING,
        detail: format!("{worst:.1} of {allowed:.1}"),
    }
}

/// What reached an upstream had passed its limit.
pub(super) fn nothing_unpaid(run: &Run) -> Invariant {
    let paid = run.told.iter().filter_map(|told| match told.what {
        Deed::Other(What::Acquired { .. }) => Some((told.call?, told.attempt, told.host?)),
        _ => None,
    });
    // An attempt that is sent again has passed again.
    let mut left: HashMap<_, usize> = HashMap::new();
    paid.for_each(|one| *left.entry(one).or_default() += 1);
    let mut unpaid = 0;
    for it in &run.accesses {
        match left.get_mut(&(it.call, it.attempt, it.host)) {
            Some(left @ 1..) => *left -= 1,
            _ => unpaid += 1,
        }
    }
    Invariant {
        name: "limit: whatever reached an upstream had passed",
        held: unpaid == 0,
        detail: format!("{unpaid} of {} had not", run.accesses.len()),
    }
}
