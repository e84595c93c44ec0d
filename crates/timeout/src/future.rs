//! The future of a call under limits.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use portcullis_core::{BoxError, Call, Classify, Error, call::Scoped, clock};
use tokio::{
    task::coop,
    time::{Sleep, sleep_until},
};

use crate::{
    engine::Plan,
    layer::{Shared, Took},
};

pin_project! {
    /// The future of a [`Timeout`](crate::Timeout): the response's head, or the error.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F, C> {
        #[pin]
        state: State<F>,
        plan: Plan,
        classify: C,
        // `None` once the call's end is told, or handed to the classifier to be told.
        shared: Option<Arc<Shared>>,
    }

    impl<F, C> PinnedDrop for ResponseFuture<F, C> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if let Some(shared) = this.shared.take() {
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
            // Made when the inner future is first found pending.
            #[pin]
            timer: Option<Sleep>,
        },
        // Its time was up before the inner service could be called: the plan says which.
        Refused { call: Call },
    }
}

// ===== impl ResponseFuture =====

impl<F, C> ResponseFuture<F, C> {
    #[inline]
    pub(crate) fn called(inner: Scoped<F>, plan: Plan, classify: C, shared: Arc<Shared>) -> Self {
        let state = State::Called { inner, timer: None };
        Self { state, plan, classify, shared: Some(shared) }
    }

    pub(crate) fn refused(call: Call, plan: Plan, classify: C, shared: Arc<Shared>) -> Self {
        let state = State::Refused { call };
        Self { state, plan, classify, shared: Some(shared) }
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
        let shared = this.shared.as_ref().expect("polled after it had answered");

        let (call, phase, limit) = match this.state.project() {
            StateProj::Called { mut inner, mut timer } => {
                // The response goes before the timer: what is there is not taken away.
                if let Poll::Ready(result) = inner.as_mut().poll(cx) {
                    let call = inner.call();
                    let shared = this.shared.take().expect("it was there a moment ago");
                    // A second look at the clock costs as much as the rest, and so does all that a
                    // completion carries: for those who want either.
                    return Poll::Ready(match result {
                        Ok(response) if !shared.is_heard(call) && !this.classify.watches() => {
                            this.classify.hand_up(Ok(response))
                        }
                        result => finish(result, call, this.plan, this.classify, shared),
                    });
                }
                let Some(until) = shared.policy.until_head(this.plan) else {
                    return Poll::Pending;
                };
                if timer.is_none() {
                    timer.set(Some(sleep_until(until.at.into())));
                }
                if let Some(timer) = timer.as_mut().as_pin_mut() {
                    // An inner future that uses up the task's budget on every poll would otherwise
                    // outrun its limit. The timer ends a call once, and needs no budget for that.
                    ready!(Pin::new(&mut coop::unconstrained(timer)).poll(cx));
                }
                // Dropped before the error is returned: the permits that layers below hold are back
                // when the caller sees it. They take the drop for the timeout it is, though a head's
                // limit runs out before the call's deadline.
                let call = inner.call().clone();
                inner.expire();
                timer.set(None);
                (call, until.phase, until.limit)
            }
            StateProj::Refused { call } => (call.clone(), this.plan.phase, this.plan.limit),
        };
        let shared = this.shared.take().expect("it was there a moment ago");
        let done = shared.completion(this.plan, call);
        Poll::Ready(Err(done.elapsed(phase, limit)))
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
    shared: Arc<Shared>,
) -> Result<C::Response, Error>
where
    E: Into<BoxError>,
    C: Classify<Res>,
{
    match result {
        Ok(response) => {
            let timed = shared.is_heard(call) || shared.policy.counts_from_head(plan);
            let head = if timed { clock::now() } else { plan.called };
            let elapsed = head.saturating_duration_since(plan.started);
            shared.tell_if_slow(plan.operation, call, Took { elapsed, at: head });
            let watch = shared.policy.watch(plan, head);
            let done = shared.completion(plan, call.clone()).with_head(head).with_watch(watch);
            classify.classify(Ok(response), done)
        }
        Err(error) => {
            let now = clock::now();
            let error = Error::inner(error);
            let done = shared.completion(plan, call.clone());
            match plan.whole().filter(|whole| whole.at <= now && whole.is_kept_by(&error)) {
                Some(whole) => Err(done.elapsed(whole.phase, whole.limit)),
                None => classify.classify(Err(error), done),
            }
        }
    }
}
