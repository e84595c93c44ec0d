//! The future of a call under limits.

use std::{
    fmt,
    marker::PhantomPinned,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use portcullis_core::{
    BoxError, Call, Classify, Elapsed, Error, Label, Until,
    call::{LeftTimer, Scoped},
};

use crate::{
    engine::{Kept, Plan},
    layer::Shared,
    timer::Timer,
};

thread_local! {
    static TIMER: LeftTimer = const { LeftTimer::new() };
}

pin_project! {
    /// The future of a [`Timeout`](crate::Timeout): the response's head, or the error.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F, C> {
        #[pin]
        state: State<F>,
        classify: C,
        teller: Teller,
    }

    impl<F, C> PinnedDrop for ResponseFuture<F, C> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if let StateProj::Called { timer, .. } = this.state.as_mut().project()
                && timer.is_set()
            {
                TIMER.with(LeftTimer::forget);
            }
            if let Teller::Of(_) = this.teller
                && let Teller::Of(shared) = mem::replace(this.teller, Teller::Over)
            {
                let (plan, call) = match this.state.project() {
                    StateProj::Called { inner, kept, .. } => {
                        let call = inner.call().clone();
                        // From the inside out, as calls end: the layers below tell theirs first.
                        inner.clear();
                        (kept.plan(&call), call)
                    }
                    StateProj::Refused { of } => (of.0, of.1.clone()),
                };
                drop(shared.completion(&plan, call));
            }
        }
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F> {
        Called {
            #[pin]
            inner: Scoped<F>,
            // What the scope's call does not know of the plan.
            kept: Kept,
            // Set when the inner future is first found pending and no layer below left one that
            // runs out in time.
            timer: Timer,
            // A layer above relies on the timer that it left where this lies.
            #[pin]
            lies: PhantomPinned,
        },
        // Its time was up before the inner service could be called: the plan says which.
        Refused { of: Box<(Plan, Call)> },
    }
}

/// Who tells of the call's end.
pub(crate) enum Teller {
    /// Nobody listens, and nothing but the whole limit is to be kept. Then the call needs no more of
    /// what the services share than the name, for the error: a count of references that every thread
    /// touches would cost as much as all the rest.
    Nobody { name: Label },
    /// What the layer's services share.
    Of(Arc<Shared>),
    /// The end is told, or handed to the classifier to be told.
    Over,
}

// ===== impl ResponseFuture =====

impl<F, C> ResponseFuture<F, C> {
    #[inline]
    pub(crate) fn called(inner: Scoped<F>, kept: Kept, classify: C, teller: Teller) -> Self {
        let state = State::Called { inner, kept, timer: Timer::default(), lies: PhantomPinned };
        Self { state, classify, teller }
    }

    #[cold]
    pub(crate) fn refused(call: Call, plan: Plan, classify: C, teller: Teller) -> Self {
        Self { state: State::Refused { of: Box::new((plan, call)) }, classify, teller }
    }
}

impl<F, C, Res, E> Future for ResponseFuture<F, C>
where
    F: Future<Output = Result<Res, E>>,
    E: Into<BoxError>,
    C: Classify<Res>,
{
    type Output = Result<C::Response, Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let (plan, call, until) = match this.state.project() {
            StateProj::Called { mut inner, kept, timer, .. } => {
                TIMER.with(LeftTimer::forget);
                // The response goes before the timer: what is there is not taken away.
                match inner.as_mut().poll(cx) {
                    Poll::Ready(Ok(response)) => {
                        let (call, classify) = (inner.call(), this.classify);
                        return Poll::Ready(answered(response, call, kept, classify, this.teller));
                    }
                    Poll::Ready(Err(error)) => {
                        let (call, classify) = (inner.call(), this.classify);
                        let error = Error::inner(error);
                        return Poll::Ready(failed(error, call, kept, classify, this.teller));
                    }
                    Poll::Pending => {}
                }
                let plan = kept.plan(inner.call());
                let Some(until) = this.teller.until_head(&plan) else {
                    return Poll::Pending;
                };
                if !timer.is_set() {
                    if TIMER.with(|timer| timer.is_left(cx, until.at, &*inner)) {
                        return Poll::Pending;
                    }
                    timer.set(until.at);
                }
                if timer.poll(cx).is_pending() {
                    // It is kept here for as long as it is there.
                    TIMER.with(|left| left.leave(cx, until.at, timer));
                    return Poll::Pending;
                }
                // Dropped before the error is returned: the permits that layers below hold are back
                // when the caller sees it. They take the drop for the timeout it is, though a head's
                // limit runs out before the call's deadline.
                let call = inner.call().clone();
                inner.expire();
                timer.clear();
                (plan, call, until)
            }
            StateProj::Refused { of } => {
                let Some(until) = of.0.whole() else { return Poll::Pending };
                (of.0, of.1.clone(), until)
            }
        };
        let teller = mem::replace(this.teller, Teller::Over);
        Poll::Ready(Err(teller.elapsed(&plan, call, until)))
    }
}

impl<F, C> fmt::Debug for ResponseFuture<F, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plan = match &self.state {
            State::Called { inner, kept, .. } => kept.plan(inner.call()),
            State::Refused { of } => of.0,
        };
        f.debug_struct("ResponseFuture").field("plan", &plan).finish_non_exhaustive()
    }
}

/// Hands up what the inner service answered, with whatever limits are left for its body.
#[inline]
fn answered<Res, C>(
    response: Res,
    call: &Call,
    kept: &Kept,
    classify: &C,
    teller: &mut Teller,
) -> Result<C::Response, Error>
where
    C: Classify<Res>,
{
    if let Teller::Nobody { .. } = teller {
        return classify.hand_up(Ok(response));
    }
    let Teller::Of(shared) = mem::replace(teller, Teller::Over) else {
        return classify.hand_up(Ok(response));
    };
    let plan = &kept.plan(call);
    let timed = shared.is_heard(call) || shared.policy.counts_from_head(plan);
    let head = if timed { call.ended() } else { plan.called };
    shared.tell_if_slow(plan.operation, call, plan.started, head);
    if classify.ends_at_head() {
        shared.settle_at(plan, call, head, || classify.at_head(Ok(&response)).outcome());
        return classify.hand_up(Ok(response));
    }
    let watch = shared.policy.watch(plan, head);
    let done = shared.completion(plan, call.clone()).with_head(head).with_watch(watch);
    classify.classify(Ok(response), done)
}

/// Hands up the inner service's error, unless that only says that the limit ran out.
#[cold]
fn failed<Res, C>(
    error: Error,
    call: &Call,
    kept: &Kept,
    classify: &C,
    teller: &mut Teller,
) -> Result<C::Response, Error>
where
    C: Classify<Res>,
{
    let plan = &kept.plan(call);
    let ours = |whole: &Until| whole.is_kept_by(&error) || classify.stands_for_deadline(&error);
    let kept = |whole: &Until| ours(whole) && whole.at <= call.ended();
    match (plan.whole().filter(kept), mem::replace(teller, Teller::Over)) {
        (Some(whole), teller) => Err(teller.elapsed(plan, call.clone(), whole)),
        (None, Teller::Of(shared)) => {
            classify.classify(Err(error), shared.completion(plan, call.clone()))
        }
        (None, _) => classify.hand_up(Err(error)),
    }
}

// ===== impl Teller =====

impl Teller {
    /// By when the response's head must be there.
    fn until_head(&self, plan: &Plan) -> Option<Until> {
        match self {
            Self::Of(shared) => shared.policy.until_head(plan),
            Self::Nobody { .. } | Self::Over => plan.whole(),
        }
    }

    /// Tells that a limit ran out, and makes the error that says so.
    #[cold]
    fn elapsed(self, plan: &Plan, call: Call, until: Until) -> Error {
        let Until { phase, limit, .. } = until;
        match self {
            Self::Of(shared) => shared.completion(plan, call).elapsed(phase, limit),
            Self::Nobody { name } => {
                Error::rejected(name.with(|name| Elapsed::new(name, phase, limit)))
            }
            Self::Over => panic!("a response future was polled after it was ready"),
        }
    }
}
