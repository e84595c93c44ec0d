//! The layer and its builder.

use std::{borrow::Cow, fmt, sync::Arc};

use portcullis_core::{ByResult, Invalid, Label, LayerKind, Observer, Voice};
use tower_layer::Layer;

use crate::{CaptureFn, NoCapture, Recorder, Traced, Undescribed};

/// Records calls, with every decision of the layers inside: makes [`Traced`] services.
///
/// It belongs outermost. Several layers may share a [`Recorder`]; without one, a layer has its own
/// with a [`MemoryStore`](crate::MemoryStore).
///
/// ```
/// use portcullis_trace::{About, Recorder, TraceLayer};
///
/// # fn main() -> Result<(), portcullis_core::Invalid> {
/// let recorder = Recorder::builder().sample_rate(0.01).build()?;
/// let trace = TraceLayer::builder("search")
///     .recorder(&recorder)
///     .describe(|query: &String, about: &mut About<'_>| {
///         about.operation("query").target("index-3");
///     })
///     .capture_output(|answer: &String| Some(answer.as_str().into()))
///     .build()?;
/// # let _ = trace;
/// # Ok(())
/// # }
/// ```
pub struct TraceLayer<C = ByResult, D = Undescribed, O = NoCapture> {
    shared: Arc<Shared>,
    classify: C,
    describe: Arc<D>,
    capture: Arc<O>,
}

/// A [`TraceLayer`] in the making: see [`TraceLayer::builder`].
#[must_use = "a builder does nothing until `build`"]
pub struct TraceBuilder<C = ByResult, D = Undescribed, O = NoCapture> {
    name: Arc<str>,
    recorder: Option<Recorder>,
    observers: Vec<Arc<dyn Observer>>,
    classify: C,
    describe: D,
    capture: O,
}

/// What all calls of one layer share.
pub(crate) struct Shared {
    pub(crate) name: Arc<str>,
    /// The name once more, unless it is too long or to be cut.
    pub(crate) label: Option<Label>,
    pub(crate) recorder: Recorder,
    /// `None` where nobody listens but the record.
    pub(crate) voice: Option<Voice>,
}

// ===== impl TraceLayer =====

impl TraceLayer {
    /// Begins a layer of this name.
    pub fn builder(name: impl Into<Arc<str>>) -> TraceBuilder {
        TraceBuilder {
            name: name.into(),
            recorder: None,
            observers: Vec::new(),
            classify: ByResult,
            describe: Undescribed,
            capture: NoCapture,
        }
    }
}

impl<C, D, O> TraceLayer<C, D, O> {
    /// The layer's name.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.shared.name
    }

    /// Where its traces go.
    #[must_use]
    pub fn recorder(&self) -> &Recorder {
        &self.shared.recorder
    }
}

impl<S, C: Clone, D, O> Layer<S> for TraceLayer<C, D, O> {
    type Service = Traced<S, C, D, O>;

    fn layer(&self, inner: S) -> Self::Service {
        Traced::new(
            inner,
            self.shared.clone(),
            self.classify.clone(),
            self.describe.clone(),
            self.capture.clone(),
        )
    }
}

impl<C: Clone, D, O> Clone for TraceLayer<C, D, O> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            classify: self.classify.clone(),
            describe: self.describe.clone(),
            capture: self.capture.clone(),
        }
    }
}

impl<C, D, O> fmt::Debug for TraceLayer<C, D, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TraceLayer")
            .field("name", &self.shared.name)
            .field("recorder", &self.shared.recorder)
            .finish_non_exhaustive()
    }
}

// ===== impl TraceBuilder =====

impl<C, D, O> TraceBuilder<C, D, O> {
    /// Where traces go.
    pub fn recorder(mut self, recorder: &Recorder) -> Self {
        self.recorder = Some(recorder.clone());
        self
    }

    /// Adds somebody who is told of the end of every call, kept or not. The layers inside tell their
    /// own observers.
    pub fn observe(mut self, observer: impl Observer) -> Self {
        self.observers.push(Arc::new(observer));
        self
    }

    /// Replaces the classifier, which judges calls and sees to it that the end of a response's body
    /// is their end.
    pub fn classify<E>(self, classify: E) -> TraceBuilder<E, D, O> {
        let Self { name, recorder, observers, describe, capture, .. } = self;
        TraceBuilder { name, recorder, observers, classify, describe, capture }
    }

    /// Says what a call is about, from its request. It runs on the call's path.
    pub fn describe<E>(self, describe: E) -> TraceBuilder<C, E, O> {
        let Self { name, recorder, observers, classify, capture, .. } = self;
        TraceBuilder { name, recorder, observers, classify, describe, capture }
    }

    /// Keeps what comes out of calls, from the response's head; nothing is kept unless this is
    /// called. The text is redacted and then cut to the recorder's limit. It runs on the call's path
    /// and allocates.
    ///
    /// Take what you know to be harmless: never headers as a whole, which carry `authorization`,
    /// `cookie` and the like.
    pub fn capture_output<Res, F>(self, capture: F) -> TraceBuilder<C, D, CaptureFn<F>>
    where
        F: for<'a> Fn(&'a Res) -> Option<Cow<'a, str>>,
    {
        let Self { name, recorder, observers, classify, describe, .. } = self;
        let capture = CaptureFn(capture);
        TraceBuilder { name, recorder, observers, classify, describe, capture }
    }

    /// The layer.
    ///
    /// # Errors
    ///
    /// That of [`RecorderBuilder::build`](crate::RecorderBuilder::build), if no recorder was given.
    pub fn build(self) -> Result<TraceLayer<C, D, O>, Invalid> {
        let recorder = match self.recorder {
            Some(recorder) => recorder,
            None => Recorder::builder().build()?,
        };
        let voice = (!self.observers.is_empty()).then(|| {
            let voice = Voice::new(LayerKind::Trace, self.name.clone());
            self.observers.into_iter().fold(voice, Voice::with_observer)
        });
        let fits = self.name.len() <= recorder.config().max_name;
        let label = Label::new(&self.name).filter(|_| fits);
        Ok(TraceLayer {
            shared: Arc::new(Shared { name: self.name, label, recorder, voice }),
            classify: self.classify,
            describe: Arc::new(self.describe),
            capture: Arc::new(self.capture),
        })
    }
}

impl<C, D, O> fmt::Debug for TraceBuilder<C, D, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TraceBuilder")
            .field("name", &self.name)
            .field("recorder", &self.recorder)
            .finish_non_exhaustive()
    }
}
