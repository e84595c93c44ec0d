//! The task's current call.
//!
//! A thread-local holds the call of whatever future is being polled. Entering puts the future's own
//! call there, leaving puts back what was there before: no reference count is touched.

use std::{
    cell::{Cell, RefCell},
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use pin_project_lite::pin_project;

use super::{Call, Company, Mark, Orders, sheet};
use crate::{Record, SpanId, TraceContext, clock, sync::local};

thread_local! {
    // Plain data is replaced part by part: as a whole it would be moved in wide words right after it
    // was written in narrow ones, and a processor stalls on that for longer than on all the rest.
    static DEADLINE: Cell<Option<Instant>> = const { Cell::new(None) };
    /// The number of the attempt, and whether a layer above is in its `call`.
    static MARK: Cell<Mark> = const { Cell::new(Mark(0)) };
    /// When the clock was read first in the `call` of a layer above.
    static READ_AT: Cell<Option<Instant>> = const { Cell::new(None) };
    /// When the layer below read the clock, from its answer until the next poll of anything.
    static ENDED: Cell<Option<Instant>> = const { Cell::new(None) };
    /// Set while a limit that ran out drops what it ended.
    static EXPIRED: Cell<bool> = const { Cell::new(false) };
    /// Whether there are any orders: what must be dropped with its thread is dearer to look at.
    static ORDERED: Cell<bool> = const { Cell::new(false) };
    // Borrowed for a copy or a swap, never while anybody else's code runs.
    static ORDERS: RefCell<Option<Arc<Orders>>> = const { RefCell::new(None) };
}

local! {
    /// The span of the current call's record. It lies on the desk, or else is held below.
    static SPAN: Cell<Option<SpanId>> = Cell::new(None);
}

local! {
    /// Borrowed as the orders are. Under a scope that has no record, one that is out of sight stays.
    static RECORD: RefCell<Option<Arc<dyn Record>>> = RefCell::new(None);
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

/// The current call of this thread. Beneath a layer its record is left to the scope, unless it is to be
/// `held` in any case.
// Inlined, and made at once of what is in registers, it is made where it will lie.
#[inline(always)]
pub(super) fn here(held: bool) -> Call {
    let mark = MARK.get();
    let orders = if ORDERED.get() { orders(mark.is_beneath()) } else { None };
    let (span, record) = match SPAN.with(Cell::get) {
        Some(span) if held || !mark.is_beneath() => (Some(span), record(span)),
        span => (span, None),
    };
    let company = Company { orders, span, record };
    Call { deadline: DEADLINE.get(), mark, company }
}

#[cold]
fn orders(beneath: bool) -> Option<Arc<Orders>> {
    // While a thread ends its locals are gone: there are no orders any more.
    let orders = ORDERS.try_with(|orders| orders.borrow().clone()).unwrap_or_default();
    // A layer's word reaches as far as the layers that are called beneath it.
    if beneath { orders } else { orders.and_then(Orders::without_found) }
}

/// Who keeps the record of this span, if it is at hand.
#[inline(never)]
pub(super) fn record(span: SpanId) -> Option<Arc<dyn Record>> {
    sheet::share(span).or_else(|| held(span))
}

/// Where the record of this span stands, if it is at hand.
pub(super) fn context(span: SpanId) -> Option<TraceContext> {
    sheet::with(span, |sheet| sheet.context()).or_else(|| Some(held(span)?.context()))
}

/// The `tracestate` of the record of this span, if it is at hand.
pub(super) fn state(span: SpanId) -> Option<Arc<str>> {
    sheet::with(span, |sheet| sheet.state()).unwrap_or_else(|| held(span)?.state())
}

fn held(span: SpanId) -> Option<Arc<dyn Record>> {
    // A record that lies on the desk is not held: if it is not at hand it is being written, and what is
    // held is that of a scope around it.
    if SPAN.with(Cell::get) != Some(span) || sheet::lies(Some(span)) {
        return None;
    }
    RECORD.try_with(|record| record.borrow().clone()).unwrap_or_default()
}

/// When the clock was read in the `call` of a layer above, if it was.
#[inline]
pub(super) fn read_at() -> Option<Instant> {
    READ_AT.get()
}

/// See [`Call::now`].
#[inline]
pub(super) fn now() -> Instant {
    READ_AT.get().unwrap_or_else(|| {
        let now = clock::now();
        if MARK.get().is_beneath() {
            READ_AT.set(Some(now));
        }
        now
    })
}

/// See [`Call::ended`].
#[inline]
pub(super) fn ended(beneath: bool) -> Instant {
    let ended = ENDED.take().unwrap_or_else(clock::now);
    // Above the uppermost layer is the user, who may do anything before the next layer sees an answer.
    if beneath {
        ENDED.set(Some(ended));
    }
    ended
}

/// Polls what a layer wraps, be it a future or a body; a [`Scoped`] one does so by itself.
///
/// What answered before is forgotten: see [`Call::ended`].
#[inline]
pub fn poll<R>(poll: impl FnOnce() -> Poll<R>) -> Poll<R> {
    ENDED.set(None);
    poll()
}

/// Lets `end` drop something because a limit ran out: whatever [`Completion`](crate::Completion) is
/// dropped in it reports a timeout, not a caller who gave up.
pub fn expire(end: impl FnOnce()) {
    /// Puts back what was, also should a drop panic.
    struct Before(bool);

    impl Drop for Before {
        fn drop(&mut self) {
            EXPIRED.set(self.0);
        }
    }

    let _before = Before(EXPIRED.replace(true));
    end();
}

/// Whether a limit ran out on what is being dropped right now: see [`expire`].
#[must_use]
#[inline]
pub fn is_expired() -> bool {
    EXPIRED.get()
}

/// Runs `f` with `call` current. What is `beneath` a layer's `call` has the clock as it was `read_at`.
#[inline]
pub(super) fn within<R>(
    call: &mut Call,
    beneath: bool,
    read_at: Option<Instant>,
    f: impl FnOnce() -> R,
) -> R {
    let mut entered = Entered::new(call, beneath, read_at);
    let result = f();
    // What the drop would do, which the compiler keeps out of line for the sake of panics.
    entered.put_back();
    mem::forget(entered);
    result
}

/// Holds what was current before; puts it back when it is left, also by a panic.
struct Entered<'a> {
    deadline: Option<Instant>,
    read_at: Option<Instant>,
    mark: Mark,
    /// Whether there were orders, and whether they changed places with the company's.
    ordered: bool,
    swapped_orders: bool,
    /// Whether the record changed places with the company's.
    swapped_record: bool,
    span: Option<SpanId>,
    company: &'a mut Company,
}

#[cold]
fn swap_orders(company: &mut Company) {
    // See `orders` for the error.
    let _ = ORDERS.try_with(|current| mem::swap(&mut *current.borrow_mut(), &mut company.orders));
}

#[inline(never)]
fn swap_record(company: &mut Company) {
    // As above.
    let _ = RECORD.try_with(|current| mem::swap(&mut *current.borrow_mut(), &mut company.record));
}

// ===== impl Entered =====

impl<'a> Entered<'a> {
    #[inline]
    fn new(call: &'a mut Call, beneath: bool, read_at: Option<Instant>) -> Self {
        let company = &mut call.company;
        // Most calls have neither orders nor another record than the scope they are in: then there is
        // nothing to swap, on the way in as on the way out.
        let ordered = ORDERED.get();
        let swapped_orders = ordered || company.orders.is_some();
        if swapped_orders {
            ORDERED.set(company.orders.is_some());
            swap_orders(company);
        }
        let span = SPAN.with(Cell::get);
        let swapped_record = span != company.span && company.record.is_some();
        if span != company.span {
            if swapped_record {
                swap_record(company);
            }
            let at_hand = swapped_record || sheet::lies(company.span);
            SPAN.with(|span| span.set(if at_hand { company.span } else { None }));
        }
        Self {
            deadline: DEADLINE.replace(call.deadline),
            read_at: READ_AT.replace(read_at),
            mark: MARK.replace(Mark::new(call.mark.attempt(), beneath)),
            ordered,
            swapped_orders,
            swapped_record,
            span,
            company,
        }
    }

    #[inline(always)]
    fn put_back(&mut self) {
        DEADLINE.set(self.deadline);
        READ_AT.set(self.read_at);
        MARK.set(self.mark);
        SPAN.with(|span| span.set(self.span));
        if self.swapped_record {
            swap_record(self.company);
        }
        if self.swapped_orders {
            ORDERED.set(self.ordered);
            swap_orders(self.company);
        }
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.put_back();
    }
}

// ===== impl Scoped =====

impl<F> Scoped<F> {
    #[inline]
    pub(super) fn new(call: Call, future: F) -> Self {
        Self { call, future: Some(future) }
    }

    /// The call the future runs in.
    #[must_use]
    #[inline]
    pub fn call(&self) -> &Call {
        &self.call
    }

    /// What runs in the scope; `None` once it was dropped within it.
    #[must_use]
    #[inline]
    pub fn get_ref(&self) -> Option<&F> {
        self.future.as_ref()
    }

    /// Does something to what runs in the scope, with its call current; `None` once it was dropped.
    /// So what is no future, such as a response's body, runs in a scope too, and is dropped in it.
    ///
    /// ```
    /// use portcullis_core::Call;
    /// use std::pin::pin;
    ///
    /// let mut scoped = pin!(Call::new().with_attempt(2).in_scope(vec![1]));
    /// let attempt = scoped.as_mut().with(|mut numbers| {
    ///     numbers.push(2);
    ///     Call::current().attempt()
    /// });
    /// assert_eq!((attempt, scoped.get_ref()), (Some(2), Some(&vec![1, 2])));
    /// ```
    #[inline]
    pub fn with<R>(self: Pin<&mut Self>, f: impl FnOnce(Pin<&mut F>) -> R) -> Option<R> {
        let this = self.project();
        let future = this.future.as_pin_mut()?;
        Some(within(this.call, false, None, || f(future)))
    }

    /// Drops the future within its scope, before `self` is dropped. Polling it afterwards panics.
    #[inline]
    pub fn clear(self: Pin<&mut Self>) {
        let mut this = self.project();
        if this.future.is_some() {
            within(this.call, false, None, || this.future.set(None));
        }
    }

    /// Drops the future within its scope because a limit ran out: whatever
    /// [`Completion`](crate::Completion) goes with it reports a timeout, not a caller who gave up.
    /// Polling it afterwards panics.
    pub fn expire(self: Pin<&mut Self>) {
        expire(|| self.clear());
    }
}

impl<F: Future> Future for Scoped<F> {
    type Output = F::Output;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        // As `within` does, and `poll`. But handed up through closures, or taken apart and put together,
        // an output is moved each time; and one that was borrowed is moved to be returned.
        let mut entered = Entered::new(this.call, false, None);
        ENDED.set(None);
        let future = this.future.as_mut().as_pin_mut().expect("polled after it was cleared");
        let polled = future.poll(cx);
        if matches!(polled, Poll::Ready(_)) {
            // Dropped while the scope is entered anyway; so what it held is free by now.
            this.future.set(None);
        }
        entered.put_back();
        mem::forget(entered);
        polled
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, time::Duration};

    use super::*;

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

    #[test]
    fn what_is_no_future_runs_and_is_dropped_in_its_scope_too() {
        struct Told<'a>(&'a Cell<u32>);

        impl Drop for Told<'_> {
            fn drop(&mut self) {
                self.0.set(Call::current().attempt());
            }
        }

        let dropped_in = Cell::new(0);
        let mut scoped = Box::pin(Call::new().with_attempt(3).in_scope(Told(&dropped_in)));
        assert_eq!(scoped.as_mut().with(|_| Call::current().attempt()), Some(3));
        assert_eq!(Call::current().attempt(), 0);
        scoped.as_mut().clear();
        assert_eq!(dropped_in.get(), 3);
        assert_eq!(scoped.as_mut().with(|_| ()), None);
        assert!(scoped.get_ref().is_none());
    }

    #[tokio::test]
    async fn what_is_carried_over_from_an_expired_scope_is_not_expired_itself() {
        let mut carried = None;
        crate::call::expire(|| {
            assert!(is_expired());
            carried = Some(Call::current().in_scope(async { is_expired() }));
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
            within(&mut call, false, None, || panic!("inside"));
        }));
        assert!(panicked.is_err());
        assert_eq!(Call::current().attempt(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_who_needs_the_clock_reads_it_for_all_below() {
        let start = clock::now();
        let scoped = Call::new().enter_unread(|| {
            let outer = Call::current().now();
            Call::current().enter(outer, || {
                let inner = Call::current().now();
                async move { (outer, inner, Call::current().now()) }
            })
        });
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(scoped.await, (start, start, start + Duration::from_secs(1)));
        assert_eq!(Call::current().now(), start + Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn the_clock_is_shared_on_the_way_out_up_to_the_uppermost_layer() {
        let outermost = Call::current();
        let below = Call::new().enter(clock::now(), || std::future::ready(Call::current())).await;
        let end = clock::now();
        assert_eq!(below.ended(), end);
        tokio::time::advance(Duration::from_secs(1)).await;
        // Nobody polled anything since: it is the same end.
        assert_eq!(outermost.ended(), end);
        assert_eq!(outermost.ended(), end + Duration::from_secs(1));
        assert_eq!(below.ended(), end + Duration::from_secs(1));
        assert!(poll(|| Poll::Ready(())).is_ready());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(outermost.ended(), end + Duration::from_secs(2));
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
