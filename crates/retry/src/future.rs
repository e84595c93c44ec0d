//! The future of a call: attempts, and the waits between them.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use pin_project_lite::pin_project;
use portcullis_core::{
    BoxError, Call, Classify, Error, Kept, Outcome, Phase, Reason, What, call::Scoped, clock,
};
use tokio::{
    task::coop,
    time::{Sleep, sleep_until},
};
use tower_service::Service;

use crate::{Attempt, Decision, Exhausted, Withdrawal, layer::Shared};

/// The number of a call's first attempt.
pub(crate) const FIRST: u32 = 1;

pin_project! {
    /// The future of [`Retry`](crate::Retry).
    ///
    /// # Panics
    ///
    /// When polled after it was ready; and outside a tokio runtime with its timer enabled, once there
    /// is something to wait for.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, Kp, C>
    where
        S: Service<Kp::Sent>,
        Kp: Kept,
    {
        #[pin]
        state: State<S, Kp, S::Future>,
        // The attempt that is under way, or that was the last to be.
        attempt: u32,
        // Whether the request may be sent twice, by its own word or the caller's.
        idempotent: bool,
        // What the backoff computed last.
        computed: Option<Duration>,
        shared: Arc<Shared<C>>,
    }
}

pin_project! {
    #[project = StateProj]
    #[project_replace = StateOwned]
    enum State<S, Kp: Kept, F> {
        // An attempt is under way.
        Calling {
            #[pin]
            future: Scoped<F>,
            // `None` where there is only one.
            spare: Option<Spare<S, Kp>>,
        },
        // The last response is dropped, and the next attempt's time has not come.
        Waiting {
            #[pin]
            sleep: Sleep,
            next: Next<S, Kp>,
        },
        // Its time has come, and the inner service is not ready.
        Readying {
            // To the call's deadline; only once there is something to wait for.
            #[pin]
            timer: Option<Sleep>,
            since: Instant,
            next: Next<S, Kp>,
        },
        Over,
    }
}

/// What other attempts are made with.
pub(crate) struct Spare<S, Kp> {
    pub(crate) service: S,
    pub(crate) kept: Kp,
}

/// The attempt to come. Dropped before it is sent, its token goes back to the budget.
struct Next<S, Kp: Kept> {
    spare: Spare<S, Kp>,
    request: Kp::Sent,
    withdrawal: Option<Withdrawal>,
    /// The scope of the attempt before, from which this one derives its own.
    call: Call,
    delay: Duration,
    last: Outcome,
}

// ===== impl ResponseFuture =====

impl<S, Kp, C> ResponseFuture<S, Kp, C>
where
    S: Service<Kp::Sent>,
    Kp: Kept,
{
    #[inline]
    pub(crate) fn new(
        future: Scoped<S::Future>,
        spare: Option<Spare<S, Kp>>,
        idempotent: bool,
        shared: Arc<Shared<C>>,
    ) -> Self {
        Self {
            state: State::Calling { future, spare },
            attempt: FIRST,
            idempotent,
            computed: None,
            shared,
        }
    }

    /// Settles what follows an attempt that may be followed by another, all of it before its result
    /// is dropped.
    fn after_attempt(
        self: Pin<&mut Self>,
        result: Result<S::Response, Error>,
        outcome: Outcome,
    ) -> Option<Result<S::Response, Error>> {
        let mut this = self.project();
        let shared = &**this.shared;
        let StateProj::Calling { future, spare } = this.state.as_mut().project() else {
            return Some(result);
        };

        let now = clock::now();
        let number = *this.attempt;
        let attempt =
            Attempt { number, outcome, error: result.as_ref().err(), idempotent: *this.idempotent };
        let decision = shared.policy.decide(
            &attempt,
            future.call(),
            now,
            *this.computed,
            || spare.as_ref()?.kept.again(number + 1),
            || shared.chance.next(),
        );
        let plan = match decision {
            Decision::Retry(plan) => plan,
            Decision::Done => return Some(result),
            Decision::GiveUp(reason) => {
                let gave_up = || What::GaveUp { attempt: number, outcome, reason };
                shared.voice.tell(future.call(), now, gave_up);
                return Some(result);
            }
        };
        // There is one, or there would be no plan: the request came out of it.
        let Some(spare) = spare.take() else {
            return Some(result);
        };
        shared.voice.tell(future.call(), now, || What::Retrying {
            attempt: number,
            outcome,
            delay: plan.delay,
            reason: plan.reason,
        });

        // Before the wait, so that a refused response does not hold its connection meanwhile.
        drop(result);
        *this.computed = plan.computed.or(*this.computed);
        let next = Next {
            spare,
            request: plan.request,
            withdrawal: plan.withdrawal,
            call: future.call().clone(),
            delay: plan.delay,
            last: outcome,
        };
        this.state.set(if plan.delay.is_zero() {
            State::readying(next, now)
        } else {
            let at = clock::after(now, plan.delay);
            State::Waiting { sleep: sleep_until(at.into()), next }
        });
        None
    }

    /// The wait is over: the inner service is to be made ready again.
    fn after_wait(mut self: Pin<&mut Self>) -> Option<Error> {
        let now = clock::now();
        let state = self.as_mut().project().state;
        let StateOwned::Waiting { next, .. } = state.project_replace(State::Over) else {
            return None;
        };
        // The wait was to end in time, but timers may be late, and tasks later still.
        if next.call.is_overdue(now) {
            let reason = Reason::DeadlineTooClose { left: Duration::ZERO, needed: next.delay };
            return Some(self.exhausted(&next, reason, None, now));
        }
        self.project().state.set(State::readying(next, now));
        None
    }

    /// The inner service is ready again, or failed to become so, or (`None`) the deadline came
    /// before it did: the next attempt is sent, or there is none.
    fn after_readiness(
        mut self: Pin<&mut Self>,
        ready: Option<Result<(), Error>>,
    ) -> Option<Error> {
        let now = clock::now();
        let state = self.as_mut().project().state;
        let StateOwned::Readying { next, since, .. } = state.project_replace(State::Over) else {
            return None;
        };
        if let Some(Err(error)) = ready {
            let reason = Reason::ReadinessFailed;
            return Some(self.exhausted(&next, reason, Some(error), now));
        }
        if ready.is_none() || next.call.is_overdue(now) {
            let reason = Reason::Elapsed {
                phase: Phase::Readiness,
                limit: next.call.remaining(since).unwrap_or_default(),
            };
            return Some(self.exhausted(&next, reason, None, now));
        }

        let Next { mut spare, request, withdrawal, call, .. } = next;
        if let Some(withdrawal) = withdrawal {
            withdrawal.spend(now);
        }
        let mut this = self.project();
        *this.attempt += 1;
        let number = *this.attempt;
        let call = call.with_attempt(number);
        this.shared.voice.tell(&call, now, || What::Attempting { attempt: number });
        let future = call.enter(now, || spare.service.call(request));
        this.state.set(State::Calling { future, spare: Some(spare) });
        None
    }

    fn exhausted(
        &self,
        next: &Next<S, Kp>,
        reason: Reason,
        source: Option<Error>,
        now: Instant,
    ) -> Error {
        let (voice, last) = (&self.shared.voice, next.last);
        let gave_up = || What::GaveUp { attempt: self.attempt, outcome: last, reason };
        voice.tell(&next.call, now, gave_up);
        Error::rejected(Exhausted::new(voice.name().clone(), self.attempt, last, reason, source))
    }
}

impl<S, Kp, C> Future for ResponseFuture<S, Kp, C>
where
    S: Service<Kp::Sent>,
    S::Error: Into<BoxError>,
    Kp: Kept,
    C: Classify<S::Response>,
{
    type Output = Result<S::Response, Error>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let this = self.as_mut().project();
            let ended = match this.state.project() {
                StateProj::Calling { future, .. } => {
                    let result = ready!(future.poll(cx)).map_err(Error::inner);
                    let outcome = this.shared.judge(&result);
                    if outcome.replay().is_none() {
                        return Poll::Ready(result);
                    }
                    self.as_mut().after_attempt(result, outcome)
                }
                StateProj::Waiting { sleep, .. } => {
                    ready!(sleep.poll(cx));
                    self.as_mut().after_wait().map(Err)
                }
                StateProj::Readying { timer, next, .. } => {
                    // Attempts that neither wait nor are pending must let other tasks run.
                    let progress = ready!(coop::poll_proceed(cx));
                    let ready = match next.spare.service.poll_ready(cx) {
                        Poll::Ready(ready) => Some(ready.map_err(Error::inner)),
                        Poll::Pending => {
                            ready!(until_deadline(timer, &next.call, cx));
                            None
                        }
                    };
                    progress.made_progress();
                    self.as_mut().after_readiness(ready).map(Err)
                }
                StateProj::Over => panic!("a response future was polled after it was ready"),
            };
            if let Some(result) = ended {
                return Poll::Ready(result);
            }
        }
    }
}

impl<S, Kp, C> fmt::Debug for ResponseFuture<S, Kp, C>
where
    S: Service<Kp::Sent>,
    Kp: Kept,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("name", self.shared.voice.name())
            .field("attempt", &self.attempt)
            .field("state", &self.state.as_str())
            .finish_non_exhaustive()
    }
}

// ===== impl State =====

impl<S, Kp: Kept, F> State<S, Kp, F> {
    fn readying(next: Next<S, Kp>, since: Instant) -> Self {
        Self::Readying { timer: None, since, next }
    }

    fn as_str(&self) -> &'static str {
        match self {
            Self::Calling { .. } => "calling",
            Self::Waiting { .. } => "waiting",
            Self::Readying { .. } => "readying",
            Self::Over => "over",
        }
    }
}

/// Waits for the call's deadline; for ever if it has none.
fn until_deadline(
    mut timer: Pin<&mut Option<Sleep>>,
    call: &Call,
    cx: &mut Context<'_>,
) -> Poll<()> {
    let Some(deadline) = call.deadline() else {
        return Poll::Pending;
    };
    if timer.is_none() {
        timer.set(Some(sleep_until(deadline.into())));
    }
    timer.as_pin_mut().map_or(Poll::Pending, |timer| timer.poll(cx))
}
