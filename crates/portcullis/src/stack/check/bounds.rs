//! How long a call can take, and how often it can be sent.

use std::time::Duration;

use portcullis_core::Call;
use portcullis_timeout::Limits;

use super::settings::Settings;

/// What bounds a call. `None` is no bound.
#[derive(Clone, Debug)]
pub(super) struct Bounds {
    /// Attempts for one call, the first included.
    pub(super) attempts: u32,
    /// The whole call, to the end of its body.
    pub(super) total: Option<Duration>,
    /// The whole call, to its head.
    pub(super) total_to_head: Option<Duration>,
    /// One attempt, to the end of its body.
    pub(super) attempt: Option<Duration>,
    /// One attempt, to its head.
    pub(super) attempt_to_head: Option<Duration>,
    /// The longest waits for the rate limit, one before each attempt.
    pub(super) turns: Duration,
    /// The longest waits between all attempts, hints followed.
    pub(super) waits: Duration,
    /// How long attempts and waits can take to the head, whatever the total limit.
    pub(super) sum: Option<Duration>,
    /// What is left of all that.
    pub(super) to_head: Option<Duration>,
    pub(super) to_end: Option<Duration>,
}

/// Waits that are summed one by one. Those of more retries than anybody makes are taken for the
/// longest there is.
const SUMMED: u32 = 1_000;

// ===== impl Bounds =====

impl Bounds {
    pub(super) fn of(settings: &Settings) -> Self {
        let Settings { total: call, attempt: one, .. } = settings;
        let attempts = settings.attempts();
        let total = whole(call);
        let attempt = whole(one);
        let total_to_head = least([total, call.head]);
        let attempt_to_head = least([attempt, one.head]);

        let turns = settings.limit.as_ref().map_or(Duration::ZERO, |limit| limit.max_wait);
        let turns = turns.saturating_mul(attempts);
        let waits = settings.longest_waits(attempts - 1);
        let others = turns.saturating_add(waits);
        let times = |one: Duration| one.saturating_mul(attempts).saturating_add(others);

        let sum = attempt_to_head.map(times);
        let to_head = least([total_to_head, sum]);
        let body = least([call.body, one.body]);
        let after_head = to_head.zip(body).map(|(head, body)| head.saturating_add(body));
        let to_end = least([total, attempt.map(times), after_head]);
        Self {
            attempts,
            total,
            total_to_head,
            attempt,
            attempt_to_head,
            turns,
            waits,
            sum,
            to_head,
            to_end,
        }
    }
}

// ===== impl Settings =====

impl Settings {
    fn attempts(&self) -> u32 {
        self.retry.as_ref().map_or(1, |retry| retry.max_attempts(&Call::new()))
    }

    fn longest_waits(&self, retries: u32) -> Duration {
        let Some(retry) = &self.retry else { return Duration::ZERO };
        let waits = retry.waits().map(|waits| waits.longest.max(waits.hinted));
        let summed = waits.take(retries.min(SUMMED) as usize);
        let summed = summed.fold(Duration::ZERO, Duration::saturating_add);
        let longest = retry.max_hint().saturating_add(retry.longest_backoff());
        summed.saturating_add(longest.saturating_mul(retries.saturating_sub(SUMMED)))
    }

    /// The first retry, from 1, that the backoff lets begin only at `limit` or later, and when that
    /// would be at the soonest, if each attempt takes as long as `attempt`.
    pub(super) fn first_too_late(
        &self,
        attempt: Duration,
        limit: Duration,
    ) -> Option<(u32, Duration)> {
        let retry = self.retry.as_ref()?;
        let retries = (self.attempts() - 1).min(SUMMED) as usize;
        let mut begins = Duration::ZERO;
        retry.waits().take(retries).zip(1..).find_map(|(waits, number)| {
            begins = begins.saturating_add(attempt).saturating_add(waits.shortest);
            (begins >= limit).then_some((number, begins))
        })
    }
}

/// The limit of the whole of what a timeout layer sees.
pub(super) fn whole(limits: &Limits) -> Option<Duration> {
    limits.attempt.or(limits.total)
}

pub(super) fn least<const N: usize>(bounds: [Option<Duration>; N]) -> Option<Duration> {
    bounds.into_iter().flatten().min()
}
