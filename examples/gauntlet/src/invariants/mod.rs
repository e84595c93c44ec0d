//! What the stack promises, judged on the client's and the upstream's logs.

mod budget;
mod logs;
mod rate;
#[cfg(test)]
mod tests;
mod traces;

use std::time::{Duration, Instant};

use portcullis_core::State;
use serde::Serialize;

use crate::{
    load::{Course, Failed},
    tally::SideLog,
    traces::TraceLog,
    watch::{Probe, StackReport, Transition},
    weather::Weather,
};

/// How much later than its time something may happen on a machine that does other things too.
pub(crate) const TOLERANCE: Duration = Duration::from_millis(50);

/// A promise, and whether it was kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Invariant {
    pub(crate) name: &'static str,
    pub(crate) held: bool,
    /// The numbers it was judged by.
    pub(crate) detail: String,
}

/// What is judged.
#[derive(Debug)]
pub(crate) struct Evidence<'a> {
    pub(crate) course: &'a Course,
    pub(crate) bare: &'a SideLog,
    pub(crate) stack: &'a SideLog,
    pub(crate) report: &'a StackReport,
    pub(crate) traced: &'a TraceLog,
}

/// Judges everything, in the order of the weather.
pub(crate) fn judge(evidence: &Evidence<'_>) -> Vec<Invariant> {
    let Evidence { bare, stack, report, traced, .. } = *evidence;
    vec![
        evidence.healthy_rejects_nothing(),
        evidence.healthy_succeeds_as_often(),
        evidence.flaky_succeeds_more_often(),
        evidence.outage_spares_the_upstream(),
        evidence.hung_ends_in_time(),
        cycles(&report.told.transitions),
        closed_at_the_end(report),
        probes_within_limit(&report.told.probes, report.probe_limit),
        budget::judge(stack, report),
        within_deadline(stack, report.deadline),
        all_returned(report),
        logs::retries_agree(stack, report),
        logs::agree("bare: client's and upstream's log agree", bare, evidence.course),
        logs::agree("stack: client's and upstream's log agree", stack, evidence.course),
        rate::judge(stack, report),
        traces::of_failures(stack, traced),
        traces::sampled(stack, traced),
        traces::agree(stack, traced),
    ]
}

// ===== impl Evidence =====

impl Evidence<'_> {
    fn healthy_rejects_nothing(&self) -> Invariant {
        let healthy = |at: Instant| self.course.weather_at(at) == Weather::Healthy;
        let rejections = self.report.told.rejections.iter();
        let told = rejections.filter(|rejected| healthy(rejected.at)).count();
        let seen = self.stack.calls.iter().filter(|call| {
            call.weather == Weather::Healthy && matches!(call.result, Err(Failed::Rejected(_)))
        });
        let seen = seen.count();
        Invariant {
            name: "healthy: nothing is rejected",
            held: told == 0 && seen == 0,
            detail: format!("{told} rejections told, {seen} calls rejected"),
        }
    }

    fn healthy_succeeds_as_often(&self) -> Invariant {
        let (bare, stack) = self.success_in(Weather::Healthy);
        Invariant {
            name: "healthy: success at least as high as bare",
            held: stack >= bare,
            detail: format!("{stack:.1} % against {bare:.1} %"),
        }
    }

    fn flaky_succeeds_more_often(&self) -> Invariant {
        let (bare, stack) = self.success_in(Weather::Flaky);
        Invariant {
            name: "30 % 503: success at least 20 points above bare",
            held: stack >= bare + 20.0,
            detail: format!("{stack:.1} % against {bare:.1} %"),
        }
    }

    fn outage_spares_the_upstream(&self) -> Invariant {
        let calls = |side: &SideLog| side.figures_in(Weather::Outage, self.course).upstream_calls;
        let (bare, stack) = (calls(self.bare), calls(self.stack));
        Invariant {
            name: "outage: at most 20 % of bare's upstream calls",
            held: bare > 0 && stack * 5 <= bare,
            detail: format!("{stack} against {bare}"),
        }
    }

    fn hung_ends_in_time(&self) -> Invariant {
        let p99 = self.stack.figures_in(Weather::Hung, self.course).p99_ms;
        let allowed = millis(self.report.deadline + TOLERANCE);
        Invariant {
            name: "hung: p99 within the deadline",
            held: p99 <= allowed,
            detail: format!("{p99:.0} ms of {allowed:.0} ms"),
        }
    }

    /// Bare's and the stack's, in percent.
    fn success_in(&self, weather: Weather) -> (f64, f64) {
        let success = |side: &SideLog| 100.0 * side.figures_in(weather, self.course).success_rate;
        (success(self.bare), success(self.stack))
    }
}

fn cycles(transitions: &[Transition]) -> Invariant {
    // The breaker's own changes in a row: nothing else may stand between them.
    let whole = transitions.windows(3).filter(|three| {
        three[0].to == State::Open
            && (three[1].from, three[1].to) == (State::Open, State::HalfOpen)
            && (three[2].from, three[2].to) == (State::HalfOpen, State::Closed)
    });
    let whole = whole.count();
    Invariant {
        name: "breaker: a full cycle open → half-open → closed",
        held: whole > 0,
        detail: format!("{whole} in {} changes of state", transitions.len()),
    }
}

fn closed_at_the_end(report: &StackReport) -> Invariant {
    let state = report.state_at_end;
    let told = report.told.transitions.last();
    let told = told.map_or(State::Closed, |transition| transition.to);
    Invariant {
        name: "breaker: closed at the end",
        held: state == State::Closed && told == state,
        detail: match told == state {
            true => state.to_string(),
            false => format!("{state}, but {told} by its last event"),
        },
    }
}

fn probes_within_limit(probes: &[Probe], limit: usize) -> Invariant {
    let most = most_at_once(probes);
    Invariant {
        name: "breaker: probes at once within the limit",
        held: most <= limit,
        detail: format!("{most} of {limit}, {} in all", probes.len()),
    }
}

/// The most probes of one half-open cycle that were out at one moment; each cycle has a fresh set of
/// slots. Two were out at once if they were so both by the clock and by the order they were told of
/// in: either alone is off by the moments between a deed and its note.
fn most_at_once(probes: &[Probe]) -> usize {
    let beside = |(place, probe): (usize, &Probe)| {
        let earlier = probes[..place].iter().rev();
        let cycle = earlier.take_while(|other| other.cycle == probe.cycle);
        let out = cycle.filter(|other| {
            other.settled.is_none_or(|(at, told)| at > probe.admitted && told > place)
        });
        out.count() + 1
    };
    probes.iter().enumerate().map(beside).max().unwrap_or(0)
}

fn within_deadline(stack: &SideLog, deadline: Duration) -> Invariant {
    let allowed = deadline + TOLERANCE;
    let calls = stack.calls.iter();
    let by_client = calls.map(|call| call.ended.saturating_duration_since(call.started));
    let accesses = stack.accesses.iter();
    let by_upstream = accesses.map(|access| access.ended.saturating_duration_since(access.begun));
    let client = by_client.max().unwrap_or_default();
    let upstream = by_upstream.max().unwrap_or_default();
    Invariant {
        name: "no call longer than its deadline, body included",
        held: client <= allowed && upstream <= allowed,
        detail: format!(
            "{:.0} ms, {:.0} ms at the upstream, of {:.0} ms",
            millis(client),
            millis(upstream),
            millis(allowed)
        ),
    }
}

fn all_returned(report: &StackReport) -> Invariant {
    let told = &report.told;
    let (admitted, settled) = told.permits;
    let permits = admitted.abs_diff(settled);
    let unsettled = told.probes.iter().filter(|probe| probe.settled.is_none()).count();
    let (probes, tokens) = (report.probes_at_end.max(unsettled), report.tokens_at_end);
    Invariant {
        name: "every permit and probe returned at the end",
        held: permits + probes + tokens == 0,
        detail: format!("of {admitted} permits {permits} out, {probes} probes, {tokens} tokens"),
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
