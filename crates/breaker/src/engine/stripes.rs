//! Words that many threads write to, one for each few of them.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// The same thing several times over, so that threads which write to it do not fight over a line of
/// the cache. Whoever reads it adds them up.
pub(super) struct Stripes<T>(Box<[Stripe<T>]>);

/// Two lines, since processors fetch them in pairs.
#[repr(align(128))]
#[derive(Default)]
struct Stripe<T>(T);

// ===== impl Stripes =====

impl<T: Default> Stripes<T> {
    /// At least so many; a power of two of them.
    pub(super) fn new(at_least: usize) -> Self {
        Self((0..at_least.next_power_of_two()).map(|_| Stripe::default()).collect())
    }
}

impl<T> Stripes<T> {
    /// The one that this thread writes to.
    #[inline]
    pub(super) fn mine(&self) -> &T {
        &self.0[stripe_of_this_thread() & (self.0.len() - 1)].0
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|stripe| &stripe.0)
    }
}

/// How many stripes a breaker that many threads share is given: two for each processor, so that
/// threads which are numbered in turn seldom meet, but at most 16.
pub(crate) fn stripes() -> usize {
    static STRIPES: OnceLock<usize> = OnceLock::new();
    *STRIPES.get_or_init(|| {
        // An interleaving test has few threads, and every stripe is more to interleave.
        if cfg!(portcullis_loom) {
            return 2;
        }
        let processors = thread::available_parallelism().map_or(1, usize::from);
        (2 * processors).next_power_of_two().min(16)
    })
}

/// Which stripe this thread writes to, before it is brought into range.
#[cfg(not(portcullis_loom))]
#[inline]
pub(crate) fn stripe_of_this_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static STRIPE: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    // While a thread ends its locals are gone; any stripe will do.
    STRIPE.try_with(|stripe| *stripe).unwrap_or(0)
}

/// The same for loom's threads, which are all one of the system's, numbered anew in each run of a
/// model.
#[cfg(portcullis_loom)]
pub(crate) fn stripe_of_this_thread() -> usize {
    loom::lazy_static! {
        static ref NEXT: AtomicUsize = AtomicUsize::new(0);
    }
    loom::thread_local! {
        static STRIPE: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    STRIPE.with(|stripe| *stripe)
}

#[cfg(all(test, not(portcullis_loom)))]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn threads_that_begin_one_after_another_write_to_stripes_of_their_own() {
        let numbers: BTreeSet<_> =
            (0..4).map(|_| thread::spawn(stripe_of_this_thread).join().unwrap()).collect();
        assert_eq!(numbers.len(), 4);
        assert_eq!(stripe_of_this_thread(), stripe_of_this_thread());
    }

    #[test]
    fn there_are_two_stripes_for_each_processor_as_long_as_they_are_not_many() {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        assert!(((2 * processors).min(16)..=16).contains(&stripes()));
    }
}
