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

mod bucket;
mod quota;
mod tat;

use std::time::Instant;

pub(crate) use self::tat::Tat;
pub use self::{bucket::Bucket, quota::Quota};

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
