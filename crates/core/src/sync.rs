//! The one mutex of the house, and its atomics.
//!
//! Under `--cfg portcullis_loom` both are [loom]'s, so that its tests run every interleaving. Then
//! they exist within a loom model alone.
//!
//! [loom]: https://docs.rs/loom

use std::{fmt, sync::PoisonError};

#[cfg(portcullis_loom)]
use loom::sync as imp;
#[cfg(not(portcullis_loom))]
use std::sync as imp;

/// The atomics that engines share their state through.
pub mod atomic {
    #[cfg(portcullis_loom)]
    pub use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
    #[cfg(not(portcullis_loom))]
    pub use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
}

/// A local of each thread: of loom's, where there are those.
macro_rules! local {
    ($(#[$doc:meta])* static $name:ident: $kept:ty = $first:expr;) => {
        #[cfg(not(portcullis_loom))]
        std::thread_local! {
            $(#[$doc])*
            static $name: $kept = const { $first };
        }
        #[cfg(portcullis_loom)]
        loom::thread_local! {
            static $name: $kept = $first;
        }
    };
}
pub(crate) use local;

/// A mutual exclusion that does not poison: a panic under it leaves the value as it was, and the
/// next to lock carries on.
///
/// Never held across an `await`, and no observer or user's callback is ever called under one.
#[derive(Default)]
#[cfg_attr(
    not(portcullis_loom),
    expect(clippy::disallowed_types, reason = "this is the one place that wraps it")
)]
pub struct Mutex<T: ?Sized>(imp::Mutex<T>);

/// Access to what a [`Mutex`] holds; released on drop.
pub type MutexGuard<'a, T> = imp::MutexGuard<'a, T>;

// ===== impl Mutex =====

impl<T> Mutex<T> {
    /// Wraps a value.
    #[cfg(not(portcullis_loom))]
    #[expect(clippy::disallowed_types, reason = "this is the one place that wraps it")]
    pub const fn new(value: T) -> Self {
        Self(imp::Mutex::new(value))
    }

    /// Wraps a value.
    #[cfg(portcullis_loom)]
    pub fn new(value: T) -> Self {
        Self(imp::Mutex::new(value))
    }
}

impl<T: ?Sized> Mutex<T> {
    /// The value, where nobody else can be at it.
    pub fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the value.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
