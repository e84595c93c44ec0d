//! What goes into the engine and comes out of it.

use std::time::{Duration, Instant};

use portcullis_core::{Reason, State, Ticket};

use super::word::Word;

/// What a window holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls.
    pub total: u64,
    /// Those that failed.
    pub failures: u64,
    /// Those that were slow, failed or not.
    pub slow: u64,
}

/// What an admitted call gives back with its result. It fits a [`Ticket`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a probe that is neither recorded nor cancelled holds its slot until `max_wait`"]
pub struct Permit {
    generation: u64,
    /// Which probe it is; 0 if none.
    probe: u64,
}

/// Whether a call may pass.
#[derive(Debug)]
pub enum Admission {
    /// It may; its result counts.
    Admitted(Permit),
    /// It may, since the breaker is disabled; its result does not count.
    WouldReject(Refusal),
    /// It may not.
    Rejected(Refusal),
}

/// Why a call may not pass.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Refusal {
    /// The breaker's state.
    pub state: State,
    /// What this refusal rests on: while open, the same as `tripped_by`.
    pub reason: Reason,
    /// Why the breaker opened last.
    pub tripped_by: Reason,
    /// When another try makes sense, if that is known.
    pub retry_at: Option<Instant>,
}

/// A change of state.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transition {
    /// The state it left.
    pub from: State,
    /// The state it is in.
    pub to: State,
    /// Why.
    pub why: Reason,
    /// How long it will stay open, where it opened.
    pub open_for: Option<Duration>,
    /// When. A probe whose time was up may have opened or closed it before anybody looked.
    pub at: Instant,
}

/// The changes of state that one step brought about, in order. Nothing is allocated
/// while nothing changes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes(Vec<Transition>);

// ===== impl Counts =====

impl Counts {
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            total: self.total + other.total,
            failures: self.failures + other.failures,
            slow: self.slow + other.slow,
        }
    }
}

// ===== impl Permit =====

impl Permit {
    /// One whose result counts for nothing.
    pub(crate) const UNCOUNTED: Self = Self { generation: 0, probe: 0 };

    pub(super) const fn call(generation: u64) -> Self {
        Self { generation, probe: 0 }
    }

    pub(super) const fn probe(generation: u64, probe: u64) -> Self {
        Self { generation, probe }
    }

    pub(crate) const fn is_counted(&self) -> bool {
        self.generation != Self::UNCOUNTED.generation
    }

    pub(super) const fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) const fn number(&self) -> u64 {
        self.probe
    }

    /// Whether the call is a probe.
    #[must_use]
    pub fn is_probe(&self) -> bool {
        self.probe != 0
    }
}

impl From<Permit> for Ticket {
    fn from(permit: Permit) -> Self {
        Self(permit.generation, permit.probe)
    }
}

impl From<Ticket> for Permit {
    fn from(Ticket(generation, probe): Ticket) -> Self {
        Self { generation, probe }
    }
}

// ===== impl Refusal =====

impl Refusal {
    pub(super) fn forced() -> Self {
        let manual = Reason::Manual;
        Self { state: State::ForcedOpen, reason: manual, tripped_by: manual, retry_at: None }
    }
}

// ===== impl Transition =====

impl Transition {
    /// A step of the cycle, which is told by its phases: a disabled breaker tells what it would do.
    pub(super) fn new(
        from: Word,
        to: Word,
        why: Reason,
        open_for: Option<Duration>,
        at: Instant,
    ) -> Self {
        Self { from: from.phase().state(), to: to.phase().state(), why, open_for, at }
    }
}

// ===== impl Changes =====

impl Changes {
    /// The changes, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Transition> {
        self.0.iter()
    }

    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn push(&mut self, transition: Transition) {
        self.0.push(transition);
    }
}
