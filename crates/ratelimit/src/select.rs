//! Which limits a call stands before.

use std::fmt;

use portcullis_core::{Call, Key};

use crate::{
    KeyedLimiter, Limiter,
    claim::{self, One, Several, Slot, Slots},
};

/// Finds the limits of a call: [`Single`], [`ByKey`], or [`Both`] of such.
pub trait Select<Req>: Count {
    /// Room for them.
    type Slots: Slots;

    /// Finds them.
    fn find(&self, req: &Req, call: &Call) -> Self::Slots;

    /// Hands them over one by one.
    fn each(&self, req: &Req, call: &Call, f: &mut impl FnMut(Limiter));
}

/// How many limits there are for each call.
pub trait Count: sealed::Sealed {
    /// How many.
    const COUNT: usize;
}

/// One limit for every call.
#[derive(Clone, Debug)]
pub struct Single(pub(crate) Limiter);

/// A limit for each key, which a [`Key`] finds in the request.
pub struct ByKey<F> {
    pub(crate) limiters: KeyedLimiter,
    pub(crate) key: F,
    /// Whether the caller's own key goes before the function.
    pub(crate) named: bool,
}

/// The limits of `A` and, with them, those of `B`.
#[derive(Clone, Debug)]
pub struct Both<A, B>(pub(crate) A, pub(crate) B);

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Single {}
    impl<F> Sealed for super::ByKey<F> {}
    impl<A, B> Sealed for super::Both<A, B> {}
}

// ===== impl Single =====

impl Count for Single {
    const COUNT: usize = 1;
}

impl<Req> Select<Req> for Single {
    type Slots = One;

    #[inline]
    fn find(&self, _req: &Req, _call: &Call) -> One {
        [Some(Slot::new(self.0.clone()))]
    }

    fn each(&self, _req: &Req, _call: &Call, f: &mut impl FnMut(Limiter)) {
        f(self.0.clone());
    }
}

// ===== impl ByKey =====

impl<F> Count for ByKey<F> {
    const COUNT: usize = 1;
}

impl<Req, F> Select<Req> for ByKey<F>
where
    F: Key<Req>,
{
    type Slots = One;

    #[inline]
    fn find(&self, req: &Req, call: &Call) -> One {
        let limiter = match call.overrides().key.as_deref() {
            Some(key) if self.named => self.limiters.limiter_for(key, call),
            _ => self.limiters.limiter_for(&self.key.key(req), call),
        };
        [Some(Slot::new(limiter))]
    }

    fn each(&self, req: &Req, call: &Call, f: &mut impl FnMut(Limiter)) {
        let [slot] = self.find(req, call);
        if let Some(slot) = slot {
            f(slot.limiter);
        }
    }
}

impl<F: Clone> Clone for ByKey<F> {
    fn clone(&self) -> Self {
        Self { limiters: self.limiters.clone(), key: self.key.clone(), named: self.named }
    }
}

impl<F> fmt::Debug for ByKey<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByKey").field("limiters", &self.limiters).finish_non_exhaustive()
    }
}

// ===== impl Both =====

impl<A: Count, B: Count> Count for Both<A, B> {
    const COUNT: usize = A::COUNT + B::COUNT;
}

impl<Req, A: Select<Req>, B: Select<Req>> Select<Req> for Both<A, B> {
    type Slots = Several;

    fn find(&self, req: &Req, call: &Call) -> Several {
        let mut slots = Several::none();
        // That they fit was checked when the layer was built.
        self.each(req, call, &mut |limiter| claim::add(&mut slots, limiter));
        slots
    }

    fn each(&self, req: &Req, call: &Call, f: &mut impl FnMut(Limiter)) {
        self.0.each(req, call, f);
        self.1.each(req, call, f);
    }
}
