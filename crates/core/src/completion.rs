//! The end of a call, reported once.

use std::{
    cell::RefCell,
    fmt, mem,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{Call, Elapsed, Error, Outcome, Phase, RejectionKind, call, clock};

/// What a layer learns of a call's end.
pub trait Settle: Send + Sync + 'static {
    /// The layer's name, as an [`Elapsed`] carries it.
    fn name(&self) -> &Arc<str>;

    /// A call came to its end. Called exactly once for each [`Completion`], unless it is
    /// [muted](Completion::muted).
    ///
    /// `ticket` is what the layer gave the completion.
    fn settle(&self, ticket: Ticket, end: &End<'_>);

    /// The call's end has something to say besides the verdict: see [`Completion::note`]. A layer
    /// that keeps no record has no use for it.
    fn note(&self, _key: &'static str, _value: &str) {}
}

/// What a layer wants back with a completion: two words that mean something to it alone, such as a
/// packed permit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ticket(pub u64, pub u64);

/// How a call ended.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// The verdict.
    pub outcome: Outcome,
    /// How the end was reached.
    pub how: How,
    /// When the layer was called.
    pub started: Instant,
    /// When the response's head was there, if it ever was.
    pub head: Option<Instant>,
    /// When the end was reached.
    pub ended: Instant,
    /// The scope that the call was made in.
    pub call: &'a Call,
}

/// How a call's end was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// The response or its error was seen to the end.
    Reported,
    /// The future or the body was dropped before its end.
    Dropped,
    /// A limit on the response's body ran out.
    Elapsed {
        /// Which part of the call the limit covered.
        phase: Phase,
        /// The limit.
        limit: Duration,
    },
}

/// The limits under which whoever watches a response's body must end it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    /// When the body must have ended.
    pub until: Option<Until>,
    /// How long the body may go without a frame while somebody waits for one.
    pub idle: Option<Duration>,
}

/// A point in time by which something must be over, and the limit it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Until {
    /// The point in time.
    pub at: Instant,
    /// Which part of the call the limit covers.
    pub phase: Phase,
    /// The limit.
    pub limit: Duration,
}

/// The duty to report a call's end, exactly once.
///
/// A layer makes one when a call starts, and a [classifier](crate::Classify) consumes it: at once
/// where the result says it all, or at the end of the response's body, which carries it until then.
/// Dropped without a report, it reports [`Outcome::Cancelled`], or a timeout when the call's
/// deadline had passed or a limit is what [dropped](crate::call::expire) it: a caller who gives up is
/// not the peer's failure, a limit that ran out is.
#[must_use = "a completion that is dropped reports the call as cancelled"]
pub struct Completion(Option<Place>);

/// Where what is open lies: behind a pointer, for it is handed from the layer to the classifier and on
/// to the body, and all of it would be moved each time. A thread uses it again.
type Place = Box<Option<Open>>;

thread_local! {
    static FREE: RefCell<Vec<Place>> = const { RefCell::new(Vec::new()) };
}

/// How many places a thread keeps free.
const KEPT_FREE: usize = 64;

struct Open {
    sink: Arc<dyn Settle>,
    ticket: Ticket,
    call: Call,
    started: Instant,
    head: Option<Instant>,
    watch: Watch,
    /// Nothing is to be reported: there is nobody to tell, or it was told already.
    muted: bool,
}

// ===== impl Completion =====

impl Completion {
    /// The duty to tell `sink` the end of a call that `started` in the scope of `call`.
    #[inline]
    pub fn new(sink: Arc<dyn Settle>, ticket: Ticket, call: Call, started: Instant) -> Self {
        // While a thread ends its locals are gone: then there is none to use again.
        let free = FREE.try_with(|free| free.borrow_mut().pop()).ok().flatten();
        let mut place = free.unwrap_or_default();
        *place = Some(Open {
            sink,
            ticket,
            // It may be with the response's body, outside of every scope.
            call: call.held(),
            started,
            head: None,
            watch: Watch::default(),
            muted: false,
        });
        Self(Some(place))
    }

    /// No duty at all: there is nobody to tell, and no limit to keep.
    #[inline]
    pub const fn none() -> Self {
        Self(None)
    }

    /// Notes that the response's head was there at `at`.
    #[inline]
    pub fn with_head(mut self, at: Instant) -> Self {
        if let Some(open) = self.open_mut() {
            open.head = Some(at);
        }
        self
    }

    /// Sets the limits under which the body is watched.
    #[inline]
    pub fn with_watch(mut self, watch: Watch) -> Self {
        if let Some(open) = self.open_mut() {
            open.watch = watch;
        }
        self
    }

    /// Tells the sink nothing, for there is nothing that it would do with it. What remains is the
    /// [watch](Self::watch); the clock is not read for the rest.
    #[inline]
    pub fn muted(mut self) -> Self {
        if let Some(open) = self.open_mut() {
            open.muted = true;
        }
        self
    }

    /// The limits under which whoever holds this must end the response's body.
    #[must_use]
    pub fn watch(&self) -> Watch {
        self.open().map(|open| open.watch).unwrap_or_default()
    }

    /// What the layer gave along.
    #[must_use]
    pub fn ticket(&self) -> Ticket {
        self.open().map(|open| open.ticket).unwrap_or_default()
    }

    /// When the layer was called.
    #[must_use]
    pub fn started(&self) -> Option<Instant> {
        self.open().map(|open| open.started)
    }

    /// When the response's head was there, if that was [noted](Self::with_head).
    #[must_use]
    pub fn head(&self) -> Option<Instant> {
        self.open().and_then(|open| open.head)
    }

    /// The scope that the call was made in.
    #[must_use]
    pub fn call(&self) -> Option<&Call> {
        self.open().map(|open| &open.call)
    }

    /// Tells a word of the call's end that the verdict does not hold, for a layer that keeps records:
    /// such as a status by its own name. Before the verdict.
    pub fn note(&self, key: &'static str, value: &str) {
        if let Some(open) = self.open().filter(|open| !open.muted) {
            open.sink.note(key, value);
        }
    }

    /// Reports the verdict: the call was seen to its end.
    pub fn settle(mut self, outcome: Outcome) {
        self.report(How::Reported, |_| (outcome, clock::now()));
    }

    /// Reports the verdict of a call that was seen to its end at `ended`.
    pub fn settle_at(mut self, outcome: Outcome, ended: Instant) {
        self.report(How::Reported, |_| (outcome, ended));
    }

    /// Reports the verdict where the call's head is its end too, as it was
    /// [noted](Self::with_head): the clock is not read again.
    #[inline]
    pub fn settle_at_head(self, outcome: Outcome) {
        self.settle_at_head_with(|| outcome);
    }

    /// The same, with a verdict that is only made if somebody is to be told.
    #[inline]
    pub(crate) fn settle_at_head_with(mut self, outcome: impl FnOnce() -> Outcome) {
        self.report(How::Reported, |open| (outcome(), open.head.unwrap_or_else(clock::now)));
    }

    /// Reports that the response was dropped before its end by somebody who had seen its head.
    ///
    /// The head's verdict stands, unless the call's deadline passed while somebody was `waiting` for
    /// the rest: then it is a timeout.
    pub fn dropped(mut self, head: Outcome, waiting: bool) {
        self.report(How::Dropped, |open| {
            let now = clock::now();
            (if waiting && open.ran_out(now) { Outcome::timeout() } else { head }, now)
        });
    }

    /// Reports that a limit ran out, and makes the error that says so.
    #[must_use]
    pub fn elapsed(self, phase: Phase, limit: Duration) -> Error {
        self.elapsed_with(Outcome::timeout(), phase, limit)
    }

    /// Reports that a limit ran out where that is not the peer's failure, as when nobody was waiting
    /// for the peer, and makes the error that says so.
    #[must_use]
    pub fn elapsed_with(mut self, outcome: Outcome, phase: Phase, limit: Duration) -> Error {
        let name = self.open().map_or_else(|| Arc::from(""), |open| open.sink.name().clone());
        self.report(How::Elapsed { phase, limit }, |_| (outcome, clock::now()));
        Error::rejected(Elapsed::new(name, phase, limit))
    }

    #[inline]
    fn open(&self) -> Option<&Open> {
        self.0.as_deref()?.as_ref()
    }

    #[inline]
    fn open_mut(&mut self) -> Option<&mut Open> {
        self.0.as_deref_mut()?.as_mut()
    }

    #[inline]
    fn report(&mut self, how: How, judge: impl FnOnce(&Open) -> (Outcome, Instant)) {
        // Muted, it reports no second time, neither when dropped nor should the sink panic.
        if let Some(open) = self.open_mut()
            && !mem::replace(&mut open.muted, true)
        {
            let (outcome, ended) = judge(open);
            let Open { sink, ticket, call, started, head, .. } = open;
            let (ticket, started, head) = (*ticket, *started, *head);
            sink.settle(ticket, &End { outcome, how, started, head, ended, call });
        }
    }
}

impl Drop for Completion {
    #[inline]
    fn drop(&mut self) {
        self.report(How::Dropped, |open| {
            let now = clock::now();
            (if open.ran_out(now) { Outcome::timeout() } else { Outcome::Cancelled }, now)
        });
        if let Some(place) = self.0.take() {
            empty(place);
        }
    }
}

/// Drops what lies there, and keeps the place for another.
fn empty(mut place: Place) {
    *place = None;
    let _ = FREE.try_with(|free| {
        let mut free = free.borrow_mut();
        if free.len() < KEPT_FREE {
            free.push(place);
        }
    });
}

impl fmt::Debug for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Completion");
        if let Some(open) = self.open() {
            debug.field("layer", open.sink.name()).field("started", &open.started);
        }
        debug.finish_non_exhaustive()
    }
}

// ===== impl Open =====

impl Open {
    fn ran_out(&self, now: Instant) -> bool {
        self.call.is_overdue(now) || call::is_expired()
    }
}

// ===== impl End =====

impl End<'_> {
    /// How long the call took, to its end.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.ended.saturating_duration_since(self.started)
    }

    /// How long the response's head took, if it ever was there.
    #[must_use]
    pub fn head_after(&self) -> Option<Duration> {
        self.head.map(|head| head.saturating_duration_since(self.started))
    }
}

// ===== impl Until =====

impl Until {
    /// A limit counted from `start`.
    #[must_use]
    #[inline]
    pub fn new(start: Instant, phase: Phase, limit: Duration) -> Self {
        Self { at: clock::after(start, limit), phase, limit }
    }

    /// Whether `error` says that a layer below kept this limit.
    ///
    /// The point in time is the deadline which that layer inherited, and its timer is polled first, so
    /// its error comes up in place of ours: "inherited" where the caller knows of a limit with a name.
    #[must_use]
    pub fn is_kept_by(&self, error: &Error) -> bool {
        let refused = error.rejection().is_some_and(|it| it.kind() == RejectionKind::Elapsed);
        let inherited = |elapsed: &Elapsed| elapsed.phase() == Phase::Inherited;
        self.phase != Phase::Inherited && refused && error.find().is_some_and(inherited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::Mutex;

    #[derive(Debug)]
    struct Seen(Arc<str>, Mutex<Vec<(Ticket, Outcome, How)>>);

    impl Settle for Seen {
        fn name(&self) -> &Arc<str> {
            &self.0
        }

        fn settle(&self, ticket: Ticket, end: &End<'_>) {
            self.1.lock().push((ticket, end.outcome, end.how));
        }
    }

    fn completion(call: Call) -> (Arc<Seen>, Completion) {
        let seen = Arc::new(Seen("search".into(), Mutex::new(Vec::new())));
        let done = Completion::new(seen.clone(), Ticket(1, 2), call, clock::now());
        (seen, done)
    }

    #[test]
    fn a_thread_keeps_a_bounded_number_of_places_to_use_again() {
        let all: Vec<_> = (0..KEPT_FREE + 3).map(|_| completion(Call::new()).1).collect();
        drop(all);
        assert_eq!(FREE.with(|free| free.borrow().len()), KEPT_FREE);
        let (seen, done) = completion(Call::new());
        assert_eq!(FREE.with(|free| free.borrow().len()), KEPT_FREE - 1);
        done.settle(Outcome::Success);
        assert_eq!(Arc::strong_count(&seen), 1, "nothing is held by what is kept");
    }

    #[tokio::test(start_paused = true)]
    async fn it_reports_once() {
        let (seen, done) = completion(Call::new());
        done.settle(Outcome::Success);
        assert_eq!(*seen.1.lock(), [(Ticket(1, 2), Outcome::Success, How::Reported)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_drop_is_a_cancellation_before_the_deadline_and_a_timeout_after_it() {
        let call = Call::new().with_deadline(clock::now() + Duration::from_secs(1));

        let (seen, done) = completion(call.clone());
        drop(done);
        assert_eq!(seen.1.lock()[0].1, Outcome::Cancelled);

        let (seen, done) = completion(call);
        tokio::time::advance(Duration::from_secs(1)).await;
        drop(done);
        assert_eq!(seen.1.lock()[0].1, Outcome::timeout());
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_limit_drops_is_a_timeout_though_the_deadline_is_far() {
        let (seen, done) = completion(Call::new());
        call::expire(|| drop(done));
        assert_eq!(seen.1.lock()[0].1, Outcome::timeout());
        assert!(!call::is_expired());

        let (seen, done) = completion(Call::new());
        let mut scoped = std::pin::pin!(Call::new().in_scope(async move {
            let _done = done;
            std::future::pending::<()>().await;
        }));
        scoped.as_mut().expire();
        assert_eq!(seen.1.lock()[0].1, Outcome::timeout());
    }

    #[tokio::test(start_paused = true)]
    async fn a_muted_one_tells_nothing_and_names_its_limits_all_the_same() {
        let (seen, done) = completion(Call::new());
        let watch = Watch { until: None, idle: Some(Duration::from_secs(3)) };
        let done = done.muted().with_watch(watch);
        assert_eq!(done.watch(), watch);
        let error = done.elapsed(Phase::Idle, Duration::from_secs(3));
        assert_eq!(error.to_string(), "search: idle limit of 3s ran out");
        assert!(seen.1.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_scope_in_between_does_not_hide_that_a_limit_ran_out() {
        let (seen, done) = completion(Call::new());
        let attempt = Call::new().with_attempt(1).in_scope(async move {
            let _done = done;
            std::future::pending::<()>().await;
        });
        let mut outer = std::pin::pin!(Call::new().in_scope(attempt));
        outer.as_mut().expire();
        assert_eq!(seen.1.lock()[0].1, Outcome::timeout());
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_ends_at_its_head_ends_when_the_head_was_noted() {
        #[derive(Debug)]
        struct EndedAt(Arc<str>, Mutex<Option<Instant>>);

        impl Settle for EndedAt {
            fn name(&self) -> &Arc<str> {
                &self.0
            }

            fn settle(&self, _ticket: Ticket, end: &End<'_>) {
                *self.1.lock() = Some(end.ended);
            }
        }

        let seen = Arc::new(EndedAt("search".into(), Mutex::new(None)));
        let head = clock::now();
        let done = Completion::new(seen.clone(), Ticket(0, 0), Call::new(), head).with_head(head);
        tokio::time::advance(Duration::from_secs(1)).await;
        done.settle_at_head(Outcome::Success);
        assert_eq!(*seen.1.lock(), Some(head));
    }

    #[tokio::test(start_paused = true)]
    async fn the_heads_verdict_stands_unless_somebody_waited_past_the_deadline() {
        let call = Call::new().with_deadline(clock::now() + Duration::from_secs(1));
        tokio::time::advance(Duration::from_secs(1)).await;
        for (waiting, expected) in [(false, Outcome::Success), (true, Outcome::timeout())] {
            let (seen, done) = completion(call.clone());
            done.dropped(Outcome::Success, waiting);
            assert_eq!(seen.1.lock()[0].1, expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_that_runs_out_is_reported_and_named() {
        let (seen, done) = completion(Call::new());
        let error = done.elapsed(Phase::Idle, Duration::from_secs(3));
        assert_eq!(error.to_string(), "search: idle limit of 3s ran out");
        let how = How::Elapsed { phase: Phase::Idle, limit: Duration::from_secs(3) };
        assert_eq!(*seen.1.lock(), [(Ticket(1, 2), Outcome::timeout(), how)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_that_runs_out_may_be_judged_otherwise() {
        let (seen, done) = completion(Call::new());
        let error = done.elapsed_with(Outcome::Success, Phase::Total, Duration::from_secs(3));
        assert!(error.is::<Elapsed>());
        let how = How::Elapsed { phase: Phase::Total, limit: Duration::from_secs(3) };
        assert_eq!(*seen.1.lock(), [(Ticket(1, 2), Outcome::Success, how)]);
    }

    #[test]
    fn a_limit_is_kept_below_by_whoever_inherited_it() {
        let limit = Duration::from_secs(3);
        let error = |phase| Error::rejected(Elapsed::new("attempt", phase, limit));
        let total = Until::new(clock::now(), Phase::Total, limit);
        assert!(total.is_kept_by(&error(Phase::Inherited)));
        assert!(!total.is_kept_by(&error(Phase::Attempt)), "a limit of its own");
        let inherited = Until { phase: Phase::Inherited, ..total };
        assert!(!inherited.is_kept_by(&error(Phase::Inherited)), "nor is it ours");
    }
}
