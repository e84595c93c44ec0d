//! The crate's one lock.

use std::sync::{MutexGuard, PoisonError};

/// A mutex that does not poison: a scripted answer may panic on purpose, and the journal must still
/// be readable afterwards.
#[derive(Debug)]
#[expect(
    clippy::disallowed_types,
    reason = "testkit depends on no crate of the house, so that each can have it in its tests"
)]
pub(crate) struct Mutex<T>(std::sync::Mutex<T>);

#[expect(clippy::disallowed_types, reason = "as above")]
impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
