//! The entries of a shard, and the index of them.
//!
//! Both grow by blocks that never move, so that who reads needs no lock.

use std::sync::OnceLock;

use smol_str::SmolStr;

use crate::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed},
};

/// A place for an entry. One cache line, so that those who use neighbours do not fight over it.
#[repr(align(64))]
pub(super) struct Slot<V> {
    /// The hash of the entry's key, and the next slot in its chain: hints, see [`Index`].
    pub(super) hash: AtomicU32,
    pub(super) next: AtomicU32,
    /// Whether it was used since the hand came by.
    pub(super) used: AtomicBool,
    /// What counts.
    pub(super) entry: Mutex<Option<Entry<V>>>,
}

pub(super) struct Entry<V> {
    pub(super) key: SmolStr,
    pub(super) value: V,
}

/// Slots 0 to the capacity, made as they are needed: each block is twice as large as the one before.
pub(super) struct Slots<V> {
    blocks: Box<[Block<Slot<V>>]>,
    capacity: usize,
}

/// Heads of chains of slots, as many as there are slots or up to twice that.
///
/// Chains are changed under the shard's lock only, and true for who has it. Without it they are hints:
/// a slot that is found may have been given to another key, and a key that is there may not be found.
/// Nothing depends on what is read then, so it needs no ordering: the slot's lock gives the entry, and
/// the entry says whose it is.
pub(super) struct Index {
    /// Each has twice as many heads as the one before, which is of no more use then.
    tables: Box<[Block<AtomicU32>]>,
    /// The one in use; none at first.
    current: AtomicUsize,
}

/// Made when it is needed.
type Block<T> = OnceLock<Box<[T]>>;

/// The slot that is none.
pub(super) const NONE: u32 = u32::MAX;

/// Slots of the first block, and heads of the first table. With as few as this under loom, a model's
/// few keys see them grow.
const FIRST: usize = if cfg!(portcullis_loom) { 1 } else { 64 };

// ===== impl Slot =====

impl<V> Slot<V> {
    fn new() -> Self {
        Self {
            hash: AtomicU32::new(0),
            next: AtomicU32::new(NONE),
            used: AtomicBool::new(false),
            entry: Mutex::new(None),
        }
    }
}

// ===== impl Entry =====

impl<V> Entry<V> {
    /// The value, if it is this key's.
    #[inline]
    pub(super) fn of<'a>(entry: &'a mut Option<Self>, key: &str) -> Option<&'a mut V> {
        entry.as_mut().filter(|entry| entry.key == *key).map(|entry| &mut entry.value)
    }
}

// ===== impl Slots =====

impl<V> Slots<V> {
    pub(super) fn new(capacity: usize) -> Self {
        // The names of slots are 32 bits, and one of them is none.
        let capacity = capacity.min(NONE as usize - 1);
        let (last, _) = place(capacity.saturating_sub(1));
        let slots = Self { blocks: (0..=last).map(|_| OnceLock::new()).collect(), capacity };
        if cfg!(portcullis_loom) {
            // It does not see what a `OnceLock` orders: there all are made at once.
            (0..capacity as u32).for_each(|at| _ = slots.get_or_make(at));
        }
        slots
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// A slot, if there is one of this name yet.
    #[inline]
    pub(super) fn get(&self, at: u32) -> Option<&Slot<V>> {
        let (block, within) = place(at as usize);
        self.blocks.get(block)?.get()?.get(within)
    }

    /// A slot below the capacity, made if need be.
    pub(super) fn get_or_make(&self, at: u32) -> &Slot<V> {
        let (block, within) = place(at as usize);
        let slots = self.blocks[block].get_or_init(|| {
            let left = self.capacity - (at as usize - within);
            (0..left.min(FIRST << block)).map(|_| Slot::new()).collect()
        });
        &slots[within]
    }
}

/// The block of a slot, and its place within.
#[inline]
fn place(at: usize) -> (usize, usize) {
    let block = (at / FIRST + 1).ilog2() as usize;
    (block, at - FIRST * ((1 << block) - 1))
}

/// The first table with so many heads.
fn table_for(len: usize) -> usize {
    len.div_ceil(FIRST).next_power_of_two().ilog2() as usize
}

// ===== impl Index =====

impl Index {
    pub(super) fn new(capacity: usize) -> Self {
        let last = table_for(capacity);
        let tables = (0..=last).map(|_| OnceLock::new()).collect();
        let index = Self { tables, current: AtomicUsize::new(usize::MAX) };
        if cfg!(portcullis_loom) {
            // As for slots.
            (0..=last).for_each(|table| index.make(table));
        }
        index
    }

    /// The head of the chain that a hash belongs to.
    #[inline]
    pub(super) fn head(&self, hash: u32) -> Option<&AtomicU32> {
        let heads = self.tables.get(self.current.load(Relaxed))?.get()?;
        heads.get(hash as usize & (heads.len() - 1))
    }

    /// Under the shard's lock: begins a table with a head at least for each of `len` slots, if there is
    /// none such; they have to be [linked](Self::link) into it then.
    pub(super) fn grow_for(&self, len: usize) -> bool {
        let needed = table_for(len);
        if self.current.load(Relaxed) == needed {
            return false;
        }
        self.make(needed);
        self.current.store(needed, Relaxed);
        true
    }

    fn make(&self, table: usize) {
        let heads = || (0..FIRST << table).map(|_| AtomicU32::new(NONE)).collect();
        self.tables[table].get_or_init(heads);
    }

    /// Under the shard's lock: puts a slot at the head of the chain of its hash.
    pub(super) fn link<V>(&self, at: u32, slot: &Slot<V>) {
        if let Some(head) = self.head(slot.hash.load(Relaxed)) {
            slot.next.store(head.load(Relaxed), Relaxed);
            head.store(at, Relaxed);
        }
    }

    /// Under the shard's lock: takes a slot out of its chain.
    pub(super) fn unlink<V>(&self, at: u32, slot: &Slot<V>, slots: &Slots<V>) {
        let mut link = self.head(slot.hash.load(Relaxed));
        while let Some(it) = link {
            match it.load(Relaxed) {
                found if found == at => return it.store(slot.next.load(Relaxed), Relaxed),
                other => link = slots.get(other).map(|slot| &slot.next),
            }
        }
    }
}

#[cfg(all(test, not(portcullis_loom)))]
mod tests {
    use super::*;

    #[test]
    fn an_entry_of_two_words_is_one_cache_line() {
        assert_eq!(size_of::<Slot<[u64; 2]>>(), 64);
    }

    #[test]
    fn every_slot_up_to_the_capacity_has_its_place() {
        for capacity in [1, 63, 64, 65, 192, 193, 1_000] {
            let slots: Slots<()> = Slots::new(capacity);
            for at in 0..capacity as u32 {
                slots.get_or_make(at).hash.store(at, Relaxed);
            }
            assert!((0..capacity as u32).all(|at| slots.get(at).unwrap().hash.load(Relaxed) == at));
            let made: usize =
                slots.blocks.iter().flat_map(|block| block.get()).map(|b| b.len()).sum();
            assert_eq!(made, capacity);
            assert!(slots.get(capacity as u32).is_none() && slots.get(NONE).is_none());
        }
    }
}
