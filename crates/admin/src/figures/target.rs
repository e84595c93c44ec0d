//! What is counted of one target.

use std::{collections::BTreeMap, sync::OnceLock, time::Duration};

use portcullis_core::{
    FaultKind, OnceMap, Outcome,
    sync::atomic::{AtomicU64, Ordering},
};
use serde::Serialize;

use super::{
    OTHER,
    breaker::Breaker,
    histogram::Histogram,
    ring::{Ring, SECONDS},
};
use crate::words::millis;

/// Counters of one target. Statistics only, so every access is relaxed.
#[derive(Debug)]
pub(crate) struct Target {
    started: AtomicU64,
    /// Goes up and down, and below zero where somebody listens only after a call began.
    in_flight: AtomicU64,
    /// In the order of [`Outcomes`].
    ended: [AtomicU64; OUTCOMES],
    /// Attempts that failed and were followed by another, those aside that were refused and sent
    /// nothing.
    followed: AtomicU64,
    retries: AtomicU64,
    polls: AtomicU64,
    timeouts: AtomicU64,
    limited: AtomicU64,
    breaker_rejected: AtomicU64,
    errors: OnceMap<FaultKind, AtomicU64>,
    other_errors: AtomicU64,
    took: Histogram,
    begun: Ring,
    /// Of the breaker that has no key.
    pub(super) breaker: OnceLock<Box<Breaker>>,
}

const OUTCOMES: usize = 6;
/// Kinds of errors that are told apart; however many statuses a server makes up.
const KINDS: usize = 24;

/// The figures of a target.
#[derive(Debug, Serialize)]
pub(crate) struct Figures {
    name: String,
    started: u64,
    in_flight: u64,
    ended: u64,
    outcomes: Outcomes,
    attempts: u64,
    attempts_failed: u64,
    effective: Option<f64>,
    actual: Option<f64>,
    retries: u64,
    retries_per_call: Option<f64>,
    polls: u64,
    timeouts: u64,
    limited: u64,
    breaker_rejected: u64,
    p50_ms: Option<f64>,
    p95_ms: Option<f64>,
    p99_ms: Option<f64>,
    rate_60s: f64,
    errors: BTreeMap<String, u64>,
    pub(crate) budget: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Outcomes {
    success: u64,
    error: u64,
    timeout: u64,
    rejected: u64,
    throttled: u64,
    cancelled: u64,
}

// ===== impl Figures =====

impl Figures {
    /// Whether anything was counted, or is under way.
    pub(crate) fn is_used(&self) -> bool {
        let events =
            self.retries + self.polls + self.timeouts + self.limited + self.breaker_rejected;
        self.started + self.in_flight + self.ended + events > 0
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

// ===== impl Target =====

impl Target {
    pub(crate) fn new() -> Self {
        Self {
            started: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            ended: std::array::from_fn(|_| AtomicU64::new(0)),
            followed: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            polls: AtomicU64::new(0),
            timeouts: AtomicU64::new(0),
            limited: AtomicU64::new(0),
            breaker_rejected: AtomicU64::new(0),
            errors: OnceMap::new(KINDS),
            other_errors: AtomicU64::new(0),
            took: Histogram::new(),
            begun: Ring::new(),
            breaker: OnceLock::new(),
        }
    }

    #[inline]
    pub(crate) fn started(&self, second: u64) {
        one_more(&self.started);
        one_more(&self.in_flight);
        self.begun.add(second);
    }

    #[inline]
    pub(crate) fn settled(&self, outcome: &Outcome, elapsed: Duration) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        let which = place(outcome);
        one_more(&self.ended[which]);
        // What nobody answered, and nobody waited for to the end, says nothing of the peer.
        if which != REJECTED && which != CANCELLED {
            self.took.record(elapsed);
        }
        self.erred(outcome);
    }

    /// An attempt failed that another follows.
    pub(crate) fn followed(&self, outcome: &Outcome, is_retry: bool) {
        if is_retry {
            one_more(&self.retries);
        }
        if outcome.kind() != Some(FaultKind::Rejected) {
            one_more(&self.followed);
        }
        self.erred(outcome);
    }

    /// The attempt that was to follow one with this outcome is not made: its failure is counted with the
    /// call's end.
    pub(crate) fn not_followed(&self, outcome: &Outcome) {
        let Some(kind) = outcome.kind() else { return };
        if kind != FaultKind::Rejected {
            one_less(&self.followed);
        }
        let counter = self.errors.get(&kind, |known| *known == kind);
        one_less(counter.unwrap_or(&self.other_errors));
    }

    /// An operation that takes longer was asked about.
    pub(crate) fn polled(&self) {
        one_more(&self.polls);
    }

    pub(crate) fn timed_out(&self) {
        one_more(&self.timeouts);
    }

    pub(crate) fn limited(&self) {
        one_more(&self.limited);
    }

    pub(crate) fn breaker_rejected(&self) {
        one_more(&self.breaker_rejected);
    }

    pub(crate) fn reset(&self) {
        let own = [
            &self.started,
            &self.followed,
            &self.retries,
            &self.polls,
            &self.timeouts,
            &self.limited,
            &self.breaker_rejected,
            &self.other_errors,
        ];
        let errors = self.errors.iter().map(|(_, count)| count);
        for counter in own.into_iter().chain(&self.ended).chain(errors) {
            counter.store(0, Ordering::Relaxed);
        }
        self.took.reset();
        self.begun.reset();
        if let Some(breaker) = self.breaker.get() {
            breaker.reset();
        }
    }

    /// The figures, `age` after counting began or was begun anew.
    pub(crate) fn look(&self, name: &str, second: u64, within: Duration, age: Duration) -> Figures {
        let [success, error, timeout, rejected, throttled, cancelled] =
            std::array::from_fn(|index| self.ended[index].load(Ordering::Relaxed));
        let outcomes = Outcomes { success, error, timeout, rejected, throttled, cancelled };
        let judged = success + error + timeout + rejected + throttled;
        let followed = self.followed.load(Ordering::Relaxed);
        let retries = self.retries.load(Ordering::Relaxed);
        // A call's end is that of its last attempt, unless that was refused, or the caller gave up.
        let attempts_failed = followed + error + timeout + throttled;
        let attempts = attempts_failed + success;
        let took = self.took.look();
        let percentile = |share| took.percentile(share).map(millis);
        let seen = Duration::from_secs(SECONDS - 1).saturating_add(within).min(age);
        let begun: u64 = self.begun.look(second).sum();
        Figures {
            name: name.to_owned(),
            started: self.started.load(Ordering::Relaxed),
            in_flight: (self.in_flight.load(Ordering::Relaxed).cast_signed()).max(0) as u64,
            ended: judged + cancelled,
            outcomes,
            attempts,
            attempts_failed,
            effective: share(success, judged),
            actual: share(success, attempts),
            retries,
            retries_per_call: share(retries, judged + cancelled),
            polls: self.polls.load(Ordering::Relaxed),
            timeouts: self.timeouts.load(Ordering::Relaxed),
            limited: self.limited.load(Ordering::Relaxed),
            breaker_rejected: self.breaker_rejected.load(Ordering::Relaxed),
            p50_ms: percentile(0.5),
            p95_ms: percentile(0.95),
            p99_ms: percentile(0.99),
            rate_60s: begun as f64 / seen.max(Duration::from_secs(1)).as_secs_f64(),
            errors: self.look_at_errors(),
            budget: None,
        }
    }

    #[inline]
    fn erred(&self, outcome: &Outcome) {
        if let Some(kind) = outcome.kind() {
            let make = || (kind, AtomicU64::new(0));
            let counter = self.errors.get_or_insert_with(&kind, |known| *known == kind, make);
            one_more(counter.unwrap_or(&self.other_errors));
        }
    }

    fn look_at_errors(&self) -> BTreeMap<String, u64> {
        let known = self.errors.iter().map(|(kind, count)| (kind.to_string(), count));
        let all = known.chain([(OTHER.to_owned(), &self.other_errors)]);
        all.map(|(kind, count)| (kind, count.load(Ordering::Relaxed)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}

const REJECTED: usize = 3;
const CANCELLED: usize = 5;

/// Where an outcome is counted. What was judged to count for nothing is a success, as in a trace.
const fn place(outcome: &Outcome) -> usize {
    match outcome {
        Outcome::Success | Outcome::Ignored => 0,
        Outcome::Failure(fault) => match fault.kind {
            FaultKind::Timeout => 2,
            FaultKind::Rejected => REJECTED,
            _ => 1,
        },
        Outcome::Throttled(_) => 4,
        Outcome::Cancelled => CANCELLED,
    }
}

fn one_more(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Not below zero, where what was counted is gone by a reset.
fn one_less(counter: &AtomicU64) {
    let less = |count: u64| count.checked_sub(1);
    let _ = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
}

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}
