//! One timer for a call, however many layers limit it.
//!
//! Layers that limit time stand above each other, and each would have a timer of its own. But one
//! below that runs out no later wakes the task as well, and the layer above is polled then: until that
//! poll it needs none. So a layer says in each poll what timer it leaves, and looks in each poll at
//! what was left below.

use std::{cell::Cell, mem, ptr, task::Context, time::Instant};

/// The timer that was last left on this thread, to be held in a thread-local: one for futures, one for
/// bodies, and so on, for what contains one kind may not contain the other for long.
#[derive(Debug)]
pub struct LeftTimer {
    at: Cell<Option<Instant>>,
    /// Whom it wakes: the waker's parts. What runs within a poll of ours but is another task, or has a
    /// waker of its own, does not count.
    wakes: Cell<(usize, usize)>,
    /// Where what keeps it lies. What runs within a poll of ours but lies elsewhere may be with another
    /// task by the next poll, which the timer wakes from then on.
    lies: Cell<usize>,
}

// ===== impl LeftTimer =====

impl LeftTimer {
    /// No timer was left yet.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "thread-locals are made in constants")]
    pub const fn new() -> Self {
        Self { at: Cell::new(None), wakes: Cell::new((0, 0)), lies: Cell::new(0) }
    }

    /// Says that a timer which runs out at `at`, and which lies in `keeper` or is kept by it, will wake
    /// this task. Whoever drops the timer, or lets it go, must [forget](Self::forget) it.
    ///
    /// `keeper` is not to be moved out of what polls it while that lives, as what is pinned is not.
    #[inline]
    pub fn leave<T>(&self, cx: &Context<'_>, at: Instant, keeper: &T) {
        self.at.set(Some(at));
        self.wakes.set(parts(cx));
        self.lies.set(ptr::from_ref(keeper).addr());
    }

    /// Whether something that lies in `within` left a timer in this poll that will wake this task by
    /// `at`. To be asked right after `within` was found pending, having [forgotten](Self::forget)
    /// before it was polled.
    #[must_use]
    #[inline]
    pub fn is_left<T>(&self, cx: &Context<'_>, at: Instant, within: &T) -> bool {
        let offset = self.lies.get().wrapping_sub(ptr::from_ref(within).addr());
        self.at.get().is_some_and(|timer| timer <= at)
            && offset < mem::size_of::<T>()
            && self.wakes.get() == parts(cx)
    }

    /// Forgets what timer was left: one that is no more wakes nobody.
    #[inline]
    pub fn forget(&self) {
        self.at.set(None);
    }
}

/// What two wakers that wake the same task have in common.
#[inline]
fn parts(cx: &Context<'_>) -> (usize, usize) {
    let waker = cx.waker();
    (waker.data().addr(), ptr::from_ref(waker.vtable()).addr())
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, task::Wake, time::Duration};

    use super::*;
    use crate::clock;

    struct Task(#[expect(dead_code, reason = "two of no size may be one")] u8);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {}
    }

    #[test]
    fn a_timer_counts_in_time_within_and_for_the_task_it_wakes() {
        let timers = LeftTimer::new();
        let (waker, other) = (Arc::new(Task(1)).into(), Arc::new(Task(2)).into());
        let (cx, other) = (Context::from_waker(&waker), Context::from_waker(&other));
        let now = clock::now();
        let keepers = [[0_u64; 2]; 3];
        assert!(!timers.is_left(&cx, now, &keepers));

        timers.leave(&cx, now, &keepers[1][1]);
        assert!(timers.is_left(&cx, now, &keepers));
        assert!(timers.is_left(&cx, now + Duration::from_nanos(1), &keepers[1]));
        assert!(!timers.is_left(&cx, now - Duration::from_nanos(1), &keepers));
        assert!(!timers.is_left(&other, now, &keepers));
        assert!(!timers.is_left(&cx, now, &keepers[0]));
        assert!(!timers.is_left(&cx, now, &keepers[2]));

        timers.forget();
        assert!(!timers.is_left(&cx, now, &keepers));
    }
}
