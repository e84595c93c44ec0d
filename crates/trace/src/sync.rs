//! What traces are handed over with: bounded queues, and a bell that wakes the writer; and the threads
//! that do it, with their locals.
//!
//! Under `--cfg portcullis_loom` stand-ins of the same contract that loom sees through.

#[cfg(not(portcullis_loom))]
pub(crate) use {
    crossbeam_queue::ArrayQueue,
    real::Bell,
    std::thread::{Builder, Thread},
};
#[cfg(portcullis_loom)]
pub(crate) use {
    loom::thread::{Builder, Thread},
    stand_in::{ArrayQueue, Bell},
};

/// A local of each thread.
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

#[cfg(not(portcullis_loom))]
mod real {
    use std::{
        sync::OnceLock,
        thread::{Thread, park_timeout},
        time::Duration,
    };

    /// Wakes the one thread that sleeps by it. What rings while that is awake is not lost: its next
    /// sleep ends at once.
    #[derive(Default)]
    pub(crate) struct Bell {
        sleeper: OnceLock<Thread>,
    }

    impl Bell {
        /// Says whom it wakes: before anybody rings.
        pub(crate) fn wakes(&self, sleeper: &Thread) {
            // It is said once.
            let _ = self.sleeper.set(sleeper.clone());
        }

        pub(crate) fn ring(&self) {
            if let Some(sleeper) = self.sleeper.get() {
                sleeper.unpark();
            }
        }

        pub(crate) fn sleep(&self, longest: Duration) {
            park_timeout(longest);
        }
    }
}

#[cfg(portcullis_loom)]
mod stand_in {
    use std::{collections::VecDeque, time::Duration};

    use loom::{sync::Notify, thread::Thread};
    use portcullis_core::sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    };

    /// No time passes in a model: whoever sleeps is woken or sleeps for ever, which loom reports.
    #[derive(Default)]
    pub(crate) struct Bell(Notify);

    impl Bell {
        pub(crate) fn wakes(&self, _: &Thread) {}

        pub(crate) fn ring(&self) {
            self.0.notify();
        }

        pub(crate) fn sleep(&self, _: Duration) {
            self.0.wait();
        }
    }

    /// crossbeam's queue, trusted to be right, as one step. What it says of its length is as vague as
    /// can be, so that nobody here leans on the order in which crossbeam's is seen.
    pub(crate) struct ArrayQueue<T> {
        items: Mutex<VecDeque<T>>,
        len: AtomicUsize,
        most: usize,
    }

    impl<T> ArrayQueue<T> {
        pub(crate) fn new(most: usize) -> Self {
            Self { items: Mutex::new(VecDeque::new()), len: AtomicUsize::new(0), most }
        }

        pub(crate) fn push(&self, item: T) -> Result<(), T> {
            let mut items = self.items.lock();
            if items.len() >= self.most {
                return Err(item);
            }
            items.push_back(item);
            self.len.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }

        pub(crate) fn pop(&self) -> Option<T> {
            let mut items = self.items.lock();
            let item = items.pop_front()?;
            self.len.fetch_sub(1, Ordering::Relaxed);
            Some(item)
        }

        pub(crate) fn len(&self) -> usize {
            self.len.load(Ordering::Relaxed)
        }
    }
}
