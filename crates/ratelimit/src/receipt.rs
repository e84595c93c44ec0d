//! What was taken for a call, and who may settle it.

use std::{
    fmt, mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;
use portcullis_core::{Call, sync::Mutex};
use tokio::task::futures::TaskLocalFuture;

use crate::{
    Limited,
    claim::{self, Claim, One, Slot, Slots, Terms},
};

/// What one limit, or several, took for a call that passed, to be settled once its real cost is known.
/// Dropping it lets the charge stand.
///
/// ```
/// use portcullis_ratelimit::{Limiter, Limits};
///
/// let tenants = Limiter::builder("tenants").burst(100).build_keyed()?;
/// let everybody = Limiter::builder("model").burst(1_000).build()?;
/// let receipt = Limits::all([tenants.limiter("ada"), everybody])?.try_acquire_n(60).unwrap();
/// // … the model was less talkative than we feared:
/// receipt.settle(25);
/// assert!(tenants.try_acquire_n("ada", 75).is_ok());
/// # Ok::<_, portcullis_core::Invalid>(())
/// ```
pub struct Receipt<L = One> {
    slots: L,
}

/// Collects what the limits took for the calls made in its scope, so that their real cost can be told
/// when it is known: after the response's body was read, say.
///
/// The charge of an attempt that is followed by another stands: it was sent. So it is the last call's
/// charges that [`settle`](Self::settle) settles. A charge that a tab collects is not given to the
/// layer's own [`settle_with`](crate::RateLimitBuilder::settle_with).
///
/// It does not reach into spawned tasks, nor below `tower::buffer`.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), portcullis_core::BoxError> {
/// use portcullis_ratelimit::{RateLimitLayer, Tab};
/// use portcullis_testkit::{ScriptedService, call};
/// use std::time::Duration;
/// use tower_layer::Layer;
///
/// let layer = RateLimitLayer::builder("model")
///     .rate(1_000, Duration::from_secs(60))
///     .burst(500)
///     .cost(|prompt: &&str| 400)
///     .build()?;
/// let mut model = layer.layer(ScriptedService::<_, u32>::answering(120));
///
/// let tab = Tab::new();
/// let tokens_used = tab.run(call(&mut model, "Who are you?")).await?;
/// tab.settle(tokens_used);
/// assert_eq!(layer.limiter().snapshot().left, 500 - 120);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct Tab {
    last: Arc<Mutex<Vec<Slot>>>,
}

pin_project! {
    /// A future whose calls go on a [`Tab`].
    #[must_use = "futures do nothing unless polled"]
    pub struct Tabbed<F> {
        #[pin]
        future: TaskLocalFuture<Tab, F>,
    }
}

tokio::task_local! {
    static TAB: Tab;
}

/// Puts the charges on the tab that is open, if there is one.
#[inline]
pub(crate) fn note(slots: &mut [Option<Slot>]) {
    // The error means that there is none.
    let _ = TAB.try_with(|tab| tab.note(slots));
}

// ===== impl Receipt =====

impl<L: Slots> Receipt<L> {
    /// Passes all limits now, or none.
    pub(crate) fn claim(slots: L, cost: u32) -> Result<Self, Limited> {
        let call = Call::current();
        let now = call.now();
        let mut claim = Claim::new(slots, Terms::new(cost, &call, Duration::ZERO, now));
        claim.ask(&call, now)?;
        Ok(Self::of(&mut claim))
    }

    /// What a claim that passed has taken.
    pub(crate) fn of(claim: &mut Claim<L>) -> Self {
        Self { slots: claim.take() }
    }

    /// Says what the call really cost, to every limit it passed: see
    /// [`Limiter::settle`](crate::Limiter::settle).
    pub fn settle(mut self, actual: u32) {
        let call = Call::current();
        let now = call.now();
        claim::settle(self.slots.as_mut(), actual, &call, now);
    }
}

impl<L> fmt::Debug for Receipt<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receipt").finish_non_exhaustive()
    }
}

// ===== impl Tab =====

impl Tab {
    /// One with nothing on it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs a future whose calls go on this tab.
    pub fn run<F: Future>(&self, future: F) -> Tabbed<F> {
        Tabbed { future: TAB.scope(self.clone(), future) }
    }

    /// Says what the last call in scope really cost, to every limit it passed. Nothing happens if none
    /// has passed since the last time.
    pub fn settle(&self, actual: u32) {
        let slots = mem::take(&mut *self.last.lock());
        let call = Call::current();
        let now = call.now();
        for slot in slots {
            claim::settle(&mut [Some(slot)], actual, &call, now);
        }
    }

    fn note(&self, slots: &mut [Option<Slot>]) {
        let taken = slots.iter_mut().flatten().filter_map(|slot| {
            let charge = slot.charge.take()?;
            Some(Slot { limiter: slot.limiter.clone(), charge: Some(charge) })
        });
        let taken = taken.collect();
        // The charges of an attempt before this one stand.
        *self.last.lock() = taken;
    }
}

impl fmt::Debug for Tab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tab").field("charges", &self.last.lock().len()).finish()
    }
}

// ===== impl Tabbed =====

impl<F: Future> Future for Tabbed<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().future.poll(cx)
    }
}

impl<F> fmt::Debug for Tabbed<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tabbed").finish_non_exhaustive()
    }
}
