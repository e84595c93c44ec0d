//! The future of an operation: requests, looks at their answers, and the waits between them.

use std::{
    borrow::Cow,
    fmt, mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use pin_project_lite::pin_project;
use portcullis_core::{
    BoxError, Call, Course, Error, Follow, Next, Outcome, Phase, Progress, Reason, What,
    backoff::Reached,
    call::{self, Scoped},
    clock,
};
use tokio::{
    task::coop,
    time::{Sleep, sleep_until},
};
use tower_service::Service;

use crate::{Asked, Unfinished, layer::Shared};

pin_project! {
    /// The future of [`Polling`](crate::Polling).
    ///
    /// # Panics
    ///
    /// When polled after it was ready; and outside a tokio runtime with its timer enabled, once there is
    /// something to wait for.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, P, Req>
    where
        S: Service<Req>,
        P: Follow<Req, S::Response>,
    {
        #[pin]
        state: State<S::Future, P::Look, Next<Req, P::Operation>, P::Operation>,
        // Runs out at the limit while something is under way, at the end of a wait, and at the deadline
        // while the inner service is not ready. Made once there is something to wait for.
        #[pin]
        timer: Option<Sleep>,
        service: S,
        operation: Operation,
        shared: Arc<Shared<P>>,
    }

    impl<S, P, Req> PinnedDrop for ResponseFuture<S, P, Req>
    where
        S: Service<Req>,
        P: Follow<Req, S::Response>,
    {
        fn drop(this: Pin<&mut Self>) {
            this.dropped();
        }
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, L, N, Op> {
        // A request is under way.
        Asking {
            #[pin]
            future: Scoped<F>,
            operation: Option<Op>,
        },
        // Its answer is looked at.
        Looking {
            #[pin]
            look: Scoped<L>,
        },
        // The answer is gone, and the next poll's time has not come.
        Waiting { next: Option<N>, delay: Duration },
        // Its time has come, and the inner service is not ready.
        Readying { next: Option<N>, since: Instant },
        // The next request is being made: what is left of it should that panic.
        Making,
        Over,
    }
}

/// How far an operation has come.
struct Operation {
    /// The scope that all its requests are made in.
    call: Call,
    started: Instant,
    /// When it is followed no longer.
    until: Instant,
    /// Requests made after the first.
    polls: u32,
    reached: Reached,
    /// Whether an answer said that it takes longer. Of one that is over at once nothing is told.
    takes_long: bool,
    seen: Option<Cow<'static, str>>,
}

// ===== impl ResponseFuture =====

impl<S, P, Req> ResponseFuture<S, P, Req>
where
    S: Service<Req>,
    P: Follow<Req, S::Response>,
{
    /// Makes the request that begins an operation, of the instance that was readied.
    pub(crate) fn begin(mut service: S, request: Req, shared: Arc<Shared<P>>) -> Self {
        let call = Call::here();
        let started = call.now();
        let until = shared.policy.until(&call, started);
        let operation = Some(shared.follow.begin(&request));
        let own = Call::here().with_deadline(until);
        let future = own.enter(started, || service.call(request));
        let operation_so_far = Operation {
            call: call.with_deadline(until),
            started,
            until,
            polls: 0,
            reached: Reached::default(),
            takes_long: false,
            seen: None,
        };
        Self {
            state: State::Asking { future, operation },
            timer: None,
            service,
            operation: operation_so_far,
            shared,
        }
    }

    /// The operation goes on: settles when it is asked about again, or why it is not.
    fn goes_on(
        self: Pin<&mut Self>,
        mut next: Next<Req, P::Operation>,
        now: Instant,
    ) -> Option<Error> {
        let mut this = self.project();
        let Shared { policy, voice, chance, .. } = &**this.shared;
        let so_far = this.operation;
        so_far.takes_long = true;
        so_far.seen = next.seen.take();
        let asked =
            Asked { polls: so_far.polls, now, hint: next.hint, deadline: so_far.call.deadline() };
        let (polls, elapsed) = (so_far.polls, so_far.elapsed(now));
        let tell = |course| {
            voice.tell(&so_far.call, now, || What::Polled { polls, elapsed, course });
        };
        match policy.decide(&asked, &mut so_far.reached, || chance.next()) {
            Ok(plan) => {
                let delay = plan.delay;
                tell(Course::Pending { delay, reason: plan.reason });
                let next = Some(next);
                if delay.is_zero() {
                    this.state.set(State::Readying { next, since: now });
                    // One that there is runs out at the limit; the deadline may be earlier.
                    if let (Some(deadline), true) = (asked.deadline, this.timer.is_some()) {
                        arm(this.timer, deadline);
                    }
                } else {
                    arm(this.timer, clock::after(now, delay));
                    this.state.set(State::Waiting { next, delay });
                }
                None
            }
            Err(reason) => {
                tell(Course::GaveUp { reason });
                this.state.set(State::Over);
                Some(so_far.unfinished(voice.name(), reason, now, None))
            }
        }
    }

    /// A wait is over, and the next request is to be made once the inner service is ready.
    fn after_wait(self: Pin<&mut Self>) -> Option<Error> {
        let now = clock::now();
        let mut this = self.project();
        let StateProj::Waiting { next, delay } = this.state.as_mut().project() else { return None };
        // It was to end in time, but timers may be late, and tasks later still.
        if this.operation.call.is_overdue(now) {
            let reason = Reason::DeadlineTooClose { left: Duration::ZERO, needed: *delay };
            let error = this.operation.left(this.shared, reason, now);
            this.state.set(State::Over);
            return Some(error);
        }
        let next = next.take();
        this.state.set(State::Readying { next, since: now });
        if let Some(deadline) = this.operation.call.deadline() {
            arm(this.timer, deadline);
        }
        None
    }

    /// The inner service is ready, or failed to become so, or (`None`) the deadline came before it was.
    fn after_readiness(self: Pin<&mut Self>, ready: Option<Result<(), Error>>) -> Option<Error> {
        let now = clock::now();
        let mut this = self.project();
        let so_far = this.operation;
        let StateProj::Readying { next, since } = this.state.as_mut().project() else {
            return None;
        };
        let (next, since) = (next.take(), *since);
        this.state.set(State::Over);
        let next = match ready {
            Some(Err(error)) => {
                let outcome = error.outcome();
                so_far.tell(this.shared, now, Course::Left { outcome });
                return Some(error);
            }
            Some(Ok(())) if !so_far.call.is_overdue(now) => next?,
            _ => {
                let limit = so_far.call.remaining(since).unwrap_or_default();
                let reason = Reason::Elapsed { phase: Phase::Readiness, limit };
                return Some(so_far.left(this.shared, reason, now));
            }
        };
        so_far.polls = so_far.polls.saturating_add(1);
        arm(this.timer, so_far.until);
        let Next { request, operation, .. } = next;
        this.state.set(State::Making);
        let future = so_far.poll_call().enter(now, || this.service.call(request));
        this.state.set(State::Asking { future, operation: Some(operation) });
        None
    }

    /// A request failed, or the look at its answer did; the operation may have failed, or only this.
    fn failed(self: Pin<&mut Self>, error: Error, now: Instant) -> Error {
        let mut this = self.project();
        this.state.set(State::Over);
        let so_far = this.operation;
        // What is inside may keep the deadline, too, and say so first.
        if so_far.until <= now {
            return so_far.ran_out(this.shared, now, Some(error));
        }
        if so_far.takes_long {
            so_far.tell(this.shared, now, Course::Ended { outcome: error.outcome() });
        }
        error
    }

    /// The limit ran out while something was under way, which is dropped for it.
    #[cold]
    fn ran_out(self: Pin<&mut Self>) -> Error {
        let mut this = self.project();
        // Those inside take it for the timeout it is: their deadline has passed.
        this.state.set(State::Over);
        this.operation.ran_out(this.shared, clock::now(), None)
    }

    /// Whoever waited for the operation is gone.
    fn dropped(self: Pin<&mut Self>) {
        let mut this = self.project();
        let asked = match this.state.as_mut().project() {
            StateProj::Over => return,
            // From the inside out, as calls end: the layers below tell theirs first.
            StateProj::Asking { future, .. } => {
                future.clear();
                true
            }
            StateProj::Looking { look } => {
                look.clear();
                true
            }
            StateProj::Making => true,
            StateProj::Waiting { .. } | StateProj::Readying { .. } => false,
        };
        let so_far = this.operation;
        if !so_far.takes_long || !this.shared.voice.is_heard(&so_far.call) {
            return;
        }
        let now = clock::now();
        let late = call::is_expired() || so_far.call.is_overdue(now);
        let outcome = if late { Outcome::timeout() } else { Outcome::Cancelled };
        let course = if asked { Course::Ended { outcome } } else { Course::Left { outcome } };
        so_far.tell(this.shared, now, course);
    }
}

impl<S, P, Req> Future for ResponseFuture<S, P, Req>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    P: Follow<Req, S::Response>,
{
    type Output = Result<P::Response, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let mut this = self.as_mut().project();
            let until = this.operation.until;
            let ended = match this.state.as_mut().project() {
                StateProj::Asking { mut future, operation } => match future.as_mut().poll(cx) {
                    Poll::Ready(Ok(response)) => {
                        let now = future.call().ended();
                        let call = this.operation.call.clone();
                        let operation = operation.take().expect("one answer to each request");
                        let follow = &this.shared.follow;
                        let look = call.enter(now, || follow.look(operation, response));
                        this.state.set(State::Looking { look });
                        None
                    }
                    Poll::Ready(Err(error)) => {
                        let now = future.call().ended();
                        Some(self.as_mut().failed(Error::inner(error), now))
                    }
                    Poll::Pending => {
                        ready!(run_out(this.timer, until, cx));
                        Some(self.as_mut().ran_out())
                    }
                },
                StateProj::Looking { mut look } => match look.as_mut().poll(cx) {
                    Poll::Ready(Ok(Progress::Done(response))) => {
                        let now = look.call().ended();
                        this.state.set(State::Over);
                        if this.operation.takes_long {
                            let outcome = Outcome::Success;
                            this.operation.tell(this.shared, now, Course::Ended { outcome });
                        }
                        return Poll::Ready(Ok(response));
                    }
                    Poll::Ready(Ok(Progress::Pending(next))) => {
                        let now = look.call().ended();
                        self.as_mut().goes_on(next, now)
                    }
                    Poll::Ready(Err(error)) => {
                        let now = look.call().ended();
                        Some(self.as_mut().failed(Error::inner(error), now))
                    }
                    Poll::Pending => {
                        ready!(run_out(this.timer, until, cx));
                        Some(self.as_mut().ran_out())
                    }
                },
                StateProj::Waiting { .. } => {
                    if let Some(timer) = this.timer.as_pin_mut() {
                        ready!(timer.poll(cx));
                    }
                    self.as_mut().after_wait()
                }
                StateProj::Readying { .. } => {
                    // Polls that neither wait nor are pending must let other tasks run.
                    let progress = ready!(coop::poll_proceed(cx));
                    let ready = match this.service.poll_ready(cx) {
                        Poll::Ready(ready) => Some(ready.map_err(Error::inner)),
                        Poll::Pending => {
                            let deadline = this.operation.call.deadline().unwrap_or(until);
                            ready!(run_out(this.timer, deadline, cx));
                            None
                        }
                    };
                    progress.made_progress();
                    self.as_mut().after_readiness(ready)
                }
                StateProj::Making | StateProj::Over => {
                    panic!("a response future was polled after it was ready")
                }
            };
            if let Some(error) = ended {
                return Poll::Ready(Err(error));
            }
        }
    }
}

impl<S, P, Req> fmt::Debug for ResponseFuture<S, P, Req>
where
    S: Service<Req>,
    P: Follow<Req, S::Response>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Asking { .. } => "asking",
            State::Looking { .. } => "looking",
            State::Waiting { .. } => "waiting",
            State::Readying { .. } => "readying",
            State::Making => "making",
            State::Over => "over",
        };
        f.debug_struct("ResponseFuture")
            .field("name", self.shared.voice.name())
            .field("polls", &self.operation.polls)
            .field("state", &state)
            .finish_non_exhaustive()
    }
}

// ===== impl Operation =====

impl Operation {
    /// The scope of a request that asks on. What the caller said of the request that begins the
    /// operation, its cost and whether it may be sent twice, is not said of this one.
    fn poll_call(&self) -> Call {
        let call = self.call.clone();
        match call.orders() {
            Some(orders) if orders.cost.is_some() || orders.idempotent.is_some() => {
                let mut orders = orders.clone();
                (orders.cost, orders.idempotent) = (None, None);
                call.with_overrides(orders)
            }
            _ => call,
        }
    }

    fn elapsed(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.started)
    }

    fn tell<P>(&self, shared: &Shared<P>, now: Instant, course: Course) {
        let (polls, elapsed) = (self.polls, self.elapsed(now));
        shared.voice.tell(&self.call, now, || What::Polled { polls, elapsed, course });
    }

    /// It is given up between two requests.
    fn left<P>(&mut self, shared: &Shared<P>, reason: Reason, now: Instant) -> Error {
        self.tell(shared, now, Course::Left { outcome: Outcome::timeout() });
        self.unfinished(shared.voice.name(), reason, now, None)
    }

    /// It is given up because its limit ran out.
    fn ran_out<P>(&mut self, shared: &Shared<P>, now: Instant, source: Option<Error>) -> Error {
        self.tell(shared, now, Course::Ended { outcome: Outcome::timeout() });
        let limit = self.until.saturating_duration_since(self.started);
        let reason = Reason::Elapsed { phase: Phase::Total, limit };
        self.unfinished(shared.voice.name(), reason, now, source)
    }

    fn unfinished(
        &mut self,
        name: &Arc<str>,
        reason: Reason,
        now: Instant,
        source: Option<Error>,
    ) -> Error {
        Error::rejected(Unfinished {
            name: name.clone(),
            polls: self.polls,
            elapsed: self.elapsed(now),
            seen: mem::take(&mut self.seen),
            reason,
            source,
        })
    }
}

/// Sets the timer to another time.
fn arm(mut timer: Pin<&mut Option<Sleep>>, at: Instant) {
    match timer.as_mut().as_pin_mut() {
        Some(timer) => timer.reset(at.into()),
        None => timer.set(Some(sleep_until(at.into()))),
    }
}

/// Whether what is under way has come to its limit at `at`.
fn run_out(mut timer: Pin<&mut Option<Sleep>>, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
    if timer.is_none() {
        timer.set(Some(sleep_until(at.into())));
    }
    timer.as_pin_mut().map_or(Poll::Pending, |timer| clock::run_out(timer, cx))
}
