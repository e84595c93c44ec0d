//! Who tells of a layer's events, and to whom.

use std::{fmt, sync::Arc, time::Instant};

use crate::{
    Call, End, Event, Label, LayerKind, Observer, Outcome, Rejection, What, call,
    notes::{Kept, Teller},
};

/// A layer's voice: who it is, and who listens. With nobody listening, telling costs one branch.
#[derive(Clone)]
pub struct Voice {
    layer: LayerKind,
    name: Arc<str>,
    /// The name once more, for records, unless it is too long.
    label: Option<Label>,
    observers: Option<Arc<[Arc<dyn Observer>]>>,
}

// ===== impl Voice =====

impl Voice {
    /// The voice of a layer nobody listens to yet.
    #[must_use]
    pub fn new(layer: LayerKind, name: impl Into<Arc<str>>) -> Self {
        let name = name.into();
        Self { layer, label: Label::new(&name), name, observers: None }
    }

    /// The same voice under another name.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = name.into();
        self.label = Label::new(&self.name);
        self
    }

    /// The same voice with one more listener.
    #[must_use]
    pub fn with_observer(mut self, observer: Arc<dyn Observer>) -> Self {
        let before = self.observers.as_deref().unwrap_or_default();
        self.observers = Some(before.iter().cloned().chain([observer]).collect());
        self
    }

    /// The layer's name.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The same to be copied, unless it is too long.
    #[must_use]
    #[inline]
    pub fn label(&self) -> Option<Label> {
        self.label
    }

    /// Whether anybody listens to what concerns `call`.
    #[must_use]
    #[inline]
    pub fn is_heard(&self, call: &Call) -> bool {
        self.observers.is_some() || call.observer().is_some() || call.is_recorded()
    }

    /// Tells of what concerns `call`. `what` is only made if somebody listens.
    #[inline]
    pub fn tell(&self, call: &Call, at: Instant, what: impl FnOnce() -> What<'static>) {
        self.tell_of(None, call, at, what);
    }

    /// Tells of what concerns `call` and `key`. `what` is only made if somebody listens.
    #[inline]
    pub fn tell_of(
        &self,
        key: Option<&str>,
        call: &Call,
        at: Instant,
        what: impl FnOnce() -> What<'static>,
    ) {
        if self.is_noted_only(call) {
            self.note(key, call, at, Kept::Told(what()));
        } else if self.is_heard(call) {
            self.speak(&self.event(key, call, at, what()));
        }
    }

    /// Tells that a call came to its end, with a verdict that may be another than the end's own.
    #[inline]
    pub fn tell_of_end(&self, key: Option<&str>, outcome: Outcome, end: &End<'_>) {
        let &End { started, head, ended, call, .. } = end;
        if self.is_noted_only(call) {
            self.note(key, call, ended, Kept::Settled { outcome, started, head });
        } else if self.is_heard(call) {
            self.speak_of_end(key, outcome, end);
        }
    }

    /// Where the end of a response's body is that of a call, its record is behind a lock by then.
    #[inline(never)]
    fn speak_of_end(&self, key: Option<&str>, outcome: Outcome, end: &End<'_>) {
        let &End { started, head, ended, call, .. } = end;
        if self.observers.is_none()
            && call.orders().is_none()
            && let Some(record) = call.held_record()
            && record.write(&mut |notes| {
                let what = Kept::Settled { outcome, started, head };
                notes.told(self.teller(), key, call.attempt(), ended, what);
            })
        {
            return;
        }
        let (head_after, elapsed) = (end.head_after(), end.elapsed());
        let what = What::Settled { outcome, head_after, elapsed };
        self.speak(&self.event(key, call, ended, what));
    }

    /// Tells that a call was refused.
    pub fn tell_of_refusal(
        &self,
        key: Option<&str>,
        call: &Call,
        at: Instant,
        rejection: &dyn Rejection,
    ) {
        if self.is_heard(call) {
            self.speak(&self.event(key, call, at, What::Rejected { rejection }));
        }
    }

    /// Whether nobody listens but the call's record, and that is at hand.
    #[inline]
    fn is_noted_only(&self, call: &Call) -> bool {
        self.observers.is_none() && call.orders().is_none() && call.lies()
    }

    #[inline(always)]
    fn note(&self, key: Option<&str>, call: &Call, at: Instant, what: Kept) {
        if let Some(mut sheet) = call::take() {
            sheet.notes().told(self.teller(), key, call.attempt(), at, what);
            call::put_back(sheet);
        }
    }

    #[inline]
    fn teller(&self) -> Teller<'_> {
        Teller { layer: self.layer, name: &self.name, label: self.label }
    }

    #[inline]
    fn event<'a>(
        &'a self,
        key: Option<&'a str>,
        call: &'a Call,
        at: Instant,
        what: What<'a>,
    ) -> Event<'a> {
        Event { layer: self.layer, name: &self.name, key, call, at, what }
    }

    // Not inlined, to keep the path of who is not heard short.
    #[inline(never)]
    fn speak(&self, event: &Event<'_>) {
        if self.observers.is_some() || event.call.orders().is_some() {
            self.speak_to_observers(event);
        }
        event.call.note(event, self.teller());
    }

    #[inline(never)]
    fn speak_to_observers(&self, event: &Event<'_>) {
        for observer in self.observers.iter().flat_map(|all| all.iter()) {
            observer.on_event(event);
        }
        if let Some(observer) = event.call.observer() {
            observer.on_event(event);
        }
    }
}

impl fmt::Debug for Voice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Voice")
            .field("layer", &self.layer)
            .field("name", &self.name)
            .field("observers", &self.observers.as_deref().map_or(0, <[_]>::len))
            .finish()
    }
}
