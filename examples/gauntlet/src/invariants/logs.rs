//! Whether the client's log and the upstream's tell the same story.

use std::collections::{HashMap, HashSet};

use super::{Invariant, TOLERANCE};
use crate::{
    attempts::{Attempt, AttemptEnd},
    load::Course,
    tally::SideLog,
    upstream::Access,
    watch::StackReport,
    weather::Weather,
};

/// Joins the logs by request id and attempt: what was answered was answered once and with the
/// status the client saw, what was sent arrived, nothing arrived that was not sent or sent that was
/// not called for, and no call succeeded without a success of the upstream.
///
/// Only a connection that was refused, or cut in the outage before the request was read, leaves an
/// attempt without its entry at the upstream.
pub(super) fn agree(name: &'static str, side: &SideLog, course: &Course) -> Invariant {
    let mut unproven: HashSet<u32> = side.calls.iter().map(|call| call.id).collect();
    let stray = side.attempts.iter();
    let stray = stray.filter(|attempt| !unproven.contains(&attempt.id)).count();
    let mut arrived: HashMap<(u32, u32), &Access> = HashMap::new();
    let mut twice = 0;
    for access in &side.accesses {
        let before = arrived.insert((access.id, access.attempt), access);
        twice += usize::from(before.is_some());
    }
    let (mut refused, mut cut, mut lost, mut differ) = (0, 0, 0, 0);
    for attempt in &side.attempts {
        let access = arrived.remove(&(attempt.id, attempt.number));
        match (attempt.end, access) {
            (AttemptEnd::Refused, None) => refused += 1,
            (AttemptEnd::Head(seen), Some(access)) => {
                differ += usize::from(access.status != Some(seen));
                if access.status.is_some_and(|status| status.is_success()) {
                    unproven.remove(&attempt.id);
                }
            }
            (AttemptEnd::Broken | AttemptEnd::Dropped, Some(_)) => {}
            (AttemptEnd::Broken | AttemptEnd::Dropped, None) if in_outage(attempt, course) => {
                cut += 1;
            }
            (AttemptEnd::Refused, Some(_)) => differ += 1,
            (_, None) => lost += 1,
        }
    }
    let unsent = arrived.len() + stray;
    let claimed = side.calls.iter();
    let claimed = claimed.filter(|call| call.result.is_ok() && unproven.contains(&call.id));
    let claimed = claimed.count();
    let wrong = lost + differ + twice + unsent + claimed;
    Invariant {
        name,
        held: wrong == 0,
        detail: match wrong {
            0 => format!(
                "{} sent: {} arrived, {refused} refused, {cut} cut",
                side.attempts.len(),
                side.accesses.len()
            ),
            _ => format!(
                "{lost} lost, {differ} differ, {twice} twice, {unsent} stray, {claimed} unproven"
            ),
        },
    }
}

/// Whether an attempt was out while the upstream cut its connections.
fn in_outage(attempt: &Attempt, course: &Course) -> bool {
    let outage = course.script.phase(Weather::Outage);
    let (from, until) = (course.start + outage.from, course.start + outage.until);
    attempt.started < until + TOLERANCE && attempt.ended + TOLERANCE >= from
}

/// Whether every attempt beyond a call's first was told as a retry. There may be fewer attempts than
/// retries told: a call that ends while it waits, or that the breaker refuses, never sends its own.
pub(super) fn retries_agree(side: &SideLog, report: &StackReport) -> Invariant {
    let beyond = side.attempts.iter().filter(|attempt| attempt.number > 1);
    let (sent, told) = (beyond.count(), report.told.retries.len());
    Invariant {
        name: "every attempt beyond the first was told as a retry",
        held: sent <= told,
        detail: format!("{sent} sent, {told} told"),
    }
}
