//! The client with the stack in front.

use std::time::Duration;

use portcullis::{
    HttpStack, Stack,
    breaker::{self, Window},
    retry::{self, Backoff, BudgetConfig},
};
use portcullis_core::{Invalid, State};
use tower::Layer;

use crate::{
    client::Bare,
    watch::{Budget, StackReport, Watch},
};

/// The limit of a whole call: enough to wait for a server that asks for a second.
const DEADLINE: Duration = Duration::from_millis(1_800);
/// The limit of one attempt: more than the slowest answer takes.
const ATTEMPT: Duration = Duration::from_millis(500);
/// Probes that may be out at once, and that must succeed.
const PROBES: u32 = 2;

/// The service that the stack makes of the bare client.
pub(crate) type Stacked = <HttpStack as Layer<Bare>>::Service;

/// What is known of the stack while it runs and once it is done.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    watch: Watch,
    breaker: breaker::Handle,
    budget: retry::Budget,
}

/// The stack in front of `inner`.
///
/// # Errors
///
/// When a setting is out of its range.
pub(crate) fn client(inner: Bare, host: &str, seed: u64) -> Result<(Stacked, Handle), Invalid> {
    let watch = Watch::default();
    let mut budget = BudgetConfig::default();
    // Three of ten calls fail for as long as the run is told to last, and three of ten retries: the
    // default, a fifth of the calls, would be spent in a long one.
    budget.ratio = 0.4;
    let budget = retry::Budget::new(budget)?;
    let (soon, later) = (Duration::from_millis(20), Duration::from_millis(200));
    let stack = Stack::production("upstream")
        .total(|timeout| timeout.total(DEADLINE))
        .attempt(|timeout| timeout.attempt(ATTEMPT))
        .retry(|retry| {
            let retry = retry.max_attempts(4).backoff(Backoff::exponential(soon, later));
            retry.shared_budget(budget.clone()).seed(seed)
        })
        .breaker(|breaker| {
            // Quick to probe: the weather changes every two seconds.
            let (initial, cap) = (Duration::from_millis(50), Duration::from_millis(150));
            let breaker = breaker.window(Window::Time(Duration::from_secs(2)));
            let breaker = breaker.open_time(initial, cap).probes(PROBES, PROBES);
            breaker.ramp(None).seed(seed)
        })
        .observe(watch.clone())
        .build()?;
    let breaker = stack.breaker().handles().get_or_create(host);
    Ok((stack.layer(inner), Handle { watch, breaker, budget }))
}

// ===== impl Handle =====

impl Handle {
    /// The breaker's state at this moment.
    pub(crate) fn state(&self) -> State {
        self.breaker.state()
    }

    /// Everything the layers told, and what they hold at this moment.
    pub(crate) fn report(&self) -> StackReport {
        let budget = self.budget.config();
        StackReport {
            deadline: DEADLINE,
            probe_limit: PROBES as usize,
            budget: Budget {
                capacity: f64::from(budget.capacity),
                ratio: budget.ratio,
                reserve_per_second: budget.reserve,
            },
            told: self.watch.told(),
            state_at_end: self.state(),
            tokens_at_end: self.budget.waiting() as usize,
            probes_at_end: self.breaker.snapshot().probes as usize,
        }
    }
}
