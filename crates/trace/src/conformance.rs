//! What every [`TraceStore`] must do, as checks for the tests of your own.
//!
//! [`check`] runs them all; [`history`] holds a store against a [`MemoryStore`](crate::MemoryStore)
//! over a history that follows from a seed. Both panic at the first thing that a store does otherwise.
//!
//! ```
//! use portcullis_trace::{MemoryStore, conformance};
//!
//! conformance::check(MemoryStore::new);
//! conformance::history(&MemoryStore::new(), 7, 50);
//! ```

mod checks;
mod history;
mod sample;

use crate::TraceStore;

pub use self::{
    history::history,
    sample::{hostile_texts, sample},
};

/// Runs every check. Each has a store of its own from `make`: an empty one that keeps traces for seven
/// days, and has room for some megabytes of them.
///
/// # Panics
///
/// At the first thing that a store does otherwise than the trait asks.
pub fn check<S: TraceStore>(mut make: impl FnMut() -> S) {
    for check in checks::ALL {
        check(&make());
    }
}
