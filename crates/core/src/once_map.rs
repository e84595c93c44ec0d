//! A map that only grows, up to a bound, and is read without a lock.

use std::{
    fmt,
    hash::{BuildHasher, Hash},
    sync::OnceLock,
};

use foldhash::fast::RandomState;

use crate::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

/// A map that only grows, up to a bound, and is read without a lock: for what is counted by name.
///
/// Entries are never moved nor taken out, so a reader follows a probe sequence of slots that are each
/// set once. Whoever comes first for a key makes its entry, under a lock that readers do not take. An
/// empty one allocates nothing.
///
/// ```
/// use portcullis_core::OnceMap;
/// use std::sync::atomic::{AtomicU32, Ordering};
///
/// let counters: OnceMap<Box<str>, AtomicU32> = OnceMap::new(1);
/// let count = |name: &str| {
///     let make = || (name.into(), AtomicU32::new(0));
///     let counter = counters.get_or_insert_with(name, |known| **known == *name, make)?;
///     Some(counter.fetch_add(1, Ordering::Relaxed) + 1)
/// };
/// assert_eq!(count("search"), Some(1));
/// assert_eq!(count("search"), Some(2));
/// assert_eq!(count("mail"), None, "there is room for one");
/// ```
pub struct OnceMap<K, V> {
    /// A power of two, twice the entries at least: a probe always finds an end.
    slots: OnceLock<Box<[Slot<K, V>]>>,
    hasher: RandomState,
    capacity: usize,
    taken: AtomicUsize,
    /// Held to make an entry, so that no two are made for one key.
    filling: Mutex<()>,
}

type Slot<K, V> = OnceLock<(K, V)>;

// ===== impl OnceMap =====

impl<K, V> OnceMap<K, V> {
    /// One for so many entries at most.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let hasher = RandomState::default();
        let taken = AtomicUsize::new(0);
        Self { slots: OnceLock::new(), hasher, capacity, taken, filling: Mutex::new(()) }
    }

    /// The entry that `is` finds among those with the hash of `key`, made by `make` if there is none;
    /// `None` if there is no room for another.
    ///
    /// What hashes differently must not be one to `is`, and `make` makes what `is` finds.
    #[inline]
    pub fn get_or_insert_with<Q: Hash + ?Sized>(
        &self,
        key: &Q,
        is: impl Fn(&K) -> bool,
        make: impl Fn() -> (K, V),
    ) -> Option<&V> {
        let slots = self.slots.get_or_init(|| {
            let slots = (2 * self.capacity).next_power_of_two();
            (0..slots).map(|_| OnceLock::new()).collect()
        });
        self.probe(slots, key, is, |slot| self.fill(slot, &make))
    }

    /// The entry that `is` finds among those with the hash of `key`, if there is one.
    #[inline]
    pub fn get<Q: Hash + ?Sized>(&self, key: &Q, is: impl Fn(&K) -> bool) -> Option<&V> {
        self.probe(self.slots.get()?, key, is, |_| None)
    }

    /// All entries there are by now, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        let slots = self.slots.get().map(|slots| &**slots).unwrap_or_default();
        slots.iter().filter_map(|slot| slot.get().map(|(key, value)| (key, value)))
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline]
    fn probe<'a, Q: Hash + ?Sized>(
        &self,
        slots: &'a [Slot<K, V>],
        key: &Q,
        is: impl Fn(&K) -> bool,
        end: impl Fn(&'a Slot<K, V>) -> Option<&'a (K, V)>,
    ) -> Option<&'a V> {
        let mask = slots.len() - 1;
        let mut at = self.hasher.hash_one(key) as usize & mask;
        loop {
            let (known, value) = match slots[at].get() {
                Some(entry) => entry,
                None => end(&slots[at])?,
            };
            if is(known) {
                return Some(value);
            }
            at = (at + 1) & mask;
        }
    }

    /// Makes an entry, or finds the one that somebody else made meanwhile, perhaps for another key.
    #[cold]
    fn fill<'a>(&self, slot: &'a Slot<K, V>, make: &impl Fn() -> (K, V)) -> Option<&'a (K, V)> {
        // Acquire, with the release below: who sees that there is no room left sees all entries.
        if self.taken.load(Ordering::Acquire) >= self.capacity {
            return slot.get();
        }
        let _filling = self.filling.lock();
        let taken = self.taken.load(Ordering::Relaxed);
        if slot.get().is_some() || taken >= self.capacity {
            return slot.get();
        }
        let entry = slot.get_or_init(make);
        self.taken.store(taken + 1, Ordering::Release);
        Some(entry)
    }
}

impl<K, V> fmt::Debug for OnceMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnceMap")
            .field("taken", &self.taken.load(Ordering::Relaxed))
            .field("capacity", &self.capacity)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn get(slots: &OnceMap<u32, u32>, key: u32) -> Option<u32> {
        slots.get_or_insert_with(&key, |known| *known == key, || (key, key * 10)).copied()
    }

    #[test]
    fn entries_are_made_once_and_no_more_than_there_is_room_for() {
        let slots = OnceMap::new(5);
        for key in 0..5 {
            assert_eq!(get(&slots, key), Some(key * 10));
        }
        assert_eq!(get(&slots, 5), None);
        assert_eq!(get(&slots, 3), Some(30), "what is there stays");
        assert_eq!(slots.len(), 5);
        assert_eq!(slots.get(&4, |known| *known == 4), Some(&40));
        assert_eq!(slots.get(&5, |known| *known == 5), None);
        let mut all: Vec<_> = slots.iter().map(|(key, _)| *key).collect();
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3, 4]);
        assert_eq!(get(&OnceMap::new(0), 1), None);
        assert_eq!(OnceMap::<u32, u32>::new(5).get(&1, |_| true), None);
    }

    #[test]
    fn threads_that_come_at_once_find_the_same_entries() {
        let slots = OnceMap::new(100);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for key in 0..100 {
                        assert_eq!(get(&slots, key), Some(key * 10));
                    }
                });
            }
        });
        assert_eq!(slots.len(), 100);
        assert_eq!(get(&slots, 100), None);
    }
}
