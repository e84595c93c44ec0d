//! Whether the traces tell what the logs tell.

use std::collections::{HashMap, HashSet};

use portcullis::trace::Kept;
use portcullis_core::{FaultKind, Outcome};

use super::Invariant;
use crate::{
    attempts::{Attempt, AttemptEnd},
    tally::SideLog,
    traces::{Sent, TraceLog, Traced},
    upstream::Access,
};

/// How far, in standard deviations, a share may be from its rate: farther it is once in two million
/// runs.
const DEVIATIONS: f64 = 5.0;

/// Whether every call that failed has a trace that says so.
pub(super) fn of_failures(stack: &SideLog, log: &TraceLog) -> Invariant {
    let traced = log.traced.iter().filter(|traced| traced.failed);
    let traced: HashSet<u32> = traced.filter_map(|traced| traced.id).collect();
    let failed = stack.calls.iter().filter(|call| call.result.is_err());
    let failed: Vec<u32> = failed.map(|call| call.id).collect();
    let found = failed.iter().filter(|id| traced.contains(id)).count();
    Invariant {
        name: "traces: every failed call has one",
        held: found == failed.len(),
        detail: format!("{found} of {}, {} traces lost", failed.len(), log.lost),
    }
}

/// Whether of the calls that succeeded at once the share is kept that was asked for; and nothing but
/// those is kept as such.
pub(super) fn sampled(stack: &SideLog, log: &TraceLog) -> Invariant {
    let remarkable = log.traced.iter().filter(|traced| traced.kept != Kept::Share);
    let remarkable: HashSet<u32> = remarkable.filter_map(|traced| traced.id).collect();
    let mut attempts: HashMap<u32, usize> = HashMap::new();
    for attempt in &stack.attempts {
        *attempts.entry(attempt.id).or_default() += 1;
    }
    let plain = stack.calls.iter().filter(|call| {
        call.result.is_ok() && attempts.get(&call.id) == Some(&1) && !remarkable.contains(&call.id)
    });
    let plain: HashSet<u32> = plain.map(|call| call.id).collect();
    let share = log.traced.iter().filter(|traced| traced.kept == Kept::Share);
    let (kept, others): (Vec<_>, Vec<_>) =
        share.partition(|traced| traced.id.is_some_and(|id| plain.contains(&id)));

    let (kept, all, rate) = (kept.len() as f64, plain.len() as f64, log.sampled);
    let (expected, allowed) = (all * rate, DEVIATIONS * (all * rate * (1.0 - rate)).sqrt());
    let unseen = stack.calls.len().abs_diff(log.seen);
    let wrong = others.len() + unseen;
    Invariant {
        name: "traces: the share of plain successes is as set",
        held: (kept - expected).abs() <= allowed && wrong == 0,
        detail: match wrong {
            0 => format!("{kept} of {all}, where {expected:.0} ± {allowed:.0} may be"),
            _ => format!("{} are no plain successes, {unseen} calls unseen", others.len()),
        },
    }
}

/// Joins each trace with the logs by its request, and its attempts with the upstream's by the span
/// that went over the wire: none is missing on either side, and all ended alike.
pub(super) fn agree(stack: &SideLog, log: &TraceLog) -> Invariant {
    let mut attempts: HashMap<u32, Vec<&Attempt>> = HashMap::new();
    for attempt in &stack.attempts {
        attempts.entry(attempt.id).or_default().push(attempt);
    }
    for of_one in attempts.values_mut() {
        of_one.sort_by_key(|attempt| attempt.number);
    }
    let accesses = stack.accesses.iter().map(|access| ((access.id, access.attempt), access));
    let accesses: HashMap<_, _> = accesses.collect();
    let mut arrived: HashMap<u32, usize> = HashMap::new();
    for access in &stack.accesses {
        *arrived.entry(access.id).or_default() += 1;
    }
    let (mut compared, mut twice, mut uneven, mut differ) = (0, 0, 0, 0);
    let mut seen = HashSet::new();
    for Traced { id, sent, .. } in &log.traced {
        let known = id.filter(|id| seen.insert(*id));
        let Some(id) = known else {
            twice += 1;
            continue;
        };
        let of_client = attempts.get(&id).map_or(&[][..], Vec::as_slice);
        let pairs = sent.iter().zip(of_client);
        let with_access = pairs
            .map(|(sent, attempt)| (sent, *attempt, accesses.get(&(id, attempt.number)).copied()));
        let with_access: Vec<_> = with_access.collect();
        let there = with_access.iter().filter(|(_, _, access)| access.is_some()).count();
        let all_there = there == arrived.get(&id).copied().unwrap_or(0);
        uneven += usize::from(sent.len() != of_client.len() || !all_there);
        differ += with_access.into_iter().filter(|joined| !is_same(*joined)).count();
        compared += sent.len();
    }
    let wrong = twice + uneven + differ;
    Invariant {
        name: "traces: attempts equal client's and upstream's log",
        held: wrong == 0,
        detail: match wrong {
            0 => format!("{compared} attempts in {} traces", log.traced.len()),
            _ => format!("{uneven} uneven, {differ} attempts differ, {twice} twice"),
        },
    }
}

/// Whether the trace, the client and the upstream say the same of one attempt.
fn is_same((sent, attempt, access): (&Sent, &Attempt, Option<&Access>)) -> bool {
    let by_span = access.is_none_or(|access| access.span == Some(sent.span));
    let kind = sent.outcome.kind();
    let by_end = match attempt.end {
        AttemptEnd::Head(status) if status.is_success() => {
            // What the head promised, the body may not have kept.
            matches!(kind, None | Some(FaultKind::Body | FaultKind::Timeout))
        }
        AttemptEnd::Head(status) => kind == Some(FaultKind::Status(status.as_u16())),
        AttemptEnd::Refused => kind == Some(FaultKind::Connect),
        AttemptEnd::Broken => matches!(kind, Some(FaultKind::Connect | FaultKind::Other)),
        AttemptEnd::Dropped => {
            kind == Some(FaultKind::Timeout) || sent.outcome == Outcome::Cancelled
        }
    };
    by_span && by_end
}
