//! The words of a limit that many use at once.

use std::time::{Duration, Instant};

use portcullis_core::{
    clock,
    sync::atomic::{
        AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
};

use super::{Charge, Quota, Refusal, Reservation, Tat};

/// What has passed under a [`Quota`], for all or for one key. 48 bytes; a call that passes at once
/// writes one word of them, in one compare-and-swap.
///
/// ```
/// use portcullis_core::clock;
/// use portcullis_ratelimit::{Bucket, Quota, RateLimitConfig};
/// use std::time::Duration;
///
/// let mut config = RateLimitConfig::default();
/// (config.limit, config.per, config.burst) = (1, Duration::from_secs(1), 2);
/// let start = clock::now();
/// let quota = Quota::new(&config, start)?;
///
/// let bucket = Bucket::new();
/// assert!(bucket.take(&quota, 1, start).is_ok());
/// assert!(bucket.take(&quota, 1, start).is_ok());
/// assert_eq!(bucket.take(&quota, 1, start).unwrap_err().at(), Some(start + Duration::from_secs(1)));
/// # Ok::<_, portcullis_core::Invalid>(())
/// ```
#[derive(Debug, Default)]
pub struct Bucket {
    /// TAT, in nanoseconds since the quota's epoch. Each update is a single read-modify-write of this
    /// one word, and those are totally ordered whatever their memory ordering: the bound needs no
    /// more. The stronger orderings below are for refunds, which look at other words too.
    tat: AtomicU64,
    /// All refunds that were begun, in nanoseconds. Only grows.
    begun: AtomicU64,
    /// Those of them that have been applied to `tat`.
    applied: AtomicU64,
    /// The latest TAT but one spacing that somebody waits for: `queued − τ` is when that one passes.
    queued: AtomicU64,
    /// Until when a peer's hint lets nothing pass.
    held: AtomicU64,
    /// How far TAT has reached before a refund lowered it: when it has passed as well, no charge that is
    /// still out has anything left to give back.
    highest: AtomicU64,
}

// ===== impl Bucket =====

impl Bucket {
    /// One that lets a whole burst pass.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One that goes on from where a lone word stood.
    pub(crate) fn with_tat(Tat(tat): Tat) -> Self {
        Self { tat: AtomicU64::new(tat), ..Self::default() }
    }

    /// One that stands where `other` stands, its debts, holds and charges included.
    pub(crate) fn like(other: &Self) -> Self {
        // Acquire, and first: what lowered it is counted in `begun` and `highest` below.
        let tat = other.tat.load(Acquire);
        let begun = other.begun.load(Relaxed);
        Self {
            tat: AtomicU64::new(tat),
            // A refund that the other has begun and not applied is none of this one's.
            begun: AtomicU64::new(begun),
            applied: AtomicU64::new(begun),
            queued: AtomicU64::new(other.queued.load(Relaxed)),
            held: AtomicU64::new(other.held.load(Relaxed)),
            highest: AtomicU64::new(other.highest.load(Relaxed)),
        }
    }

    /// Lets a call of this cost pass at `now`, or not. A cost of 0 is taken for 1.
    ///
    /// # Errors
    ///
    /// When it may pass, if it may not now. Nothing is changed then.
    #[inline]
    pub fn take(&self, quota: &Quota, cost: u32, now: Instant) -> Result<Charge, Refusal> {
        if cost > quota.burst() {
            return Err(Refusal::Never);
        }
        let at = quota.nanos(now);
        // Acquire, and before `tat`: a refund that is counted in it is seen in `tat` below.
        let applied = self.applied.load(Acquire);
        let mut tat = self.tat.load(Relaxed);
        loop {
            let end = quota.with_call(tat, cost, at);
            let ready = quota.ready(end);
            if ready > at {
                return Err(self.refusal(quota, ready, at));
            }
            // The check and the taking are one step: whoever was faster made this one fail, and it
            // looks again.
            match self.tat.compare_exchange_weak(tat, end, Release, Relaxed) {
                Ok(_) => return Ok(Charge { cost: cost.max(1), end, applied }),
                Err(changed) => tat = changed,
            }
        }
    }

    /// Lets a call of this cost pass at `now` or at the earliest moment after it, but not later than
    /// `latest`. Those who reserve are served in the order they come in.
    ///
    /// # Errors
    ///
    /// When it may pass, if that is too late. Nothing is changed then.
    pub fn reserve(
        &self,
        quota: &Quota,
        cost: u32,
        now: Instant,
        latest: Instant,
    ) -> Result<Reservation, Refusal> {
        if cost > quota.burst() {
            return Err(Refusal::Never);
        }
        let (at, latest) = (quota.nanos(now), quota.nanos(latest));
        // As in `take`.
        let applied = self.applied.load(Acquire);
        let mut tat = self.tat.load(Relaxed);
        loop {
            let end = quota.with_call(tat, cost, at);
            let ready = quota.ready(end);
            if ready > at {
                if ready > latest {
                    return Err(self.refusal(quota, ready, at));
                }
                // Before the step that makes it true, which releases it: whoever sees us in `tat`
                // sees this as well. If the step fails it is too high for a while, and a refund is
                // smaller than it could be.
                self.queued.fetch_max(end - quota.spacing, Relaxed);
            }
            match self.tat.compare_exchange_weak(tat, end, Release, Relaxed) {
                Ok(_) => {
                    let at = if ready > at { quota.instant(ready) } else { now };
                    let charge = Charge { cost: cost.max(1), end, applied };
                    return Ok(Reservation { charge, at, ready });
                }
                Err(changed) => tat = changed,
            }
        }
    }

    /// Whether a call of this cost could pass at `now`.
    ///
    /// # Errors
    ///
    /// When it could, if not now.
    pub fn check(&self, quota: &Quota, cost: u32, now: Instant) -> Result<(), Refusal> {
        if cost > quota.burst() {
            return Err(Refusal::Never);
        }
        let at = quota.nanos(now);
        let ready = quota.ready(quota.with_call(self.tat.load(Relaxed), cost, at));
        if ready > at { Err(self.refusal(quota, ready, at)) } else { Ok(()) }
    }

    /// Says what a call that passed really cost. What it cost more is charged, and later calls wait
    /// for it. What it cost less is given back as far as it has not drained yet: the time that went by
    /// could be used by others, and would be used twice. Nor is anything given back that somebody waits
    /// behind, who would not pass any earlier for it, or that a hint holds back.
    ///
    /// A debt is cut to what a day pays off: what is charged above it is lost.
    ///
    /// With instants in order, and but for a debt that was cut, the bound holds for the costs as
    /// settled. A `now` that is older by δ than the last instant told may loosen it by δ/T.
    #[expect(clippy::needless_pass_by_value, reason = "a charge is settled once")]
    pub fn settle(&self, quota: &Quota, charge: Charge, actual: u32, now: Instant) {
        if actual <= charge.cost {
            self.refund(quota, &charge, actual, now);
        } else {
            let (at, more) = (quota.nanos(now), actual - charge.cost);
            let mut tat = self.tat.load(Relaxed);
            while let Err(changed) = self.tat.compare_exchange_weak(
                tat,
                quota.with_debt(tat, more, at),
                Release,
                Relaxed,
            ) {
                tat = changed;
            }
        }
    }

    /// Gives back what a call was charged above `actual`, as far as it can be: see
    /// [`settle`](Self::settle). The charge must not be used again.
    pub(crate) fn refund(&self, quota: &Quota, charge: &Charge, actual: u32, now: Instant) {
        let Charge { cost, end, applied } = *charge;
        let now = quota.nanos(now);
        let over = quota.span(cost.saturating_sub(actual));
        // Relaxed: refunds are ordered by this word alone, and the swap reads its latest value.
        let mut begun = self.begun.load(Relaxed);
        let back = loop {
            // Refunds of pieces before ours have moved it towards now. To count those of pieces behind
            // it too is on the safe side. A refund that comes to the swap after this one takes account
            // of this one; that the two lower `tat` in the other order makes no difference.
            let moved = begun.wrapping_sub(applied);
            let left = end.saturating_sub(moved).saturating_sub(now);
            let back = over.min(left);
            if back == 0 {
                return;
            }
            let sum = begun.wrapping_add(back);
            match self.begun.compare_exchange_weak(begun, sum, Relaxed, Relaxed) {
                Ok(_) => break back,
                Err(changed) => begun = changed,
            }
        };
        // Acquire: of whoever is in `tat` and waits, `queued` is seen; likewise `held`.
        let mut tat = self.tat.load(Acquire);
        loop {
            let lowest = self.floor(quota, now).min(tat);
            let lower = tat.saturating_sub(back).max(lowest);
            // Before the step that makes it true, which releases it.
            self.highest.fetch_max(tat, Relaxed);
            match self.tat.compare_exchange_weak(tat, lower, Release, Acquire) {
                Ok(_) => break,
                Err(changed) => tat = changed,
            }
        }
        // Release: whoever sees it counted as applied sees `tat` lowered.
        self.applied.fetch_add(back, Release);
    }

    /// Gives a place back that is not needed any more, if nobody has queued behind it: those have been
    /// told their time. Of a place whose time has come, as much as [`settle`](Self::settle) would.
    pub fn cancel(&self, quota: &Quota, reservation: Reservation, now: Instant) {
        let Reservation { charge, ready, .. } = reservation;
        let at = quota.nanos(now);
        if at >= ready {
            return self.refund(quota, &charge, 0, now);
        }
        // While it waits no refund lowers TAT below its own end, so that TAT is there only if it is
        // the last, or the last again. Its piece began where TAT was, which was in the future, or it
        // had not had to wait: there TAT goes back to, unless a hint came meanwhile.
        let began = charge.end.saturating_sub(quota.span(charge.cost));
        let lower = began.max(self.held_tat(quota).min(charge.end));
        // A failure means that somebody is behind, or a hint came: the place is lost.
        let _ = self.tat.compare_exchange(charge.end, lower, Release, Relaxed);
    }

    /// Lets nothing pass for `wait` from now, and then one call, and more at the full rate. A hold that
    /// reaches further stays.
    pub fn hold(&self, quota: &Quota, wait: Duration, now: Instant) {
        let (until, now) = (quota.nanos(clock::after(now, wait)), quota.nanos(now));
        // Before `tat`, which releases it: a refund that sees the one sees the other.
        if self.held.fetch_max(until, Relaxed) >= until {
            return;
        }
        let lowest = until.saturating_add(quota.tolerance);
        let mut tat = self.tat.load(Relaxed);
        let tat = loop {
            // By one nanosecond at least, so that a refund that looked at `held` before fails to swap
            // and looks again.
            let later = tat.saturating_add(1).max(lowest);
            match self.tat.compare_exchange_weak(tat, later, Release, Relaxed) {
                Ok(_) => break later,
                Err(changed) => tat = changed,
            }
        };
        // It takes the place of whatever had passed before: of that nothing is left to refund.
        let backlog = tat.saturating_sub(now);
        self.begun.fetch_add(backlog, Relaxed);
        self.applied.fetch_add(backlog, Release);
    }

    /// Whether a hint lets nothing pass at `now`, not even who has waited for it.
    #[must_use]
    #[inline]
    pub fn is_held(&self, quota: &Quota, now: Instant) -> bool {
        self.held.load(Relaxed) > quota.nanos(now)
    }

    /// What could pass at `now`.
    #[must_use]
    pub fn left(&self, quota: &Quota, now: Instant) -> u32 {
        quota.left(self.tat.load(Relaxed), quota.nanos(now))
    }

    /// Whether nothing is remembered at `now` that a new one would not do as well: all that passed has
    /// drained, and no charge that is still out has anything left to give back.
    #[must_use]
    pub fn is_idle(&self, quota: &Quota, now: Instant) -> bool {
        // Acquire: who lowered it has told `highest` before.
        let tat = self.tat.load(Acquire);
        tat.max(self.highest.load(Relaxed)) <= quota.nanos(now)
    }

    /// What is left of one that is [idle](Self::is_idle), and used by nobody else.
    pub(crate) fn tat(&self) -> Tat {
        Tat(self.tat.load(Relaxed))
    }

    /// What no refund may lower TAT below.
    fn floor(&self, quota: &Quota, now: u64) -> u64 {
        let queued = self.queued.load(Relaxed);
        let queued = if queued.saturating_sub(quota.tolerance) > now {
            queued.saturating_add(quota.spacing)
        } else {
            0
        };
        queued.max(self.held_tat(quota))
    }

    /// Where a hint has moved TAT to at least, be it over or not: what passed since is on top of that.
    fn held_tat(&self, quota: &Quota) -> u64 {
        match self.held.load(Relaxed) {
            0 => 0,
            held => held.saturating_add(quota.tolerance),
        }
    }

    #[cold]
    fn refusal(&self, quota: &Quota, ready: u64, now: u64) -> Refusal {
        Refusal::Until { at: quota.instant(ready), held: self.held.load(Relaxed) > now }
    }
}
