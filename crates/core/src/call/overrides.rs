//! What a caller orders for one call, whatever client and request it uses.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Call, Scoped};
use crate::Observer;

/// What a caller ordered for the calls of one scope. Made by [`with`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Overrides {
    /// In place of the total time limit.
    pub timeout: Option<Duration>,
    /// In place of the number of attempts, the first included; at least 1.
    pub max_attempts: Option<u32>,
    /// The caller's word on whether sending the request twice does no harm.
    pub idempotent: Option<bool>,
    /// What the call costs where calls are weighed; 1 unless set.
    pub cost: Option<u32>,
    /// In place of the key that a keyed layer would take from the request.
    pub key: Option<Arc<str>>,
    /// The operation's name, by which a layer may hold settings.
    pub name: Option<Arc<str>>,
}

/// Overrides in the making: see [`with`].
#[derive(Clone, Debug)]
#[must_use = "overrides have no effect until `run`"]
pub struct With {
    call: Call,
    overrides: Overrides,
}

/// Begins to order something for the calls that a future makes, through any client.
///
/// What is not ordered here stays as the enclosing scope has it.
///
/// ```
/// use portcullis_core::call;
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// # async fn ask_the_model() -> u32 { 42 }
/// let answer = call::with()
///     .timeout(Duration::from_secs(2))
///     .idempotent()
///     .key("tenant-7")
///     .name("search")
///     .run(ask_the_model())
///     .await;
/// # assert_eq!(answer, 42);
/// # }
/// ```
pub fn with() -> With {
    let call = Call::current();
    let mut overrides = call.overrides().clone();
    if !call.is_named() {
        // One that a layer found is of the call around, and no word of the caller's.
        overrides.name = None;
    }
    With { call, overrides }
}

// ===== impl Overrides =====

impl Overrides {
    pub(super) const NONE: Self = Self {
        timeout: None,
        max_attempts: None,
        idempotent: None,
        cost: None,
        key: None,
        name: None,
    };

    /// Whether nothing is ordered, but for a name.
    pub(super) fn is_name_alone(&self) -> bool {
        let Self { timeout, max_attempts, idempotent, cost, key, name: _ } = self;
        let limits = timeout.is_none() && max_attempts.is_none();
        limits && idempotent.is_none() && cost.is_none() && key.is_none()
    }
}

// ===== impl With =====

impl With {
    /// In place of the total limit that a timeout layer is set to. It may be longer than that, but
    /// no call outlives the deadline of the scope it is in.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.overrides.timeout = Some(limit);
        self
    }

    /// Everything in the scope must be over by then, unless it must be over earlier already.
    pub fn deadline(mut self, deadline: Instant) -> Self {
        self.call = self.call.with_deadline(deadline);
        self
    }

    /// One attempt only.
    pub fn no_retry(self) -> Self {
        self.max_attempts(1)
    }

    /// At most so many attempts, the first included; 0 is read as 1.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.overrides.max_attempts = Some(attempts.max(1));
        self
    }

    /// The caller's word: sending the request twice does no harm.
    pub fn idempotent(mut self) -> Self {
        self.overrides.idempotent = Some(true);
        self
    }

    /// The caller's word: sending the request twice does harm, whatever its method says.
    pub fn not_idempotent(mut self) -> Self {
        self.overrides.idempotent = Some(false);
        self
    }

    /// What each call costs where calls are weighed; 0 is read as 1.
    pub fn cost(mut self, cost: u32) -> Self {
        self.overrides.cost = Some(cost.max(1));
        self
    }

    /// The key under which keyed layers hold state for these calls.
    pub fn key(mut self, key: impl Into<Arc<str>>) -> Self {
        self.overrides.key = Some(key.into());
        self
    }

    /// The operation's name.
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.overrides.name = Some(name.into());
        self
    }

    /// Somebody who is told of every event of these calls, in place of the enclosing scope's
    /// observer.
    pub fn observe(mut self, observer: impl Observer) -> Self {
        self.call = self.call.with_observer(Arc::new(observer));
        self
    }

    /// Runs a future with these overrides in force.
    pub fn run<F>(self, future: F) -> Scoped<F> {
        self.call.with_overrides(self.overrides).in_scope(future)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_inner_scope_adds_to_the_outer_one() {
        let seen = with()
            .key("tenant-7")
            .max_attempts(5)
            .run(async {
                with().no_retry().run(async { Call::current().overrides().clone() }).await
            })
            .await;

        assert_eq!(seen.key.as_deref(), Some("tenant-7"));
        assert_eq!(seen.max_attempts, Some(1));
        assert_eq!(Call::current().overrides(), &Overrides::NONE);
    }
}
