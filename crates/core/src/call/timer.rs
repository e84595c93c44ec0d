//! One timer for a call, however many layers limit it.
//!
//! Layers that limit time stand above each other, and each would have a timer of its own. But one
//! below that runs out no later wakes the task as well, and the layer above is polled then: until that
//! poll it needs none. So a layer says in each poll what timer it leaves, and looks in each poll at
//! what was left below.

use std::{cell::Cell, task::Context, time::Instant};

thread_local! {
    static AT: Cell<Option<Instant>> = const { Cell::new(None) };
    /// Whom it wakes: the waker's address. What runs within a poll of ours but is another task, or has
    /// a waker of its own, does not count.
    static WAKES: Cell<usize> = const { Cell::new(0) };
}

/// Says that a timer which runs out at `at` will wake this task. Whoever drops the timer, or lets it
/// go, must [forget](forget_timer) it.
#[inline]
pub fn leave_timer(cx: &Context<'_>, at: Instant) {
    AT.set(Some(at));
    WAKES.set(cx.waker().data().addr());
}

/// Whether a layer below left a timer in this poll that will wake this task by `at`. To be asked right
/// after what is below was found pending, having [forgotten](forget_timer) before it was polled.
#[must_use]
#[inline]
pub fn has_timer(cx: &Context<'_>, at: Instant) -> bool {
    AT.get().is_some_and(|timer| timer <= at) && WAKES.get() == cx.waker().data().addr()
}

/// Forgets what timer was left: one that is no more wakes nobody.
#[inline]
pub fn forget_timer() {
    AT.set(None);
}
