//! The timer of a call: made when there is something to wait for.

use std::{
    cell::RefCell,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use portcullis_core::clock;
use tokio::time::{Sleep, sleep_until};

/// A timer, or room for one. It lies behind a pointer, for the future it is part of is moved through
/// every layer above before there is anything to wait for.
#[derive(Default)]
pub(crate) struct Timer(Option<Place>);

/// Where a timer lies. A thread uses it again.
type Place = Pin<Box<Option<Sleep>>>;

thread_local! {
    static FREE: RefCell<Vec<Place>> = const { RefCell::new(Vec::new()) };
}

/// How many places a thread keeps free.
const KEPT_FREE: usize = 64;

// ===== impl Timer =====

impl Timer {
    #[inline]
    pub(crate) fn is_set(&self) -> bool {
        self.0.is_some()
    }

    /// Sets it. Outside a tokio runtime with its timer enabled that panics.
    pub(crate) fn set(&mut self, at: Instant) {
        let sleep = sleep_until(at.into());
        // While a thread ends its locals are gone: then there is none to use again.
        let free = FREE.try_with(|free| free.borrow_mut().pop()).ok().flatten();
        let mut place = free.unwrap_or_else(|| Box::pin(None));
        place.set(Some(sleep));
        self.0 = Some(place);
    }

    /// Whether it has run out; one that is not set never does.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(timer) = self.0.as_mut().and_then(|place| place.as_mut().as_pin_mut()) else {
            return Poll::Pending;
        };
        clock::run_out(timer, cx)
    }

    /// Lets go of it.
    pub(crate) fn clear(&mut self) {
        if let Some(mut place) = self.0.take() {
            place.set(None);
            let _ = FREE.try_with(|free| {
                let mut free = free.borrow_mut();
                if free.len() < KEPT_FREE {
                    free.push(place);
                }
            });
        }
    }
}

impl Drop for Timer {
    #[inline]
    fn drop(&mut self) {
        if self.is_set() {
            self.clear();
        }
    }
}
