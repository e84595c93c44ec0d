//! What a call's limits come to. Told the time, it answers with points in time; it reads no clock
//! and waits for nothing.

use std::time::{Duration, Instant};

use portcullis_core::{Call, Invalid, Operations, Phase, Until, Watch, call::Overrides, clock};

use crate::config::{Limits, TimeoutConfig};

/// Valid limits, for the layer and for each named operation.
#[derive(Clone, Debug)]
pub struct Policy {
    defaults: Limits,
    operations: Box<[Limits]>,
    by_name: Operations<Operation>,
}

/// Which limits a call is under: the defaults, or those of a named operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Operation(Option<u32>);

/// What is settled about a call when it starts.
///
/// It is small, for it is kept in the call's future; the rest is asked of the [`Policy`] as the call
/// goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// When the call started: when it first found the inner service not ready, or when it was made.
    pub started: Instant,
    /// When the call was made.
    pub called: Instant,
    /// The end of it all, which [`whole`](Self::whole) says more about.
    pub deadline: Option<Instant>,
    /// The limit that the deadline comes from, and what it covers.
    pub(crate) limit: Duration,
    pub(crate) phase: Phase,
    /// Which limits it is under.
    pub operation: Operation,
}

/// A [`Plan`] but for what the call it was made for knows, in half the room: it is part of a future that
/// is moved through every layer above.
pub(crate) struct Kept {
    started: Instant,
    /// Nanoseconds; so is the limit. Five hundred years are as good as more.
    waited: u64,
    limit: u64,
    operation: Operation,
    phase: Phase,
}

// ===== impl Policy =====

impl Policy {
    /// The policy of these settings.
    ///
    /// # Errors
    ///
    /// As [`TimeoutConfig::validate`].
    pub fn new(config: &TimeoutConfig) -> Result<Self, Invalid> {
        config.validate()?;
        let numbered = config.operations.iter().zip(0..);
        Ok(Self {
            defaults: config.limits.bounded(),
            operations: config
                .operations
                .values()
                .map(|limits| limits.or(&config.limits).bounded())
                .collect(),
            by_name: numbered
                .map(|((name, _), number)| (name.as_str(), Operation(Some(number))))
                .collect(),
        })
    }

    /// The limits in force for an operation: its own, the layer's where it has none, and nothing
    /// that is as good as never.
    #[must_use]
    #[inline]
    pub fn limits(&self, operation: Operation) -> &Limits {
        let named = operation.0.and_then(|number| self.operations.get(number as usize));
        named.unwrap_or(&self.defaults)
    }

    /// The operations that have limits of their own, by name.
    pub fn operations(&self) -> impl Iterator<Item = (&str, Operation)> {
        self.by_name.iter().map(|(name, operation)| (name, *operation))
    }

    /// Plans a call made at `now` that has been waiting for readiness since `since`, if it has.
    ///
    /// The caller's [`timeout`](portcullis_core::call::With::timeout) takes the place of the total
    /// limit, longer or shorter. The inherited deadline holds in any case.
    // Inlined, and with what is rare kept out of it, the plan is made where it will lie. Handed over
    // in memory, it would be moved in wide words right after it was written in narrow ones.
    #[must_use]
    #[inline(always)]
    pub fn plan(&self, call: &Call, since: Option<Instant>, now: Instant) -> Plan {
        let started = since.map_or(now, |since| since.min(now));
        let (operation, own) = match call.orders() {
            None => (Operation::default(), self.defaults.whole()),
            Some(overrides) => self.ordered(overrides),
        };
        // The end and what is to be said of it, apart: an `Option<Until>` takes moving about.
        let (own_end, phase, limit) = match own {
            Some((phase, limit)) => (Some(clock::after(started, limit)), phase, limit),
            None => (None, Phase::Inherited, Duration::ZERO),
        };
        let (deadline, phase, limit) = match (own_end, call.deadline()) {
            (None, None) => (None, phase, limit),
            (Some(own), None) => (Some(own), phase, limit),
            (Some(own), Some(inherited)) if own <= inherited => (Some(own), phase, limit),
            (_, Some(inherited)) => {
                let limit = inherited.saturating_duration_since(started);
                (Some(inherited), Phase::Inherited, limit)
            }
        };
        Plan { started, called: now, deadline, limit, phase, operation }
    }

    /// The limits that the caller's orders choose, and the whole one.
    #[cold]
    fn ordered(&self, overrides: &Overrides) -> (Operation, Option<(Phase, Duration)>) {
        let named = overrides.name.as_deref().and_then(|name| self.by_name.get(name));
        let operation = named.copied().unwrap_or_default();
        let own = match (self.limits(operation).whole(), overrides.timeout) {
            (None | Some((Phase::Total, _)), Some(ordered)) => {
                Limits::new().with_total(ordered).bounded().whole()
            }
            (configured, _) => configured,
        };
        (operation, own)
    }

    /// What ran out before the call could be made: waiting for readiness took it all, or the call was
    /// overdue when it came.
    #[must_use]
    #[inline(always)]
    pub fn overdue(&self, plan: &Plan) -> Option<Until> {
        let waited = plan.started < plan.called;
        let late = plan.deadline.is_some_and(|deadline| deadline <= plan.called);
        if waited || late { self.ran_out(plan) } else { None }
    }

    #[cold]
    fn ran_out(&self, plan: &Plan) -> Option<Until> {
        let limit = self.limits(plan.operation).readiness;
        let readiness = limit.map(|limit| Until::new(plan.started, Phase::Readiness, limit));
        earliest(readiness, plan.whole()).filter(|until| until.at <= plan.called)
    }

    /// By when the response's head must be there.
    #[must_use]
    #[inline]
    pub fn until_head(&self, plan: &Plan) -> Option<Until> {
        let limit = self.limits(plan.operation).head;
        let head = limit.map(|limit| Until::new(plan.called, Phase::Head, limit));
        earliest(plan.whole(), head)
    }

    /// Whether there is a limit on heads, apart from the whole one.
    #[must_use]
    #[inline]
    pub fn limits_heads(&self, plan: &Plan) -> bool {
        self.limits(plan.operation).head.is_some()
    }

    /// Whether [`watch`](Self::watch) depends on when the head was there.
    #[must_use]
    #[inline]
    pub fn counts_from_head(&self, plan: &Plan) -> bool {
        self.limits(plan.operation).body.is_some()
    }

    /// What is left for the response's body, whose head was there at `head`.
    #[must_use]
    #[inline]
    pub fn watch(&self, plan: &Plan, head: Instant) -> Watch {
        let limits = self.limits(plan.operation);
        let body = limits.body.map(|limit| Until::new(head, Phase::Body, limit));
        Watch { until: earliest(plan.whole(), body), idle: limits.idle }
    }
}

// ===== impl Plan =====

impl Plan {
    /// The end of it all: the layer's own limit, or the inherited deadline if that comes first.
    #[must_use]
    #[inline]
    pub fn whole(&self) -> Option<Until> {
        self.deadline.map(|at| Until { at, phase: self.phase, limit: self.limit })
    }

    /// The plan of a call that `until` ended before it was made.
    pub(crate) fn ended_by(self, until: Until) -> Self {
        Self { deadline: Some(until.at), limit: until.limit, phase: until.phase, ..self }
    }
}

// ===== impl Kept =====

impl Kept {
    /// Of a plan whose deadline the call has.
    #[inline(always)]
    pub(crate) fn of(plan: &Plan) -> Self {
        let &Plan { started, called, limit, operation, phase, .. } = plan;
        // As a rule nobody waited: a difference of times is dear.
        let waited = match started == called {
            true => 0,
            false => nanos(called.saturating_duration_since(started)),
        };
        Self { started, waited, limit: nanos(limit), operation, phase }
    }

    /// The plan again, of which `call` has the deadline.
    #[inline]
    pub(crate) fn plan(&self, call: &Call) -> Plan {
        let &Self { started, waited, limit, operation, phase } = self;
        let called = match waited {
            0 => started,
            _ => clock::after(started, Duration::from_nanos(waited)),
        };
        let limit = Duration::from_nanos(limit);
        Plan { started, called, deadline: call.deadline(), limit, phase, operation }
    }
}

#[inline]
fn nanos(time: Duration) -> u64 {
    let seconds = time.as_secs().saturating_mul(1_000_000_000);
    seconds.saturating_add(u64::from(time.subsec_nanos()))
}

// ===== impl Operation =====

impl Operation {
    /// As one word, 0 for the defaults.
    #[inline]
    pub(crate) fn to_word(self) -> u64 {
        self.0.map_or(0, |number| u64::from(number) + 1)
    }

    /// What [`to_word`](Self::to_word) made.
    pub(crate) fn from_word(word: u64) -> Self {
        Self(word.checked_sub(1).and_then(|number| u32::try_from(number).ok()))
    }
}

/// The earlier of two; the first of two at once.
#[inline]
fn earliest(one: Option<Until>, other: Option<Until>) -> Option<Until> {
    match (one, other) {
        (Some(one), Some(other)) if other.at < one.at => Some(other),
        (one, other) => one.or(other),
    }
}
