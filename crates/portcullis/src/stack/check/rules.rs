//! The rules: what does not fit together, and why.

mod state;

use std::time::Duration;

use portcullis_ratelimit::RateLimitConfig;

use super::{
    Finding, Part, Report, Severity,
    bounds::{Bounds, whole},
    settings::Settings,
};

/// Applies all rules.
pub(super) fn report(settings: &Settings) -> Report {
    let bounds = Bounds::of(settings);
    let mut findings = Findings(Vec::new());
    findings.latency(settings, &bounds);
    findings.amplification(settings, &bounds);
    findings.times(settings, &bounds);
    findings.retries(settings, &bounds);
    findings.budget(settings, &bounds);
    findings.limit(settings, &bounds);
    findings.breaker(settings, &bounds);
    findings.trace(settings, &bounds);
    let Findings(mut findings) = findings;
    // Stable: in each group they stay in the order of the rules.
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    Report {
        name: settings.name.clone().unwrap_or_default(),
        to_head: bounds.to_head,
        to_end: bounds.to_end,
        max_attempts: bounds.attempts,
        findings,
    }
}

struct Findings(Vec<Finding>);

// ===== impl Findings =====

impl Findings {
    fn add(
        &mut self,
        severity: Severity,
        part: Part,
        code: &'static str,
        what: impl Into<String>,
        why: impl Into<String>,
        advice: impl Into<String>,
    ) {
        let (what, why, advice) = (what.into(), why.into(), advice.into());
        self.0.push(Finding { severity, code, part, what, why, advice });
    }

    fn warn(
        &mut self,
        part: Part,
        code: &'static str,
        what: impl Into<String>,
        why: impl Into<String>,
        advice: impl Into<String>,
    ) {
        self.add(Severity::Warning, part, code, what, why, advice);
    }

    fn note(
        &mut self,
        part: Part,
        code: &'static str,
        what: impl Into<String>,
        why: impl Into<String>,
        advice: impl Into<String>,
    ) {
        self.add(Severity::Note, part, code, what, why, advice);
    }

    fn latency(&mut self, settings: &Settings, bounds: &Bounds) {
        let Bounds { attempts, turns, waits, .. } = *bounds;
        let sum = bounds.attempt_to_head.map(|one| {
            let turns = match turns.is_zero() {
                true => String::new(),
                false => format!(", {turns:?} of waiting for the rate limit"),
            };
            let waits = match attempts {
                1 => String::new(),
                _ => format!(", {waits:?} of waiting between them"),
            };
            format!("{attempts} × {one:?} for attempts{turns}{waits}")
        });
        let why = match (bounds.total_to_head, sum, bounds.sum) {
            (None, None, _) => {
                return self.warn(
                    Part::Total,
                    "unbounded-latency",
                    "Nothing bounds how long a call takes.",
                    "There is neither a total limit, nor one for each attempt or its head.",
                    "Set a total limit; for streams, a limit of the head.",
                );
            }
            (Some(limit), Some(sum), Some(all)) if limit < all => {
                format!(
                    "By themselves {sum} come to {all:?}; the total limit ends it at {limit:?}."
                )
            }
            (_, Some(sum), Some(all)) => format!("{sum}: that is {all:?}."),
            (Some(limit), ..) => format!("The total limit is {limit:?}."),
            (None, ..) => String::new(),
        };
        let call = match settings.operations.is_empty() {
            true => "A call",
            false => "A call of no named operation",
        };
        let what = match (bounds.to_head, bounds.to_end) {
            (Some(head), None) => format!(
                "{call} takes at most {head:?} to its response's head; nothing bounds its body."
            ),
            (_, Some(end)) => format!("{call} takes at most {end:?}."),
            (None, None) => format!("{call} has no bound."),
        };
        let advice = match bounds.total_to_head {
            Some(_) => "Set the total limit to what your callers can wait.",
            None => {
                "Set a total limit, to what your callers can wait; for streams, a limit of the head."
            }
        };
        self.note(Part::Total, "worst-case-latency", what, why, advice);
    }

    fn amplification(&mut self, settings: &Settings, bounds: &Bounds) {
        let attempts = bounds.attempts;
        let Some(retry) = settings.retry.as_ref().filter(|_| attempts > 1) else {
            return self.note(
                Part::Retry,
                "no-retries",
                "A call that fails is not tried again.",
                "There is one attempt for each call.",
                "Nothing, if that is meant.",
            );
        };
        let most = settings.limit.as_ref().map_or(String::new(), |limit| {
            let RateLimitConfig { limit, per, burst, .. } = limit;
            format!(" The rate limit lets no more than {burst} + {limit} per {per:?} through.")
        });
        let (what, why) = match retry.budget().map(|budget| *budget.config()) {
            Some(budget) => (
                format!(
                    "One call sends at most {attempts} requests; in an outage, n calls in t seconds \
                     send at most {} · n + {} + {} · t.",
                    1.0 + budget.ratio,
                    budget.capacity,
                    budget.reserve,
                ),
                format!(
                    "max_attempts is {attempts}; the budget lets {} of the calls be retried, and \
                     holds {} retries at first.{most}",
                    percent(budget.ratio),
                    budget.capacity,
                ),
            ),
            None if retry.throttling().is_some() => (
                format!("One call sends at most {attempts} requests."),
                format!(
                    "max_attempts is {attempts}; throttling ends the retries once too large a share \
                     of the attempts fails.{most}"
                ),
            ),
            None => (
                format!("One call sends at most {attempts} requests, and in an outage each does."),
                format!("max_attempts is {attempts}, and there is no budget.{most}"),
            ),
        };
        self.note(
            Part::Retry,
            "worst-case-amplification",
            what,
            why,
            "Have one layer of retries along a chain of services: theirs multiply.",
        );
    }

    fn times(&mut self, settings: &Settings, bounds: &Bounds) {
        if bounds.total_to_head.is_none() && bounds.sum.is_some() {
            self.note(
                Part::Total,
                "no-total-limit",
                "Nothing but the retries' own settings bounds the whole call.",
                "There is no total limit, so layers below know of no deadline.",
                "Set a total limit; for streams, a limit of the head.",
            );
        }
        if bounds.attempt_to_head.is_none() && bounds.attempts > 1 && bounds.total_to_head.is_some()
        {
            self.warn(
                Part::Attempt,
                "no-attempt-limit",
                "An attempt that hangs is not tried again.",
                format!(
                    "Nothing bounds one attempt, so it may take all of the call's time, and the {} \
                     retries never come.",
                    bounds.attempts - 1
                ),
                "Set an attempt limit, or a limit of its head.",
            );
        }
        self.attempt_beyond_total(None, bounds.total, bounds.attempt);
        for operation in &settings.operations {
            let (total, attempt) = (whole(&operation.total), whole(&operation.attempt));
            if (total, attempt) != (bounds.total, bounds.attempt) {
                self.attempt_beyond_total(Some(&operation.name), total, attempt);
            }
        }
        if let Some((slow, total)) = settings.attempt.slow.zip(bounds.total_to_head)
            && slow >= total
        {
            self.warn(
                Part::Attempt,
                "slow-beyond-total",
                "No attempt is ever told as slow.",
                format!("`slow` is {slow:?}, and the total limit ends the call at {total:?}."),
                format!("Set `slow` below {total:?}."),
            );
        }
    }

    fn attempt_beyond_total(
        &mut self,
        operation: Option<&str>,
        total: Option<Duration>,
        attempt: Option<Duration>,
    ) {
        let Some((total, attempt)) = total.zip(attempt).filter(|(total, one)| one >= total) else {
            return;
        };
        let of = operation.map_or(String::new(), |name| format!(" of the operation `{name}`"));
        self.warn(
            Part::Attempt,
            "attempt-beyond-total",
            format!("The attempt limit{of} never runs out, and a hanging attempt is not retried."),
            format!("It is {attempt:?}, and the total limit ends the call at {total:?}."),
            format!("Set it well below {total:?}, so that another attempt fits."),
        );
    }

    fn retries(&mut self, settings: &Settings, bounds: &Bounds) {
        let Some(retry) = settings.retry.as_ref().filter(|_| bounds.attempts > 1) else { return };
        let Some(total) = bounds.total_to_head else { return };
        let retries = bounds.attempts - 1;
        let never = settings.first_too_late(Duration::ZERO, total);
        if let Some((retry, begins)) = never {
            let which = match retry == retries {
                true => format!("Retry {retry} never happens."),
                false => format!("Retries {retry} to {retries} never happen."),
            };
            self.warn(
                Part::Retry,
                "retries-never-fit",
                which,
                format!(
                    "Even if all attempts fail at once, the backoff lets retry {retry} begin after \
                     {begins:?} at the soonest, and the total limit is {total:?}."
                ),
                format!("Shorten the backoff, or set max_attempts to {retry}."),
            );
        }
        if let Some(one) = bounds.attempt_to_head.filter(|one| *one < total)
            && let Some((retry, begins)) = settings.first_too_late(one, total)
            && never.is_none_or(|(never, _)| retry < never)
        {
            self.note(
                Part::Retry,
                "timeouts-leave-fewer-attempts",
                format!(
                    "If attempts run into their limit, a call has {retry} of its {} attempts.",
                    bounds.attempts
                ),
                format!(
                    "{retry} × {one:?} and the shortest waits make retry {retry} begin after \
                     {begins:?}, and the total limit is {total:?}."
                ),
                "Shorten the attempt limit if a server that hangs is to be tried as often.",
            );
        }
        let hint = retry.max_hint();
        if hint >= total {
            self.note(
                Part::Retry,
                "hint-beyond-total",
                "max_hint of the retries never decides.",
                format!(
                    "It is {hint:?}; a server that asks for {total:?} or more is not waited for in \
                     any case, because the total limit is over by then."
                ),
                format!("Nothing; or set it below {total:?}, to have long waits refused sooner."),
            );
        }
    }

    fn budget(&mut self, settings: &Settings, bounds: &Bounds) {
        let Some(retry) = settings.retry.as_ref().filter(|_| bounds.attempts > 1) else { return };
        let n = bounds.attempts;
        match retry.budget().map(|budget| *budget.config()) {
            None if retry.throttling().is_some() => {}
            None => self.warn(
                Part::Retry,
                "no-budget",
                "Nothing keeps retries from amplifying an outage.",
                format!("Without a budget, a server whose calls all fail gets {n} times the load."),
                "Leave the budget on; a ratio of 0.2 sends at most 1.2 times the load.",
            ),
            Some(budget) if budget.ratio == 0.0 && budget.reserve == 0.0 => self.warn(
                Part::Retry,
                "budget-runs-dry",
                "After some time there are no retries any more.",
                format!(
                    "The budget holds {} retries, and with a ratio and a reserve of 0 nothing is \
                     ever paid in.",
                    budget.capacity
                ),
                "Set a ratio, or a reserve.",
            ),
            Some(_) => {}
        }
    }
}

fn percent(share: f64) -> String {
    format!("{} %", (share * 1e3).round() / 10.0)
}
