//! A map that only grows, up to a bound, and is read without a lock.

use std::{
    fmt,
    hash::{BuildHasher, Hash},
    sync::OnceLock,
};

use foldhash::fast::RandomState;
use portcullis_core::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

/// Entries are never moved nor taken out, so a reader follows a probe sequence of slots that are each
/// set once, and takes no lock. Whoever comes first for a key makes its entry.
pub(crate) struct Slots<K, V> {
    /// A power of two, twice the entries at least: a probe always finds an end.
    slots: OnceLock<Box<[Slot<K, V>]>>,
    hasher: RandomState,
    capacity: usize,
    taken: AtomicUsize,
    /// Held to make an entry, so that no two are made for one key.
    filling: Mutex<()>,
}

type Slot<K, V> = OnceLock<(K, V)>;

// ===== impl Slots =====

impl<K, V> Slots<K, V> {
    pub(crate) fn new(capacity: usize) -> Self {
        let hasher = RandomState::default();
        let taken = AtomicUsize::new(0);
        Self { slots: OnceLock::new(), hasher, capacity, taken, filling: Mutex::new(()) }
    }

    /// The entry that `is` finds among those with the hash of `key`, made by `make` if there is none;
    /// `None` if there is no room for another.
    #[inline]
    pub(crate) fn get<Q: Hash + ?Sized>(
        &self,
        key: &Q,
        is: impl Fn(&K) -> bool,
        make: impl Fn() -> (K, V),
    ) -> Option<&V> {
        let slots = self.slots.get_or_init(|| {
            let slots = (2 * self.capacity).next_power_of_two();
            (0..slots).map(|_| OnceLock::new()).collect()
        });
        let mask = slots.len() - 1;
        let mut at = self.hasher.hash_one(key) as usize & mask;
        loop {
            let (known, value) = match slots[at].get() {
                Some(entry) => entry,
                None => self.fill(&slots[at], &make)?,
            };
            if is(known) {
                return Some(value);
            }
            at = (at + 1) & mask;
        }
    }

    /// How many entries there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
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

impl<K, V> fmt::Debug for Slots<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slots")
            .field("taken", &self.taken.load(Ordering::Relaxed))
            .field("capacity", &self.capacity)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn get(slots: &Slots<u32, u32>, key: u32) -> Option<u32> {
        slots.get(&key, |known| *known == key, || (key, key * 10)).copied()
    }

    #[test]
    fn entries_are_made_once_and_no_more_than_there_is_room_for() {
        let slots = Slots::new(5);
        for key in 0..5 {
            assert_eq!(get(&slots, key), Some(key * 10));
        }
        assert_eq!(get(&slots, 5), None);
        assert_eq!(get(&slots, 3), Some(30), "what is there stays");
        assert_eq!(slots.len(), 5);
        assert_eq!(get(&Slots::new(0), 1), None);
    }

    #[test]
    fn threads_that_come_at_once_find_the_same_entries() {
        let slots = Slots::new(100);
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
