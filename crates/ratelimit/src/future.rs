//! The futures: of a call through the service, and of a wait without one.

use std::{
    fmt, mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use portcullis_core::{BoxError, Call, Classify, Error, FaultKind, Hint, clock};
use tokio::time::{Sleep, sleep_until};
use tower_service::Service;

use crate::{
    Limited, Receipt,
    claim::{self, Claim, One, Slot, Slots, Terms},
    rules::Weigh,
};

pin_project! {
    /// The future of [`RateLimit`](crate::RateLimit).
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with its timer enabled, once there is something to wait for.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, Req, L, C, W>
    where
        S: Service<Req>,
        L: Slots,
    {
        #[pin]
        state: State<S, Req, S::Future, L>,
        // The scope the call was made in.
        call: Call,
        classifier: C,
        rules: W,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, Req, F, L: Slots> {
        // The call's turn has not come. Boxed, for it is as large as it is rare: a timer for every call
        // would be moved about for nothing.
        Waiting {
            waiting: Pin<Box<Waiting<S, Req, L>>>,
        },
        Calling {
            #[pin]
            future: F,
            slots: L,
        },
        // `None` once it was handed up.
        Refused {
            error: Option<Error>,
        },
    }
}

pin_project! {
    struct Waiting<S, Req, L: Slots> {
        #[pin]
        sleep: Sleep,
        // The instance that was readied, and what it is called with when the turn comes.
        call: Option<(S, Req)>,
        // Dropped with it, the place in line is given back.
        claim: Claim<L>,
    }
}

pin_project! {
    /// Waits for a turn at one limit, or at several: see [`Limiter::until_ready_n`](crate::Limiter::until_ready_n).
    ///
    /// # Panics
    ///
    /// When polled after it was ready; and outside a tokio runtime with its timer enabled, once there
    /// is something to wait for.
    #[must_use = "futures do nothing unless polled"]
    pub struct UntilReady<L = One>
    where
        L: Slots,
    {
        #[pin]
        sleep: Option<Sleep>,
        turn: Turn<L>,
    }
}

enum Turn<L: Slots> {
    // Not polled yet: nothing was asked.
    New { slots: L, cost: u32 },
    Asked { claim: Claim<L>, call: Call },
    Over,
}

// ===== impl ResponseFuture =====

impl<S, Req, L, C, W> ResponseFuture<S, Req, L, C, W>
where
    S: Service<Req>,
    L: Slots,
{
    #[inline]
    pub(crate) fn calling(
        future: S::Future,
        slots: L,
        call: Call,
        classifier: C,
        rules: W,
    ) -> Self {
        Self { state: State::Calling { future, slots }, call, classifier, rules }
    }

    #[cold]
    pub(crate) fn waiting(
        until: std::time::Instant,
        readied: (S, Req),
        claim: Claim<L>,
        call: Call,
        classifier: C,
        rules: W,
    ) -> Self {
        let sleep = sleep_until(until.into());
        let waiting = Box::pin(Waiting { sleep, call: Some(readied), claim });
        Self { state: State::Waiting { waiting }, call, classifier, rules }
    }

    #[cold]
    pub(crate) fn refused(limited: Limited, call: Call, classifier: C, rules: W) -> Self {
        let error = Some(Error::rejected(limited));
        Self { state: State::Refused { error }, call, classifier, rules }
    }

    /// The call's turn has come, or it has to wait again.
    fn after_wait(self: Pin<&mut Self>) {
        let mut this = self.project();
        let StateProj::Waiting { waiting } = this.state.as_mut().project() else {
            return;
        };
        let waiting = waiting.as_mut().project();
        match waiting.claim.ask(this.call, clock::now()) {
            Ok(Some(later)) => waiting.sleep.reset(later.into()),
            Ok(None) => {
                let Some((mut service, request)) = waiting.call.take() else {
                    // The inner `call` panicked when it was tried, and somebody polls on.
                    return this.state.set(State::Refused { error: None });
                };
                let mut slots = waiting.claim.take();
                crate::receipt::note(slots.as_mut());
                let future = service.call(request);
                this.state.set(State::Calling { future, slots });
            }
            Err(limited) => {
                this.state.set(State::Refused { error: Some(Error::rejected(limited)) });
            }
        }
    }
}

impl<S, Req, L, C, W> Future for ResponseFuture<S, Req, L, C, W>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    L: Slots,
    C: Classify<S::Response>,
    W: Weigh<Req, S::Response>,
{
    type Output = Result<S::Response, Error>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let this = self.as_mut().project();
            match this.state.project() {
                StateProj::Calling { future, slots } => {
                    let result = match future.poll(cx) {
                        Poll::Ready(Ok(response)) => Ok(response),
                        Poll::Ready(Err(error)) => Err(Error::inner(error)),
                        Poll::Pending => return Poll::Pending,
                    };
                    at_head(&result, slots.as_mut(), this.call, this.classifier, this.rules);
                    return Poll::Ready(result);
                }
                StateProj::Waiting { waiting } => {
                    ready!(waiting.as_mut().project().sleep.poll(cx));
                    self.as_mut().after_wait();
                }
                StateProj::Refused { error } => {
                    // Polled after it was ready is no reason to panic here.
                    return error.take().map_or(Poll::Pending, |error| Poll::Ready(Err(error)));
                }
            }
        }
    }
}

impl<S, Req, L, C, W> fmt::Debug for ResponseFuture<S, Req, L, C, W>
where
    S: Service<Req>,
    L: Slots,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Waiting { .. } => "waiting",
            State::Calling { .. } => "calling",
            State::Refused { .. } => "refused",
        };
        f.debug_struct("ResponseFuture").field("state", &state).finish_non_exhaustive()
    }
}

/// What the head, or the error, says of the limits.
#[inline]
fn at_head<Req, Res, C, W>(
    result: &Result<Res, Error>,
    slots: &mut [Option<Slot>],
    call: &Call,
    classifier: &C,
    rules: &W,
) where
    C: Classify<Res>,
    W: Weigh<Req, Res>,
{
    let outcome = classifier.at_head(result.as_ref()).outcome();
    let hint = match (outcome.hint(), result) {
        // A layer below speaks of itself and not for the peer.
        _ if outcome.kind() == Some(FaultKind::Rejected) => Hint::None,
        (Hint::None, Ok(res)) => rules.hint(res),
        (hint, _) => hint,
    };
    let actual = result.as_ref().ok().and_then(|res| rules.actual(res));
    if let Some(actual) = actual {
        claim::settle(slots, actual, call, clock::now());
    }
    if let Some(wait) = hint.wait()
        && let Some(Some(first)) = slots.first()
    {
        first.limiter.hold_for(wait, call, clock::now());
    }
}

// ===== impl UntilReady =====

impl<L: Slots> UntilReady<L> {
    pub(crate) fn new(slots: L, cost: u32) -> Self {
        Self { sleep: None, turn: Turn::New { slots, cost } }
    }
}

impl<L: Slots> Future for UntilReady<L> {
    type Output = Result<Receipt<L>, Limited>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Turn::New { .. } = this.turn {
            let Turn::New { mut slots, cost } = mem::replace(this.turn, Turn::Over) else {
                return Poll::Pending;
            };
            let call = Call::current();
            let first = slots.as_mut().iter().flatten().next();
            let max_wait = first.map(|slot| slot.limiter.config().max_wait);
            let terms = Terms::new(cost, &call, max_wait.unwrap_or_default(), call.now());
            *this.turn = Turn::Asked { claim: Claim::new(slots, terms), call };
        }
        let Turn::Asked { claim, call } = this.turn else {
            panic!("a wait for a limit was polled after it was over");
        };
        loop {
            if let Some(sleep) = this.sleep.as_mut().as_pin_mut() {
                ready!(sleep.poll(cx));
            }
            match claim.ask(call, clock::now()) {
                Ok(Some(later)) => this.sleep.set(Some(sleep_until(later.into()))),
                Ok(None) => {
                    let receipt = Receipt::of(claim);
                    *this.turn = Turn::Over;
                    return Poll::Ready(Ok(receipt));
                }
                Err(limited) => {
                    *this.turn = Turn::Over;
                    return Poll::Ready(Err(limited));
                }
            }
        }
    }
}

impl<L: Slots> fmt::Debug for UntilReady<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UntilReady").field("waiting", &self.sleep.is_some()).finish_non_exhaustive()
    }
}
