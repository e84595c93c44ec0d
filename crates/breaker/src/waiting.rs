//! Waiting for the breaker to let calls pass.

use std::{
    collections::BTreeMap,
    mem,
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll, Waker},
};

use portcullis_core::{clock, sync::Mutex};
use tokio::time::Sleep;

use crate::Handle;

/// Tasks that wait for the breaker to let calls pass.
#[derive(Default)]
pub(crate) struct Waiters {
    wakers: Mutex<BTreeMap<u64, Waker>>,
    last: AtomicU64,
}

/// This service's place among those that wait for the breaker.
pub(crate) struct Waiting {
    handle: Handle,
    number: u64,
    sleep: Option<Pin<Box<Sleep>>>,
}

// ===== impl Waiters =====

impl Waiters {
    /// A number under which a task may wait.
    pub(crate) fn number(&self) -> u64 {
        self.last.fetch_add(1, Ordering::Relaxed)
    }

    /// Has the task woken at the next change; only its last waker counts.
    pub(crate) fn register(&self, number: u64, waker: &Waker) {
        // Wakers are other people's code: cloned before the lock is taken, dropped after.
        let waker = waker.clone();
        let last = self.wakers.lock().insert(number, waker);
        drop(last);
    }

    pub(crate) fn forget(&self, number: u64) {
        let waker = self.wakers.lock().remove(&number);
        drop(waker);
    }

    pub(crate) fn wake(&self) {
        // Wakers are other people's code: not under the lock.
        let wakers = mem::take(&mut *self.wakers.lock());
        wakers.into_values().for_each(Waker::wake);
    }
}

// ===== impl Waiting =====

impl Waiting {
    pub(crate) fn new(handle: Handle) -> Self {
        let number = handle.waiters().number();
        Self { handle, number, sleep: None }
    }

    /// Ready once a call would not be refused.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            // Registered before the look: a change after the look wakes, one before it is seen.
            self.handle.waiters().register(self.number, cx.waker());
            let Some(refusal) = self.handle.outlook() else { return Poll::Ready(()) };
            let Some(at) = refusal.retry_at else {
                self.sleep = None;
                return Poll::Pending;
            };
            let at = tokio::time::Instant::from_std(at);
            let sleep = match &mut self.sleep {
                Some(sleep) if sleep.deadline() == at => sleep,
                sleep => sleep.insert(Box::pin(tokio::time::sleep_until(at))),
            };
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            // The timer may be ahead of the clock by less than its own resolution: look again at
            // what the breaker says, and wait on if it must be.
            self.sleep = None;
            if clock::now() < at.into_std() {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.handle.waiters().forget(self.number);
    }
}
