//! Requests, replies, a classifier and an observer for these tests.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use portcullis_core::{
    ByClone, Error, Event, Fault, FaultKind, Hint, Keep, Kept, Observer, Outcome, Reason,
    Rejection, RejectionKind, Replay, Throttle, What, classify_fn, sync::Mutex,
};
use portcullis_retry::{Backoff, BudgetConfig, Jitter, RetryBuilder, RetryLayer};
use portcullis_testkit::{ScriptedService, Step, TestError};

pub(crate) const SECOND: Duration = Duration::from_secs(1);

pub(crate) type Inner<Req = ()> = ScriptedService<Req, Reply, TestError>;

/// Counts the values of a kind that are alive.
#[derive(Clone, Debug, Default)]
pub(crate) struct Alive(Arc<AtomicUsize>);

/// Something counted by [`Alive`].
#[derive(Debug)]
pub(crate) struct Counted(Arc<AtomicUsize>);

/// A response with a status and, perhaps, a hint.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) hint: Hint,
    pub(crate) counted: Option<Counted>,
}

/// A request that cannot be cloned.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unclonable(pub(crate) String);

/// Keeps an [`Unclonable`] by its text, up to so many characters.
#[derive(Debug)]
pub(crate) struct ByText {
    pub(crate) longest: usize,
    pub(crate) alive: Alive,
}

#[derive(Debug)]
pub(crate) struct Text {
    text: Option<Arc<str>>,
    _counted: Counted,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Heard {
    Retrying(u32, Outcome, Duration, Reason),
    Resending(u32, Duration, Reason),
    GaveUp(u32, Outcome, Reason),
}

/// Notes the events, and in which attempt's scope they were told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ear(Arc<Mutex<Vec<(u32, Heard)>>>);

/// A refusal by a layer below.
#[derive(Debug)]
pub(crate) struct Refusal(pub(crate) Option<Duration>);

/// A layer of 3 attempts, 1 s and 2 s apart, for idempotent requests.
pub(crate) fn builder() -> RetryBuilder<ByClone> {
    RetryLayer::builder("search", ByClone::idempotent())
        .backoff(Backoff::exponential(SECOND, SECOND * 30))
        .jitter(Jitter::None)
}

/// A budget's settings.
pub(crate) fn tokens(capacity: u32, ratio: f64, reserve: f64) -> BudgetConfig {
    let mut config = BudgetConfig::default();
    (config.capacity, config.ratio, config.reserve) = (capacity, ratio, reserve);
    config
}

/// A service that answers call n, from 0, with the n-th of these and then the last for ever.
pub(crate) fn answering(statuses: &'static [u16]) -> Inner {
    Inner::respond_with(move |(), n| {
        let last = statuses.len() - 1;
        Step::Ok(Reply::new(statuses[last.min(n as usize)]))
    })
}

/// 200 is a success, 204 counts for nothing, 429 is throttled, 501 is not to be sent again, 421 was not
/// acted on, 598 was given back by the peer's transport, and 599 never left the client.
pub(crate) fn by_status()
-> portcullis_core::ClassifyFn<impl Fn(Result<&Reply, &Error>) -> Outcome + Clone> {
    classify_fn(|result: Result<&Reply, &Error>| match result {
        Err(error) => error.outcome(),
        Ok(reply) => reply.outcome(),
    })
}

// ===== impl Alive =====

impl Alive {
    pub(crate) fn one(&self) -> Counted {
        self.0.fetch_add(1, Ordering::Relaxed);
        Counted(self.0.clone())
    }

    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

// ===== impl Reply =====

impl Reply {
    pub(crate) fn new(status: u16) -> Self {
        Self { status, hint: Hint::None, counted: None }
    }

    pub(crate) fn hinting(mut self, hint: Hint) -> Self {
        self.hint = hint;
        self
    }

    pub(crate) fn outcome(&self) -> Outcome {
        let kind = FaultKind::Status(self.status);
        let replay = match self.status {
            200 => return Outcome::Success,
            204 => return Outcome::Ignored,
            429 => return Outcome::Throttled(Throttle::new(kind).with_hint(self.hint)),
            421 => Replay::Safe,
            598 => Replay::Unprocessed,
            599 => Replay::Unsent,
            501 => Replay::Forbidden,
            _ => Replay::IfIdempotent,
        };
        Outcome::Failure(Fault::new(kind, replay).with_hint(self.hint))
    }
}

pub(crate) fn status(status: u16) -> Outcome {
    Reply::new(status).outcome()
}

// ===== impl ByText =====

impl Keep<Unclonable> for ByText {
    type Sent = Unclonable;
    type Kept = Text;

    fn keep(&self, req: Unclonable) -> (Unclonable, Text) {
        let text = (req.0.len() <= self.longest).then(|| req.0.as_str().into());
        let _counted = self.alive.one();
        (req, Text { text, _counted })
    }
}

impl Kept for Text {
    type Sent = Unclonable;

    fn idempotent(&self) -> bool {
        true
    }

    fn again(&self, attempt: u32) -> Option<Unclonable> {
        let text = self.text.as_deref()?;
        Some(Unclonable(format!("{text}, attempt {attempt}")))
    }
}

// ===== impl Ear =====

impl Ear {
    pub(crate) fn heard(&self) -> Vec<Heard> {
        self.0.lock().iter().map(|&(_, heard)| heard).collect()
    }

    pub(crate) fn attempts(&self) -> Vec<u32> {
        self.0.lock().iter().map(|&(attempt, _)| attempt).collect()
    }

    pub(crate) fn last_reason(&self) -> Option<Reason> {
        self.0.lock().last().map(|&(_, heard)| match heard {
            Heard::Retrying(_, _, _, reason)
            | Heard::Resending(_, _, reason)
            | Heard::GaveUp(_, _, reason) => reason,
        })
    }
}

impl Observer for Ear {
    fn on_event(&self, event: &Event<'_>) {
        let heard = match event.what {
            What::Retrying { attempt, outcome, delay, reason } => {
                Heard::Retrying(attempt, outcome, delay, reason)
            }
            What::Resending { attempt, delay, reason, .. } => {
                Heard::Resending(attempt, delay, reason)
            }
            What::GaveUp { attempt, outcome, reason } => Heard::GaveUp(attempt, outcome, reason),
            What::Attempting { .. } => return,
            other => panic!("{other}"),
        };
        self.0.lock().push((event.call.attempt(), heard));
    }
}

// ===== impl Refusal =====

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("refused")
    }
}

impl std::error::Error for Refusal {}

impl Rejection for Refusal {
    fn name(&self) -> &str {
        "below"
    }

    fn kind(&self) -> RejectionKind {
        RejectionKind::Open
    }

    fn reason(&self) -> Reason {
        Reason::Manual
    }

    fn retry_after(&self) -> Option<Duration> {
        self.0
    }
}
