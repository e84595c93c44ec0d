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

use crate::{Attempt, Decision, Exhausted, Plan, Progress, Withdrawal, service::Core};

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
        // `None` where the caller wants one attempt only.
        kept: Option<Kp>,
        core: Arc<Core<S, C>>,
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
            // What makes all attempts but the first, from then on. Boxed, as all is that a call needs
            // only once it failed: it may hold a whole client, and would be moved with every call that
            // succeeds.
            again: Option<Box<Again<S>>>,
        },
        // The last response is dropped, and the next attempt's time has not come.
        Waiting {
            #[pin]
            sleep: Sleep,
            next: Box<Next<S, Kp>>,
        },
        // Its time has come, and the inner service is not ready.
        Readying {
            // To the call's deadline; only once there is something to wait for.
            #[pin]
            timer: Option<Sleep>,
            since: Instant,
            next: Box<Next<S, Kp>>,
        },
        Over,
    }
}

/// What a call that has failed before has in order to be tried again.
struct Again<S> {
    /// A clone of the inner service.
    service: S,
    progress: Progress,
}

/// The attempt to come. Dropped before it is sent, its token goes back to the budget.
struct Next<S, Kp: Kept> {
    again: Box<Again<S>>,
    request: Kp::Sent,
    /// Which attempt it is: the same as before, if no application saw that one.
    number: u32,
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
        kept: Option<Kp>,
        idempotent: bool,
        core: Arc<Core<S, C>>,
    ) -> Self {
        let state = State::Calling { future, again: None };
        Self { state, attempt: FIRST, idempotent, kept, core }
    }

    /// Settles what follows an attempt that may be followed by another, all of it before its result
    /// is dropped.
    #[cold]
    fn after_attempt(
        self: Pin<&mut Self>,
        result: Result<S::Response, Error>,
        outcome: Outcome,
    ) -> Option<Result<S::Response, Error>>
    where
        S: Clone,
    {
        let mut this = self.project();
        let shared = this.core.shared();
        let StateProj::Calling { future, again } = this.state.as_mut().project() else {
            return Some(result);
        };

        let now = future.call().ended();
        let number = *this.attempt;
        let attempt =
            Attempt { number, outcome, error: result.as_ref().err(), idempotent: *this.idempotent };
        let decision = shared.policy.decide(
            &attempt,
            future.call(),
            now,
            again.as_ref().map(|again| again.progress).unwrap_or_default(),
            |number| this.kept.as_ref()?.again(number),
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
        let Plan { delay, reason, .. } = plan;
        shared.voice.tell(future.call(), now, || match plan.attempt {
            same if same == number => What::Resending { attempt: number, outcome, delay, reason },
            _ => What::Retrying { attempt: number, outcome, delay, reason },
        });

        // Before the wait, so that a refused response does not hold its connection meanwhile.
        drop(result);
        let mut again = again.take().unwrap_or_else(|| {
            Box::new(Again { service: this.core.another(), progress: Progress::default() })
        });
        again.progress = plan.progress;
        let next = Box::new(Next {
            again,
            request: plan.request,
            number: plan.attempt,
            withdrawal: plan.withdrawal,
            call: future.call().clone(),
            delay,
            last: outcome,
        });
        this.state.set(if delay.is_zero() {
            State::readying(next, now)
        } else {
            let at = clock::after(now, delay);
            State::Waiting { sleep: sleep_until(at.into()), next }
        });
        None
    }

    /// What comes between two attempts, one step of it: the error it ends in, if it does.
    //
    // Not inlined, so that a call which succeeds at once is a short way.
    #[cold]
    fn poll_between(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Error>>
    where
        S::Error: Into<BoxError>,
    {
        match self.as_mut().project().state.project() {
            StateProj::Waiting { sleep, .. } => {
                ready!(sleep.poll(cx));
                Poll::Ready(self.after_wait())
            }
            StateProj::Readying { timer, next, .. } => {
                // Attempts that neither wait nor are pending must let other tasks run.
                let progress = ready!(coop::poll_proceed(cx));
                let ready = match next.again.service.poll_ready(cx) {
                    Poll::Ready(ready) => Some(ready.map_err(Error::inner)),
                    Poll::Pending => {
                        ready!(until_deadline(timer, &next.call, cx));
                        None
                    }
                };
                progress.made_progress();
                Poll::Ready(self.after_readiness(ready))
            }
            StateProj::Calling { .. } => Poll::Ready(None),
            StateProj::Over => panic!("a response future was polled after it was ready"),
        }
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

        let Next { mut again, request, number, withdrawal, call, .. } = *next;
        if let Some(withdrawal) = withdrawal {
            withdrawal.spend(now);
        }
        let mut this = self.project();
        let call = call.with_attempt(number);
        if std::mem::replace(this.attempt, number) != number {
            let voice = &this.core.shared().voice;
            voice.tell(&call, now, || What::Attempting { attempt: number });
        }
        let future = call.enter(now, || again.service.call(request));
        this.state.set(State::Calling { future, again: Some(again) });
        None
    }

    fn exhausted(
        &self,
        next: &Next<S, Kp>,
        reason: Reason,
        source: Option<Error>,
        now: Instant,
    ) -> Error {
        let (voice, last) = (&self.core.shared().voice, next.last);
        let gave_up = || What::GaveUp { attempt: self.attempt, outcome: last, reason };
        voice.tell(&next.call, now, gave_up);
        Error::rejected(Exhausted::new(voice.name().clone(), self.attempt, last, reason, source))
    }
}

impl<S, Kp, C> Future for ResponseFuture<S, Kp, C>
where
    S: Service<Kp::Sent> + Clone,
    S::Error: Into<BoxError>,
    Kp: Kept,
    C: Classify<S::Response>,
{
    type Output = Result<S::Response, Error>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let this = self.as_mut().project();
            let ended = if let StateProj::Calling { mut future, .. } = this.state.project() {
                let result = match future.as_mut().poll(cx) {
                    Poll::Ready(Ok(response)) => Ok(response),
                    Poll::Ready(Err(error)) => Err(Error::inner(error)),
                    Poll::Pending => return Poll::Pending,
                };
                let outcome = this.core.shared().judge(&result, future.call());
                if outcome.replay().is_none() {
                    if outcome.is_success() {
                        this.core.shared().policy.succeeded();
                    }
                    return Poll::Ready(result);
                }
                self.as_mut().after_attempt(result, outcome)
            } else {
                ready!(self.as_mut().poll_between(cx)).map(Err)
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
            .field("name", self.core.shared().voice.name())
            .field("attempt", &self.attempt)
            .field("state", &self.state.as_str())
            .finish_non_exhaustive()
    }
}

// ===== impl State =====

impl<S, Kp: Kept, F> State<S, Kp, F> {
    fn readying(next: Box<Next<S, Kp>>, since: Instant) -> Self {
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
    timer.as_pin_mut().map_or(Poll::Pending, |timer| clock::run_out(timer, cx))
}
