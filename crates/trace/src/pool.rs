//! Buffers that are used again.

use std::cell::RefCell;

use portcullis_core::NotesLimits;

use crate::{
    buffer::{Buffer, Buffers, Head},
    sync::{ArrayQueue, local},
};

local! {
    /// Those that were let go of on this thread, where most are wanted again: no other thread can be
    /// at them. They know nothing of the recorder they were filled for.
    static AT_HAND: RefCell<Buffers> = RefCell::new(Buffers::new());
}

/// Buffers to use again.
pub(crate) struct Pool {
    /// Those that one thread had too many of, for others that have none.
    shared: ArrayQueue<Box<Buffer>>,
}

/// Buffers kept by a thread, and by all together; some three kilobytes each.
const AT_HAND_MOST: usize = 32;
const SHARED_MOST: usize = 256;

// ===== impl Pool =====

impl Pool {
    pub(crate) fn new() -> Self {
        Self { shared: ArrayQueue::new(SHARED_MOST) }
    }

    /// A buffer as good as new.
    #[inline]
    pub(crate) fn take(&self, head: Head, limits: NotesLimits) -> Box<Buffer> {
        // While a thread ends its locals are gone.
        let at_hand = AT_HAND.try_with(|all| all.borrow_mut().pop()).ok().flatten();
        match at_hand.or_else(|| self.shared.pop()) {
            Some(mut buffer) => {
                buffer.begin(head, limits);
                buffer
            }
            None => Box::new(Buffer::new(head, limits)),
        }
    }

    /// Takes back what is not needed any more, with all that belongs to it.
    #[inline]
    pub(crate) fn give_back(&self, mut root: Box<Buffer>) {
        if !root.family.children.is_empty() {
            for child in root.family.children.drain(..) {
                self.give_back_one(child);
            }
        }
        self.give_back_one(root);
    }

    /// The same, on a thread that needs none itself.
    pub(crate) fn give_to_others(&self, mut root: Box<Buffer>) {
        for child in root.family.children.drain(..) {
            self.share(child);
        }
        self.share(root);
    }

    #[inline]
    fn give_back_one(&self, mut buffer: Box<Buffer>) {
        buffer.empty();
        let mut buffer = Some(buffer);
        let _ = AT_HAND.try_with(|all| {
            let mut all = all.borrow_mut();
            if all.len() < AT_HAND_MOST {
                all.extend(buffer.take().filter(|it| it.is_usual()));
            }
        });
        if let Some(buffer) = buffer {
            self.share(buffer);
        }
    }

    fn share(&self, mut buffer: Box<Buffer>) {
        buffer.empty();
        if buffer.is_usual() {
            // Full, it lets go of it.
            let _ = self.shared.push(buffer);
        }
    }
}

#[cfg(all(test, not(portcullis_loom)))]
mod tests {
    use portcullis_core::clock;

    use super::*;
    use crate::{TraceConfig, place::Place, record::Kind};

    #[test]
    fn what_is_to_be_used_again_is_small_whatever_it_held() {
        let mut config = TraceConfig::default();
        (config.max_text, config.max_calls) = (100_000, 10_000);
        let (pool, limits) = (Pool::new(), config.notes());
        let head = || Head::new(Kind::Call, &Place::begin(|_| true), clock::now());
        let text = "x".repeat(config.max_text);
        let filled = || {
            let mut buffer = Box::new(Buffer::new(head(), limits));
            for key in 0..config.max_attributes {
                buffer.attribute(&key.to_string(), &text, &config);
            }
            buffer
        };
        let mut root = filled();
        root.family.children.reserve(config.max_calls);
        root.family.children.push(filled());
        pool.give_back(root);
        pool.give_to_others(filled());

        let kept: Vec<_> =
            AT_HAND.take().into_iter().chain(std::iter::from_fn(|| pool.shared.pop())).collect();
        assert_eq!(kept.len(), 2);
        assert!(kept.iter().all(|buffer| buffer.bytes_of_all() < 6 << 10));
    }

    #[test]
    fn a_thread_keeps_a_few_for_itself_and_leaves_the_rest_to_others() {
        let (pool, limits) = (Pool::new(), TraceConfig::default().notes());
        let head = Head::new(Kind::Call, &Place::begin(|_| true), clock::now());
        for _ in 0..AT_HAND_MOST + 3 {
            pool.give_back(Box::new(Buffer::new(head, limits)));
        }
        assert_eq!(AT_HAND.take().len(), AT_HAND_MOST);
        assert_eq!(pool.shared.len(), 3);
    }
}
