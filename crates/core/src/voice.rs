//! Who tells of a layer's events, and to whom.

use std::{fmt, sync::Arc, time::Instant};

use crate::{Call, Event, Label, LayerKind, Observer, What};

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
    pub fn tell<'a>(&self, call: &Call, at: Instant, what: impl FnOnce() -> What<'a>) {
        self.tell_of(None, call, at, what);
    }

    /// Tells of what concerns `call` and `key`. `what` is only made if somebody listens.
    #[inline]
    pub fn tell_of<'a>(
        &self,
        key: Option<&str>,
        call: &Call,
        at: Instant,
        what: impl FnOnce() -> What<'a>,
    ) {
        if self.is_heard(call) {
            self.speak(&Event { layer: self.layer, name: &self.name, key, call, at, what: what() });
        }
    }

    // Not inlined, to keep the path of who is not heard short; not cold, for with a record all are.
    #[inline(never)]
    fn speak(&self, event: &Event<'_>) {
        if self.observers.is_some() || event.call.orders().is_some() {
            self.speak_to_observers(event);
        }
        event.call.note(event, self.label);
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
