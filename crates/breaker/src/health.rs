//! Looking after a peer without a call.

use std::{fmt, sync::Arc, time::Duration};

use portcullis_core::{Invalid, Reason};
use tokio::time::{sleep, timeout};

use crate::{Handle, Handles};

/// Asks a peer at intervals how it is, and tells its breaker: so an outage need not cost calls to be
/// found, nor its end be waited for.
///
/// - After so many failures in a row a closed breaker opens, for the open time that it would have by
///   its own rules. A check that takes too long has failed.
/// - After so many successes in a row that follow a failure, an open breaker lets probes through
///   at once, whatever is left of its open time. It is those that close it: calls have the last word.
///   A check that was well all along knows nothing of what made the breaker open, and says nothing.
///
/// An order by hand stands above it: it neither opens a breaker that is forced closed, nor lets calls
/// through one that is forced open. A disabled breaker does so in shadow.
///
/// Nothing is spawned: [`run`](Self::run) is a future, for whoever wants to run it.
///
/// ```
/// use portcullis_breaker::{BreakerConfig, Handle, HealthCheck};
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), portcullis_core::Invalid> {
/// async fn ping() -> bool {
///     // … a small request of its own, not through the breaker …
/// #    false
/// }
///
/// let breaker = Handle::new("search", BreakerConfig::default())?;
/// let check = HealthCheck::builder(&breaker, ping)
///     .interval(Duration::from_secs(5))
///     .failures(2)
///     .build()?;
/// let task = tokio::spawn(check.run());
/// # tokio::time::sleep(Duration::from_secs(6)).await;
/// # assert_eq!(breaker.state().as_str(), "open");
/// // … and at the end of the program:
/// task.abort();
/// # Ok(())
/// # }
/// ```
pub struct HealthCheck<F> {
    breaker: Whose,
    check: F,
    settings: Settings,
    /// Of the last checks, how many in a row ended in the same way.
    failed: u32,
    succeeded: u32,
    /// Whether one has failed since the breaker was last told that all is well.
    was_unwell: bool,
}

/// A [`HealthCheck`] in the making: see [`HealthCheck::builder`].
#[must_use = "a builder does nothing until `build`"]
pub struct HealthCheckBuilder<F> {
    breaker: Whose,
    check: F,
    settings: Settings,
}

#[derive(Clone)]
enum Whose {
    Single(Handle),
    /// Looked up each time: it may have been forgotten meanwhile.
    OfKey(Handles, Arc<str>),
}

#[derive(Clone, Copy, Debug)]
struct Settings {
    interval: Duration,
    timeout: Duration,
    failures: u32,
    successes: u32,
}

// ===== impl HealthCheck =====

impl<F, Fut> HealthCheck<F>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    /// Begins a check that tells this breaker. `check` says whether the peer is well.
    pub fn builder(breaker: &Handle, check: F) -> HealthCheckBuilder<F> {
        HealthCheckBuilder::new(Whose::Single(breaker.clone()), check)
    }

    /// Begins a check that tells the breaker of a key, which it makes if it has to open it.
    pub fn of_key(breakers: &Handles, key: impl Into<Arc<str>>, check: F) -> HealthCheckBuilder<F> {
        HealthCheckBuilder::new(Whose::OfKey(breakers.clone(), key.into()), check)
    }

    /// Checks at once, and then again and again.
    ///
    /// # Cancellation
    ///
    /// It never ends by itself: dropped, it checks no more, and the breaker stays as it is.
    ///
    /// # Panics
    ///
    /// If the check does.
    pub async fn run(mut self) {
        loop {
            let is_well = timeout(self.settings.timeout, (self.check)()).await.unwrap_or(false);
            self.note(is_well);
            sleep(self.settings.interval).await;
        }
    }
}

impl<F> HealthCheck<F> {
    fn note(&mut self, is_well: bool) {
        let Settings { failures, successes, .. } = self.settings;
        if is_well {
            self.failed = 0;
            self.succeeded = self.succeeded.saturating_add(1);
            if self.was_unwell && self.succeeded >= successes {
                self.was_unwell = false;
                self.breaker.half_open(Reason::ChecksSucceeded { count: successes });
            }
        } else {
            self.succeeded = 0;
            self.was_unwell = true;
            self.failed += 1;
            if self.failed >= failures {
                // Should calls close it meanwhile, it takes as many again.
                self.failed = 0;
                self.breaker.open(Reason::ChecksFailed { count: failures });
            }
        }
    }
}

impl<F> fmt::Debug for HealthCheck<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HealthCheck")
            .field("breaker", &self.breaker)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

// ===== impl HealthCheckBuilder =====

impl<F> HealthCheckBuilder<F> {
    fn new(breaker: Whose, check: F) -> Self {
        let settings = Settings {
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(5),
            failures: 3,
            successes: 1,
        };
        Self { breaker, check, settings }
    }

    /// From the end of one check to the next one's start: 1 ms to 1 day, 10 s unless set.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.settings.interval = interval;
        self
    }

    /// What one check may take: 1 ms to 1 day, 5 s unless set.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.settings.timeout = timeout;
        self
    }

    /// Failures in a row after which the breaker opens: at least 1, 3 unless set.
    pub fn failures(mut self, failures: u32) -> Self {
        self.settings.failures = failures;
        self
    }

    /// Successes in a row after which the breaker lets probes through: at least 1, which it is unless
    /// set.
    pub fn successes(mut self, successes: u32) -> Self {
        self.settings.successes = successes;
        self
    }

    /// The check.
    ///
    /// # Errors
    ///
    /// The first setting that is out of its range.
    pub fn build(self) -> Result<HealthCheck<F>, Invalid> {
        let Self { breaker, check, settings } = self;
        let range = Duration::from_millis(1)..=Duration::from_secs(86_400);
        for (field, value) in [("interval", settings.interval), ("timeout", settings.timeout)] {
            if !range.contains(&value) {
                return Err(Invalid::new(field, value, "1 ms to 1 day"));
            }
        }
        for (field, value) in [("failures", settings.failures), ("successes", settings.successes)] {
            if value == 0 {
                return Err(Invalid::new(field, value, "at least 1"));
            }
        }
        Ok(HealthCheck { breaker, check, settings, failed: 0, succeeded: 0, was_unwell: false })
    }
}

impl<F> fmt::Debug for HealthCheckBuilder<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HealthCheckBuilder")
            .field("breaker", &self.breaker)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

// ===== impl Whose =====

impl Whose {
    fn open(&self, why: Reason) {
        match self {
            Self::Single(handle) => handle.open(why),
            Self::OfKey(handles, key) => {
                let handle = handles.get_or_create(key);
                // One that keys share is not this peer's.
                if handle.key().is_some_and(|own| own == key) {
                    handle.open(why);
                }
            }
        }
    }

    fn half_open(&self, why: Reason) {
        match self {
            Self::Single(handle) => handle.half_open(why),
            // One that there is none of is not open.
            Self::OfKey(handles, key) => {
                if let Some(handle) = handles.get(key) {
                    handle.half_open(why);
                }
            }
        }
    }
}

impl fmt::Debug for Whose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Single(handle) => handle.fmt(f),
            Self::OfKey(handles, key) => write!(f, "{key:?} of {handles:?}"),
        }
    }
}
