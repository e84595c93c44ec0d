//! Who judges a call, and when.

use std::{fmt, sync::Arc};

use crate::{Call, Completion, Error, Outcome};

/// Judges calls: at their head as far as it can be known, and at their true end.
///
/// One value serves a whole stack. It must be a pure function of the result: every layer that asks
/// gets the same answer. Errors of the inner service reach it as [`Error`], so that it sees them
/// the same way at every height of a stack; [`Error::find`] gives the concrete one.
pub trait Classify<Res> {
    /// The response as it is handed up: `Res` itself, or one whose body reports its end.
    type Response;

    /// What is known when the head, or an error, has arrived.
    fn at_head(&self, result: Result<&Res, &Error>) -> Verdict;

    /// What retry decides on, for an attempt made in the scope of `call`: what is known
    /// [at the head](Self::at_head), unless another attempt may mend what says nothing of the peer's
    /// health, or operations differ in what may be sent again.
    #[inline]
    fn for_retry(&self, result: Result<&Res, &Error>, call: &Call) -> Outcome {
        let _ = call;
        self.at_head(result).outcome()
    }

    /// Whether it makes anything of the [limits](Completion::watch) that a completion carries for the
    /// response's body. One that does not spares a layer with nothing else to say the trouble.
    #[inline]
    fn watches(&self) -> bool {
        true
    }

    /// Whether the head is the call's end: then the verdict there is final, nothing is watched, and
    /// who asks may take [`at_head`](Self::at_head)'s word at once and
    /// [`hand_up`](Self::hand_up) the result, which spares it a completion.
    #[inline]
    fn ends_at_head(&self) -> bool {
        false
    }

    /// Whether `error`, which came when the call's deadline had passed, says no more than that. Such a
    /// one is as the timeout layer's own.
    ///
    /// So it is with clients that learn the deadline from the request and keep it too: their timer
    /// runs out together with ours, and their error would come up in its place.
    #[inline]
    fn stands_for_deadline(&self, _error: &Error) -> bool {
        false
    }

    /// Hands a result up when nobody wants to know how the call ends: as
    /// [`classify`](Self::classify) does with [nothing to report to](Completion::none).
    ///
    /// # Errors
    ///
    /// Hands `result`'s error up.
    #[inline]
    fn hand_up(&self, result: Result<Res, Error>) -> Result<Self::Response, Error> {
        self.classify(result, Completion::none())
    }

    /// Sees to it that `done` learns the verdict at the call's true end.
    ///
    /// # Errors
    ///
    /// Hands `result`'s error up.
    fn classify(
        &self,
        result: Result<Res, Error>,
        done: Completion,
    ) -> Result<Self::Response, Error>;
}

/// What is known of a call's outcome when its head has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The call is over; this is its outcome.
    Final(Outcome),
    /// The outcome, should nothing go wrong until the end of the response's body.
    SoFar(Outcome),
}

/// Judges by the result alone: `Ok` is a success; an error speaks through [`Error::outcome`].
#[derive(Clone, Copy, Debug, Default)]
pub struct ByResult;

/// Judges by a closure over the head or the error: see [`classify_fn`].
#[derive(Clone, Copy)]
pub struct ClassifyFn<F> {
    f: F,
}

/// A classifier from a closure. It judges at the head; the body is not watched.
///
/// ```
/// use portcullis_core::{Error, FaultKind, Outcome, Replay, classify_fn};
///
/// let by_length = classify_fn(|result: Result<&String, &Error>| match result {
///     Ok(text) if text.is_empty() => Outcome::failure(FaultKind::Other, Replay::Safe),
///     Ok(_) => Outcome::Success,
///     Err(error) => error.outcome(),
/// });
/// # let _ = by_length;
/// ```
pub const fn classify_fn<Res, F>(f: F) -> ClassifyFn<F>
where
    F: Fn(Result<&Res, &Error>) -> Outcome,
{
    ClassifyFn { f }
}

// ===== impl Verdict =====

impl Verdict {
    /// The outcome as far as it is known.
    #[must_use]
    pub const fn outcome(self) -> Outcome {
        match self {
            Self::Final(outcome) | Self::SoFar(outcome) => outcome,
        }
    }
}

// ===== impl ByResult =====

impl<Res> Classify<Res> for ByResult {
    type Response = Res;

    #[inline]
    fn at_head(&self, result: Result<&Res, &Error>) -> Verdict {
        Verdict::Final(result.map_or_else(Error::outcome, |_| Outcome::Success))
    }

    #[inline]
    fn watches(&self) -> bool {
        false
    }

    #[inline]
    fn ends_at_head(&self) -> bool {
        true
    }

    #[inline]
    fn hand_up(&self, result: Result<Res, Error>) -> Result<Res, Error> {
        result
    }

    #[inline]
    fn classify(&self, result: Result<Res, Error>, done: Completion) -> Result<Res, Error> {
        done.settle_at_head_with(|| self.at_head(result.as_ref()).outcome());
        result
    }
}

// ===== impl ClassifyFn =====

impl<Res, F> Classify<Res> for ClassifyFn<F>
where
    F: Fn(Result<&Res, &Error>) -> Outcome,
{
    type Response = Res;

    #[inline]
    fn at_head(&self, result: Result<&Res, &Error>) -> Verdict {
        Verdict::Final((self.f)(result))
    }

    #[inline]
    fn watches(&self) -> bool {
        false
    }

    #[inline]
    fn ends_at_head(&self) -> bool {
        true
    }

    #[inline]
    fn hand_up(&self, result: Result<Res, Error>) -> Result<Res, Error> {
        result
    }

    #[inline]
    fn classify(&self, result: Result<Res, Error>, done: Completion) -> Result<Res, Error> {
        done.settle_at_head((self.f)(result.as_ref()));
        result
    }
}

impl<F> fmt::Debug for ClassifyFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClassifyFn").finish_non_exhaustive()
    }
}

// ===== impl Arc =====

impl<Res, C: Classify<Res> + ?Sized> Classify<Res> for Arc<C> {
    type Response = C::Response;

    #[inline]
    fn at_head(&self, result: Result<&Res, &Error>) -> Verdict {
        (**self).at_head(result)
    }

    #[inline]
    fn for_retry(&self, result: Result<&Res, &Error>, call: &Call) -> Outcome {
        (**self).for_retry(result, call)
    }

    #[inline]
    fn watches(&self) -> bool {
        (**self).watches()
    }

    #[inline]
    fn ends_at_head(&self) -> bool {
        (**self).ends_at_head()
    }

    #[inline]
    fn stands_for_deadline(&self, error: &Error) -> bool {
        (**self).stands_for_deadline(error)
    }

    #[inline]
    fn hand_up(&self, result: Result<Res, Error>) -> Result<Self::Response, Error> {
        (**self).hand_up(result)
    }

    #[inline]
    fn classify(
        &self,
        result: Result<Res, Error>,
        done: Completion,
    ) -> Result<Self::Response, Error> {
        (**self).classify(result, done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_looks_at_bodies_asks_for_their_limits() {
        #[derive(Debug)]
        struct OfBodies;

        impl Classify<()> for OfBodies {
            type Response = ();

            fn at_head(&self, _: Result<&(), &Error>) -> Verdict {
                Verdict::SoFar(Outcome::Success)
            }

            fn classify(&self, result: Result<(), Error>, done: Completion) -> Result<(), Error> {
                done.settle(Outcome::Success);
                result
            }
        }

        assert!(Arc::new(OfBodies).watches());
        assert!(!Arc::new(OfBodies).ends_at_head());
        assert!(!Classify::<()>::watches(&Arc::new(ByResult)));
        assert!(Classify::<()>::ends_at_head(&Arc::new(ByResult)));
        assert!(!Classify::<()>::watches(&classify_fn(|_: Result<&(), _>| Outcome::Ignored)));
    }
}
