//! A part of the map, with a lock for what comes and goes.

use super::slots::{Entry, Index, NONE, Slots};
use crate::sync::{Mutex, atomic::Ordering::Relaxed};

/// Two cache lines, for processors fetch them in pairs.
#[repr(align(128))]
pub(super) struct Shard<V> {
    slots: Slots<V>,
    index: Index,
    clock: Clock,
}

/// Apart from what every lookup reads.
#[repr(align(128))]
struct Clock(Mutex<Hand>);

/// Who has it may put entries in and take them out. It is taken before an entry's lock, never after.
struct Hand {
    /// Slots below this have an entry.
    len: u32,
    /// Where the search for one to evict goes on.
    at: u32,
}

/// How many entries are looked at to find one that may be evicted.
const LONGEST_SEARCH: u32 = 128;

/// How far a chain is followed without the lock. It may be changed meanwhile, and lead round in a
/// circle.
const LONGEST_CHAIN: usize = 16;

// ===== impl Shard =====

impl<V> Shard<V> {
    pub(super) fn new(capacity: usize) -> Self {
        let slots = Slots::new(capacity);
        let index = Index::new(slots.capacity());
        Self { slots, index, clock: Clock(Mutex::new(Hand { len: 0, at: 0 })) }
    }

    pub(super) fn len(&self) -> usize {
        self.clock.0.lock().len as usize
    }

    /// Uses the state of a key that is found without the shard's lock; hands `f` back if it was not.
    #[inline]
    pub(super) fn try_seen<R, F>(&self, hash: u32, key: &str, f: F) -> Result<R, F>
    where
        F: FnOnce(Option<&mut V>) -> R,
    {
        let Some(head) = self.index.head(hash) else { return Err(f) };
        let mut at = head.load(Relaxed);
        for _ in 0..LONGEST_CHAIN {
            let Some(slot) = self.slots.get(at) else { break };
            if slot.hash.load(Relaxed) == hash {
                // It is looked up and used under one lock: whoever evicts it comes before, and then it
                // is not this key's any more, or after.
                let mut entry = slot.entry.lock();
                if let Some(value) = Entry::of(&mut entry, key) {
                    // Mostly it is set, and then the line need not be written for it.
                    if !slot.used.load(Relaxed) {
                        slot.used.store(true, Relaxed);
                    }
                    return Ok(f(Some(value)));
                }
            }
            at = slot.next.load(Relaxed);
        }
        Err(f)
    }

    /// Uses the state of a key that may be new, with nobody else making room or entries.
    #[inline(never)]
    pub(super) fn with_locked<R>(
        &self,
        hash: u32,
        key: &str,
        may_evict: impl Fn(&mut V) -> bool,
        make: impl FnOnce(&str) -> V,
        f: impl FnOnce(Option<&mut V>) -> R,
    ) -> R {
        let mut hand = self.clock.0.lock();
        if let Some(at) = self.find(hash, key) {
            let slot = self.slots.get_or_make(at);
            slot.used.store(true, Relaxed);
            return f(Entry::of(&mut slot.entry.lock(), key));
        }
        let Some((at, evicted)) = self.make_room(&mut hand, may_evict) else { return f(None) };
        let slot = self.slots.get_or_make(at);
        let mut entry = slot.entry.lock();
        // The maker may panic. Then the slot is as it was: in no chain, and the next to be given away
        // or, if all are, empty.
        let it = entry.insert(Entry { key: key.into(), value: make(key) });
        // So may the user: by then the entry is found like any other.
        hand.len = hand.len.max(at + 1);
        slot.hash.store(hash, Relaxed);
        self.index.link(at, slot);
        let done = f(Some(&mut it.value));
        drop(entry);
        // What was evicted is dropped when nobody waits for that.
        drop(hand);
        drop(evicted);
        done
    }

    pub(super) fn peek<R>(&self, hash: u32, key: &str, f: impl FnOnce(&mut V) -> R) -> Option<R> {
        let _hand = self.clock.0.lock();
        let slot = self.slots.get(self.find(hash, key)?)?;
        Entry::of(&mut slot.entry.lock(), key).map(f)
    }

    pub(super) fn each(&self, f: &mut impl FnMut(&str, &mut V)) {
        let len = self.clock.0.lock().len;
        for slot in (0..len).filter_map(|at| self.slots.get(at)) {
            if let Some(Entry { key, value }) = &mut *slot.entry.lock() {
                f(key, value);
            }
        }
    }

    /// Under the shard's lock: the slot of a key.
    fn find(&self, hash: u32, key: &str) -> Option<u32> {
        let mut at = self.index.head(hash)?.load(Relaxed);
        while at != NONE {
            let slot = self.slots.get(at)?;
            if slot.hash.load(Relaxed) == hash && Entry::of(&mut slot.entry.lock(), key).is_some() {
                return Some(at);
            }
            at = slot.next.load(Relaxed);
        }
        None
    }

    /// A slot that is in no chain, and what was evicted from it.
    fn make_room(
        &self,
        hand: &mut Hand,
        may_evict: impl Fn(&mut V) -> bool,
    ) -> Option<(u32, Option<Entry<V>>)> {
        if (hand.len as usize) < self.slots.capacity() {
            let at = hand.len;
            if self.index.grow_for(at as usize + 1) {
                for (at, slot) in (0..at).filter_map(|at| Some((at, self.slots.get(at)?))) {
                    self.index.link(at, slot);
                }
            }
            return Some((at, None));
        }
        let mut second = None;
        for _ in 0..hand.len.min(LONGEST_SEARCH) {
            let at = hand.at;
            hand.at = (at + 1) % hand.len;
            let Some(slot) = self.slots.get(at) else { continue };
            let used = slot.used.swap(false, Relaxed);
            if used && second.is_some() {
                continue;
            }
            // The one lock for the question and the eviction: who uses the entry meanwhile finds it as
            // it was, before the question, or gone.
            let mut entry = slot.entry.lock();
            // Nothing was put there: the maker panicked.
            let Some(it) = &mut *entry else { return Some((at, None)) };
            match may_evict(&mut it.value) {
                false => {}
                true if used => second = Some(at),
                true => {
                    let evicted = entry.take();
                    self.index.unlink(at, slot, &self.slots);
                    return Some((at, evicted));
                }
            }
        }
        // All that may be evicted were used lately.
        let at = second?;
        let slot = self.slots.get(at)?;
        let evicted = slot.entry.lock().take_if(|entry| may_evict(&mut entry.value))?;
        self.index.unlink(at, slot, &self.slots);
        Some((at, Some(evicted)))
    }
}
