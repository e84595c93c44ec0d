//! The rules of what keeps state over many calls: the rate limit, the breaker, the traces.

use std::time::Duration;

use portcullis_breaker::{BreakerConfig, Mode, SlowPhase, Window};
use portcullis_ratelimit::RateLimitConfig;
use portcullis_retry::Policy;

use super::{
    super::{
        Part,
        bounds::{Bounds, least},
        settings::Settings,
    },
    Findings,
};

// ===== impl Findings =====

impl Findings {
    pub(super) fn limit(&mut self, settings: &Settings, bounds: &Bounds) {
        let Some(limit) = &settings.limit else { return };
        let (max_wait, hint) = (limit.max_wait, limit.max_hint);
        if let Some(total) = bounds.total_to_head.filter(|total| max_wait >= *total) {
            self.warn(
                Part::Limit,
                "limit-wait-beyond-total",
                "max_wait of the rate limit never decides.",
                format!(
                    "It is {max_wait:?}; a call that would wait until the total limit of {total:?} \
                     is over is refused in any case."
                ),
                format!("Set it below {total:?}, by what an attempt needs."),
            );
        }
        let longest = least([Some(max_wait), bounds.total_to_head]).unwrap_or(max_wait);
        if hint > longest {
            let retried = settings.retry.as_ref().filter(|_| bounds.attempts > 1);
            let retried = retried.map(|retry| refusal_wait(retry, bounds));
            let retried = retried.map_or(String::new(), |longest| {
                format!(" A refused attempt is made again if that takes {longest:?} or less.")
            });
            self.note(
                Part::Limit,
                "hint-outlasts-wait",
                "While a server's Retry-After holds its host back, other calls may be refused.",
                format!(
                    "A hint holds for up to {hint:?}, and a call waits no longer than {longest:?} \
                     for its turn.{retried}"
                ),
                "Nothing; or a lower max_hint of the rate limit, to send sooner than was asked.",
            );
        }
    }

    pub(super) fn breaker(&mut self, settings: &Settings, bounds: &Bounds) {
        let Some(breaker) = &settings.breaker else { return };
        match breaker.mode {
            Mode::Automatic => {}
            Mode::Disabled | Mode::ForcedClosed => self.warn(
                Part::Breaker,
                "breaker-off",
                "The breaker refuses nothing.",
                "Its mode from the start is to admit every call; it only counts and tells.",
                "Set Mode::Automatic where a failing server must be left alone.",
            ),
            Mode::ForcedOpen => self.warn(
                Part::Breaker,
                "breaker-forced-open",
                "Every call is refused until somebody closes the breaker.",
                "Its mode from the start is ForcedOpen.",
                "Set Mode::Automatic.",
            ),
        }
        let rates = self.rates_in_reach(settings, breaker);
        let slow = breaker.slow_rate.is_some() && self.slow_in_reach(breaker, bounds);
        let by_rate = rates && (breaker.failure_rate.is_some() || slow);
        if breaker.consecutive_failures.is_none() && !by_rate {
            self.warn(
                Part::Breaker,
                "breaker-never-trips",
                "The breaker never trips by itself.",
                "Failures in a row do not count, and no rate is set that can be reached.",
                "Set consecutive_failures, or a rate within reach.",
            );
        }
        self.open_outlasts_retries(settings, breaker, bounds);
    }

    fn rates_in_reach(&mut self, settings: &Settings, breaker: &BreakerConfig) -> bool {
        let (Some(limit), Window::Time(window)) = (&settings.limit, breaker.window) else {
            return true;
        };
        // Many hosts' limits let more through to a breaker that they share.
        if settings.limit_by_key && !settings.breaker_by_key {
            return true;
        }
        let most = passes_in(limit, window);
        let minimum = breaker.minimum_calls;
        if u128::from(minimum) <= most {
            return true;
        }
        if breaker.failure_rate.is_some() || breaker.slow_rate.is_some() {
            let RateLimitConfig { limit, per, burst, .. } = limit;
            self.warn(
                Part::Breaker,
                "minimum-calls-out-of-reach",
                "The breaker's rates never trip it.",
                format!(
                    "minimum_calls is {minimum}, and in a window of {window:?} the rate limit lets \
                     at most {most} through: {burst} + {limit} per {per:?}."
                ),
                format!("Set minimum_calls to at most {most}, or widen the window."),
            );
        }
        false
    }

    fn slow_in_reach(&mut self, breaker: &BreakerConfig, bounds: &Bounds) -> bool {
        let limit = match breaker.slow_phase {
            SlowPhase::Head => least([bounds.attempt_to_head, bounds.total_to_head]),
            SlowPhase::Total => least([bounds.attempt, bounds.total]),
        };
        let Some((threshold, limit)) = breaker.slow_threshold.zip(limit) else { return true };
        if threshold < limit {
            return true;
        }
        self.warn(
            Part::Breaker,
            "slow-beyond-limit",
            "The breaker's slow rate adds nothing.",
            format!(
                "slow_threshold is {threshold:?}, and a call that takes {limit:?} is ended by its \
                 time limit, which counts as a failure."
            ),
            format!("Set slow_threshold below {limit:?}."),
        );
        false
    }

    fn open_outlasts_retries(
        &mut self,
        settings: &Settings,
        breaker: &BreakerConfig,
        bounds: &Bounds,
    ) {
        let Some(retry) = settings.retry.as_ref().filter(|_| bounds.attempts > 1) else { return };
        let shortest = match breaker.jitter {
            true => breaker.open_initial / 2,
            false => breaker.open_initial,
        };
        let waits = refusal_wait(retry, bounds);
        if breaker.mode == Mode::Automatic && shortest > waits {
            self.note(
                Part::Breaker,
                "open-outlasts-retries",
                "A call that finds the breaker newly open is refused; it is not retried.",
                format!(
                    "It opens for {shortest:?} at least, and a retry waits no longer than {waits:?} \
                     for its end."
                ),
                "Nothing: that spares the server, and callers learn at once.",
            );
        }
    }

    pub(super) fn trace(&mut self, settings: &Settings, bounds: &Bounds) {
        let Some((slow, total)) = settings.slow_trace.zip(bounds.total) else { return };
        if slow >= total {
            self.note(
                Part::Trace,
                "slow-trace-beyond-total",
                "No single call's trace is kept for being slow.",
                format!(
                    "Traces count as slow from {slow:?} on, and the total limit ends a call at \
                     {total:?}; only scopes of several calls take longer."
                ),
                format!("Set the recorder's `slow` below {total:?}."),
            );
        }
    }
}

/// The longest that a retry waits for the time that a refusal by a layer below names.
fn refusal_wait(retry: &Policy, bounds: &Bounds) -> Duration {
    let own = retry.max_hint().min(retry.longest_backoff());
    least([Some(own), bounds.total_to_head]).unwrap_or(own)
}

/// What passes a limit in any interval of this length, at a cost of 1 each.
fn passes_in(limit: &RateLimitConfig, time: Duration) -> u128 {
    let per = limit.per.as_nanos().max(1);
    u128::from(limit.burst) + time.as_nanos() * u128::from(limit.limit) / per
}
