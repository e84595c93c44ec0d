//! The client with the stack in front.

use std::{sync::Arc, time::Duration};

use portcullis::{
    HttpStack, Report, Stack,
    breaker::{self, Window},
    ratelimit::KeyedLimiter,
    retry::{self, Backoff, BudgetConfig},
    sqlite::SqliteStore,
    trace::Recorder,
};
use portcullis_core::{Invalid, State};
use portcullis_testkit::Bound;
use tower::Layer;

use crate::{
    client::Bare,
    serve::Shown,
    watch::{StackReport, Watch},
};

/// The limit of a whole call: enough to wait for a server that asks for a second.
const DEADLINE: Duration = Duration::from_millis(1_800);
/// A call that takes so long is one to look at.
const SLOW: Duration = Duration::from_secs(1);
/// The limit of one attempt: more than the slowest answer takes.
const ATTEMPT: Duration = Duration::from_millis(500);
/// Probes that may be out at once, and that must succeed.
const PROBES: u32 = 2;

/// What may be sent in a second: twice the usual load, and two thirds of what comes in a burst.
const RATE: u32 = 300;
/// What may be sent at one moment, after a pause.
const BURST: u32 = 30;
/// How long an attempt may wait for the limit; one that would wait longer is refused at once.
const MOST_WAIT: Duration = Duration::from_millis(400);
/// The upstream asks whom it throttles to come back in a second; it serves others meanwhile, so that
/// all need not wait as long.
const MOST_HOLD: Duration = Duration::from_millis(100);

/// The share of unremarkable traces that are kept.
const SAMPLED: f64 = 0.1;

/// The service that the stack makes of the bare client.
pub(crate) type Stacked = <HttpStack as Layer<Bare>>::Service;

/// What is known of the stack while it runs and once it is done.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    watch: Watch,
    breaker: breaker::Handle,
    budget: retry::Budget,
    limiters: KeyedLimiter,
    recorder: Recorder,
    check: Arc<Report>,
}

/// The stack in front of `inner`, its traces kept in `store`, and `shown` if it is to be.
///
/// # Errors
///
/// When a setting is out of its range.
pub(crate) fn client(
    inner: Bare,
    host: &str,
    seed: u64,
    store: SqliteStore,
    shown: Option<&Shown>,
) -> Result<(Stacked, Handle), Invalid> {
    let watch = Watch::default();
    let mut budget = BudgetConfig::default();
    // Three of ten calls fail for as long as the run is told to last, and three of ten retries: the
    // default, a fifth of the calls, would be spent in a long one.
    budget.ratio = 0.4;
    let budget = retry::Budget::new(budget)?;
    // No backoff comes near the longest: it is how long a refusal of the limit is worth waiting for.
    let (soon, longest) = (Duration::from_millis(20), Duration::from_millis(500));
    let recorder = Recorder::builder().store(store).sample_rate(SAMPLED).build()?;
    let stack = Stack::production("upstream")
        .recorder(&recorder)
        .total(|timeout| timeout.total(DEADLINE).slow(SLOW))
        .attempt(|timeout| timeout.attempt(ATTEMPT))
        .retry(|retry| {
            let retry = retry.max_attempts(4).backoff(Backoff::exponential(soon, longest));
            retry.shared_budget(budget.clone()).seed(seed)
        })
        .limit(|limit| {
            let limit = limit.rate(RATE, Duration::from_secs(1)).burst(BURST);
            limit.max_wait(MOST_WAIT).max_hint(MOST_HOLD)
        })
        .breaker(|breaker| {
            // Quick to probe: the weather changes every two seconds.
            let (initial, cap) = (Duration::from_millis(50), Duration::from_millis(200));
            let breaker = breaker.window(Window::Time(Duration::from_secs(2)));
            let breaker = breaker.open_time(initial, cap).probes(PROBES, PROBES);
            breaker.ramp(None).seed(seed)
        })
        .observe(watch.clone());
    let stack = match shown {
        Some(Shown { telemetry, admin }) => stack
            .observe(telemetry.metrics().clone())
            .observe(admin.observer())
            .register_in(telemetry.registry()),
        None => stack,
    };
    let stack = stack.build()?;
    let breaker = stack.breaker().handles().get_or_create(host);
    let limiters = stack.limit().limiters();
    let check = Arc::new(stack.check());
    Ok((stack.layer(inner), Handle { watch, breaker, budget, limiters, recorder, check }))
}

// ===== impl Handle =====

impl Handle {
    /// The breaker's state at this moment.
    pub(crate) fn state(&self) -> State {
        self.breaker.state()
    }

    /// What its settings come to, taken together.
    pub(crate) fn check(&self) -> &Report {
        &self.check
    }

    /// Where the traces of its calls are.
    pub(crate) fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// Everything the layers told since this was asked last, and what they hold at this moment.
    pub(crate) fn report(&self) -> StackReport {
        let (budget, limit) = (self.budget.config(), self.limiters.config());
        StackReport {
            deadline: DEADLINE,
            probe_limit: PROBES as usize,
            budget: Bound {
                capacity: f64::from(budget.capacity),
                ratio: budget.ratio,
                per_second: budget.reserve,
            },
            quota: Bound {
                capacity: f64::from(limit.burst),
                ratio: 0.0,
                per_second: f64::from(limit.limit) / limit.per.as_secs_f64(),
            },
            told: self.watch.take(),
            state_at_end: self.state(),
            tokens_at_end: self.budget.waiting() as usize,
            probes_at_end: self.breaker.snapshot().probes as usize,
        }
    }
}
