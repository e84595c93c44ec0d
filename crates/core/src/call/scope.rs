//! The task's current call.
//!
//! A thread-local holds the call of whatever future is being polled. Entering swaps the future's
//! own call in, leaving swaps it out again: no reference count is touched.

use std::{
    cell::RefCell,
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;

use super::Call;

thread_local! {
    // Borrowed for a copy or a swap, never while anybody else's code runs.
    static CURRENT: RefCell<Call> = const { RefCell::new(Call::EMPTY) };
}

pin_project! {
    /// A future that runs with a [`Call`] current, around every poll and around its drop.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct Scoped<F> {
        call: Call,
        // `None` once it was dropped within the scope, at its end or before.
        #[pin]
        future: Option<F>,
    }

    impl<F> PinnedDrop for Scoped<F> {
        fn drop(this: Pin<&mut Self>) {
            this.clear();
        }
    }
}

/// The current call of this thread.
#[inline]
pub(super) fn current() -> Call {
    // While a thread ends its locals are gone: there is no scope any more.
    CURRENT.try_with(|current| current.borrow().clone()).unwrap_or_default()
}

/// Whether a limit that ran out is dropping what it ended.
#[inline]
pub(crate) fn is_expired() -> bool {
    CURRENT.try_with(|current| current.borrow().expired).unwrap_or_default()
}

/// Runs `f` with `call` current.
#[inline]
pub(super) fn within<R>(call: &mut Call, f: impl FnOnce() -> R) -> R {
    let _entered = Entered::new(call);
    f()
}

/// Holds the call that was current before; puts it back on drop, also when the scope panics.
struct Entered<'a> {
    outer: &'a mut Call,
}

// ===== impl Entered =====

impl<'a> Entered<'a> {
    #[inline]
    fn new(call: &'a mut Call) -> Self {
        swap(call);
        Self { outer: call }
    }
}

impl Drop for Entered<'_> {
    #[inline]
    fn drop(&mut self) {
        swap(self.outer);
    }
}

#[inline]
fn swap(call: &mut Call) {
    // See `current` for the error.
    let _ = CURRENT.try_with(|current| mem::swap(&mut *current.borrow_mut(), call));
}

// ===== impl Scoped =====

impl<F> Scoped<F> {
    pub(super) fn new(call: Call, future: F) -> Self {
        Self { call, future: Some(future) }
    }

    /// The call the future runs in.
    #[must_use]
    pub fn call(&self) -> &Call {
        &self.call
    }

    /// Drops the future within its scope, before `self` is dropped. Polling it afterwards panics.
    pub fn clear(self: Pin<&mut Self>) {
        let mut this = self.project();
        if this.future.is_some() {
            // A limit above that drops this future drops what is inside it too: a scope of our own
            // must not hide that from the completions in there.
            this.call.expired |= is_expired();
            within(this.call, || this.future.set(None));
        }
    }

    /// Drops the future within its scope because a limit ran out: whatever
    /// [`Completion`](crate::Completion) goes with it reports a timeout, not a caller who gave up.
    /// Polling it afterwards panics.
    pub fn expire(mut self: Pin<&mut Self>) {
        self.as_mut().project().call.expired = true;
        self.clear();
    }
}

impl<F: Future> Future for Scoped<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        within(this.call, || {
            let future = this.future.as_mut().as_pin_mut().expect("polled after it was cleared");
            let output = ready!(future.poll(cx));
            // Dropped while the scope is entered anyway; so what it held is free by now.
            this.future.set(None);
            Poll::Ready(output)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, time::Duration};

    use super::*;
    use crate::clock;

    async fn attempt_after_yield() -> u32 {
        tokio::task::yield_now().await;
        Call::current().attempt()
    }

    #[tokio::test]
    async fn joined_calls_share_nothing_but_their_parent() {
        let parent = Call::new().with_attempt(7);
        let (one, two, bare) = parent
            .in_scope(async {
                let call = Call::current();
                tokio::join!(
                    call.clone().with_attempt(1).in_scope(attempt_after_yield()),
                    call.with_attempt(2).in_scope(attempt_after_yield()),
                    attempt_after_yield(),
                )
            })
            .await;
        assert_eq!((one, two, bare), (1, 2, 7));
        assert_eq!(Call::current().attempt(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_carried_over_from_within_a_call_has_a_clock_of_its_own() {
        let start = clock::now();
        let mut carried = None;
        let scoped = Call::new().enter(start, || {
            let later = async {
                tokio::time::advance(Duration::from_secs(1)).await;
                Call::current().now()
            };
            carried = Some(Call::current().in_scope(later));
            std::future::ready(())
        });
        scoped.await;
        assert_eq!(carried.unwrap().await, start + Duration::from_secs(1));
    }

    #[tokio::test]
    async fn what_is_carried_over_from_an_expired_scope_is_not_expired_itself() {
        let mut carried = None;
        crate::call::expire(|| {
            assert!(Call::current().is_expired());
            carried = Some(Call::current().in_scope(async { Call::current().is_expired() }));
        });
        assert!(!carried.unwrap().await);
    }

    #[tokio::test]
    async fn a_spawned_task_inherits_only_what_it_is_given() {
        let call = Call::new().with_attempt(3);
        call.in_scope(async {
            let bare = tokio::spawn(attempt_after_yield()).await.unwrap();
            let carried = tokio::spawn(Call::current().in_scope(attempt_after_yield()));
            assert_eq!((bare, carried.await.unwrap()), (0, 3));
        })
        .await;
    }

    #[tokio::test]
    async fn the_future_is_dropped_within_its_scope() {
        struct Tell<'a>(&'a Cell<u32>);
        impl Drop for Tell<'_> {
            fn drop(&mut self) {
                self.0.set(Call::current().attempt());
            }
        }
        let seen = Cell::new(0);
        let tell = Tell(&seen);
        let future = async move {
            let _tell = tell;
            std::future::pending::<()>().await;
        };
        drop(Call::new().with_attempt(4).in_scope(future));
        assert_eq!(seen.get(), 4);
    }

    #[test]
    fn a_panic_leaves_the_outer_scope() {
        let mut call = Call::new().with_attempt(5);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            within(&mut call, || panic!("inside"));
        }));
        assert!(panicked.is_err());
        assert_eq!(Call::current().attempt(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_clock_is_shared_on_the_way_in_and_read_afresh_later() {
        let start = clock::now();
        tokio::time::advance(Duration::from_secs(1)).await;
        let scoped = Call::new().enter(start, || {
            let shared = Call::current().now();
            async move { (shared, Call::current().now()) }
        });
        let (shared, fresh) = scoped.await;
        assert_eq!(shared, start);
        assert_eq!(fresh, start + Duration::from_secs(1));
    }
}
