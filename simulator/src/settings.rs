//! The stack under test, with settings drawn from the seed.

use std::{io, time::Duration};

use portcullis::{
    HttpStack, Stack,
    breaker::{Ramp, Window},
    http::{HttpClassifier, PropagateLayer},
    retry::{Backoff, BudgetConfig},
    trace::{MemoryStore, Recorder, TraceConfig},
};
use portcullis_core::{BoxError, Error, FaultKind, Observer, Outcome, Replay};
use portcullis_testkit::{Bound, Seed};

use crate::upstream::{ATTEMPT, UNPROCESSED, UNSENT};

/// What was drawn for a run.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The limit of a whole call.
    pub(crate) deadline: Duration,
    /// The limit of one attempt.
    pub(crate) attempt: Duration,
    /// Attempts that a call may have.
    pub(crate) max_attempts: u32,
    budget: BudgetConfig,
    /// Calls that one upstream is usually sent in a second.
    usual: f64,
    /// What it may be sent in a second.
    rate: u32,
    pub(crate) burst: u32,
    max_wait: Duration,
    max_hold: Duration,
    window: Duration,
    in_a_row: u32,
    open_initial: Duration,
    open_cap: Duration,
    /// Probes that may be out at once.
    pub(crate) probes: u32,
    successes: u32,
    /// How long a probe may hold its slot.
    pub(crate) probe_wait: Duration,
    ramp: Option<Duration>,
    /// The share of unremarkable traces that are kept.
    pub(crate) sampled: f64,
    /// Pins what the layers leave to chance.
    chance: u64,
}

/// What the traces of the longest run fit in; the store takes what it needs.
const STORE: usize = 1 << 30;

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

// ===== impl Settings =====

impl Settings {
    /// Settings under which an upstream copes with its usual share of the load, so many calls a
    /// second, in good weather.
    pub(crate) fn draw(seed: &mut Seed, usual: f64) -> Self {
        let mut budget = BudgetConfig::default();
        budget.capacity = *seed.pick(&[5, 20, 100]);
        budget.ratio = *seed.pick(&[0.1, 0.2, 0.4]);
        budget.reserve = *seed.pick(&[0.5, 1.0, 2.0]);
        // Some limits bind in bursts; others are fuses that let thousands be in flight at once.
        let (rate, burst) = match seed.chance(0.7) {
            true => ((usual * (3.0 + seed.unit())).max(60.0), *seed.pick(&[10, 30, 60])),
            false => ((usual * 50.0).max(1_000.0), 10_000),
        };
        Self {
            deadline: millis(seed.within(1_500..2_500)),
            attempt: millis(seed.within(400..700)),
            max_attempts: *seed.pick(&[2, 3, 4]),
            budget,
            usual,
            rate: rate.ceil() as u32,
            burst,
            max_wait: millis(*seed.pick(&[300, 400, 700])),
            max_hold: millis(*seed.pick(&[50, 100, 1_000])),
            window: millis(*seed.pick(&[500, 1_000])),
            in_a_row: *seed.pick(&[3, 5, 10]),
            open_initial: millis(*seed.pick(&[50, 100, 200])),
            open_cap: millis(*seed.pick(&[200, 400, 800])),
            probes: *seed.pick(&[1, 2, 3]),
            successes: *seed.pick(&[1, 2, 4]),
            probe_wait: millis(*seed.pick(&[250, 10_000])),
            ramp: seed.pick(&[None, Some(millis(500))]).to_owned(),
            sampled: *seed.pick(&[0.0, 0.1, 0.5, 1.0]),
            chance: seed.next_u64(),
        }
    }

    /// How long after the weather has cleared nothing of it is left: late results have come, holds
    /// are over, breakers have closed and their windows hold nothing from before.
    pub(crate) fn settling(&self) -> Duration {
        let probing = millis(500);
        let held = self.max_hold + self.max_wait;
        self.attempt + self.open_cap + probing + self.window + self.ramp.unwrap_or_default() + held
    }

    /// How long an outage lasts, at most, until a breaker has opened: until as many calls as it takes
    /// have come and failed, were it as slowly as they may.
    pub(crate) fn noticing(&self) -> Duration {
        let coming = f64::from(2 * self.in_a_row) / self.usual;
        self.attempt + Duration::from_secs(1) + Duration::from_secs_f64(coming)
    }

    /// The bound that the retries keep.
    pub(crate) fn retries(&self) -> Bound {
        Bound {
            capacity: f64::from(self.budget.capacity),
            ratio: self.budget.ratio,
            per_second: self.budget.reserve,
        }
    }

    /// The bound that what one upstream is sent keeps.
    pub(crate) fn quota(&self) -> Bound {
        Bound { capacity: f64::from(self.burst), ratio: 0.0, per_second: f64::from(self.rate) }
    }

    /// How long a limit takes to forget everything that it let pass.
    pub(crate) fn draining(&self) -> Duration {
        self.max_hold + Duration::from_secs(1) * self.burst / self.rate + self.max_wait
    }

    /// A recorder that has room for the traces of so many calls.
    ///
    /// # Errors
    ///
    /// When it cannot start its writer.
    pub(crate) fn recorder(&self, calls: u32) -> Result<Recorder, BoxError> {
        let mut config = TraceConfig::default();
        config.sample_rate = self.sampled;
        // By the real clock it could be outrun: what is kept must not depend on that.
        config.queue = calls as usize;
        let store = MemoryStore::new().with_max_bytes(STORE);
        Ok(Recorder::builder().config(config).store(store).build()?)
    }

    /// The stack.
    ///
    /// # Errors
    ///
    /// When a setting is out of its range.
    pub(crate) fn stack(
        &self,
        recorder: &Recorder,
        observer: impl Observer,
    ) -> Result<HttpStack, BoxError> {
        let unseen = |error: &Error| {
            let replay = match error.find::<io::Error>()?.kind() {
                UNSENT => Replay::Unsent,
                UNPROCESSED => Replay::Unprocessed,
                _ => return None,
            };
            Some(Outcome::failure(FaultKind::Other, replay))
        };
        let stack = Stack::production("upstream")
            .classify(HttpClassifier::new().with_errors(unseen))
            .recorder(recorder)
            .total(|timeout| timeout.total(self.deadline))
            .attempt(|timeout| timeout.attempt(self.attempt))
            .retry(|retry| {
                let backoff = Backoff::exponential(millis(20), millis(400));
                let retry = retry.max_attempts(self.max_attempts).backoff(backoff);
                retry.budget(self.budget).seed(self.chance)
            })
            .limit(|limit| {
                let limit = limit.rate(self.rate, Duration::from_secs(1)).burst(self.burst);
                limit.max_wait(self.max_wait).max_hint(self.max_hold)
            })
            .breaker(|breaker| {
                let breaker = breaker.window(Window::Time(self.window));
                let breaker = breaker.consecutive_failures(self.in_a_row);
                let breaker = breaker.open_time(self.open_initial, self.open_cap);
                let breaker = breaker.probes(self.probes, self.successes);
                let breaker = breaker.max_wait(self.probe_wait).max_hint(self.open_cap);
                breaker.ramp(self.ramp.map(Ramp::new)).seed(self.chance)
            })
            .propagate(PropagateLayer::new().with_attempt_header(ATTEMPT))
            .observe(observer)
            .build()?;
        Ok(stack)
    }
}
