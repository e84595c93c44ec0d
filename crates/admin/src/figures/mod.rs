//! What is counted of the layers' events: of every one, never of sampled traces.

mod breaker;
mod histogram;
mod ring;
mod target;

use std::{
    fmt,
    time::{Duration, Instant, SystemTime},
};

use portcullis_core::{
    Course, Event, LayerKind, OnceMap, Phase, Reason, State, What, clock, sync::Mutex,
};

use self::{breaker::Breaker, target::Target};
pub(crate) use self::{breaker::Spark, target::Figures as OfTarget};

/// The name of what there is no room for.
pub(crate) const OTHER: &str = "_OTHER";

/// Counters by target, and by breaker.
pub(crate) struct Figures {
    began: Instant,
    /// When counting began or was begun anew, and its date.
    since: Mutex<(Instant, SystemTime)>,
    targets: OnceMap<Box<str>, Box<Target>>,
    other: Box<Target>,
    /// Breakers by name and key.
    keys: OnceMap<NameAndKey, Box<Breaker>>,
}

type NameAndKey = (Box<str>, Box<str>);

/// What was heard of a breaker.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// Nothing of one that there was no room for.
    pub(crate) spark: Option<Spark>,
    /// How long ago it changed to the state that it is in, if it was seen to.
    pub(crate) changed: Option<Duration>,
}

// ===== impl Figures =====

impl Figures {
    pub(crate) fn new(targets: usize, keys: usize) -> Self {
        let now = clock::now();
        Self {
            began: now,
            since: Mutex::new((now, clock::wall())),
            targets: OnceMap::new(targets),
            other: Box::new(Target::new()),
            keys: OnceMap::new(keys),
        }
    }

    /// Counts an event, and says whether that changed a figure.
    #[inline]
    pub(crate) fn on_event(&self, event: &Event<'_>) -> bool {
        let target = || self.target(event.name);
        match (event.layer, event.what) {
            (LayerKind::Trace, What::Started) => target().started(self.second(event.at)),
            (LayerKind::Trace, What::Settled { outcome, elapsed, .. }) => {
                target().settled(&outcome, elapsed);
            }
            (LayerKind::Breaker, What::Settled { outcome, .. }) => match self.breaker(event) {
                Some(breaker) => breaker.settled(self.second(event.at), &outcome),
                None => return false,
            },
            (LayerKind::Breaker, What::Rejected { .. }) => {
                target().breaker_rejected();
                if let Some(breaker) = self.breaker(event) {
                    breaker.rejected(self.second(event.at));
                }
            }
            (LayerKind::Breaker, What::StateChanged { from, to, .. }) if from != to => {
                if let Some(breaker) = self.breaker(event) {
                    breaker.changed(event.at.saturating_duration_since(self.began), to);
                }
            }
            (LayerKind::RateLimit, What::Rejected { .. } | What::Waited { .. }) => {
                target().limited();
            }
            (LayerKind::Retry, What::Retrying { outcome, .. }) => {
                target().followed(&outcome, true);
            }
            (LayerKind::Retry, What::Resending { outcome, .. }) => {
                target().followed(&outcome, false);
            }
            // Another attempt was announced, and never sent: the call ends as the one before did.
            (
                LayerKind::Retry,
                What::GaveUp {
                    outcome,
                    reason:
                        Reason::ReadinessFailed | Reason::Elapsed { phase: Phase::Readiness, .. },
                    ..
                },
            ) => target().not_followed(&outcome),
            // Left between two requests: of the last one is told already.
            (LayerKind::Poll, What::Polled { course: Course::Left { .. }, .. }) => return false,
            // With 0 it is what the first answer said.
            (LayerKind::Poll, What::Polled { polls: 1.., .. }) => target().polled(),
            (LayerKind::Timeout, What::TimedOut { .. }) => target().timed_out(),
            _ => return false,
        }
        true
    }

    /// The figures of all targets, by name, and since when.
    pub(crate) fn look(&self) -> (SystemTime, Vec<OfTarget>) {
        let now = clock::now();
        let (since, date) = *self.since.lock();
        let age = now.saturating_duration_since(since);
        let within = Duration::from_nanos(u64::from(self.age(now).subsec_nanos()));
        let look = |name: &str, it: &Target| it.look(name, self.second(now), within, age);
        let mut all: Vec<_> = self.targets.iter().collect();
        all.sort_unstable_by_key(|(name, _)| *name);
        let mut all: Vec<_> = all.into_iter().map(|(name, target)| look(name, target)).collect();
        let other = look(OTHER, &self.other);
        all.extend(other.is_used().then_some(other));
        (date, all)
    }

    /// What was heard of the breaker with this name and key, which is in this state.
    pub(crate) fn heard(&self, name: &str, key: Option<&str>, state: State) -> Heard {
        let breaker = match key {
            None => self.targets.get(name, |known| **known == *name).map(|it| it.breaker.get()),
            Some(key) => Some(self.keys.get(&(name, key), |it| *it.0 == *name && *it.1 == *key)),
        };
        let now = clock::now();
        match breaker.flatten() {
            Some(breaker) => Heard {
                spark: Some(breaker.spark(self.second(now))),
                changed: breaker.last_change(state).map(|at| self.age(now).saturating_sub(at)),
            },
            None => Heard::default(),
        }
    }

    /// Counts from zero. What is told meanwhile may be in part of the old, in part of the new count.
    pub(crate) fn reset(&self) {
        *self.since.lock() = (clock::now(), clock::wall());
        for (_, target) in self.targets.iter() {
            target.reset();
        }
        self.other.reset();
        for (_, breaker) in self.keys.iter() {
            breaker.reset();
        }
    }

    /// When counting began.
    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    /// How long before this time counting began: as a measure of time that fits a word.
    #[inline]
    pub(crate) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.began)
    }

    #[inline]
    fn second(&self, at: Instant) -> u64 {
        self.age(at).as_secs()
    }

    #[inline]
    fn target(&self, name: &str) -> &Target {
        let make = || (name.into(), Box::new(Target::new()));
        let known = self.targets.get_or_insert_with(name, |known| **known == *name, make);
        known.unwrap_or(&self.other)
    }

    #[inline]
    fn breaker(&self, event: &Event<'_>) -> Option<&Breaker> {
        let name = event.name;
        let found = match event.key {
            Some(key) => {
                let is = |known: &NameAndKey| *known.0 == *name && *known.1 == *key;
                let make = || ((name.into(), key.into()), Box::new(Breaker::new()));
                self.keys.get_or_insert_with(&(name, key), is, make)
            }
            None => {
                let target = self.target(name);
                // Which of those that share a place it would be is not known.
                let own = !std::ptr::eq(target, &*self.other);
                own.then(|| target.breaker.get_or_init(|| Box::new(Breaker::new())))
            }
        };
        found.map(|breaker| &**breaker)
    }
}

impl fmt::Debug for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Figures")
            .field("targets", &self.targets)
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}
