//! Calls and scopes under way: who they belong to, and the record they fill.

use std::{
    any::Any,
    borrow::Cow,
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, OnceLock},
    time::Instant,
};

use portcullis_core::{
    Call, Elapsed, End, Error, Event, How, LayerKind, Name, Notes, Observer, Outcome, Record,
    Refusal, RemoteTrace, Settle, Ticket, TraceContext, What, sync::Mutex,
};

use crate::{
    TraceConfig,
    buffer::{Admitted, Buffer, Family, Finish, Head},
    describe::About,
    desk::{self, Alone, Origin, Writing},
    hub::Hub,
    layer::Shared,
    place::Place,
    record::{Kind, Output, Status},
    recorder::Recorder,
    text::truncate,
};

/// A call or a scope that is not over.
///
/// It is what a [`Call`] carries as its record, so it lives for as long as anything that may still
/// have something to tell: a call is over when the last of those is gone, which is after the layers
/// inside have told its end, in whatever order bodies and futures are dropped.
pub(crate) struct Live {
    head: Head,
    state: Option<Arc<str>>,
    owner: Owner,
    /// The scope, or the call, that began the trace; `None` for that one itself.
    root: Option<Arc<Live>>,
    record: Mutex<Slot>,
    /// The calls and scopes that this one is the root of.
    family: Mutex<Family>,
}

pub(crate) enum Owner {
    Layer(Arc<Shared>),
    /// A scope has the recorder it was given, or that of the first call in it.
    Scope {
        name: Arc<str>,
        recorder: OnceLock<Recorder>,
    },
}

/// Where the buffer is.
enum Slot {
    /// Here, for whoever has something to tell.
    Here(Box<Buffer>),
    /// With the future that runs the call: see [`Writing`]. What others had to tell meanwhile is here.
    Out(Option<Box<Buffer>>),
    /// Handed over, or there was no room for it.
    Gone,
}

/// Calls that a scope has room for from the start.
const USUAL_CALLS: usize = 64;

/// Characters of an error's text that a redactor is shown, whatever is kept of it.
const UNREDACTED: usize = 16 * 1024;

/// What stands in place of a text whose redaction panicked, or of an error that panicked when asked
/// for its text.
const UNREADABLE: &str = "(not kept: making it readable failed)";

// ===== impl Live =====

impl Live {
    /// Who keeps `call`'s record, if it is one of us.
    pub(crate) fn of(call: &Call) -> Option<Arc<Self>> {
        let record: Arc<dyn Any + Send + Sync> = call.record()?;
        record.downcast().ok()
    }

    /// Begins the record of a call: the call with it, and who writes it.
    #[inline]
    pub(crate) fn call(
        shared: &Arc<Shared>,
        outer: Call,
        started: Instant,
        describe: impl FnOnce(&mut About<'_>),
    ) -> (Call, Writing) {
        let recorder = &shared.recorder;
        let hub = recorder.hub();
        let mut place = match outer.is_recorded() {
            false => Place::new_trace(hub),
            true => Place::within(&outer, Some(recorder)),
        };
        let head = Head::new(Kind::Call, &place, started);
        if place.omitted_from.is_some() {
            let owner = Owner::Layer(shared.clone());
            let live = Arc::new(Self::new(head, place, owner, Slot::Gone));
            return (outer.with_record(live.clone()), Writing::omitted(live));
        }
        let mut buffer = hub.buffer(head);
        buffer.name = match shared.label {
            Some(label) => Some(Name::Label(label)),
            None => buffer.notes.keep(&shared.name).map(Name::Word),
        };
        if let Some(overrides) = outer.orders() {
            if let Some(name) = &overrides.name {
                buffer.operation = buffer.notes.keep(name);
            }
            if let Some(key) = &overrides.key {
                buffer.key = buffer.notes.keep(key);
            }
        }
        let about = &mut About::new(&mut buffer);
        if hub.guarded(|| describe(about)).is_none() {
            // What it had said by then may be half of something.
            (buffer.operation, buffer.target, buffer.key) = (None, None, None);
        }
        buffer.origin = Origin::Alone(Alone {
            layer: shared.clone(),
            state: place.state.take(),
            root: place.into_root(),
        });
        (outer.with_sheet(head.context.span_id), Writing::new(buffer))
    }

    /// What others tell of a call through that only its future knew of, and whose buffer that has.
    #[cold]
    pub(crate) fn alone(head: Head, alone: Alone) -> Arc<Self> {
        let Alone { layer, state, root } = alone;
        Arc::new(Self {
            head,
            state,
            owner: Owner::Layer(layer),
            root,
            record: Mutex::new(Slot::Out(None)),
            family: Mutex::default(),
        })
    }

    /// Begins the record of a scope: under `remote`, or in the scope that `outer` is in, or as a
    /// trace of its own.
    pub(crate) fn scope(
        name: Arc<str>,
        outer: &Call,
        remote: Option<RemoteTrace>,
        recorder: Option<Recorder>,
        started: Instant,
    ) -> Arc<Self> {
        let enclosing = if remote.is_none() { Self::of(outer) } else { None };
        let recorder = recorder.or_else(|| enclosing.as_ref()?.recorder().cloned());
        let hub = recorder.as_ref().map(Recorder::hub);
        let place = match (remote, outer.is_recorded()) {
            (Some(remote), _) => Place::under(remote.context, remote.state),
            (None, true) => Place::within(outer, recorder.as_ref()),
            (None, false) => {
                Place::begin(|id| hub.is_none_or(|hub| hub.sampler.is_of_the_share(id)))
            }
        };
        let head = Head::new(Kind::Scope, &place, started);
        let mut family = Family::default();
        let slot = if place.omitted_from.is_none() {
            let mut buffer = match hub {
                Some(hub) => hub.buffer(head),
                None => Box::new(Buffer::new(head, TraceConfig::default().notes())),
            };
            buffer.name = buffer.notes.keep(&name).map(Name::Word);
            // So that its calls, a usual number of them, make it grow no more.
            if place.is_root() {
                family = mem::take(&mut buffer.family);
                family.children.reserve(USUAL_CALLS);
            }
            Slot::Here(buffer)
        } else {
            Slot::Gone
        };
        let known = OnceLock::new();
        if let Some(recorder) = recorder {
            // It is empty: it was made a moment ago.
            let _ = known.set(recorder);
        }
        let mut scope = Self::new(head, place, Owner::Scope { name, recorder: known }, slot);
        *scope.family.get_mut() = family;
        Arc::new(scope)
    }

    #[inline]
    fn new(head: Head, mut place: Place, owner: Owner, slot: Slot) -> Self {
        Self {
            head,
            state: place.state.take(),
            owner,
            root: place.into_root(),
            record: Mutex::new(slot),
            family: Mutex::default(),
        }
    }

    /// Ends a scope. Its trace is handed over, at once or with the last call that it waits for.
    pub(crate) fn close(&self, outcome: Outcome, head: Option<Instant>, ended: Instant) {
        // No desk has the record of a scope.
        let noted = self.with_lock(|buffer| {
            // `fail` may have ended it already.
            let outcome = buffer.end.map_or(outcome, |end| end.outcome);
            buffer.end = Some(Finish { outcome, head, ended });
        });
        if noted.is_none() {
            return self.note_omitted(outcome);
        }
        let mut family = self.family.lock();
        family.closed = true;
        let complete = family.complete();
        drop(family);
        if let Some(family) = complete {
            self.hand_over(family);
        }
    }

    /// Notes that a scope failed, though it goes on.
    pub(crate) fn fail(&self, outcome: Outcome, error: &(dyn std::error::Error + 'static)) {
        self.error(error);
        let started = self.head.started;
        self.with(|buffer| {
            // A scope that is over and waits for its calls lasted as long as it did.
            let ended = buffer.end.map_or(started, |end| end.ended);
            buffer.end = Some(Finish { outcome, head: None, ended });
        });
    }

    /// Notes an error's text.
    pub(crate) fn error(&self, error: &(dyn std::error::Error + 'static)) {
        let limits = self.limits();
        let redacts = self.hub().is_some_and(|hub| hub.redact.is_some());
        // Cut to what is kept only after it was redacted: a secret cut in two is not found.
        let most = if redacts { limits.max_text.max(UNREDACTED) } else { limits.max_text };
        // Neither under the lock nor at the desk: it is the user's code.
        let text = self.guarded(|| crate::text::of_error(error, most));
        let text = text.as_deref().map_or(Cow::Borrowed(UNREADABLE), |text| self.redacted(text));
        self.with(|buffer| text.as_ref().clone_into(&mut buffer.error));
    }

    /// Notes an output, in place of one noted before.
    pub(crate) fn output(&self, text: &str) {
        let text = self.redacted(text);
        let (kept, omitted) = truncate(&text, self.limits().max_text);
        let output = Output { text: kept.to_owned(), omitted };
        self.with(|buffer| buffer.output = Some(output));
    }

    /// Notes the output that a callback of the user's makes, if it makes one.
    pub(crate) fn output_of<'a>(&self, capture: impl FnOnce() -> Option<Cow<'a, str>>) {
        if let Some(Some(text)) = self.guarded(capture) {
            self.output(&text);
        }
    }

    /// Notes an attribute.
    pub(crate) fn attribute(&self, key: &str, value: &str) {
        let value = self.redacted(value);
        let limits = self.limits();
        self.with(|buffer| buffer.attribute(key, &value, &limits));
    }

    /// Notes the end of a call whose buffer comes back with it, if there is one, and tells it.
    #[inline]
    pub(crate) fn ended(&self, buffer: Option<Box<Buffer>>, end: &End<'_>) {
        match buffer {
            Some(mut buffer) => {
                buffer.finish(end);
                self.take_back(buffer);
            }
            None => {
                if self.with(|buffer| buffer.finish(end)).is_none() {
                    self.note_omitted(end.outcome);
                }
            }
        }
        if let Owner::Layer(shared) = &self.owner
            && let Some(voice) = &shared.voice
        {
            voice.tell_of_end(None, end.outcome, end);
        }
    }

    /// The future that ran the call has nothing more to write.
    #[inline]
    pub(crate) fn take_back(&self, mut buffer: Box<Buffer>) {
        let mut slot = self.record.lock();
        if let Slot::Out(Some(aside)) = &mut *slot {
            buffer.absorb(aside, &self.limits());
        }
        *slot = Slot::Here(buffer);
    }

    /// Does what a callback of the user's does; `None` if it panicked.
    pub(crate) fn guarded<R>(&self, ask: impl FnOnce() -> R) -> Option<R> {
        match self.hub() {
            Some(hub) => hub.guarded(ask),
            None => catch_unwind(AssertUnwindSafe(ask)).ok(),
        }
    }

    pub(crate) fn head(&self) -> &Head {
        &self.head
    }

    pub(crate) fn root(&self) -> Option<&Arc<Self>> {
        self.root.as_ref()
    }

    pub(crate) fn owner(&self) -> &Owner {
        &self.owner
    }

    pub(crate) fn tracestate(&self) -> Option<&Arc<str>> {
        self.state.as_ref()
    }

    /// Makes room for a child, of which this is the root.
    pub(crate) fn admit(&self) -> Admitted {
        let most = self.limits().max_calls;
        self.family.lock().admit(most)
    }

    /// One that this root waited for is over.
    pub(crate) fn release(&self, child: Option<Box<Buffer>>) {
        let mut family = self.family.lock();
        family.children.extend(child);
        family.open = family.open.saturating_sub(1);
        let complete = family.complete();
        drop(family);
        // Only for the last one: nothing begins in what is over.
        if let Some(family) = complete {
            self.hand_over(family);
        }
    }

    /// Does to the texts of a scope what its recorder asks for, which is known only now.
    pub(crate) fn adopted(&self) {
        let limits = self.limits().notes();
        let texts = self.with(|buffer| {
            buffer.notes.set_limits(limits);
            let attributes = mem::take(&mut buffer.attributes);
            (attributes, buffer.output.take(), mem::take(&mut buffer.error))
        });
        let Some((attributes, output, error)) = texts else { return };
        // Not under the lock: it is the user's code.
        for (key, value) in &attributes {
            self.attribute(key, value);
        }
        if let Some(output) = output {
            self.output(&output.text);
        }
        let error = self.redacted(&error).into_owned();
        self.with(|buffer| buffer.error = error);
    }

    /// Writes into the record; `None` if there is none, or none any more.
    #[inline]
    fn with<R>(&self, f: impl FnOnce(&mut Buffer) -> R) -> Option<R> {
        match desk::write(self.head.context.span_id, f) {
            Ok(done) => Some(done),
            Err(f) => self.with_lock(f),
        }
    }

    fn with_lock<R>(&self, f: impl FnOnce(&mut Buffer) -> R) -> Option<R> {
        match &mut *self.record.lock() {
            Slot::Here(buffer) => Some(f(buffer)),
            Slot::Out(aside) => {
                let limits = self.limits().notes();
                Some(f(aside.get_or_insert_with(|| Box::new(Buffer::new(self.head, limits)))))
            }
            Slot::Gone => None,
        }
    }

    fn recorder(&self) -> Option<&Recorder> {
        match &self.owner {
            Owner::Layer(shared) => Some(&shared.recorder),
            Owner::Scope { recorder, .. } => recorder.get(),
        }
    }

    #[inline]
    fn hub(&self) -> Option<&Hub> {
        self.recorder().map(Recorder::hub)
    }

    fn limits(&self) -> Cow<'_, TraceConfig> {
        self.hub().map_or_else(
            // Texts are cut when it is known how they are redacted: a secret cut in two is not found.
            || Cow::Owned(TraceConfig { max_text: usize::MAX, ..TraceConfig::default() }),
            |hub| Cow::Borrowed(&hub.config),
        )
    }

    fn redacted<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self.hub().and_then(|hub| hub.redact.as_ref()) {
            Some(redact) => self.guarded(|| redact(text)).unwrap_or(Cow::Borrowed(UNREADABLE)),
            None => Cow::Borrowed(text),
        }
    }

    /// Hands over the trace of a scope that is over.
    fn hand_over(&self, family: Family) {
        let slot = mem::replace(&mut *self.record.lock(), Slot::Gone);
        self.submit(slot, family);
    }

    /// To the root, or to the recorder.
    fn submit(&self, slot: Slot, family: Family) {
        let (Slot::Here(mut buffer) | Slot::Out(Some(mut buffer))) = slot else { return };
        match (&self.root, self.hub()) {
            (Some(root), _) => root.release(Some(buffer)),
            (None, Some(hub)) => {
                buffer.family = family;
                hub.submit(buffer);
            }
            // A scope that was given no recorder, and in which nothing was called.
            (None, None) => {}
        }
    }

    /// What leaves no record for want of room keeps its trace all the same, should it fail.
    fn note_omitted(&self, outcome: Outcome) {
        if let Some(root) = &self.root
            && Status::of(&outcome) != Status::Success
        {
            root.family.lock().omitted_failed = true;
        }
    }
}

impl Record for Live {
    fn context(&self) -> TraceContext {
        self.head.context
    }

    fn state(&self) -> Option<Arc<str>> {
        self.state.clone()
    }

    fn write(&self, write: &mut dyn FnMut(&mut Notes)) -> bool {
        self.with(|buffer| write(&mut buffer.notes));
        true
    }
}

impl Observer for Live {
    #[inline]
    fn on_event(&self, event: &Event<'_>) {
        // What our own layer tells is the record itself.
        if event.layer == LayerKind::Trace {
            return;
        }
        // Asked before the record is taken up: a refusal may be of the user's own making.
        let refusal = match event.what {
            What::Rejected { rejection } => self.guarded(|| Refusal::of(rejection)),
            _ => None,
        };
        self.with(|buffer| buffer.notes.note(event, refusal));
    }
}

impl Settle for Live {
    fn name(&self) -> &Arc<str> {
        match &self.owner {
            Owner::Layer(shared) => &shared.name,
            Owner::Scope { name, .. } => name,
        }
    }

    fn settle(&self, _: Ticket, end: &End<'_>) {
        match &self.owner {
            Owner::Layer(_) => self.ended(None, end),
            Owner::Scope { name, .. } => {
                // What `fail` noted stands.
                let open = || self.with_lock(|buffer| buffer.end.is_none()).unwrap_or(false);
                if let How::Elapsed { phase, limit } = end.how
                    && open()
                {
                    self.error(&Elapsed::new(name.clone(), phase, limit));
                }
                self.close(end.outcome, end.head, end.ended);
            }
        }
    }

    fn note(&self, key: &'static str, value: &str) {
        self.attribute(key, value);
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let slot = mem::replace(self.record.get_mut(), Slot::Gone);
        let family = mem::take(self.family.get_mut());
        self.submit(slot, family);
    }
}

/// The error of a call, as its record keeps it.
pub(crate) fn as_std(error: &Error) -> &(dyn std::error::Error + 'static) {
    error
}
