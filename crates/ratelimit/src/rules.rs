//! What calls cost, and what responses say of it.

use std::fmt;

use portcullis_core::Hint;

/// What a layer asks of requests and responses: what a call costs (1 unless set), what it really cost
/// (as much unless set), and a hint of the peer that the classifier does not know of (none unless set).
#[derive(Clone, Copy, Default)]
pub struct Rules<F = (), G = (), H = ()> {
    pub(crate) cost: F,
    pub(crate) actual: G,
    pub(crate) hint: H,
}

/// A rule that is a function.
#[derive(Clone, Copy)]
pub struct By<F>(pub(crate) F);

/// Answers by [`Rules`].
pub trait Weigh<Req, Res>: sealed::Sealed {
    /// What a call costs.
    fn cost(&self, req: &Req) -> u32;

    /// What it really cost, if the response says so.
    fn actual(&self, res: &Res) -> Option<u32>;

    /// What the response advises.
    fn hint(&self, res: &Res) -> Hint;
}

/// Tells costs, real costs or hints: by a function, or not at all.
pub trait Rule<T, R> {
    /// What the rule says of `about`, if there is one.
    fn of(&self, about: &T) -> Option<R>;
}

mod sealed {
    pub trait Sealed {}
    impl<F, G, H> Sealed for super::Rules<F, G, H> {}
}

// ===== impl Rules =====

impl<Req, Res, F, G, H> Weigh<Req, Res> for Rules<F, G, H>
where
    F: Rule<Req, u32>,
    G: Rule<Res, Option<u32>>,
    H: Rule<Res, Hint>,
{
    #[inline]
    fn cost(&self, req: &Req) -> u32 {
        self.cost.of(req).unwrap_or(1)
    }

    #[inline]
    fn actual(&self, res: &Res) -> Option<u32> {
        self.actual.of(res).flatten()
    }

    #[inline]
    fn hint(&self, res: &Res) -> Hint {
        self.hint.of(res).unwrap_or(Hint::None)
    }
}

impl<F, G, H> fmt::Debug for Rules<F, G, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules").finish_non_exhaustive()
    }
}

// ===== impl Rule =====

impl<T, R> Rule<T, R> for () {
    #[inline]
    fn of(&self, _about: &T) -> Option<R> {
        None
    }
}

impl<T, R, F: Fn(&T) -> R> Rule<T, R> for By<F> {
    #[inline]
    fn of(&self, about: &T) -> Option<R> {
        Some((self.0)(about))
    }
}

impl<F> fmt::Debug for By<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("By").finish_non_exhaustive()
    }
}
