//! The layer and its builder.

use std::{fmt, sync::Arc, time::Duration};

use portcullis_core::{
    Backoff, Invalid, Jitter, LayerKind, Observer, Voice,
    backoff::{Chance, CustomDelay},
};
use tower_layer::Layer;

use crate::{Policy, PollConfig, Polling};

/// Asks on until an operation is done: makes [`Polling`] services.
///
/// ```
/// use portcullis_core::{Next, Progress, follow_fn};
/// use portcullis_poll::PollLayer;
/// use std::time::Duration;
///
/// # fn main() -> Result<(), portcullis_core::Invalid> {
/// let poll = PollLayer::builder("render", follow_fn(|percent: u32| match percent {
///     100 => Ok(Progress::Done("rendered")),
///     _ => Ok(Progress::Pending(Next::new("how far?").seen(format!("{percent} %")))),
/// }))
/// .limit(Duration::from_secs(120))
/// .build()?;
/// # let _ = poll;
/// # Ok(())
/// # }
/// ```
pub struct PollLayer<P> {
    shared: Arc<Shared<P>>,
}

/// A [`PollLayer`] in the making: see [`PollLayer::builder`].
#[must_use = "a builder does nothing until `build`"]
pub struct PollBuilder<P> {
    follow: P,
    config: PollConfig,
    custom: Option<(Duration, CustomDelay)>,
    voice: Voice,
    seed: Option<u64>,
}

/// What all services and calls of one layer share.
pub(crate) struct Shared<P> {
    pub(crate) follow: P,
    pub(crate) policy: Policy,
    pub(crate) voice: Voice,
    pub(crate) chance: Chance,
}

// ===== impl PollLayer =====

impl<P> PollLayer<P> {
    /// Begins a layer called `name`, whose operations are followed by `follow`: a
    /// [`Follow`](portcullis_core::Follow).
    pub fn builder(name: impl Into<Arc<str>>, follow: P) -> PollBuilder<P> {
        PollBuilder {
            follow,
            config: PollConfig::default(),
            custom: None,
            voice: Voice::new(LayerKind::Poll, name),
            seed: None,
        }
    }

    /// The layer's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.shared.voice.name()
    }

    /// What decides.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.shared.policy
    }
}

impl<S, P> Layer<S> for PollLayer<P> {
    type Service = Polling<S, P>;

    fn layer(&self, inner: S) -> Self::Service {
        Polling::new(inner, self.shared.clone())
    }
}

impl<P> Clone for PollLayer<P> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<P> fmt::Debug for PollLayer<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PollLayer").field("shared", &self.shared).finish()
    }
}

// ===== impl PollBuilder =====

impl<P> PollBuilder<P> {
    /// All settings at once, in place of those made so far.
    pub fn config(mut self, config: PollConfig) -> Self {
        self.config = config;
        self.custom = None;
        self
    }

    /// How long the wait before each poll is. Exponential unless set: 500 ms, doubled, at most 10 s.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.config.backoff = backoff;
        self.custom = None;
        self
    }

    /// How long the wait before each poll is, by a function of the poll's number, from 1. A longer wait
    /// than `cap` (at most 1 day) is cut to it; jitter applies.
    pub fn backoff_fn(
        mut self,
        cap: Duration,
        delay: impl Fn(u32) -> Duration + Send + Sync + 'static,
    ) -> Self {
        self.custom = Some((cap, Arc::new(delay)));
        self
    }

    /// What chance does to the waits. [`Jitter::Equal`] unless set.
    pub fn jitter(mut self, jitter: Jitter) -> Self {
        self.config.jitter = jitter;
        self
    }

    /// Polls of one operation: the requests that follow the first. At least 1; 1000 unless set.
    pub fn max_polls(mut self, polls: u32) -> Self {
        self.config.max_polls = polls;
        self
    }

    /// How long an operation is followed, from the call that begins it: above 0 and at most 30 days; 10
    /// minutes unless set. It ends the request that is under way then. The caller's
    /// [`timeout`](portcullis_core::call::With::timeout) takes its place.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.config.limit = limit;
        self
    }

    /// Adds somebody who is told how operations go.
    pub fn observe(mut self, observer: impl Observer) -> Self {
        self.voice = self.voice.with_observer(Arc::new(observer));
        self
    }

    /// Draws jitter from one repeatable sequence, for tests. Otherwise each thread has a generator of its
    /// own.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Makes the layer.
    ///
    /// # Errors
    ///
    /// The first setting that is out of its range.
    pub fn build(self) -> Result<PollLayer<P>, Invalid> {
        let policy = Policy::with_delays(&self.config, self.custom)?;
        Ok(PollLayer {
            shared: Arc::new(Shared {
                follow: self.follow,
                policy,
                voice: self.voice,
                chance: Chance::of(self.seed),
            }),
        })
    }
}

impl<P> fmt::Debug for PollBuilder<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PollBuilder")
            .field("config", &self.config)
            .field("voice", &self.voice)
            .finish_non_exhaustive()
    }
}

// ===== impl Shared =====

impl<P> fmt::Debug for Shared<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("policy", &self.policy)
            .field("voice", &self.voice)
            .finish_non_exhaustive()
    }
}
