//! Whether the traces tell what happened.

use std::collections::{HashMap, HashSet};

use portcullis::trace::{Kept, Status};
use portcullis_core::{LayerKind, Outcome, SpanId, What};

use super::Invariant;
use crate::{watch::Deed, world::Run};

/// How far, in standard deviations, a share may be from its rate: farther it is once in two million
/// runs.
const DEVIATIONS: f64 = 5.0;

/// The calls that ended in a way that `wanted` names.
fn ended(run: &Run, wanted: impl Fn(Outcome) -> bool) -> HashSet<u32> {
    let ended = run.told.iter().filter(|told| told.by == LayerKind::Trace);
    let ended = ended.filter_map(|told| match told.what {
        Deed::Other(What::Settled { outcome, .. }) if wanted(outcome) => told.call,
        _ => None,
    });
    ended.collect()
}

/// Every call that did not end well has a trace, which says so.
pub(super) fn of_failures(run: &Run) -> Invariant {
    let failed = ended(run, |outcome| outcome != Outcome::Success);
    let traced = run.traces.kept.iter().filter(|traced| traced.status != Status::Success);
    let traced: HashSet<u32> = traced.filter_map(|traced| traced.call).collect();
    let (missing, lost) = (failed.difference(&traced).count(), run.traces.lost);
    let beyond = traced.difference(&failed).count();
    Invariant {
        name: "traces: every failed call has one",
        held: missing + beyond == 0 && lost == 0,
        detail: format!("{missing} of {} missing, {beyond} too many, {lost} lost", failed.len()),
    }
}

/// The attempts in a trace are those that the upstream saw, by the span that each request named.
pub(super) fn agree(run: &Run) -> Invariant {
    let mut seen: HashMap<u32, Vec<(u32, Option<SpanId>)>> = HashMap::new();
    for access in &run.accesses {
        seen.entry(access.call).or_default().push((access.attempt, access.span));
    }
    // The same attempt once more, because no application had seen it, is one attempt.
    seen.values_mut().for_each(Vec::dedup);
    let (mut attempts, mut differ) = (0, 0);
    let mut calls = HashSet::new();
    for traced in &run.traces.kept {
        let Some(call) = traced.call.filter(|call| calls.insert(*call)) else {
            differ += 1;
            continue;
        };
        let sent: Vec<_> =
            traced.sent.iter().map(|(number, span)| (*number, Some(*span))).collect();
        attempts += sent.len();
        differ += usize::from(seen.get(&call).map_or(&[][..], Vec::as_slice) != sent);
    }
    Invariant {
        name: "traces: attempts equal the upstreams' log",
        held: differ == 0,
        detail: format!("{attempts} attempts in {} traces, {differ} differ", run.traces.kept.len()),
    }
}

/// Of the calls that succeeded at once the share is kept that was asked for, and of the others none is
/// kept as one of the share.
pub(super) fn sampled(run: &Run) -> Invariant {
    let retried = run.told.iter().filter_map(|told| match told.what {
        Deed::Other(What::Attempting { attempt: 2.. } | What::Resending { .. }) => told.call,
        _ => None,
    });
    let retried: HashSet<u32> = retried.collect();
    let mut plain = ended(run, |outcome| outcome == Outcome::Success);
    plain.retain(|call| !retried.contains(call));
    let share = run.traces.kept.iter().filter(|traced| traced.kept == Kept::Share);
    let (kept, others): (Vec<_>, Vec<_>) =
        share.partition(|traced| traced.call.is_some_and(|call| plain.contains(&call)));

    let (kept, all, rate) = (kept.len() as f64, plain.len() as f64, run.settings.sampled);
    let (expected, allowed) = (all * rate, DEVIATIONS * (all * rate * (1.0 - rate)).sqrt());
    let ends = ended(run, |_| true).len();
    let wrong = others.len() + (run.traces.seen as usize).abs_diff(ends);
    Invariant {
        name: "traces: the share of plain successes is as set",
        held: (kept - expected).abs() <= allowed && wrong == 0,
        detail: format!(
            "{kept} of {all}, where {expected:.0} ± {allowed:.0} may be; {wrong} wrong"
        ),
    }
}
