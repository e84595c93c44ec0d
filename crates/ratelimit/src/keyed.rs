//! A limit for each key, and several limits at once.

use std::{
    fmt,
    num::NonZeroUsize,
    sync::Arc,
    time::{Duration, Instant},
};

use portcullis_core::{Call, Invalid, Keyed, Reason, What, clock};

use crate::{
    Bucket, Charge, Limited, Limiter, LimiterBuilder, Quota, RateLimitConfig, Receipt, Refusal,
    Snapshot, UntilReady,
    claim::{self, MOST, Several, Slot, Slots},
    engine::Tat,
    limiter::Shared,
};

/// A limit for each key, bounded in number, all with the same settings.
///
/// When there is no room for a new key, one is [forgotten](Keyed#eviction) that was not used lately and
/// whose backlog has drained: a new limit would let exactly the same pass. When there is none such, new
/// keys share one limit until there is room, which is told as an event ([`What::Overflowed`]); a key
/// that gets room later starts where that limit stands.
///
/// A key that is asked by [`try_acquire`](Self::try_acquire) alone costs a cache line of 64 bytes, if
/// it is of up to 23 bytes, and 8 to 16 in the index. Once somebody had its [`Limiter`] in hand (who
/// waits, who settles, a layer) there is that as well, until it is asked again after a pause.
///
/// # Clone
///
/// Clones are the same limits.
///
/// ```
/// use portcullis_ratelimit::KeyedLimiter;
/// use std::time::Duration;
///
/// let users = KeyedLimiter::builder("users").rate(1, Duration::from_secs(1)).burst(1).build_keyed()?;
/// assert!(users.try_acquire("ada").is_ok());
/// assert!(users.try_acquire("grace").is_ok());
/// assert_eq!(users.try_acquire("ada").unwrap_err().key(), Some("ada"));
/// # Ok::<_, portcullis_core::Invalid>(())
/// ```
#[derive(Clone)]
pub struct KeyedLimiter {
    map: Arc<Map>,
}

struct Map {
    shared: Arc<Shared>,
    keyed: Keyed<State>,
    overflow: Limiter,
}

/// What there is of a key, under the lock of its entry.
enum State {
    /// As much as can be known while it is only asked.
    Lone(Tat),
    /// Somebody has its limit in hand, or had.
    Shared(Limiter),
}

/// Several limits that a call must pass all at once: of the endpoint, of the user and of everybody,
/// say. If one refuses, none is charged.
///
/// `max_wait` is that of the first.
///
/// ```
/// use portcullis_ratelimit::{Limiter, Limits};
///
/// let users = Limiter::builder("users").burst(2).build_keyed()?;
/// let everybody = Limiter::builder("everybody").burst(3).build()?;
/// for (user, passes) in [("ada", true), ("ada", true), ("ada", false), ("grace", true)] {
///     let limits = Limits::all([users.limiter(user), everybody.clone()])?;
///     assert_eq!(limits.try_acquire().is_ok(), passes);
/// }
/// # Ok::<_, portcullis_core::Invalid>(())
/// ```
#[derive(Clone, Debug)]
pub struct Limits {
    limiters: Arc<[Limiter]>,
}

/// The key that events and errors of the shared limit carry.
const OVERFLOW: &str = "(overflow)";

// ===== impl KeyedLimiter =====

impl KeyedLimiter {
    /// Begins to build limits called `name`; end with
    /// [`build_keyed`](LimiterBuilder::build_keyed).
    pub fn builder(name: impl Into<Arc<str>>) -> LimiterBuilder {
        Limiter::builder(name)
    }

    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let keys = NonZeroUsize::new(shared.config.max_keys).unwrap_or(NonZeroUsize::MIN);
        let overflow = Limiter::with_bucket(shared.clone(), Some(OVERFLOW), Bucket::new());
        Self { map: Arc::new(Map { shared, keyed: Keyed::new(keys), overflow }) }
    }

    /// The name that all of them have.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        self.map.shared.voice.name()
    }

    /// The settings that all of them have.
    #[must_use]
    pub fn config(&self) -> &RateLimitConfig {
        &self.map.shared.config
    }

    /// The limit of a key, made if it has none yet; the shared one if there is no room. It is not
    /// forgotten as long as somebody has it.
    #[must_use]
    pub fn limiter(&self, key: &str) -> Limiter {
        self.limiter_for(key, &Call::here())
    }

    /// The limit of a key, if it has one.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Limiter> {
        let Map { shared, keyed, .. } = &*self.map;
        keyed.peek(key, |state| state.limiter(key, shared))
    }

    /// Everything there is to know of a key's limit now, if it has one. It is not had in hand for that.
    #[must_use]
    pub fn snapshot(&self, key: &str) -> Option<Snapshot> {
        let quota = &self.map.shared.quota;
        self.map.keyed.peek(key, |state| state.snapshot(quota))
    }

    /// The same of all keys, or of as many as `most` of them.
    #[must_use]
    pub fn snapshots(&self, most: usize) -> Vec<(Arc<str>, Snapshot)> {
        let Map { shared, keyed, .. } = &*self.map;
        let mut all = Vec::new();
        keyed.each(|key, state| {
            if all.len() < most {
                all.push((key.into(), state.snapshot(&shared.quota)));
            }
        });
        all
    }

    /// The limit that keys share when there is no room for theirs.
    #[must_use]
    pub fn overflow(&self) -> &Limiter {
        &self.map.overflow
    }

    /// All keys that have a limit, with theirs.
    #[must_use]
    pub fn all(&self) -> Vec<(Arc<str>, Limiter)> {
        let Map { shared, keyed, .. } = &*self.map;
        let mut all = Vec::new();
        keyed.each(|key, state| all.push((key.into(), state.limiter(key, shared))));
        all
    }

    /// How many keys have a limit.
    #[must_use]
    pub fn len(&self) -> usize {
        self.map.keyed.len()
    }

    /// Whether no key has a limit.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.map.keyed.is_empty()
    }

    /// Passes now, at a cost of 1, or not at all: see [`Limiter::try_acquire`].
    ///
    /// # Errors
    ///
    /// [`Limited`], which says when it could.
    #[inline]
    pub fn try_acquire(&self, key: &str) -> Result<Charge, Limited> {
        self.try_acquire_n(key, 1)
    }

    /// Passes now, at this cost, or not at all: see [`Limiter::try_acquire_n`].
    ///
    /// The charge may be [settled](Self::settle) later, or dropped.
    ///
    /// # Errors
    ///
    /// [`Limited`], which says when it could, or that it never can if the cost is above the burst.
    pub fn try_acquire_n(&self, key: &str, cost: u32) -> Result<Charge, Limited> {
        let Map { shared, overflow, .. } = &*self.map;
        let call = Call::here();
        let mut now = call.now();
        let quota = &shared.quota;
        let take = |now| {
            let take = |state: Option<&mut State>| match state {
                Some(state) => (state.take(quota, cost, now), true),
                // Under the lock that who makes room for the key has to take: what this takes is known
                // then.
                None => (overflow.bucket().take(quota, cost, now), false),
            };
            self.with(key, || now, take)
        };
        let (mut taken, mut found) = take(now);
        if taken.is_err() {
            // As in `Limiter::try_acquire_n`.
            now = clock::now();
            (taken, found) = take(now);
        }
        let key_of = if found { key } else { OVERFLOW };
        if !found {
            self.tell_of_overflow(key, &call, now);
        }
        match taken {
            Ok(charge) => {
                shared.tell_of_pass(Some(key_of), &charge, &call, now);
                Ok(charge)
            }
            Err(refusal) => Err(shared.refuse_now(Some(key_of), cost, refusal, &call, now)),
        }
    }

    /// Says what a call that passed really cost: see [`Limiter::settle`].
    ///
    /// The charge must be one of this key. Nothing is lost if the key was forgotten meanwhile.
    pub fn settle(&self, key: &str, charge: Charge, actual: u32) {
        self.limiter(key).settle(charge, actual);
    }

    /// The peer asks to be left alone for so long, as to this key: see [`Limiter::hint`].
    pub fn hint(&self, key: &str, wait: Duration) {
        self.limiter(key).hint(wait);
    }

    /// Passes at a cost of 1, having waited for its turn if need be: see [`Limiter::until_ready`].
    pub fn until_ready(&self, key: &str) -> UntilReady {
        self.until_ready_n(key, 1)
    }

    /// Passes at this cost, having waited for its turn if need be: see [`Limiter::until_ready_n`].
    pub fn until_ready_n(&self, key: &str, cost: u32) -> UntilReady {
        UntilReady::new([Some(Slot::new(self.limiter(key)))], cost)
    }

    pub(crate) fn limiter_for(&self, key: &str, call: &Call) -> Limiter {
        let Map { shared, overflow, .. } = &*self.map;
        let found = self.with(key, || call.now(), |state| Some(state?.limiter(key, shared)));
        found.unwrap_or_else(|| {
            self.tell_of_overflow(key, call, call.now());
            overflow.clone()
        })
    }

    /// Does something with what there is of a key, made if there is nothing yet; `None` if there is no
    /// room. The time matters only then: mostly nobody has to read the clock for it.
    #[inline]
    fn with<R>(
        &self,
        key: &str,
        now: impl Fn() -> Instant,
        f: impl FnOnce(Option<&mut State>) -> R,
    ) -> R {
        let Map { shared, keyed, overflow } = &*self.map;
        let quota = &shared.quota;
        let make = |key: &str| match overflow.bucket() {
            bucket if bucket.is_idle(quota, now()) => State::Lone(Tat::default()),
            // What the key took while it shared the overflow is not known apart: as if it were all of
            // it.
            bucket => {
                let bucket = Bucket::like(bucket);
                State::Shared(Limiter::with_bucket(shared.clone(), Some(key), bucket))
            }
        };
        keyed.with(key, |state| state.is_expendable(quota, now()), make, f)
    }

    #[cold]
    fn tell_of_overflow(&self, key: &str, call: &Call, now: Instant) {
        let Map { shared, keyed, .. } = &*self.map;
        let capacity = keyed.capacity().get();
        shared.voice.tell_of(Some(key), call, now, || What::Overflowed {
            reason: Reason::Overflow { capacity },
        });
    }
}

impl fmt::Debug for KeyedLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedLimiter")
            .field("name", self.name())
            .field("keyed", &self.map.keyed)
            .finish_non_exhaustive()
    }
}

// ===== impl State =====

impl State {
    #[inline]
    fn take(&mut self, quota: &Quota, cost: u32, now: Instant) -> Result<Charge, Refusal> {
        match self {
            Self::Lone(tat) => tat.take(quota, cost, now),
            Self::Shared(limiter) => {
                if !limiter.is_expendable(now) {
                    return limiter.bucket().take(quota, cost, now);
                }
                // Nobody has it in hand any more.
                *self = Self::Lone(limiter.bucket().tat());
                self.take(quota, cost, now)
            }
        }
    }

    fn snapshot(&self, quota: &Quota) -> Snapshot {
        match self {
            Self::Lone(tat) => Snapshot::of(&Bucket::with_tat(*tat), quota, clock::now()),
            Self::Shared(limiter) => limiter.snapshot(),
        }
    }

    /// The limit, for somebody to have in hand.
    fn limiter(&mut self, key: &str, shared: &Arc<Shared>) -> Limiter {
        match self {
            Self::Shared(limiter) => limiter.clone(),
            Self::Lone(tat) => {
                let bucket = Bucket::with_tat(*tat);
                let limiter = Limiter::with_bucket(shared.clone(), Some(key), bucket);
                *self = Self::Shared(limiter.clone());
                limiter
            }
        }
    }

    /// Whether it may be forgotten: nobody has it in hand, and a new one would do as well.
    ///
    /// Who has it in hand got it under the lock of the entry, under which this is asked: nobody takes
    /// from one that is about to be forgotten.
    fn is_expendable(&mut self, quota: &Quota, now: Instant) -> bool {
        match self {
            Self::Lone(tat) => tat.is_idle(quota, now),
            Self::Shared(limiter) => limiter.is_expendable(now),
        }
    }
}

// ===== impl Limits =====

impl Limits {
    /// These limits, 1 to 4 of them.
    ///
    /// # Errors
    ///
    /// If there are more, or none.
    pub fn all(limiters: impl IntoIterator<Item = Limiter>) -> Result<Self, Invalid> {
        let limiters: Arc<[Limiter]> = limiters.into_iter().collect();
        match limiters.len() {
            1..=MOST => Ok(Self { limiters }),
            other => Err(Invalid::new("limits", other, "1 to 4")),
        }
    }

    /// Passes all now, at a cost of 1 to each, or none.
    ///
    /// # Errors
    ///
    /// The [`Limited`] of the one that would let it pass last.
    pub fn try_acquire(&self) -> Result<Receipt<Several>, Limited> {
        self.try_acquire_n(1)
    }

    /// Passes all now, at this cost to each, or none. A cost of 0 is taken for 1.
    ///
    /// # Errors
    ///
    /// The [`Limited`] of the one that would let it pass last.
    pub fn try_acquire_n(&self, cost: u32) -> Result<Receipt<Several>, Limited> {
        Receipt::claim(self.slots(), cost)
    }

    /// Passes all at a cost of 1 to each, having waited for its turn if need be.
    pub fn until_ready(&self) -> UntilReady<Several> {
        self.until_ready_n(1)
    }

    /// Passes all at this cost to each, having waited for its turn if need be: see
    /// [`Limiter::until_ready_n`].
    ///
    /// It waits in the line of the slowest limit, and asks the others when its turn comes. If one of
    /// those refuses by then, it waits again, in that one's line.
    pub fn until_ready_n(&self, cost: u32) -> UntilReady<Several> {
        UntilReady::new(self.slots(), cost)
    }

    fn slots(&self) -> Several {
        let mut slots = Several::none();
        for limiter in &*self.limiters {
            claim::add(&mut slots, limiter.clone());
        }
        slots
    }
}
