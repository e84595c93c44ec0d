//! State by key, bounded in number.

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    mem,
    num::NonZeroUsize,
    sync::Arc,
};

use hashbrown::HashTable;

use crate::sync::Mutex;

/// A map from keys to state, of bounded size: when it is full, a new key takes the place of the one
/// that was used least recently and may be evicted.
///
/// Values are handles (an `Arc`, or something like one): what is evicted lives on for whoever holds
/// it, and the next use of its key starts afresh.
///
/// It is split into up to 16 shards, each with its own lock, its share of the capacity and an exact
/// list by recency, so that a lookup that hits allocates nothing and a lookup that misses costs the
/// same however full the map is. A shard can be full a little before the map is; maps of fewer than
/// 128 keys have one shard only, and are exact.
///
/// ```
/// use portcullis_core::Keyed;
/// use std::{num::NonZeroUsize, sync::Arc};
///
/// let hits: Keyed<Arc<str>> = Keyed::new(NonZeroUsize::new(2).unwrap());
/// let evict_any = |_: &Arc<str>| true;
/// for key in ["a", "b", "a", "c"] {
///     hits.get_or_insert_with(key, evict_any, |key| key.clone()).unwrap();
/// }
/// assert!(hits.get("a").is_some() && hits.get("c").is_some());
/// assert!(hits.get("b").is_none(), "it was used least recently");
/// ```
pub struct Keyed<V> {
    shards: Box<[Mutex<Shard<V>>]>,
    hasher: RandomState,
    capacity: NonZeroUsize,
}

/// Entries in a list from the most to the least recently used, and an index into it by key.
struct Shard<V> {
    index: HashTable<usize>,
    nodes: Vec<Node<V>>,
    /// The most recently used, and the least; `NONE` when empty.
    first: usize,
    last: usize,
    capacity: usize,
}

struct Node<V> {
    key: Arc<str>,
    value: V,
    hash: u64,
    before: usize,
    after: usize,
}

const NONE: usize = usize::MAX;
const MOST_SHARDS: usize = 16;
const LEAST_KEYS_PER_SHARD: usize = 64;

/// How many entries that may not be evicted are looked at to find one that may. They count as used
/// then, so the next search begins behind them.
const LONGEST_SEARCH: usize = 2 * LEAST_KEYS_PER_SHARD;

// ===== impl Keyed =====

impl<V: Clone> Keyed<V> {
    /// An empty map for at most `capacity` keys.
    #[must_use]
    pub fn new(capacity: NonZeroUsize) -> Self {
        let keys = capacity.get();
        let shards = (keys / LEAST_KEYS_PER_SHARD).clamp(1, MOST_SHARDS);
        let shard = |nth| Shard::new(keys / shards + usize::from(nth < keys % shards));
        Self {
            shards: (0..shards).map(|nth| Mutex::new(shard(nth))).collect(),
            hasher: RandomState::new(),
            capacity,
        }
    }

    /// The state of `key`, made if there is none yet; it becomes the most recently used.
    ///
    /// When the map is full, the least recently used entry for which `may_evict` says yes gives way.
    /// `None` if there is none such; what stands in then is the caller's to decide. `may_evict` is
    /// called under a lock and must be quick; `make` is not, and what it made is dropped if another
    /// caller was faster.
    #[must_use]
    pub fn get_or_insert_with(
        &self,
        key: &str,
        may_evict: impl Fn(&V) -> bool,
        make: impl FnOnce(&Arc<str>) -> V,
    ) -> Option<V> {
        let hash = self.hasher.hash_one(key);
        let shard = self.shard(hash);
        {
            let mut shard = shard.lock();
            if let Some(found) = shard.find(hash, key) {
                shard.touch(found);
                return Some(shard.nodes[found].value.clone());
            }
            if !shard.make_room(&may_evict) {
                return None;
            }
        }
        let key: Arc<str> = key.into();
        let made = make(&key);
        let mut locked = shard.lock();
        if let Some(found) = locked.find(hash, &key) {
            locked.touch(found);
            let value = locked.nodes[found].value.clone();
            drop(locked);
            return Some(value);
        }
        // Others may have taken the room in the meantime.
        if !locked.make_room(&may_evict) {
            return None;
        }
        let evicted = locked.insert(hash, key, made.clone());
        // The last holder of what was evicted may be this one: its drop is not run under the lock.
        drop(locked);
        drop(evicted);
        Some(made)
    }

    /// The state of `key`, if there is some. It does not count as a use.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<V> {
        let hash = self.hasher.hash_one(key);
        let shard = self.shard(hash).lock();
        let found = shard.find(hash, key)?;
        Some(shard.nodes[found].value.clone())
    }

    /// All keys with their state, in no order. What changes meanwhile may or may not show.
    #[must_use]
    pub fn all(&self) -> Vec<(Arc<str>, V)> {
        let mut all = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock();
            all.extend(shard.nodes.iter().map(|n| (n.key.clone(), n.value.clone())));
        }
        all
    }
}

impl<V> Keyed<V> {
    /// How many keys have state.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.iter().map(|s| s.lock().nodes.len()).sum()
    }

    /// Whether no key has state.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many keys may have state.
    #[must_use]
    pub fn capacity(&self) -> NonZeroUsize {
        self.capacity
    }

    fn shard(&self, hash: u64) -> &Mutex<Shard<V>> {
        // The table inside takes its buckets from the low bits and its tags from the top seven.
        &self.shards[(hash >> 32) as usize % self.shards.len()]
    }
}

impl<V> fmt::Debug for Keyed<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyed")
            .field("len", &self.len())
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}

// ===== impl Shard =====

impl<V> Shard<V> {
    fn new(capacity: usize) -> Self {
        Self { index: HashTable::new(), nodes: Vec::new(), first: NONE, last: NONE, capacity }
    }

    fn find(&self, hash: u64, key: &str) -> Option<usize> {
        self.index.find(hash, |&at| *self.nodes[at].key == *key).copied()
    }

    /// Sees to it that the least recently used entry may be evicted, if one has to be.
    fn make_room(&mut self, may_evict: impl Fn(&V) -> bool) -> bool {
        if self.nodes.len() < self.capacity {
            return true;
        }
        for _ in 0..self.nodes.len().min(LONGEST_SEARCH) {
            if may_evict(&self.nodes[self.last].value) {
                return true;
            }
            self.touch(self.last);
        }
        false
    }

    /// Puts in a key that is not there, in place of the least recently used one if the shard is full.
    fn insert(&mut self, hash: u64, key: Arc<str>, value: V) -> Option<Node<V>> {
        let node = Node { key, value, hash, before: NONE, after: NONE };
        let (at, evicted) = if self.nodes.len() < self.capacity {
            self.nodes.push(node);
            (self.nodes.len() - 1, None)
        } else {
            let at = self.last;
            self.unlink(at);
            if let Ok(entry) = self.index.find_entry(self.nodes[at].hash, |&it| it == at) {
                entry.remove();
            }
            (at, Some(mem::replace(&mut self.nodes[at], node)))
        };
        self.link_first(at);
        let nodes = &self.nodes;
        self.index.insert_unique(hash, at, |&it| nodes[it].hash);
        evicted
    }

    fn touch(&mut self, at: usize) {
        if self.first != at {
            self.unlink(at);
            self.link_first(at);
        }
    }

    fn unlink(&mut self, at: usize) {
        let Node { before, after, .. } = self.nodes[at];
        match before {
            NONE => self.first = after,
            _ => self.nodes[before].after = after,
        }
        match after {
            NONE => self.last = before,
            _ => self.nodes[after].before = before,
        }
    }

    fn link_first(&mut self, at: usize) {
        self.nodes[at].before = NONE;
        self.nodes[at].after = self.first;
        match self.first {
            NONE => self.last = at,
            first => self.nodes[first].before = at,
        }
        self.first = at;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    type Flag = Arc<AtomicBool>;

    fn map(capacity: usize) -> Keyed<Flag> {
        Keyed::new(NonZeroUsize::new(capacity).unwrap())
    }

    fn may_evict(pinned: &Flag) -> bool {
        !pinned.load(Ordering::Relaxed)
    }

    fn insert(map: &Keyed<Flag>, key: &str, pinned: bool) -> Option<Flag> {
        map.get_or_insert_with(key, may_evict, |_| Flag::new(pinned.into()))
    }

    fn keys(map: &Keyed<Flag>) -> Vec<String> {
        let mut keys: Vec<_> = map.all().iter().map(|(key, _)| key.to_string()).collect();
        keys.sort();
        keys
    }

    #[test]
    fn a_key_keeps_its_state() {
        let map = map(8);
        let one = insert(&map, "a", false).unwrap();
        assert!(Arc::ptr_eq(&one, &insert(&map, "a", true).unwrap()));
        assert!(Arc::ptr_eq(&one, &map.get("a").unwrap()));
        assert!(map.get("b").is_none());
        assert_eq!(map.len(), 1);
    }

    #[test]
    fn the_least_recently_used_gives_way() {
        let map = map(3);
        for key in ["a", "b", "c", "a", "d", "c", "e"] {
            insert(&map, key, false).unwrap();
        }
        assert_eq!(keys(&map), ["c", "d", "e"]);
    }

    #[test]
    fn what_may_not_be_evicted_stays_and_when_all_is_such_a_new_key_gets_nothing() {
        let map = map(3);
        insert(&map, "a", true).unwrap();
        let b = insert(&map, "b", false).unwrap();
        insert(&map, "c", true).unwrap();
        insert(&map, "d", true).unwrap();
        assert_eq!(keys(&map), ["a", "c", "d"]);
        assert_eq!(Arc::strong_count(&b), 1, "evicted for good");

        assert!(insert(&map, "e", false).is_none());
        assert_eq!(keys(&map), ["a", "c", "d"]);

        map.get("c").unwrap().store(false, Ordering::Relaxed);
        assert!(insert(&map, "e", false).is_some());
        assert_eq!(keys(&map), ["a", "d", "e"]);
    }

    #[test]
    fn it_never_holds_more_than_its_capacity() {
        for capacity in [1, 2, 63, 64, 127, 128, 1_000, 5_001] {
            let map = map(capacity);
            assert_eq!(map.shards.iter().map(|s| s.lock().capacity).sum::<usize>(), capacity);
            for key in 0..3 * capacity {
                insert(&map, &key.to_string(), key % 7 == 0);
                assert!(map.shards.len() > 1 || map.len() == capacity.min(key + 1));
            }
            assert!(map.len() <= capacity);
        }
    }

    #[test]
    fn it_agrees_with_a_list_over_a_random_history() {
        let map = map(20);
        let mut list: Vec<(u32, bool)> = Vec::new();
        let mut seed = 7_u32;
        for _ in 0..20_000 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (key, pinned) = (seed >> 16 & 63, seed >> 28 == 0);
            let inserted = insert(&map, &key.to_string(), pinned).is_some();

            let expected = if let Some(at) = list.iter().position(|&(k, _)| k == key) {
                let entry = list.remove(at);
                list.push(entry);
                true
            } else if list.len() < 20 {
                list.push((key, pinned));
                true
            } else if let Some(at) = list.iter().position(|&(_, pinned)| !pinned) {
                // Those it passed over count as used.
                list.rotate_left(at);
                list.remove(0);
                list.push((key, pinned));
                true
            } else {
                false
            };
            assert_eq!(inserted, expected);
            if seed >> 20 & 63 == 0 {
                for (key, pinned) in &mut list {
                    *pinned = false;
                    map.get(&key.to_string()).unwrap().store(false, Ordering::Relaxed);
                }
            }
        }
        let mut expected: Vec<_> = list.iter().map(|(key, _)| key.to_string()).collect();
        expected.sort();
        assert_eq!(keys(&map), expected);
    }

    #[test]
    fn many_threads_at_once_agree_on_the_state_of_a_key() {
        let map = map(4);
        std::thread::scope(|scope| {
            let all: Vec<_> =
                (0..4).map(|_| scope.spawn(|| insert(&map, "a", true).unwrap())).collect();
            let all: Vec<_> = all.into_iter().map(|t| t.join().unwrap()).collect();
            assert!(all.windows(2).all(|two| Arc::ptr_eq(&two[0], &two[1])));
        });
    }
}
