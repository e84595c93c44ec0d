//! The state machine: the generic cell rate algorithm (GCRA; ITU-T I.371, ATM Forum TM 4.0) on atomic
//! words. It is told the time; it neither waits nor tells.
//!
//! With T the spacing of calls at the full rate and τ = T·(burst − 1), one word holds the
//! *theoretical arrival time* TAT. A call of cost n that comes at t may pass iff
//! `max(TAT, t) + (n − 1)·T − τ ≤ t`, and moves TAT to `max(TAT, t) + n·T`.
//!
//! It is a queue that drains at the full rate: what passed and has not drained yet, the *backlog*,
//! reaches from t to TAT. What passes within `[a, b]` moves TAT to at least `a` plus T for each unit,
//! and the last of it found TAT no later than allows, so that it is never more than
//! `burst + (b − a)/T` units, in whatever order threads come with the instants they read.

use std::time::{Duration, Instant};

use portcullis_core::{
    Invalid, clock,
    sync::atomic::{
        AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
};

use crate::RateLimitConfig;

/// A rate and a burst, as a [`Bucket`] is held against them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    limit: u32,
    per: Duration,
    burst: u32,
    /// T, in nanoseconds.
    spacing: u64,
    /// τ, in nanoseconds.
    tolerance: u64,
    /// What words count nanoseconds from.
    epoch: Instant,
}

/// What has passed under a [`Quota`], for one key. 40 bytes; a call that passes at once writes one
/// word of them, in one compare-and-swap.
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
}

/// What was taken for a call that passed, to be [settled](Bucket::settle) once its real cost is known.
/// Dropping it lets the charge stand.
#[derive(Debug, PartialEq, Eq)]
pub struct Charge {
    cost: u32,
    /// Up to where its piece of the backlog reached when it was taken.
    end: u64,
    /// The refunds that had been applied by then.
    applied: u64,
}

/// A call's place in the order of those that wait. It takes part in everything as if the call had
/// passed already; [`cancel`](Bucket::cancel) gives it back.
#[derive(Debug, PartialEq, Eq)]
pub struct Reservation {
    charge: Charge,
    at: Instant,
    ready: u64,
}

/// Why a call may not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It costs more than the burst: it can never pass.
    Never,
    /// It may not pass before `at`.
    Until {
        /// When it could pass, if nothing else did.
        at: Instant,
        /// Whether it is a peer's hint that holds it back now.
        held: bool,
    },
}

/// The longest that calls wait for a debt to be paid off, in nanoseconds: a day, as for hints.
const LONGEST_DEBT: u64 = 86_400 * 1_000_000_000;

// ===== impl Quota =====

impl Quota {
    /// The quota of these settings. `epoch` is the earliest instant that will be told; earlier ones are
    /// taken for it.
    ///
    /// # Errors
    ///
    /// The first setting that is out of its range.
    pub fn new(config: &RateLimitConfig, epoch: Instant) -> Result<Self, Invalid> {
        config.validate()?;
        // The settings were validated to fit by far.
        let spacing = u64::try_from(config.spacing()).unwrap_or(u64::MAX);
        let tolerance = spacing.saturating_mul(u64::from(config.burst - 1));
        let RateLimitConfig { limit, per, burst, .. } = *config;
        Ok(Self { limit, per, burst, spacing, tolerance, epoch })
    }

    /// What may pass in each [period](Self::per).
    #[must_use]
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// The period.
    #[must_use]
    pub fn per(&self) -> Duration {
        self.per
    }

    /// What may pass at one moment.
    #[must_use]
    pub fn burst(&self) -> u32 {
        self.burst
    }

    /// T: the time between two calls at the full rate, rounded up to a nanosecond.
    #[must_use]
    pub fn spacing(&self) -> Duration {
        Duration::from_nanos(self.spacing)
    }

    /// An instant before the epoch is taken for it: a clock that jumps back makes calls wait.
    #[inline]
    fn nanos(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.epoch);
        since.as_secs().saturating_mul(1_000_000_000).saturating_add(since.subsec_nanos().into())
    }

    fn instant(&self, nanos: u64) -> Instant {
        clock::after(self.epoch, Duration::from_nanos(nanos))
    }

    /// What `cost` takes of the backlog. No debt grows beyond what a word can hold.
    #[inline]
    fn span(&self, cost: u32) -> u64 {
        self.spacing.saturating_mul(u64::from(cost))
    }

    /// When a call may pass whose piece of the backlog ends at `end`.
    #[inline]
    fn ready(&self, end: u64) -> u64 {
        end.saturating_sub(self.spacing).saturating_sub(self.tolerance)
    }
}

// ===== impl Bucket =====

impl Bucket {
    /// One that lets a whole burst pass.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            tat: AtomicU64::new(0),
            begun: AtomicU64::new(0),
            applied: AtomicU64::new(0),
            queued: AtomicU64::new(0),
            held: AtomicU64::new(0),
        }
    }

    /// One that stands where `other` stands, its debts and holds included.
    pub(crate) fn like(other: &Self) -> Self {
        let new = Self::new();
        new.tat.store(other.tat.load(Relaxed), Relaxed);
        new.held.store(other.held.load(Relaxed), Relaxed);
        new
    }

    /// Lets a call of this cost pass at `now`, or not. A cost of 0 is taken for 1.
    ///
    /// # Errors
    ///
    /// When it may pass, if it may not now. Nothing is changed then.
    #[inline]
    pub fn take(&self, quota: &Quota, cost: u32, now: Instant) -> Result<Charge, Refusal> {
        self.reserve(quota, cost, now, now).map(|reservation| reservation.charge)
    }

    /// Lets a call of this cost pass at `now` or at the earliest moment after it, but not later than
    /// `latest`. Those who reserve are served in the order they come in.
    ///
    /// # Errors
    ///
    /// When it may pass, if that is too late. Nothing is changed then.
    #[inline]
    pub fn reserve(
        &self,
        quota: &Quota,
        cost: u32,
        now: Instant,
        latest: Instant,
    ) -> Result<Reservation, Refusal> {
        if cost > quota.burst {
            return Err(Refusal::Never);
        }
        let cost = cost.max(1);
        let (at, span) = (quota.nanos(now), quota.span(cost));
        // Acquire, and before `tat`: a refund that is counted in it is seen in `tat` below.
        let applied = self.applied.load(Acquire);
        let mut tat = self.tat.load(Relaxed);
        loop {
            let end = tat.max(at).saturating_add(span);
            let ready = quota.ready(end);
            if ready > at {
                if ready > quota.nanos(latest) {
                    return Err(self.refusal(quota, ready, at));
                }
                // Before the step that makes it true, which releases it: whoever sees us in `tat`
                // sees this as well. If the step fails it is too high for a while, and a refund is
                // smaller than it could be.
                self.queued.fetch_max(end - quota.spacing, Relaxed);
            }
            // The check and the taking are one step: whoever was faster made this one fail, and it
            // looks again.
            match self.tat.compare_exchange_weak(tat, end, Release, Relaxed) {
                Ok(_) => {
                    let at = if ready > at { quota.instant(ready) } else { now };
                    let charge = Charge { cost, end, applied };
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
        if cost > quota.burst {
            return Err(Refusal::Never);
        }
        let at = quota.nanos(now);
        let end = self.tat.load(Relaxed).max(at).saturating_add(quota.span(cost.max(1)));
        let ready = quota.ready(end);
        if ready > at { Err(self.refusal(quota, ready, at)) } else { Ok(()) }
    }

    /// Says what a call that passed really cost. What it cost more is charged, and later calls wait
    /// for it. What it cost less is given back as far as it has not drained yet: the time that went by
    /// could be used by others, and would be used twice. Nor is anything given back that somebody waits
    /// behind, who would not pass any earlier for it, or that a hint holds back.
    ///
    /// A debt is cut to what a day pays off: what is charged above it is lost.
    ///
    /// With instants in order, and but for a debt that was cut, the bound holds for the costs as settled. A `now` that is older by δ than
    /// the last instant told may loosen it by δ/T.
    #[expect(clippy::needless_pass_by_value, reason = "a charge is settled once")]
    pub fn settle(&self, quota: &Quota, charge: Charge, actual: u32, now: Instant) {
        if actual <= charge.cost {
            self.refund(quota, &charge, actual, now);
        } else {
            let (at, more) = (quota.nanos(now), quota.span(actual - charge.cost));
            let mut tat = self.tat.load(Relaxed);
            // What a peer says a call cost is not to close a limit for good.
            let most = at.saturating_add(LONGEST_DEBT);
            while let Err(changed) = self.tat.compare_exchange_weak(
                tat,
                tat.max(at).saturating_add(more).min(most.max(tat)),
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
        let now = quota.nanos(now);
        let full = now.saturating_add(quota.tolerance).saturating_add(quota.spacing);
        let left = full.saturating_sub(self.tat.load(Relaxed).max(now)) / quota.spacing;
        u32::try_from(left).unwrap_or(u32::MAX).min(quota.burst)
    }

    /// Whether nothing is remembered at `now` that a new one would not do as well.
    #[must_use]
    pub fn is_idle(&self, quota: &Quota, now: Instant) -> bool {
        self.tat.load(Relaxed) <= quota.nanos(now)
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

// ===== impl Charge =====

impl Charge {
    /// What was taken.
    #[must_use]
    pub fn cost(&self) -> u32 {
        self.cost
    }
}

// ===== impl Reservation =====

impl Reservation {
    /// When the call may pass; not in the future if it need not wait.
    #[must_use]
    #[inline]
    pub fn at(&self) -> Instant {
        self.at
    }

    /// The call passes: what was reserved is spent.
    #[must_use]
    #[inline]
    pub fn into_charge(self) -> Charge {
        self.charge
    }
}

// ===== impl Refusal =====

impl Refusal {
    /// When the call could pass, if it ever can.
    #[must_use]
    pub fn at(&self) -> Option<Instant> {
        match *self {
            Self::Never => None,
            Self::Until { at, .. } => Some(at),
        }
    }
}
