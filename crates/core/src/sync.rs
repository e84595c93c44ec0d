//! The one mutex of the house.

use std::fmt;

/// A mutual exclusion that does not poison: a panic under it leaves the value as it was, and the
/// next to lock carries on.
///
/// Never held across an `await`, and no observer or user's callback is ever called under one.
#[derive(Default)]
#[expect(clippy::disallowed_types, reason = "this is the one place that wraps it")]
pub struct Mutex<T: ?Sized>(std::sync::Mutex<T>);

/// Access to what a [`Mutex`] holds; released on drop.
pub type MutexGuard<'a, T> = std::sync::MutexGuard<'a, T>;

// ===== impl Mutex =====

impl<T> Mutex<T> {
    /// Wraps a value.
    #[expect(clippy::disallowed_types, reason = "this is the one place that wraps it")]
    pub const fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }
}

impl<T: ?Sized> Mutex<T> {
    /// The value, where nobody else can be at it.
    pub fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Waits for the value.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
