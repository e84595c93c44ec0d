//! The one place that reads a clock.
//!
//! Monotonic time comes from tokio, so that a paused runtime clock drives every layer; outside a
//! runtime it is the system's. Engines never call this: they are told the time.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant, SystemTime},
};

use tokio::{task::coop, time::Sleep};

/// The monotonic time, as a paused tokio clock would have it.
#[must_use]
#[inline]
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The wall-clock time, for dates in headers and records.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one reader of the wall clock")]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// `at` moved `by` into the future. A sum beyond what the clock can express is as good as never:
/// some thirty years on.
#[must_use]
#[inline]
pub fn after(at: Instant, by: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(30 * 365 * 86_400);
    at.checked_add(by.min(FAR)).unwrap_or(at)
}

/// Whether a limit has run out that ends a call, or a body.
///
/// What is under the limit may use up the task's budget whenever it is polled, and would otherwise outrun
/// it. A timer that ends something once needs no budget for that.
#[inline]
pub fn run_out(timer: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<()> {
    Pin::new(&mut coop::unconstrained(timer)).poll(cx)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_paused_clock_drives_it() {
        let before = now();
        tokio::time::advance(Duration::from_secs(90)).await;
        assert_eq!(now() - before, Duration::from_secs(90));
    }

    #[test]
    fn it_works_outside_a_runtime_and_never_overflows() {
        let now = now();
        assert!(after(now, Duration::MAX) > now);
    }
}
