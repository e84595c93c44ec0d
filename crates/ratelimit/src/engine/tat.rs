//! The one word of a limit that is used by one at a time.

use std::time::Instant;

use super::{Charge, Quota, Refusal};

/// What a [`Bucket`](super::Bucket) is as long as nobody has waited for it, was given anything back or
/// held it back: TAT alone. It can be made into one when that happens.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tat(pub(super) u64);

// ===== impl Tat =====

impl Tat {
    /// As [`Bucket::take`](super::Bucket::take).
    #[inline]
    pub(crate) fn take(
        &mut self,
        quota: &Quota,
        cost: u32,
        now: Instant,
    ) -> Result<Charge, Refusal> {
        if cost > quota.burst() {
            return Err(Refusal::Never);
        }
        let at = quota.nanos(now);
        let end = quota.with_call(self.0, cost, at);
        let ready = quota.ready(end);
        if ready > at {
            return Err(Refusal::Until { at: quota.instant(ready), held: false });
        }
        self.0 = end;
        // Nothing was ever given back.
        Ok(Charge { cost: cost.max(1), end, applied: 0 })
    }

    /// As [`Bucket::is_idle`](super::Bucket::is_idle).
    pub(crate) fn is_idle(self, quota: &Quota, now: Instant) -> bool {
        self.0 <= quota.nanos(now)
    }
}
