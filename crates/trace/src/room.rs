//! What may wait to be stored: so many traces, of so many bytes together.

use portcullis_core::sync::atomic::{AtomicU64, Ordering};

/// The traces that wait and their bytes, in one word, so that both bounds hold at once and nothing
/// comes in once it is closed. From the left: a bit that says closed, the traces, the bytes.
///
/// Nothing is published through it, so every access is relaxed: the order of its own changes is all
/// that counts, and the queues hand over what is in them by themselves.
#[derive(Debug)]
pub(crate) struct Room {
    taken: AtomicU64,
    most: Load,
}

/// Traces, and their bytes together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) traces: u64,
    pub(crate) bytes: u64,
}

const CLOSED: u64 = 1 << 63;
/// Bits for the bytes, of which the settings allow 64 GiB; the 23 for traces hold eight times the
/// million they allow.
const BYTES: u32 = 40;

// ===== impl Room =====

impl Room {
    /// Room for `most`, as the settings allow it.
    pub(crate) fn new(most: Load) -> Self {
        Self { taken: AtomicU64::new(0), most }
    }

    /// Takes room for one trace; `false` if there is none, or it is closed.
    #[must_use]
    pub(crate) fn take(&self, bytes: u64) -> bool {
        let fits =
            |load: Load| load.traces < self.most.traces && load.bytes + bytes <= self.most.bytes;
        self.add(bytes, fits)
    }

    /// Takes room for one trace where there may be none, for who [makes](Self::is_crowded) some then;
    /// `false` if it is closed.
    #[must_use]
    pub(crate) fn take_anyway(&self, bytes: u64) -> bool {
        self.add(bytes, |_| true)
    }

    /// Whether more is in it than should be.
    pub(crate) fn is_crowded(&self) -> bool {
        let Load { traces, bytes } = self.load();
        traces > self.most.traces || bytes > self.most.bytes
    }

    fn add(&self, bytes: u64, fits: impl Fn(Load) -> bool) -> bool {
        let add = |taken: u64| {
            let more = (Load { traces: 1, bytes }).word();
            (taken & CLOSED == 0 && fits(Load::of(taken))).then(|| taken + more)
        };
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
    }

    /// Gives back what was taken for one trace.
    pub(crate) fn give_back(&self, bytes: u64) {
        self.taken.fetch_sub(Load { traces: 1, bytes }.word(), Ordering::Relaxed);
    }

    /// What waits, or is about to.
    pub(crate) fn load(&self) -> Load {
        Load::of(self.taken.load(Ordering::Relaxed))
    }

    /// Lets nothing in any more.
    pub(crate) fn close(&self) {
        self.taken.fetch_or(CLOSED, Ordering::Relaxed);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.taken.load(Ordering::Relaxed) & CLOSED != 0
    }

    /// Whether it is closed and nothing is left in it: nor ever will be.
    pub(crate) fn is_over(&self) -> bool {
        self.taken.load(Ordering::Relaxed) == CLOSED
    }
}

// ===== impl Load =====

impl Load {
    const MOST_BYTES: u64 = (1 << BYTES) - 1;

    fn of(word: u64) -> Self {
        Self { traces: (word & !CLOSED) >> BYTES, bytes: word & Self::MOST_BYTES }
    }

    fn word(self) -> u64 {
        self.traces << BYTES | self.bytes
    }
}

#[cfg(all(test, not(portcullis_loom)))]
mod tests {
    use super::*;

    #[test]
    fn neither_traces_nor_bytes_go_beyond_their_bound_and_what_leaves_makes_room() {
        let room = Room::new(Load { traces: 3, bytes: 100 });
        assert!(!room.take(101));
        assert!(room.take(60) && room.take(40));
        assert!(!room.take(1), "of bytes");
        room.give_back(60);
        assert!(room.take(0) && room.take(0));
        assert!(!room.take(0), "of traces");
        assert_eq!(room.load(), Load { traces: 3, bytes: 40 });
    }

    #[test]
    fn who_comes_anyway_crowds_it_until_something_leaves() {
        let room = Room::new(Load { traces: 1, bytes: 100 });
        assert!(room.take(60) && !room.is_crowded());
        assert!(room.take_anyway(60) && room.is_crowded());
        room.give_back(60);
        assert!(!room.is_crowded());
        room.give_back(60);
        assert!(room.take(100) && !room.is_crowded(), "full is not crowded");
    }

    #[test]
    fn once_it_is_closed_nothing_comes_in_and_it_is_over_with_the_last_to_leave() {
        let room = Room::new(Load { traces: 4, bytes: Load::MOST_BYTES });
        assert!(room.take(Load::MOST_BYTES) && !room.is_closed());
        room.close();
        assert!(room.is_closed());
        assert!(!room.take(0) && !room.take_anyway(0));
        assert_eq!(room.load(), Load { traces: 1, bytes: Load::MOST_BYTES });
        assert!(!room.is_over());
        room.give_back(Load::MOST_BYTES);
        assert!(room.is_over());
    }
}
