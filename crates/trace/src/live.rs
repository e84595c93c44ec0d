//! Calls and scopes under way: who they belong to, and the buffer they fill.

use std::{
    any::Any,
    borrow::Cow,
    sync::{Arc, OnceLock},
    time::Instant,
};

use portcullis_core::{
    Call, End, Error, Event, LayerKind, Observer, Outcome, Record, RemoteTrace, Settle, SpanId,
    Ticket, TraceContext, TraceId, What, sync::Mutex,
};

use crate::{
    TraceConfig,
    buffer::{Buffer, Finish, Head},
    describe::About,
    hub::Hub,
    layer::Shared,
    record::{Kind, Output},
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
    /// `None` once it was handed over, or when there was no room for it.
    buffer: Mutex<Option<Box<Buffer>>>,
}

enum Owner {
    Layer(Arc<Shared>),
    /// A scope has the recorder it was given, or that of the first call in it.
    Scope {
        name: Arc<str>,
        recorder: OnceLock<Recorder>,
    },
}

/// Where a call or scope begins.
struct Place {
    context: TraceContext,
    parent: Option<SpanId>,
    state: Option<Arc<str>>,
    root: Counted,
    /// Which of its children it is.
    number: u32,
    /// The root that has no room for a record; there is none then.
    omitted_from: Option<Arc<Live>>,
}

/// The root that waits for a call to end. Until the call is there to answer for it, dropping this
/// does: the user's code that runs in between may panic.
struct Counted(Option<Arc<Live>>);

/// Calls that a scope has room for from the start.
const USUAL_CALLS: usize = 64;

/// Characters of an error's text that a redactor is shown, whatever is kept of it.
const UNREDACTED: usize = 16 * 1024;

// ===== impl Live =====

impl Live {
    /// Who keeps `call`'s record, if it is one of us.
    pub(crate) fn of(call: &Call) -> Option<Arc<Self>> {
        let record: Arc<dyn Any + Send + Sync> = call.record()?.clone();
        record.downcast().ok()
    }

    /// Begins the record of a call.
    #[inline]
    pub(crate) fn call(
        shared: &Arc<Shared>,
        outer: &Call,
        started: Instant,
        describe: impl FnOnce(&mut About<'_>),
    ) -> Arc<Self> {
        let recorder = &shared.recorder;
        let hub = recorder.hub();
        let place = match outer.record() {
            None => Place::new_trace(hub),
            Some(_) => Place::within(outer, Some(recorder)),
        };
        let Place { context, parent, state, mut root, number, omitted_from } = place;
        let head = Head { kind: Kind::Call, context, parent, started, number };
        let buffer = omitted_from.is_none().then(|| {
            let mut buffer = hub.buffer(head);
            let limits = &hub.config;
            buffer.name = buffer.words.keep(&shared.name, limits.max_name);
            let overrides = outer.overrides();
            if let Some(name) = &overrides.name {
                buffer.operation = buffer.words.keep(name, limits.max_name);
            }
            if let Some(key) = &overrides.key {
                buffer.key = buffer.words.keep(key, limits.max_name);
            }
            describe(&mut About::new(&mut buffer, limits.max_name));
            buffer
        });
        let owner = Owner::Layer(shared.clone());
        Arc::new(Self {
            head,
            state,
            owner,
            root: root.0.take().or(omitted_from),
            buffer: Mutex::new(buffer),
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
        let place = match (remote, outer.record()) {
            (Some(remote), _) => Place::under(remote.context, remote.state),
            (None, Some(_)) => Place::within(outer, recorder.as_ref()),
            (None, None) => {
                Place::begin(|id| hub.is_none_or(|hub| hub.sampler.is_of_the_share(id)))
            }
        };
        let Place { context, parent, state, mut root, number, omitted_from } = place;
        let head = Head { kind: Kind::Scope, context, parent, started, number };
        let buffer = omitted_from.is_none().then(|| {
            let mut buffer = match hub {
                Some(hub) => hub.buffer(head),
                None => Box::new(Buffer::new(head)),
            };
            let longest = hub.map_or(128, |hub| hub.config.max_name);
            buffer.name = buffer.words.keep(&name, longest);
            // So that its calls, a usual number of them, make it grow no more.
            buffer.children.reserve(USUAL_CALLS);
            buffer
        });
        let known = OnceLock::new();
        if let Some(recorder) = recorder {
            // It is empty: it was made a moment ago.
            let _ = known.set(recorder);
        }
        let owner = Owner::Scope { name, recorder: known };
        Arc::new(Self {
            head,
            state,
            owner,
            root: root.0.take().or(omitted_from),
            buffer: Mutex::new(buffer),
        })
    }

    /// Ends a scope. Its trace is handed over, at once or with the last call that it waits for.
    pub(crate) fn close(&self, outcome: Outcome, ended: Instant) {
        let mut guard = self.buffer.lock();
        let Some(buffer) = guard.as_mut() else {
            drop(guard);
            self.note_omitted(outcome);
            return;
        };
        // `fail` may have ended it already.
        let outcome = buffer.end.map_or(outcome, |end| end.outcome);
        buffer.end = Some(Finish { outcome, head: None, ended });
        buffer.closed = true;
        if buffer.open > 0 {
            return;
        }
        let buffer = guard.take();
        drop(guard);
        if let Some(buffer) = buffer {
            self.hand_over(buffer);
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
        let mut limits = self.limits();
        if self.hub().is_some_and(|hub| hub.redact.is_some()) {
            // Cut to what is kept only after it was redacted: a secret cut in two is not found.
            let limits = limits.to_mut();
            limits.max_text = limits.max_text.max(UNREDACTED);
        }
        self.with(|buffer| buffer.error(error, &limits));
        if let Some(redact) = self.hub().and_then(|hub| hub.redact.as_ref()) {
            // Not under the lock: it is the user's code.
            let text = self.with(|buffer| buffer.error.clone()).unwrap_or_default();
            let redacted = redact(&text).into_owned();
            self.with(|buffer| buffer.error = redacted);
        }
    }

    /// Notes an output, in place of one noted before.
    pub(crate) fn output(&self, text: &str) {
        let text = self.redacted(text);
        let (kept, omitted) = truncate(&text, self.limits().max_text);
        let output = Output { text: kept.to_owned(), omitted };
        self.with(|buffer| buffer.output = Some(output));
    }

    /// Notes an attribute.
    pub(crate) fn attribute(&self, key: &str, value: &str) {
        let value = self.redacted(value);
        let limits = self.limits();
        self.with(|buffer| buffer.attribute(key, &value, &limits));
    }

    /// When it began.
    pub(crate) fn started(&self) -> Instant {
        self.head.started
    }

    fn with<R>(&self, f: impl FnOnce(&mut Buffer) -> R) -> Option<R> {
        self.buffer.lock().as_deref_mut().map(f)
    }

    fn recorder(&self) -> Option<&Recorder> {
        match &self.owner {
            Owner::Layer(shared) => Some(&shared.recorder),
            Owner::Scope { recorder, .. } => recorder.get(),
        }
    }

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

    /// Does to the texts of a scope what its recorder asks for, which is known only now.
    fn adopted(&self) {
        let texts = self.with(|buffer| {
            let attributes = std::mem::take(&mut buffer.attributes);
            (attributes, buffer.output.take(), std::mem::take(&mut buffer.error))
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

    fn redacted<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self.hub().and_then(|hub| hub.redact.as_ref()) {
            Some(redact) => redact(text),
            None => Cow::Borrowed(text),
        }
    }

    /// Hands a buffer over that nobody fills any more: to the root, or to the recorder.
    fn hand_over(&self, buffer: Box<Buffer>) {
        match (&self.root, self.hub()) {
            (Some(root), _) => root.release(Some(buffer)),
            (None, Some(hub)) => hub.submit(buffer),
            // A scope that was given no recorder, and in which nothing was called.
            (None, None) => {}
        }
    }

    /// One that this root waited for is over.
    fn release(&self, child: Option<Box<Buffer>>) {
        let mut guard = self.buffer.lock();
        // It is there: it waits for what is counted in `open`.
        let Some(buffer) = guard.as_mut() else { return };
        buffer.children.extend(child);
        buffer.open = buffer.open.saturating_sub(1);
        if !(buffer.closed && buffer.open == 0) {
            return;
        }
        let whole = guard.take();
        drop(guard);
        if let (Some(whole), Some(hub)) = (whole, self.hub()) {
            hub.submit(whole);
        }
    }

    /// What leaves no record for want of room keeps its trace all the same, should it fail.
    fn note_omitted(&self, outcome: Outcome) {
        let failed = crate::record::Status::of(&outcome) != crate::record::Status::Success;
        if let (Some(root), true) = (&self.root, failed) {
            root.with(|buffer| buffer.omitted_failed = true);
        }
    }
}

impl Record for Live {
    fn context(&self) -> TraceContext {
        self.head.context
    }

    fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }
}

impl Observer for Live {
    fn on_event(&self, event: &Event<'_>) {
        // What our own layer tells is the record itself.
        if event.layer == LayerKind::Trace {
            return;
        }
        match self.hub() {
            Some(hub) => self.with(|buffer| buffer.note(event, &hub.config)),
            None => self.with(|buffer| buffer.note(event, &TraceConfig::default())),
        };
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
        if self.with(|buffer| buffer.finish(end)).is_none() {
            self.note_omitted(end.outcome);
        }
        if let Owner::Layer(shared) = &self.owner
            && let Some(voice) = &shared.voice
        {
            voice.tell(end.call, end.ended, || What::Settled {
                outcome: end.outcome,
                head_after: end.head_after(),
                elapsed: end.elapsed(),
            });
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.get_mut().take() {
            self.hand_over(buffer);
        }
    }
}

// ===== impl Counted =====

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(root) = self.0.take() {
            root.release(None);
        }
    }
}

// ===== impl Place =====

impl Place {
    /// The beginning of a trace.
    #[inline]
    fn new_trace(hub: &Hub) -> Self {
        Self::begin(|id| hub.sampler.is_of_the_share(id))
    }

    fn begin(sampled: impl FnOnce(TraceId) -> bool) -> Self {
        let trace_id = new_trace_id();
        let context = TraceContext { trace_id, span_id: new_span_id(), sampled: sampled(trace_id) };
        Self {
            context,
            parent: None,
            state: None,
            root: Counted(None),
            number: 0,
            omitted_from: None,
        }
    }

    /// A record of its own in a trace that has others.
    fn under(parent: TraceContext, state: Option<Arc<str>>) -> Self {
        let context = TraceContext { span_id: new_span_id(), ..parent };
        Self {
            context,
            parent: Some(parent.span_id),
            state,
            root: Counted(None),
            number: 0,
            omitted_from: None,
        }
    }

    /// A call or scope in what `outer` is in.
    fn within(outer: &Call, recorder: Option<&Recorder>) -> Self {
        let Some(parent) = Live::of(outer) else {
            return match outer.record() {
                Some(record) => Self::under(record.context(), record.state().map(Arc::from)),
                None => Self::begin(|_| true),
            };
        };
        let root = parent.root.as_ref().unwrap_or(&parent).clone();
        if let (Owner::Scope { recorder: known, .. }, Some(recorder)) = (&root.owner, recorder)
            && known.get().is_none()
        {
            // The first call brings the recorder.
            if known.set(recorder.clone()).is_ok() {
                root.adopted();
            }
        }
        let mut place = Self::under(parent.head.context, parent.state.clone());
        let limits = root.limits();
        let taken = root.with(|of_root| {
            if of_root.children.len() + of_root.open as usize >= limits.max_calls {
                of_root.omitted_calls = of_root.omitted_calls.saturating_add(1);
                return None;
            }
            of_root.open += 1;
            of_root.begun += 1;
            Some(of_root.begun)
        });
        // `None`: the trace was handed over before this call began, in a task that outlives its
        // scope. Then it has a record of its own, in the same trace.
        match taken {
            Some(Some(number)) => {
                place.number = number;
                place.root = Counted(Some(root));
            }
            Some(None) => place.omitted_from = Some(root),
            None => {}
        }
        place
    }
}

fn new_trace_id() -> TraceId {
    loop {
        // Zero is none; it is drawn once in 2¹²⁸.
        if let Some(id) = TraceId::new(fastrand::u128(..)) {
            return id;
        }
    }
}

fn new_span_id() -> SpanId {
    loop {
        if let Some(id) = SpanId::new(fastrand::u64(..)) {
            return id;
        }
    }
}

/// The error of a call, as its record keeps it.
pub(crate) fn as_std(error: &Error) -> &(dyn std::error::Error + 'static) {
    error
}
