//! The scope of a call: what its layers share, carried by the task.

mod operation;
mod overrides;
mod scope;
mod sheet;
mod timer;

use std::{
    fmt,
    hash::BuildHasher,
    sync::Arc,
    time::{Duration, Instant},
};

use foldhash::fast::RandomState;

pub(crate) use self::sheet::{put_back, take};
pub use self::{
    operation::Operation,
    overrides::{Overrides, With, with},
    scope::{Scoped, expire, is_expired, poll},
    sheet::{lay, write},
    timer::LeftTimer,
};
use crate::{Event, Observer, Record, RemoteTrace, SpanId, TraceContext, notes::Teller};

/// What the layers a call passes through share: its deadline, the number of its attempt, the
/// caller's overrides, and who listens.
///
/// A `Call` is an immutable value. A layer that changes something derives a child and makes it
/// current around the inner service's `call`, around every poll of its future and around that
/// future's drop. Calls that are joined in one task therefore share nothing but their parent, and a
/// server's handler hands its scope on to the client calls it makes: all of it but the
/// [operation](Call::with_operation) that a layer found.
///
/// # Where it does not reach
///
/// A spawned task, and what lies below `tower::buffer`, starts with an empty `Call`. Carry it over
/// with [`Call::in_scope`]:
///
/// ```
/// # async fn answer() {}
/// use portcullis_core::Call;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// tokio::spawn(Call::current().in_scope(answer())).await.unwrap();
/// # }
/// ```
///
/// The same holds between two layers: one that spawns what the layer below it answers with carries the
/// call over, or what that layer tells is in no record.
///
/// The tasks of a `tokio::task::LocalSet` that is run within a call are no strangers to it: they are
/// polled there, and start with that call.
#[derive(Clone, Default)]
pub struct Call {
    deadline: Option<Instant>,
    mark: Mark,
    company: Company,
}

/// The number of the attempt, and whether it was taken within the `call` of a layer above, for
/// [`Call::ended`]. One word, for a call is moved right after it was made: what is written in narrow
/// words and moved in wide ones makes a processor wait.
#[derive(Clone, Copy, Default)]
struct Mark(u64);

/// What a call has with it, behind pointers to be small. Most calls have nothing, and then there is
/// nothing to swap.
#[derive(Default)]
struct Company {
    orders: Option<Arc<Orders>>,
    /// What tells the record from every other: its span, or a number drawn for one that continues
    /// another's. `None` if nobody keeps one.
    span: Option<SpanId>,
    /// Who keeps it. `None` where the scope that the call is in has it: see [`Call::here`].
    record: Option<Arc<dyn Record>>,
}

/// What the caller ordered.
#[derive(Clone, Default)]
struct Orders {
    overrides: Overrides,
    observer: Option<Arc<dyn Observer>>,
    /// Whether the name among them is one that a layer [found](Operation), and not the caller's word.
    found: bool,
}

// ===== impl Call =====

impl Call {
    const EMPTY: Self = Self { deadline: None, mark: Mark(0), company: Company::NONE };

    /// An empty call: no deadline, no overrides, no listener.
    #[must_use]
    pub const fn new() -> Self {
        Self::EMPTY
    }

    /// The call this task is in; an empty one outside of any.
    #[must_use]
    #[inline]
    pub fn current() -> Self {
        scope::here(true)
    }

    /// For layers, in their `call`: the call this task is in, which leaves the record to the layer above
    /// if there is one.
    ///
    /// To hold a record costs a count of references, and most layers need none: the layer above polls
    /// and drops their futures, with the record at hand. So what is told of this call is noted where it
    /// runs within that layer's scope, and lost elsewhere. A clone holds the record wherever it is
    /// made within that scope, and may be carried anywhere.
    #[must_use]
    #[inline(always)]
    pub fn here() -> Self {
        scope::here(false)
    }

    /// When the call must be over, the response's body included.
    #[must_use]
    #[inline]
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// How much time is left until the deadline; zero once it has passed.
    #[must_use]
    pub fn remaining(&self, now: Instant) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(now))
    }

    /// Whether the deadline has passed.
    #[must_use]
    pub fn is_overdue(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// Which attempt this is, from 1; 0 where no layer retries.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.mark.attempt()
    }

    /// What the caller ordered for this call.
    #[must_use]
    #[inline]
    pub fn overrides(&self) -> &Overrides {
        self.company.orders.as_ref().map_or(&Overrides::NONE, |orders| &orders.overrides)
    }

    /// The same, if the caller ordered anything.
    #[must_use]
    #[inline]
    pub fn orders(&self) -> Option<&Overrides> {
        self.company.orders.as_ref().map(|orders| &orders.overrides)
    }

    /// Who listens to this call, besides the layers' own observers.
    #[must_use]
    #[inline]
    pub fn observer(&self) -> Option<&Arc<dyn Observer>> {
        self.company.orders.as_ref()?.observer.as_ref()
    }

    /// Who keeps this call's record, if anybody does.
    #[must_use]
    pub fn record(&self) -> Option<Arc<dyn Record>> {
        self.company.record()
    }

    /// Whether anybody keeps this call's record.
    #[must_use]
    #[inline]
    pub fn is_recorded(&self) -> bool {
        self.company.span.is_some()
    }

    /// Where the call stands in a trace, if it is in one.
    #[must_use]
    pub fn trace(&self) -> Option<TraceContext> {
        match &self.company {
            Company { record: Some(record), .. } => Some(record.context()),
            Company { span, .. } => scope::context((*span)?),
        }
    }

    /// The `tracestate` that came with the trace.
    #[must_use]
    pub fn tracestate(&self) -> Option<Arc<str>> {
        match &self.company {
            Company { record: Some(record), .. } => record.state(),
            Company { span, .. } => scope::state((*span)?),
        }
    }

    /// Whether its record lies at hand, to be noted on.
    #[inline]
    pub(crate) fn lies(&self) -> bool {
        sheet::lies(self.company.span)
    }

    /// Who keeps its record, if it was taken along.
    #[inline]
    pub(crate) fn held_record(&self) -> Option<&Arc<dyn Record>> {
        self.company.record.as_ref()
    }

    /// Tells who keeps the record.
    pub(crate) fn note(&self, event: &Event<'_>, teller: Teller<'_>) {
        if let Some(span) = self.company.span
            && !sheet::note(span, event, teller)
            && let Some(record) = self.company.record()
        {
            record.on_event(event);
        }
    }

    /// The same call, for whoever takes it out of the scope it is in.
    #[inline]
    pub(crate) fn held(mut self) -> Self {
        self.company.hold();
        self
    }

    /// The time, as the layer above read it if it is still in its `call`, read from the clock
    /// otherwise. So a stack reads the clock once on a call's way in.
    ///
    /// What a service between two layers does within its own `call` is so counted as time of the layers
    /// below: what takes long belongs into its future.
    #[must_use]
    #[inline]
    pub fn now(&self) -> Instant {
        scope::now()
    }

    /// When what a layer wraps answered: to be asked right after its [poll] was ready. It is
    /// the time as the layer below read it, read from the clock if none did. So a stack reads the
    /// clock once on a call's way out.
    ///
    /// What a service between two layers computes within the poll in which the lower one answered, and
    /// without a scope of its own, is not counted.
    #[must_use]
    #[inline]
    pub fn ended(&self) -> Instant {
        scope::ended(self.mark.is_beneath())
    }

    /// A child that must be over by `deadline`, if there is one. A child can only shorten its parent's
    /// deadline.
    #[must_use]
    #[inline]
    pub fn with_deadline(mut self, deadline: impl Into<Option<Instant>>) -> Self {
        self.deadline = match (self.deadline, deadline.into()) {
            (Some(ours), Some(deadline)) => Some(ours.min(deadline)),
            (ours, deadline) => deadline.or(ours),
        };
        self
    }

    /// A child that is attempt `number`, counted from 1.
    #[must_use]
    #[inline]
    pub fn with_attempt(mut self, number: u32) -> Self {
        self.mark = Mark::new(number, self.mark.is_beneath());
        self
    }

    /// A child with the caller's overrides in place of its parent's.
    #[must_use]
    pub fn with_overrides(self, overrides: Overrides) -> Self {
        let observer = self.observer().cloned();
        self.with_orders(Orders { overrides, observer, found: false })
    }

    /// A child whose events are told to `observer`, in place of its parent's.
    #[must_use]
    pub fn with_observer(self, observer: Arc<dyn Observer>) -> Self {
        let Orders { overrides, found, .. } =
            self.company.orders.as_deref().cloned().unwrap_or_default();
        self.with_orders(Orders { overrides, observer: Some(observer), found })
    }

    fn with_orders(mut self, orders: Orders) -> Self {
        self.company.orders = Some(Arc::new(orders));
        self
    }

    /// A child whose record is kept by `record`, in place of who kept its parent's. The record is known
    /// by its span, which is to be its own.
    #[must_use]
    #[inline]
    pub fn with_record(mut self, record: Arc<dyn Record>) -> Self {
        self.company.span = Some(record.context().span_id);
        self.company.record = Some(record);
        self
    }

    /// For layers that keep records: a child whose record is on the [sheet](crate::Sheet) of this span.
    /// It is to be entered where that [lies](lay).
    #[must_use]
    #[inline]
    pub fn with_sheet(mut self, span: SpanId) -> Self {
        self.company.span = Some(span);
        self.company.record = None;
        self
    }

    /// A child that continues a trace which began elsewhere and whose record is kept there. It
    /// allocates; a layer that keeps records has [`with_record`](Self::with_record).
    #[must_use]
    pub fn with_trace(self, trace: impl Into<RemoteTrace>) -> Self {
        let mut call = self.with_record(Arc::new(trace.into()));
        // The span is not this record's own: that of the call which it is may well be at hand.
        call.company.span = SpanId::new(RandomState::default().hash_one(())).or(call.company.span);
        call
    }

    /// Runs a future with this call current: around every poll and around its drop.
    pub fn in_scope<F>(self, future: F) -> Scoped<F> {
        Scoped::new(self, future)
    }

    /// For layers: makes a future with this call current, and keeps it so for that future.
    ///
    /// `now` is the time at which the layer's own `call` was entered; the layers below take it from
    /// [`Call::now`] while `make` runs.
    #[inline]
    pub fn enter<F>(mut self, now: Instant, make: impl FnOnce() -> F) -> Scoped<F> {
        let future = scope::within(&mut self, true, Some(now), make);
        Scoped::new(self, future)
    }

    /// The same for a layer that did not need the time: the first one below that does reads it for all
    /// below.
    #[inline]
    pub fn enter_unread<F>(mut self, make: impl FnOnce() -> F) -> Scoped<F> {
        let future = scope::within(&mut self, true, scope::read_at(), make);
        Scoped::new(self, future)
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("deadline", &self.deadline)
            .field("attempt", &self.attempt())
            .field("overrides", self.overrides())
            .field("observed", &self.observer().is_some())
            .field("trace", &self.trace())
            .finish()
    }
}

// ===== impl Mark =====

impl Mark {
    #[inline]
    fn new(attempt: u32, beneath: bool) -> Self {
        Self(u64::from(attempt) | u64::from(beneath) << 32)
    }

    #[inline]
    fn attempt(self) -> u32 {
        self.0 as u32
    }

    #[inline]
    fn is_beneath(self) -> bool {
        self.0 >> 32 != 0
    }
}

// ===== impl Company =====

impl Company {
    const NONE: Self = Self { orders: None, span: None, record: None };

    fn record(&self) -> Option<Arc<dyn Record>> {
        self.record.clone().or_else(|| scope::record(self.span?))
    }

    /// Holds the record, if it is at hand.
    fn hold(&mut self) {
        if let (Some(span), None) = (self.span, &self.record) {
            self.record = scope::record(span);
        }
    }
}

/// Whoever clones it may carry it anywhere.
impl Clone for Company {
    #[inline]
    fn clone(&self) -> Self {
        let record = if self.span.is_some() { self.record() } else { None };
        Self { orders: self.orders.clone(), span: self.span, record }
    }
}
