//! The watched body: where a call's true end is seen, and its limits are kept.

use std::{
    cell::{Cell, RefCell},
    fmt, mem,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Instant,
};

use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;
use portcullis_core::{
    BoxError, Call, Completion, Error, FaultKind, Outcome, Phase, Replay, Until,
    call::{self, LeftTimer},
    clock,
};
use tokio::time::{Sleep, sleep_until};

use crate::grpc::{self, Table};

pin_project! {
    /// A response's body that reports how the call ended, and ends it when a limit runs out.
    ///
    /// The verdict falls when the body has ended, when its trailers have arrived, when it fails, and
    /// when it is dropped. A limit that runs out ends the body with an
    /// [`Elapsed`](portcullis_core::Elapsed) error; for gRPC, with trailers that say
    /// `DEADLINE_EXCEEDED`. The inner body, and so its connection, is released at that moment, and the
    /// layers inside learn of the end before those outside.
    ///
    /// A limit is kept by whoever polls: a body that nobody reads is not ended behind its owner's
    /// back. An absolute limit ends a body that always has a frame, too; an end that is there is not
    /// taken away.
    ///
    /// That a limit ran out is the server's failure only if somebody waited for a frame, or for the
    /// head, when it did.
    /// A reader who was away meanwhile is cut, but to every layer the verdict is the one of a body that
    /// is dropped: the head's, or for gRPC a cancellation.
    ///
    /// # Panics
    ///
    /// A body that is pending under a limit panics outside a tokio runtime with its timer enabled, as
    /// tokio's own timers do.
    ///
    /// # Cancellation
    ///
    /// Dropping it releases the inner body and then reports the verdict above, or a timeout if the
    /// call's deadline passed while somebody waited for a frame. One that panics when it is polled is
    /// cancelled.
    pub struct Body<B> {
        // `None` once a limit has ended it.
        #[pin]
        inner: Option<B>,
        // Behind a pointer, for the response it is part of is moved up through every layer.
        watching: Option<Place>,
    }

    impl<B> PinnedDrop for Body<B> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            // From the inside out, as calls end: the layers below tell theirs first.
            this.inner.set(None);
            if let Some(watching) = this.watching.take().and_then(Place::empty) {
                TIMER.with(LeftTimer::forget);
                watching.dropped();
            }
        }
    }
}

/// What is known until the end.
struct Watching {
    done: Completion,
    judge: Judge,
    /// When a poll first found no next frame.
    waiting_since: Option<Instant>,
    /// Made when the body is first pending under a limit and no body within left one that runs out in
    /// time; boxed, to keep the body `Unpin`.
    timer: Option<Pin<Box<Sleep>>>,
}

/// Should the inner body panic: what is left of it is no end that anybody came to, and no reader's
/// choice either.
struct Unwinding<'a>(&'a mut Option<Place>);

/// Where a watch lies. Every response of every layer has one: it is used again.
struct Place(Box<Option<Watching>>);

thread_local! {
    static TIMER: LeftTimer = const { LeftTimer::new() };
    static UNSEEN: Cell<bool> = const { Cell::new(false) };
    /// Whether a body within was just cut on somebody who had waited.
    static CUT: Cell<bool> = const { Cell::new(false) };
    static FREE: RefCell<Vec<Place>> = const { RefCell::new(Vec::new()) };
}

/// How many places a thread keeps free.
const KEPT_FREE: usize = 64;

/// Polls a body on behalf of nobody: where it has nothing to give, nobody has waited for it.
pub(crate) fn unseen<R>(poll: impl FnOnce() -> R) -> R {
    /// Puts back what was, also should the poll panic.
    struct Before(bool);

    impl Drop for Before {
        fn drop(&mut self) {
            UNSEEN.set(self.0);
        }
    }

    let _before = Before(UNSEEN.replace(true));
    poll()
}

/// What the end of the body means, given its head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Judge {
    /// The verdict if the body ends and brings none.
    at_end: Outcome,
    /// Who reads the trailers. Then a body that is dropped is a cancelled call; else the head's verdict
    /// stands.
    trailers: Option<Table>,
    /// Whether it is a cancelled call in any case if it is dropped while somebody waits for more.
    is_served: bool,
    /// Whether the body may give what it has, though its head came after the limit.
    is_late: bool,
}

// ===== impl Judge =====

impl Judge {
    /// The head's verdict stands, unless the body fails.
    pub(crate) fn http(head: Outcome) -> Self {
        Self { at_end: head, trailers: None, is_served: false, is_late: false }
    }

    /// The trailers decide.
    pub(crate) fn grpc(table: Table, without_status: Outcome) -> Self {
        Self { trailers: Some(table), ..Self::http(without_status) }
    }

    /// The same for who gives the response: a server drops what it waits for more of only because
    /// the client has gone, and what it does not wait for maybe because it has all it needs.
    pub(crate) fn served(self) -> Self {
        Self { is_served: true, ..self }
    }

    /// The same for a response whose head came when its limit had run out already: who gave it knew,
    /// and is heard out as long as it has something to say.
    pub(crate) fn late(self) -> Self {
        Self { is_late: true, ..self }
    }
}

// ===== impl Body =====

impl<B: http_body::Body> Body<B> {
    /// A body whose end `done` is to learn, as `judge` has it.
    #[inline]
    pub(crate) fn watched(inner: B, judge: Judge, done: Completion) -> Self {
        // Nobody polls a body that is known to be empty.
        let watching = if inner.is_end_stream() {
            done.settle_at_head(judge.at_end);
            None
        } else {
            Some(Place::of(Watching { done, judge, waiting_since: None, timer: None }))
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

        TIMER.with(LeftTimer::forget);
        CUT.set(false);
        // The body goes before the timer: what is there is not taken away.
        let unwinding = Unwinding(this.watching);
        let polled = call::poll(|| inner.as_mut().poll_frame(cx)).map_err(Error::inner);
        mem::forget(unwinding);
        let Some(watching) = this.watching.as_mut().and_then(Place::watching) else {
            return polled;
        };
        let ran_out = match &polled {
            Poll::Pending if UNSEEN.get() => return Poll::Pending,
            Poll::Pending => Some(ready!(watching.poll_limits(cx, &*inner))),
            Poll::Ready(Some(last)) if !watching.judge.is_late => watching.overdue(last.as_ref()),
            Poll::Ready(Some(_)) => None,
            Poll::Ready(None) => None,
        };
        if let Some(until) = ran_out {
            let ended = this.watching.take().and_then(Place::empty);
            let last = ended.map(|watching| watching.ran_out(until, || this.inner.set(None)));
            return Poll::Ready(last);
        }

        let polled = ready!(polled);
        let waited = watching.waiting_since.take().is_some() || CUT.get();
        let verdict = match &polled {
            Some(Ok(frame)) => {
                let ended = frame.is_trailers() || inner.is_end_stream();
                ended.then(|| watching.judge.frame(frame, waited))
            }
            Some(Err(error)) => Some(watching.judge.error(error, waited)),
            None => Some(watching.judge.at_end),
        };
        if let Some(outcome) = verdict
            && let Some(watching) = this.watching.take().and_then(Place::empty)
        {
            watching.note(&polled);
            let ended = watching.now();
            watching.done.settle_at(outcome, ended);
        }
        Poll::Ready(polled)
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
    /// The verdict if the caller drops the body, or leaves it unread until a limit ends it.
    fn on_drop(&self) -> Outcome {
        if self.trailers.is_some() { Outcome::Cancelled } else { self.at_end }
    }

    /// The verdict if it is dropped while somebody waits for more, and no deadline passed.
    fn on_drop_waiting(&self) -> Outcome {
        if self.is_served { Outcome::Cancelled } else { self.on_drop() }
    }

    /// The verdict of the last frame, for which somebody may have `waited`.
    fn frame<D>(&self, frame: &Frame<D>, waited: bool) -> Outcome {
        match self.trailers.zip(frame.trailers_ref()) {
            // Not the server's word: a limit of a layer below ran out, on somebody who waited or who
            // was away.
            Some((_, trailers)) if grpc::is_ended_here(trailers) => {
                if waited {
                    Outcome::timeout()
                } else {
                    self.on_drop()
                }
            }
            Some((table, trailers)) => table.trailers(trailers).unwrap_or(self.at_end),
            None => self.at_end,
        }
    }

    /// The verdict on a body that broke off.
    fn error(&self, error: &Error, waited: bool) -> Outcome {
        match error.own_outcome() {
            // A limit of a layer below, or of the client's own, ran out on a reader who was away.
            Some(own) if own.kind() == Some(FaultKind::Timeout) && !waited => self.on_drop(),
            Some(own) => own,
            None => Outcome::failure(FaultKind::Body, Replay::IfIdempotent),
        }
    }
}

// ===== impl Unwinding =====

impl Drop for Unwinding<'_> {
    fn drop(&mut self) {
        // A completion that is dropped reports the cancellation.
        drop(self.0.take().and_then(Place::empty));
    }
}

// ===== impl Place =====

impl Place {
    fn of(watching: Watching) -> Self {
        // While a thread ends its locals are gone: then there is none to use again.
        let free = FREE.try_with(|free| free.borrow_mut().pop()).ok().flatten();
        let mut place = free.unwrap_or_else(|| Self(Box::new(None)));
        *place.0 = Some(watching);
        place
    }

    fn watching(&mut self) -> Option<&mut Watching> {
        self.0.as_mut().as_mut()
    }

    /// Hands out what lies here, and keeps the place for another.
    fn empty(mut self) -> Option<Watching> {
        let watching = self.0.take();
        let _ = FREE.try_with(|free| {
            let mut free = free.borrow_mut();
            if free.len() < KEPT_FREE {
                free.push(self);
            }
        });
        watching
    }
}

// ===== impl Watching =====

impl Watching {
    /// The limit that runs out while the body has nothing to give.
    fn poll_limits<B>(&mut self, cx: &mut Context<'_>, inner: &B) -> Poll<Until> {
        let since = *self.waiting_since.get_or_insert_with(clock::now);
        let watch = self.done.watch();
        let idle = watch.idle.map(|idle| Until::new(since, Phase::Idle, idle));
        let limits = [watch.until, idle].into_iter().flatten();
        let Some(until) = limits.min_by_key(|until| until.at) else {
            return Poll::Pending;
        };

        let at = tokio::time::Instant::from_std(until.at);
        if self.timer.is_none() && TIMER.with(|timer| timer.is_left(cx, until.at, inner)) {
            return Poll::Pending;
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if timer.deadline() != at {
            timer.as_mut().reset(at);
        }
        let ran_out = clock::run_out(timer.as_mut(), cx);
        if ran_out.is_pending() {
            // What is around a body keeps it until its end, though it need not be pinned.
            TIMER.with(|left| left.leave(cx, until.at, inner));
        }
        ran_out.map(|()| until)
    }

    /// When the inner body gave what it did. The bodies within look at the same moment, and read the
    /// clock for it once.
    fn now(&self) -> Instant {
        self.done.call().map_or_else(clock::now, Call::ended)
    }

    /// The absolute limit, if it has passed and what is there is no end of the server's.
    fn overdue<D>(&self, last: Result<&Frame<D>, &Error>) -> Option<Until> {
        let until = self.done.watch().until?;
        let ends = match last {
            // An endless body whose frames are always there must end as well.
            Ok(frame) if frame.is_data() => true,
            // What a layer below ended at the deadline we gave it, we ended.
            Ok(frame) => {
                let grpc = self.judge.trailers.is_some() && until.phase != Phase::Inherited;
                grpc && frame.trailers_ref().is_some_and(grpc::is_ended_here)
            }
            Err(error) => until.is_kept_by(error),
        };
        (ends && until.at <= self.now()).then_some(until)
    }

    /// Ends a body whose limit ran out, which `release` drops.
    fn ran_out<D>(self, until: Until, release: impl FnOnce()) -> Result<Frame<D>, Error> {
        // Who comes only now has not waited, though nothing may be there: a client reads ahead no
        // further than its buffers reach. But for a head that came too late, somebody has.
        let in_time = |at| at < until.at;
        let waited = self.waiting_since.is_some_and(in_time)
            || self.done.head().is_some_and(|head| !in_time(head));
        // Dropped before the end is reported, and the error returned. Layers below see a drop that is
        // no whim of the caller's, unless it was the caller who let the time pass.
        let outcome = if waited {
            call::expire(release);
            CUT.set(true);
            Outcome::timeout()
        } else {
            release();
            self.judge.on_drop()
        };
        let error = self.done.elapsed_with(outcome, until.phase, until.limit);
        match self.judge.trailers {
            Some(_) => Ok(Frame::trailers(grpc::deadline_exceeded(&error.to_string()))),
            None => Err(error),
        }
    }

    /// Tells what the last frame says besides the verdict.
    fn note<D>(&self, last: &Option<Result<Frame<D>, Error>>) {
        if let (Some(_), Some(Ok(frame))) = (self.judge.trailers, last)
            && let Some(trailers) = frame.trailers_ref()
        {
            grpc::note_status(trailers, &self.done);
        }
    }

    fn dropped(self) {
        let deadline = self.done.call().and_then(Call::deadline);
        // As above: a wait that began after the deadline is not what made the call miss it, unless
        // the layer that cuts knows of an earlier one.
        let in_time = |since| deadline.is_none_or(|deadline| since < deadline);
        let waited = self.waiting_since.is_some_and(|since| in_time(since) || call::is_expired());
        let head = match self.waiting_since {
            Some(_) => self.judge.on_drop_waiting(),
            None => self.judge.on_drop(),
        };
        self.done.dropped(head, waited);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_keeps_a_bounded_number_of_places_to_use_again() {
        let watching = || Watching {
            done: Completion::none(),
            judge: Judge::http(Outcome::Success),
            waiting_since: None,
            timer: None,
        };
        let places: Vec<_> = (0..KEPT_FREE + 3).map(|_| Place::of(watching())).collect();
        for place in places {
            assert!(place.empty().is_some());
        }
        assert_eq!(FREE.with(|free| free.borrow().len()), KEPT_FREE);
        let place = Place::of(watching());
        assert_eq!(FREE.with(|free| free.borrow().len()), KEPT_FREE - 1);
        drop(place);
    }
}
