//! Which breaker a call is for.

use std::{fmt, num::NonZeroUsize, sync::Arc};

use portcullis_core::{Call, Key, Keyed, Reason, Voice, What, clock};

use crate::{BreakerConfig, Handle};

/// Chooses the breaker for a call: [`Single`], or [`ByKey`].
pub trait Select<Req>: sealed::Sealed {
    /// The breaker for every call, if there is but one.
    fn single(&self) -> Option<&Handle>;

    /// Looks the breaker for a call up, and does something with it.
    fn with<R>(&self, req: &Req, call: &Call, f: impl FnOnce(&Handle) -> R) -> R;
}

/// One breaker for every call.
#[derive(Clone, Debug)]
pub struct Single(pub(crate) Handle);

/// A breaker for each key, which a [`Key`] finds in the request unless the
/// [caller](portcullis_core::call::With::key) names it.
pub struct ByKey<F> {
    pub(crate) key: F,
    pub(crate) handles: Handles,
}

/// The breakers of all keys: bounded in number, the least recently used forgotten first.
///
/// Only closed ones are forgotten. When all are open or under an order, new keys share one breaker
/// until there is room, and each call that does is told as an event
/// ([`What::Overflowed`]). Results of calls that are out when their breaker is forgotten are lost.
///
/// Clones are the same breakers.
#[derive(Clone)]
pub struct Handles {
    shared: Arc<Shared>,
}

struct Shared {
    voice: Voice,
    config: BreakerConfig,
    keyed: Keyed<Handle>,
    overflow: Handle,
}

/// The key that events and errors of the shared breaker carry.
const OVERFLOW: &str = "(overflow)";

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Single {}
    impl<F> Sealed for super::ByKey<F> {}
}

// ===== impl Single =====

impl<Req> Select<Req> for Single {
    #[inline]
    fn single(&self) -> Option<&Handle> {
        Some(&self.0)
    }

    #[inline]
    fn with<R>(&self, _req: &Req, _call: &Call, f: impl FnOnce(&Handle) -> R) -> R {
        f(&self.0)
    }
}

// ===== impl ByKey =====

impl<Req, F> Select<Req> for ByKey<F>
where
    F: Key<Req>,
{
    fn single(&self) -> Option<&Handle> {
        None
    }

    fn with<R>(&self, req: &Req, call: &Call, f: impl FnOnce(&Handle) -> R) -> R {
        let handle = match call.overrides().key.as_deref() {
            Some(key) => self.handles.get_or_create_for(key, call),
            None => self.handles.get_or_create_for(&self.key.key(req), call),
        };
        f(&handle)
    }
}

impl<F: Clone> Clone for ByKey<F> {
    fn clone(&self) -> Self {
        Self { key: self.key.clone(), handles: self.handles.clone() }
    }
}

impl<F> fmt::Debug for ByKey<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByKey").field("handles", &self.handles).finish_non_exhaustive()
    }
}

// ===== impl Handles =====

impl Handles {
    /// For settings that were validated.
    pub(crate) fn new(voice: Voice, config: BreakerConfig) -> Self {
        let keys = NonZeroUsize::new(config.max_keys).unwrap_or(NonZeroUsize::MIN);
        let overflow = Handle::with_voice(voice.clone(), Some(OVERFLOW.into()), config.clone());
        Self { shared: Arc::new(Shared { voice, config, keyed: Keyed::new(keys), overflow }) }
    }

    /// The name that all of them have.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        self.shared.voice.name()
    }

    /// The settings that all of them have.
    #[must_use]
    pub fn config(&self) -> &BreakerConfig {
        &self.shared.config
    }

    /// The breaker of a key, if it has one.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Handle> {
        self.shared.keyed.get(key)
    }

    /// The breaker of a key, made if it has none yet; the shared one if there is no room.
    #[must_use]
    pub fn get_or_create(&self, key: &str) -> Handle {
        self.get_or_create_for(key, &Call::new())
    }

    /// The breaker that keys share when there is no room for theirs.
    #[must_use]
    pub fn overflow(&self) -> &Handle {
        &self.shared.overflow
    }

    /// All keys that have a breaker, with theirs.
    #[must_use]
    pub fn all(&self) -> Vec<(Arc<str>, Handle)> {
        self.shared.keyed.all()
    }

    /// How many keys have a breaker.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.keyed.len()
    }

    /// Whether no key has a breaker.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shared.keyed.is_empty()
    }

    fn get_or_create_for(&self, key: &str, call: &Call) -> Handle {
        let Shared { voice, config, keyed, overflow } = &*self.shared;
        let make = |key: &str| Handle::with_voice(voice.clone(), Some(key.into()), config.clone());
        keyed.get_or_insert_with(key, |handle| handle.is_expendable(), make).unwrap_or_else(|| {
            let capacity = keyed.capacity().get();
            voice.tell_of(Some(key), call, clock::now(), || What::Overflowed {
                reason: Reason::Overflow { capacity },
            });
            overflow.clone()
        })
    }
}

impl fmt::Debug for Handles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handles")
            .field("name", self.name())
            .field("keyed", &self.shared.keyed)
            .finish_non_exhaustive()
    }
}
