//! What the stack promises, judged on everything that is known of a run.

mod breakers;
mod calls;
mod limits;
#[cfg(test)]
mod tests;
mod traces;

use std::time::Duration;

use serde::Serialize;

use crate::world::Run;

/// How late tokio's timers are at most: they are rounded up to the next millisecond, and nothing else
/// takes time in a simulation.
const TIMER: Duration = Duration::from_millis(1);

/// A promise, and whether it was kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Invariant {
    pub(crate) name: &'static str,
    pub(crate) held: bool,
    /// The numbers it was judged by.
    pub(crate) detail: String,
}

/// Judges everything.
pub(crate) fn judge(run: &Run) -> Vec<Invariant> {
    vec![
        calls::healthy_rejects_nothing(run),
        calls::healthy_succeeds(run),
        calls::within_deadline(run),
        calls::attempts_within_limit(run),
        calls::accounts_add_up(run),
        calls::attempts_in_order(run),
        calls::sent_again_if_unseen(run),
        limits::retries_within_budget(run),
        limits::rate_within_bound(run),
        limits::nothing_unpaid(run),
        breakers::admits_by_its_state(run),
        breakers::probes_within_limit(run),
        breakers::outage_spares_the_upstream(run),
        breakers::cycles_and_closes(run),
        breakers::upstreams_agree(run),
        all_returned(run),
        traces::of_failures(run),
        traces::agree(run),
        traces::sampled(run),
    ]
}

/// Nothing is in flight, no token and no probe is out, every permit was settled, and the limits are as
/// if nobody had ever come.
fn all_returned(run: &Run) -> Invariant {
    let end = &run.at_end;
    let permits = breakers::unsettled(run);
    let probes: u32 = end.breakers.iter().map(|(_, probes)| probes).sum();
    let whole = |limit: &&portcullis::ratelimit::Snapshot| {
        limit.left == run.settings.burst && limit.wait.is_zero() && !limit.held
    };
    let limits = end.limits.len() - end.limits.iter().filter(whole).count();
    let held = end.in_flight == 0 && end.tokens == 0 && probes == 0 && permits + limits == 0;
    Invariant {
        name: "everything is returned at the end",
        held,
        detail: format!(
            "{} in flight, {} tokens, {probes} probes, {permits} permits out; {limits} limits not \
             whole",
            end.in_flight, end.tokens
        ),
    }
}
