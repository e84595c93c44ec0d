//! A limit for each key, and several limits at once.

use std::{fmt, num::NonZeroUsize, sync::Arc};

use portcullis_core::{Call, Invalid, Keyed, Reason, What};

use crate::{
    Bucket, Limited, Limiter, LimiterBuilder, RateLimitConfig, Receipt, UntilReady,
    claim::{self, MOST, Several, Slot, Slots},
    limiter::Shared,
};

/// A limit for each key, bounded in number, all with the same settings.
///
/// When there is no room for a new key, the least recently used one whose backlog has drained is
/// forgotten: a new limit would let exactly the same pass. When there is none such, new keys share one
/// limit until there is room, which is told as an event ([`What::Overflowed`]); a key that gets room
/// later starts where that limit stands.
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
    keyed: Keyed<Limiter>,
    overflow: Limiter,
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
        let overflow = Limiter::with_bucket(shared.clone(), Some(OVERFLOW.into()), Bucket::new());
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
        self.limiter_for(key, &Call::current())
    }

    /// The limit of a key, if it has one.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Limiter> {
        self.map.keyed.get(key)
    }

    /// The limit that keys share when there is no room for theirs.
    #[must_use]
    pub fn overflow(&self) -> &Limiter {
        &self.map.overflow
    }

    /// All keys that have a limit, with theirs.
    #[must_use]
    pub fn all(&self) -> Vec<(Arc<str>, Limiter)> {
        self.map.keyed.all()
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
    pub fn try_acquire(&self, key: &str) -> Result<Receipt, Limited> {
        self.try_acquire_n(key, 1)
    }

    /// Passes now, at this cost, or not at all: see [`Limiter::try_acquire_n`].
    ///
    /// # Errors
    ///
    /// [`Limited`], which says when it could, or that it never can if the cost is above the burst.
    pub fn try_acquire_n(&self, key: &str, cost: u32) -> Result<Receipt, Limited> {
        let limiter = self.limiter(key);
        let charge = limiter.try_acquire_n(cost)?;
        Ok(Receipt::of_one(limiter, charge))
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
        let Map { shared, keyed, overflow } = &*self.map;
        // Those who have a limit in hand got it under the map's lock, which is held while this is
        // asked: nobody takes from one that is about to be forgotten.
        let may_evict = |limiter: &Limiter| limiter.is_expendable(call.now());
        let make = |key: &Arc<str>| {
            // What the key took while it shared the overflow is not known apart: as if it were all of
            // it. Mostly that is nothing.
            let bucket = Bucket::like(overflow.bucket());
            Limiter::with_bucket(shared.clone(), Some(key.clone()), bucket)
        };
        keyed.get_or_insert_with(key, may_evict, make).unwrap_or_else(|| {
            let capacity = keyed.capacity().get();
            shared.voice.tell_of(Some(key), call, call.now(), || What::Overflowed {
                reason: Reason::Overflow { capacity },
            });
            overflow.clone()
        })
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
