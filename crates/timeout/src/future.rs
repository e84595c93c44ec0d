//! The future of a call under limits.

use std::{
    fmt, mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use portcullis_core::{
    BoxError, Call, Classify, Elapsed, Error, Until,
    call::{LeftTimer, Scoped},
};
use smol_str::SmolStr;
use tokio::{
    task::coop,
    time::{Sleep, sleep_until},
};

use crate::{
    engine::Plan,
    layer::{Shared, Took},
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
        plan: Plan,
        classify: C,
        teller: Teller,
    }

    impl<F, C> PinnedDrop for ResponseFuture<F, C> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if let StateProj::Called { timer, .. } = this.state.as_mut().project()
                && timer.is_some()
            {
                TIMER.with(LeftTimer::forget);
            }
            if let Teller::Of(_) = this.teller
                && let Teller::Of(shared) = mem::replace(this.teller, Teller::Over)
            {
                let call = match this.state.project() {
                    StateProj::Called { inner, .. } => {
                        let call = inner.call().clone();
                        // From the inside out, as calls end: the layers below tell theirs first.
                        inner.clear();
                        call
                    }
                    StateProj::Refused { call } => call.clone(),
                };
                drop(shared.completion(this.plan, call));
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
            // Made when the inner future is first found pending and no layer below left one that
            // runs out in time.
            #[pin]
            timer: Option<Sleep>,
        },
        // Its time was up before the inner service could be called: the plan says which.
        Refused { call: Call },
    }
}

/// Who tells of the call's end.
pub(crate) enum Teller {
    /// Nobody listens, and nothing but the whole limit is to be kept. Then the call needs no more of
    /// what the services share than the name, for the error: a count of references that every thread
    /// touches would cost as much as all the rest.
    Nobody { name: SmolStr },
    /// What the layer's services share.
    Of(Arc<Shared>),
    /// The end is told, or handed to the classifier to be told.
    Over,
}

// ===== impl ResponseFuture =====

impl<F, C> ResponseFuture<F, C> {
    #[inline]
    pub(crate) fn called(inner: Scoped<F>, plan: Plan, classify: C, teller: Teller) -> Self {
        Self { state: State::Called { inner, timer: None }, plan, classify, teller }
    }

    #[cold]
    pub(crate) fn refused(call: Call, plan: Plan, classify: C, teller: Teller) -> Self {
        Self { state: State::Refused { call }, plan, classify, teller }
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
        let (call, until) = match this.state.project() {
            StateProj::Called { mut inner, mut timer } => {
                TIMER.with(LeftTimer::forget);
                // The response goes before the timer: what is there is not taken away.
                if let Poll::Ready(result) = inner.as_mut().poll(cx) {
                    return Poll::Ready(match (result, &*this.teller) {
                        (Ok(response), Teller::Nobody { .. }) => {
                            this.classify.hand_up(Ok(response))
                        }
                        (result, _) => {
                            finish(result, inner.call(), this.plan, this.classify, this.teller)
                        }
                    });
                }
                let Some(until) = this.teller.until_head(this.plan) else {
                    return Poll::Pending;
                };
                if timer.is_none() {
                    if TIMER.with(|timer| timer.is_left(cx, until.at, &*inner)) {
                        return Poll::Pending;
                    }
                    timer.set(Some(sleep_until(until.at.into())));
                }
                if let Some(mut timer) = timer.as_mut().as_pin_mut() {
                    // An inner future that uses up the task's budget on every poll would otherwise
                    // outrun its limit. The timer ends a call once, and needs no budget for that.
                    if Pin::new(&mut coop::unconstrained(timer.as_mut())).poll(cx).is_pending() {
                        // Pinned, it lies here for as long as it is there.
                        TIMER.with(|left| left.leave(cx, until.at, &*timer));
                        return Poll::Pending;
                    }
                }
                // Dropped before the error is returned: the permits that layers below hold are back
                // when the caller sees it. They take the drop for the timeout it is, though a head's
                // limit runs out before the call's deadline.
                let call = inner.call().clone();
                inner.expire();
                timer.set(None);
                (call, until)
            }
            StateProj::Refused { call } => {
                let Some(until) = this.plan.whole() else { return Poll::Pending };
                (call.clone(), until)
            }
        };
        let teller = mem::replace(this.teller, Teller::Over);
        Poll::Ready(Err(teller.elapsed(this.plan, call, until)))
    }
}

impl<F, C> fmt::Debug for ResponseFuture<F, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").field("plan", &self.plan).finish_non_exhaustive()
    }
}

/// Hands up what the inner service answered, with whatever limits are left for its body.
fn finish<Res, E, C>(
    result: Result<Res, E>,
    call: &Call,
    plan: &Plan,
    classify: &C,
    teller: &mut Teller,
) -> Result<C::Response, Error>
where
    E: Into<BoxError>,
    C: Classify<Res>,
{
    match (result, mem::replace(teller, Teller::Over)) {
        (Ok(response), Teller::Of(shared)) => {
            let timed = shared.is_heard(call) || shared.policy.counts_from_head(plan);
            let head = if timed { call.ended() } else { plan.called };
            let elapsed = head.saturating_duration_since(plan.started);
            shared.tell_if_slow(plan.operation, call, Took { elapsed, at: head });
            if classify.ends_at_head() {
                shared.settle_at(plan, call, head, || classify.at_head(Ok(&response)).outcome());
                return classify.hand_up(Ok(response));
            }
            let watch = shared.policy.watch(plan, head);
            let done = shared.completion(plan, call.clone()).with_head(head).with_watch(watch);
            classify.classify(Ok(response), done)
        }
        (Ok(response), _) => classify.hand_up(Ok(response)),
        (Err(error), teller) => {
            let error = Error::inner(error);
            let ours =
                |whole: &Until| whole.is_kept_by(&error) || classify.stands_for_deadline(&error);
            let kept = |whole: &Until| ours(whole) && whole.at <= call.ended();
            match (plan.whole().filter(kept), teller) {
                (Some(whole), teller) => Err(teller.elapsed(plan, call.clone(), whole)),
                (None, Teller::Of(shared)) => {
                    classify.classify(Err(error), shared.completion(plan, call.clone()))
                }
                (None, _) => classify.hand_up(Err(error)),
            }
        }
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
            Self::Nobody { name } => Error::rejected(Elapsed::new(name.as_str(), phase, limit)),
            Self::Over => panic!("a response future was polled after it was ready"),
        }
    }
}
