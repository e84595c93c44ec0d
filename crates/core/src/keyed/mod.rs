//! State by key, bounded in number.

mod shard;
mod slots;
#[cfg(all(test, not(portcullis_loom)))]
mod tests;

use std::{fmt, hash::BuildHasher, num::NonZeroUsize, sync::Arc};

// A model of loom has to come to the same each time.
#[cfg(portcullis_loom)]
use foldhash::quality::FixedState as Hasher;
#[cfg(not(portcullis_loom))]
use foldhash::quality::RandomState as Hasher;

use self::shard::Shard;

/// A map from keys to state, of bounded size: when it is full, a new key takes the place of one that
/// was not used lately and may be evicted.
///
/// A lookup that hits writes nothing but the key's own entry: it finds it without a lock and locks that
/// one. So threads that use different keys do not wait for each other, nor do their processors fight
/// over a cache line. It allocates nothing. A lookup that misses takes its shard's lock, and costs the
/// same however full the map is.
///
/// # Eviction
///
/// By the clock algorithm (second chance; Corbató 1968): a hand goes round the entries, and takes the
/// first that may be evicted and was not used since it last came by; if there is none such among the
/// next 128, the first of them that may be. Only if none of those 128 may be evicted, a new key gets no
/// entry.
///
/// Maps of fewer than 128 keys are one shard; larger ones have up to 16, each with its share of the
/// capacity, so that one can be full a little before the map is.
///
/// # Memory
///
/// An entry is 64 bytes if the state is at most 16, with a key of up to 23 bytes; a longer key is on
/// the heap. The index takes 8 to 16 bytes more for each. Both are made as keys come, entries for up to
/// twice as many, and are kept.
///
/// ```
/// use portcullis_core::Keyed;
/// use std::num::NonZeroUsize;
///
/// let hits: Keyed<u32> = Keyed::new(NonZeroUsize::new(2).unwrap());
/// let hit = |key| hits.with(key, |_| true, |_| 0, |hits| hits.map(|hits| { *hits += 1; *hits }));
/// assert_eq!((hit("a"), hit("a"), hit("b")), (Some(1), Some(2), Some(1)));
///
/// hit("c"); // in the place of b, which was not used since it came
/// assert_eq!((hits.get("a"), hits.get("b"), hits.get("c")), (Some(2), None, Some(1)));
/// ```
pub struct Keyed<V> {
    shards: Box<[Shard<V>]>,
    /// Seeded at random for each map. Who may choose keys can make many fall together by chance only,
    /// and a chain of keys that do is at most as long as the shard has entries.
    hasher: Hasher,
    capacity: NonZeroUsize,
}

const MOST_SHARDS: usize = 16;
const LEAST_KEYS_PER_SHARD: usize = 64;

// ===== impl Keyed =====

impl<V> Keyed<V> {
    /// An empty map for at most `capacity` keys.
    #[must_use]
    pub fn new(capacity: NonZeroUsize) -> Self {
        let keys = capacity.get();
        let shards = (keys / LEAST_KEYS_PER_SHARD).clamp(1, MOST_SHARDS);
        let share = |nth| keys / shards + usize::from(nth < keys % shards);
        Self {
            shards: (0..shards).map(|nth| Shard::new(share(nth))).collect(),
            hasher: Hasher::default(),
            capacity,
        }
    }

    /// Does something with the state of `key`, made by `make` if there is none yet. It counts as used.
    ///
    /// When the map is full, an entry for which `may_evict` says yes [gives way](Self#eviction). If
    /// there is none such, `f` gets `None`, and nobody makes room for this key until `f` is done.
    ///
    /// All three are called under locks: they must be quick, and not use the map. What is evicted is
    /// dropped outside of them.
    #[inline]
    pub fn with<R>(
        &self,
        key: &str,
        may_evict: impl Fn(&mut V) -> bool,
        make: impl FnOnce(&str) -> V,
        f: impl FnOnce(Option<&mut V>) -> R,
    ) -> R {
        let (shard, hash) = self.find(key);
        match shard.try_seen(hash, key, f) {
            Ok(done) => done,
            Err(f) => shard.with_locked(hash, key, may_evict, make, f),
        }
    }

    /// Does something with the state of `key`, if there is some. It does not count as a use.
    pub fn peek<R>(&self, key: &str, f: impl FnOnce(&mut V) -> R) -> Option<R> {
        let (shard, hash) = self.find(key);
        shard.peek(hash, key, f)
    }

    /// Does something with the state of each key, in no order, under its lock. What changes meanwhile
    /// may or may not show.
    pub fn each(&self, mut f: impl FnMut(&str, &mut V)) {
        self.shards.iter().for_each(|shard| shard.each(&mut f));
    }

    /// How many keys have state.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.iter().map(Shard::len).sum()
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

    #[inline]
    fn find(&self, key: &str) -> (&Shard<V>, u32) {
        let hash = self.hasher.hash_one(key);
        // The low half tells the shard, as a fraction of all; the high one the place in it.
        let shard = ((hash & 0xffff_ffff) * self.shards.len() as u64) >> 32;
        (&self.shards[shard as usize], (hash >> 32) as u32)
    }
}

impl<V: Clone> Keyed<V> {
    /// The state of `key`, made if there is none yet: see [`with`](Self::with). `None` if there is no
    /// room.
    #[must_use]
    pub fn get_or_insert_with(
        &self,
        key: &str,
        may_evict: impl Fn(&mut V) -> bool,
        make: impl FnOnce(&str) -> V,
    ) -> Option<V> {
        self.with(key, may_evict, make, |value| Some(value?.clone()))
    }

    /// The state of `key`, if there is some. It does not count as a use.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<V> {
        self.peek(key, |value| value.clone())
    }

    /// All keys with their state, in no order. What changes meanwhile may or may not show.
    #[must_use]
    pub fn all(&self) -> Vec<(Arc<str>, V)> {
        let mut all = Vec::new();
        self.each(|key, value| all.push((key.into(), value.clone())));
        all
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
