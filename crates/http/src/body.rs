//! The watched body: where a call's true end is seen, and its limits are kept.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;
use portcullis_core::{
    BoxError, Completion, Error, FaultKind, Outcome, Phase, Replay, call, clock,
};
use tokio::time::{Sleep, sleep_until};

use crate::grpc::{self, GrpcClassifier};

pin_project! {
    /// A response's body that reports how the call ended, and ends it when a limit runs out.
    ///
    /// The verdict falls when the body has ended, when its trailers have arrived, when it fails, and
    /// when it is dropped. A limit that runs out while somebody waits for a frame ends the body with
    /// an [`Elapsed`](portcullis_core::Elapsed) error; for gRPC, with trailers that say
    /// `DEADLINE_EXCEEDED`. The inner body, and so its connection, is released at that moment.
    ///
    /// A limit is kept by whoever polls: a body that nobody reads is not ended behind its owner's
    /// back.
    pub struct Body<B> {
        // `None` once a limit has ended it.
        #[pin]
        inner: Option<B>,
        watching: Option<Watching>,
    }

    impl<B> PinnedDrop for Body<B> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if let Some(watching) = this.watching.take() {
                watching.dropped();
            }
            this.inner.set(None);
        }
    }
}

/// What is known until the end.
struct Watching {
    done: Completion,
    judge: Judge,
    /// Whether the last poll found nothing.
    waiting: bool,
    /// When the wait for the next frame began.
    since: Option<Instant>,
    /// Made when the body is first pending under a limit; boxed, to keep the body small and `Unpin`.
    timer: Option<Pin<Box<Sleep>>>,
}

/// What the end of the body means, given its head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Judge {
    /// The verdict if the body ends and brings none.
    at_end: Outcome,
    /// The verdict if the caller drops it; `None` if that is a cancellation.
    on_drop: Option<Outcome>,
    /// Who reads the trailers.
    trailers: Option<GrpcClassifier>,
}

// ===== impl Judge =====

impl Judge {
    /// The head's verdict stands, unless the body fails.
    pub(crate) fn http(head: Outcome) -> Self {
        Self { at_end: head, on_drop: Some(head), trailers: None }
    }

    /// The trailers decide.
    pub(crate) fn grpc(classifier: GrpcClassifier, without_status: Outcome) -> Self {
        Self { at_end: without_status, on_drop: None, trailers: Some(classifier) }
    }
}

// ===== impl Body =====

impl<B: http_body::Body> Body<B> {
    /// A body whose end `done` is to learn, as `judge` has it.
    pub(crate) fn watched(inner: B, judge: Judge, done: Completion) -> Self {
        // Nobody polls a body that is known to be empty.
        let watching = if inner.is_end_stream() {
            done.settle_at_head(judge.at_end);
            None
        } else {
            Some(Watching { done, judge, waiting: false, since: None, timer: None })
        };
        Self { inner: Some(inner), watching }
    }
}

impl<B> http_body::Body for Body<B>
where
    B: http_body::Body,
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, Error>>> {
        let mut this = self.project();
        let Some(mut inner) = this.inner.as_mut().as_pin_mut() else {
            return Poll::Ready(None);
        };

        // The body goes before the timer: what is there is not taken away.
        let polled = inner.as_mut().poll_frame(cx);
        let Some(watching) = this.watching.as_mut() else {
            return polled.map_err(Error::inner);
        };

        let elapsed = match polled {
            Poll::Pending => Some(ready!(watching.poll_limits(cx))),
            // An endless body whose frames are always there must end as well.
            Poll::Ready(Some(Ok(ref frame))) if frame.is_data() => watching.overdue(),
            Poll::Ready(_) => None,
        };

        if let Some((phase, limit)) = elapsed {
            let is_grpc = watching.judge.trailers.is_some();
            let error = this.watching.take().map(|watching| watching.done.elapsed(phase, limit));
            // Layers below see a drop that is no whim of the caller's.
            call::expire(|| this.inner.set(None));
            return Poll::Ready(match error {
                _ if is_grpc => Some(Ok(Frame::trailers(grpc::deadline_exceeded()))),
                Some(error) => Some(Err(error)),
                None => None,
            });
        }

        watching.waiting = false;
        watching.since = None;
        let (frame, verdict) = match ready!(polled) {
            Some(Ok(frame)) => {
                let ended = frame.is_trailers() || inner.is_end_stream();
                let verdict = ended.then(|| watching.judge.frame(&frame));
                (Some(Ok(frame)), verdict)
            }
            Some(Err(error)) => {
                let error = Error::inner(error);
                let verdict = broken(&error);
                (Some(Err(error)), Some(verdict))
            }
            None => (None, Some(watching.judge.at_end)),
        };
        if let Some(outcome) = verdict
            && let Some(watching) = this.watching.take()
        {
            watching.done.settle(outcome);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(B::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), B::size_hint)
    }
}

impl<B: Default> Default for Body<B> {
    fn default() -> Self {
        Self { inner: Some(B::default()), watching: None }
    }
}

impl<B> fmt::Debug for Body<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("ended", &self.watching.is_none()).finish_non_exhaustive()
    }
}

// ===== impl Judge =====

impl Judge {
    /// The verdict of the last frame.
    fn frame<D>(&self, frame: &Frame<D>) -> Outcome {
        let trailers = frame.trailers_ref();
        let read = self.trailers.zip(trailers).and_then(|(grpc, trailers)| grpc.trailers(trailers));
        read.unwrap_or(self.at_end)
    }
}

// ===== impl Watching =====

impl Watching {
    /// Whether a limit runs out while the body has nothing to give.
    fn poll_limits(&mut self, cx: &mut Context<'_>) -> Poll<(Phase, Duration)> {
        self.waiting = true;
        let watch = self.done.watch();
        let until = watch.until.map(|until| (until.at, until.phase, until.limit));
        let idle = watch.idle.map(|idle| {
            let since = *self.since.get_or_insert_with(clock::now);
            (clock::after(since, idle), Phase::Idle, idle)
        });
        let Some((at, phase, limit)) = [until, idle].into_iter().flatten().min_by_key(|l| l.0)
        else {
            return Poll::Pending;
        };

        let at = tokio::time::Instant::from_std(at);
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if timer.deadline() != at {
            timer.as_mut().reset(at);
        }
        timer.as_mut().poll(cx).map(|()| (phase, limit))
    }

    /// The absolute limit, if it has passed.
    fn overdue(&self) -> Option<(Phase, Duration)> {
        let until = self.done.watch().until?;
        (until.at <= clock::now()).then_some((until.phase, until.limit))
    }

    fn dropped(self) {
        match self.judge.on_drop {
            Some(outcome) => self.done.dropped(outcome, self.waiting),
            // The completion knows a cancellation from a timeout.
            None => drop(self.done),
        }
    }
}

/// The verdict on a body that broke off. A limit of a layer below speaks for itself.
fn broken(error: &Error) -> Outcome {
    match error.rejection() {
        Some(rejection) => rejection.outcome(),
        None => Outcome::failure(FaultKind::Body, Replay::IfIdempotent),
    }
}
