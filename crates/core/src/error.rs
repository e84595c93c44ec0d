//! The one error of every layer, and what refusals have in common.

use std::{any::Any, error::Error as StdError, fmt, sync::Arc, time::Duration};

use crate::{FaultKind, Hint, Judged, Outcome, Reason, Replay};

/// Any error, as Tower's stacks pass it.
pub type BoxError = Box<dyn StdError + Send + Sync + 'static>;

/// What a layer answers with: its own refusal, or the inner service's error.
///
/// The type is the same at every height of a stack and in any order of layers, so a caller's `?`
/// into `anyhow::Error` or `Box<dyn Error>` always works. It allocates only when a call failed.
///
/// ```
/// use portcullis_core::{BoxError, Elapsed, Error, Phase};
/// use std::time::Duration;
///
/// let refused = Error::rejected(Elapsed::new("search", Phase::Head, Duration::from_secs(2)));
/// assert!(refused.is::<Elapsed>());
/// assert_eq!(refused.rejection().unwrap().name(), "search");
///
/// let failed = Error::inner(BoxError::from(std::io::Error::other("socket closed")));
/// assert!(failed.find::<std::io::Error>().is_some());
/// ```
///
/// `Display` is the refusal's sentence, or the inner error's own; `source` is the inner error.
pub struct Error(Repr);

enum Repr {
    Rejected(Box<dyn Rejection>),
    Inner(BoxError),
}

/// A refusal by a layer: a call that was stopped without (or before) an answer of the peer.
pub trait Rejection: StdError + Any + Send + Sync {
    /// The name of the layer that refused, as it was configured.
    fn name(&self) -> &str;

    /// What kind of refusal it is.
    fn kind(&self) -> RejectionKind;

    /// Why, with the numbers.
    fn reason(&self) -> Reason;

    /// How long after the refusal another try makes sense, if that is known.
    fn retry_after(&self) -> Option<Duration> {
        None
    }

    /// What the refusal means to the layers above.
    ///
    /// By default the peer never saw the request, which is then [`Replay::Safe`] after
    /// [`retry_after`](Self::retry_after).
    fn outcome(&self) -> Outcome {
        Outcome::Failure(crate::Fault {
            kind: FaultKind::Rejected,
            replay: Replay::Safe,
            hint: self.retry_after().map_or(Hint::None, Hint::After),
        })
    }
}

/// What kind of refusal it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RejectionKind {
    /// A breaker let no call through.
    Open,
    /// A time limit ran out.
    Elapsed,
    /// A rate limit is used up.
    Limited,
    /// Retrying came to its end without an answer to hand up.
    Exhausted,
    /// An operation was given up before it was done.
    Unfinished,
    /// A refusal of a layer outside this house.
    Other,
}

/// A time limit ran out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elapsed {
    name: Arc<str>,
    phase: Phase,
    limit: Duration,
}

/// Which part of a call a time limit covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// The whole call: readiness, all attempts and waits, and the response's body.
    Total,
    /// One attempt, its response's body included.
    Attempt,
    /// Waiting for the inner service to become ready.
    Readiness,
    /// From the call to the response's head.
    Head,
    /// From the response's head to the end of its body.
    Body,
    /// Between two frames of the response's body.
    Idle,
    /// A deadline that the call inherited: from an enclosing scope, or off the wire.
    Inherited,
}

/// The refusal in an error's chain of sources, whoever made the errors around it.
///
/// Finds ours inside the errors of other libraries: `tower::buffer`'s, a `tonic::Status`', those of
/// reqwest's middleware.
#[must_use]
pub fn find_rejection<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a dyn Rejection> {
    chain(error).find_map(|error| match &error.downcast_ref::<Error>()?.0 {
        Repr::Rejected(rejection) => Some(&**rejection),
        // Its own source may hold one; the walk comes to it next.
        Repr::Inner(_) => None,
    })
}

/// The first error of type `T` in an error's chain of sources, itself included.
#[must_use]
pub fn find_error<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    chain(error).find_map(|error| error.downcast_ref::<T>())
}

// ===== impl Error =====

impl Error {
    /// A layer's own refusal.
    #[must_use]
    pub fn rejected(rejection: impl Rejection) -> Self {
        Self(Repr::Rejected(Box::new(rejection)))
    }

    /// The inner service's error. One that already is an [`Error`] is not wrapped again.
    #[must_use]
    pub fn inner(error: impl Into<BoxError>) -> Self {
        match error.into().downcast::<Self>() {
            Ok(ours) => *ours,
            Err(other) => Self(Repr::Inner(other)),
        }
    }

    /// The refusal, if a layer refused: this one, or one below that other libraries' errors have
    /// been wrapped around since.
    #[must_use]
    pub fn rejection(&self) -> Option<&dyn Rejection> {
        find_rejection(self)
    }

    /// Whether the cause is a refusal or an error of type `T`.
    #[must_use]
    pub fn is<T: StdError + 'static>(&self) -> bool {
        self.find::<T>().is_some()
    }

    /// The first refusal or error of type `T` in the chain of causes.
    #[must_use]
    pub fn find<T: StdError + 'static>(&self) -> Option<&T> {
        chain(self).find_map(|error| match error.downcast_ref::<Self>() {
            Some(Self(Repr::Rejected(rejection))) => (&**rejection as &dyn Any).downcast_ref(),
            _ => error.downcast_ref(),
        })
    }

    /// The inner service's error as it came, without the verdict it may have come [with](Judged).
    ///
    /// # Errors
    ///
    /// Gives a layer's own refusal back.
    pub fn into_inner(self) -> Result<BoxError, Self> {
        match self.0 {
            Repr::Inner(error) => match error.downcast::<Judged>() {
                Ok(judged) => Ok(judged.into_inner()),
                Err(error) => Ok(error),
            },
            Repr::Rejected(_) => Err(self),
        }
    }

    /// What the error means to a layer that was given no better judgement: as it says itself, else a
    /// failure in which the peer may have acted.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        self.own_outcome().unwrap_or(Outcome::failure(FaultKind::Other, Replay::IfIdempotent))
    }

    /// What the error itself says that it means: a refusal, or an error that was [`Judged`] by the
    /// client it comes from. Of several in a chain the outermost knows best.
    #[must_use]
    pub fn own_outcome(&self) -> Option<Outcome> {
        chain(self).find_map(|error| match error.downcast_ref::<Self>() {
            Some(Self(Repr::Rejected(rejection))) => Some(rejection.outcome()),
            // The chain goes past one that is right here.
            Some(Self(Repr::Inner(error))) => error.downcast_ref().map(Judged::outcome),
            None => error.downcast_ref().map(Judged::outcome),
        })
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Repr::Rejected(rejection) => f.debug_tuple("Rejected").field(rejection).finish(),
            Repr::Inner(error) => f.debug_tuple("Inner").field(error).finish(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Repr::Rejected(rejection) => rejection.fmt(f),
            Repr::Inner(error) => error.fmt(f),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.0 {
            Repr::Rejected(rejection) => rejection.source(),
            // A verdict says nothing to who reads the chain: without this it would repeat its error.
            Repr::Inner(error) => match error.downcast_ref::<Judged>() {
                Some(judged) => judged.source(),
                None => Some(&**error),
            },
        }
    }
}

// ===== impl RejectionKind =====

impl RejectionKind {
    /// One bounded word, fit for a metric's label.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Elapsed => "elapsed",
            Self::Limited => "limited",
            Self::Exhausted => "exhausted",
            Self::Unfinished => "unfinished",
            Self::Other => "other",
        }
    }
}

// ===== impl Elapsed =====

impl Elapsed {
    /// A limit of the layer called `name` that ran out in `phase`.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>, phase: Phase, limit: Duration) -> Self {
        Self { name: name.into(), phase, limit }
    }

    /// Which part of the call the limit covered.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The limit that ran out.
    #[must_use]
    pub fn limit(&self) -> Duration {
        self.limit
    }
}

impl Rejection for Elapsed {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> RejectionKind {
        RejectionKind::Elapsed
    }

    fn reason(&self) -> Reason {
        Reason::Elapsed { phase: self.phase, limit: self.limit }
    }

    fn outcome(&self) -> Outcome {
        match self.phase {
            // Nothing was sent yet.
            Phase::Readiness => Outcome::failure(FaultKind::Timeout, Replay::Safe),
            _ => Outcome::timeout(),
        }
    }
}

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.reason())
    }
}

impl StdError for Elapsed {}

// ===== impl Phase =====

impl Phase {
    /// One bounded word, fit for a metric's label.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::Attempt => "attempt",
            Self::Readiness => "readiness",
            Self::Head => "head",
            Self::Body => "body",
            Self::Idle => "idle",
            Self::Inherited => "inherited",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn chain<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elapsed() -> Error {
        Error::rejected(Elapsed::new("search", Phase::Attempt, Duration::from_secs(1)))
    }

    #[derive(Debug)]
    struct Wrapped(BoxError);

    impl fmt::Display for Wrapped {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("wrapped")
        }
    }

    impl StdError for Wrapped {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(&*self.0)
        }
    }

    #[test]
    fn ours_is_not_wrapped_again() {
        let error = Error::inner(BoxError::from(elapsed()));
        assert!(matches!(error.0, Repr::Rejected(_)));
        let error = Error::inner(error);
        assert!(matches!(error.0, Repr::Rejected(_)));
    }

    #[test]
    fn a_rejection_is_found_below_other_peoples_errors() {
        let foreign = Wrapped(BoxError::from(Error::inner(Wrapped(elapsed().into()))));
        assert_eq!(find_rejection(&foreign).unwrap().kind(), RejectionKind::Elapsed);

        let error = Error::inner(foreign);
        assert!(error.is::<Elapsed>());
        assert!(error.is::<Wrapped>());
        assert!(!error.is::<std::io::Error>());
        assert_eq!(error.outcome(), Outcome::timeout());
    }

    #[test]
    fn of_a_verdict_and_a_refusal_in_one_chain_the_outer_one_counts() {
        let judged = Error::inner(Judged::new(elapsed(), Outcome::Ignored));
        assert_eq!(judged.outcome(), Outcome::Ignored);
        assert!(judged.is::<Elapsed>());

        let unreachable = Outcome::failure(FaultKind::Connect, Replay::Safe);
        let wrapped = Error::inner(Wrapped(Judged::new("no route", unreachable).into()));
        assert_eq!(wrapped.outcome(), unreachable);
        assert_eq!(Error::inner("no word").own_outcome(), None);
    }

    #[test]
    fn the_inner_error_comes_out_as_it_went_in() {
        let io = || std::io::Error::other("socket closed");
        let plain = Error::inner(io()).into_inner().unwrap();
        let judged = Error::inner(Judged::new(io(), Outcome::timeout())).into_inner().unwrap();
        assert!(plain.is::<std::io::Error>() && judged.is::<std::io::Error>());
        assert!(elapsed().into_inner().unwrap_err().is::<Elapsed>());
    }

    #[test]
    fn it_converts_into_the_errors_people_use() {
        fn boxed() -> Result<(), Box<dyn StdError>> {
            Err(elapsed())?
        }
        fn boxed_send() -> Result<(), BoxError> {
            Err(elapsed())?
        }
        fn anyhow() -> anyhow::Result<()> {
            Err(elapsed())?
        }
        assert_eq!(boxed().unwrap_err().to_string(), "search: attempt limit of 1s ran out");
        assert!(boxed_send().unwrap_err().is::<Error>());
        assert!(anyhow().unwrap_err().is::<Error>());
    }
}
