//! Events as metrics.

use std::{fmt, sync::Arc};

use opentelemetry::{
    InstrumentationScope,
    metrics::{Meter, MeterProvider},
};
use portcullis_core::{Event, LayerKind, Observer, OnceMap, Registry, What};

use crate::{
    instruments::Instruments,
    names::{OTHER, SCOPE},
    target::Target,
    watch,
};

/// Counts what layers tell: an [`Observer`] to give to a stack, or to any layer.
///
/// Instruments are bound to their attributes when a target is first heard of; from then on an event
/// costs a look-up of the target's name and what the SDK does for a bound instrument, and allocates
/// nothing. What has no end in number, such as hosts, is an attribute only
/// [up to a bound](MetricsBuilder::keys).
///
/// Calls are counted by the layer that records traces, which tells of their beginnings and ends; what
/// else is counted is told by the layer that does it. What is a level and no event is
/// [watched](Self::watch).
///
/// # Clone
///
/// Clones count into the same instruments.
///
/// ```
/// use opentelemetry_sdk::metrics::SdkMeterProvider;
/// use portcullis::{Registry, Stack};
/// use portcullis_otel::Metrics;
///
/// # fn main() -> Result<(), portcullis::Invalid> {
/// let provider = SdkMeterProvider::default();
/// let metrics = Metrics::new(&provider);
/// let registry = Registry::new();
/// metrics.watch(&registry);
///
/// let payments = Stack::production("payments")
///     .observe(metrics.clone())
///     .register_in(&registry)
///     .build()?;
/// # let _ = payments;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Metrics(Arc<Shared>);

/// [`Metrics`] in the making: see [`Metrics::builder`].
#[derive(Clone, Copy, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct MetricsBuilder {
    targets: usize,
    keys: usize,
}

struct Shared {
    meter: Meter,
    instruments: Instruments,
    targets: OnceMap<Box<str>, Target>,
    /// For the names there is no room for.
    other: Target,
    /// By name and key. What of a name there is no room for has the key `_OTHER`, in a place of its
    /// own.
    keys: Option<OnceMap<NameAndKey, Target>>,
    other_keys: OnceMap<Box<str>, Target>,
}

type NameAndKey = (Box<str>, Box<str>);

// ===== impl Metrics =====

impl Metrics {
    /// Metrics with the default bounds.
    #[must_use]
    pub fn new(provider: &impl MeterProvider) -> Self {
        Self::builder().build(provider)
    }

    /// Begins metrics with bounds of one's own.
    pub fn builder() -> MetricsBuilder {
        MetricsBuilder { targets: 128, keys: 0 }
    }

    /// Observes, whenever metrics are collected, the levels of what is in the registry by then: the
    /// states of breakers, what is left in retry budgets, and what recorders have counted.
    ///
    /// The registry is held by the meter's provider from now on. Watching two registries by one
    /// provider is fine as long as no target is in both.
    pub fn watch(&self, registry: &Registry) {
        watch::levels(&self.0.meter, registry);
    }

    pub(crate) fn meter(&self) -> &Meter {
        &self.0.meter
    }
}

impl Observer for Metrics {
    fn on_event(&self, event: &Event<'_>) {
        let shared = &*self.0;
        let of = &shared.instruments;
        let target = || shared.target(event.name, event.key);
        match event.what {
            What::Started if event.layer == LayerKind::Trace => target().started(of),
            What::Settled { outcome, elapsed, .. } if event.layer == LayerKind::Trace => {
                target().settled(of, &outcome, elapsed);
            }
            What::Answered { answer, elapsed } => {
                target().answered(of, &answer, elapsed);
                if answer.is_grpc {
                    // The call is counted without a key.
                    shared.target(event.name, None).speaks_grpc();
                }
            }
            What::Rejected { rejection } => target().rejected(of, event.layer, rejection.kind()),
            What::WouldReject { .. } => target().would_reject(of),
            What::Attempting { .. } => target().attempting(of),
            What::Retrying { outcome, delay, .. } => target().retrying(of, &outcome, delay),
            What::Resending { outcome, .. } => target().resending(of, &outcome),
            What::GaveUp { reason, .. } => target().gave_up(of, &reason),
            What::TimedOut { phase, .. } => target().timed_out(of, phase),
            What::Slow { .. } => target().slow(of),
            What::StateChanged { from, to, .. } if from != to => {
                target().state_changed(of, from, to);
            }
            // The key is one of many by now, so it is no attribute.
            What::Overflowed { .. } => {
                shared.target(event.name, None).overflowed(of, event.layer);
            }
            What::Polled { polls, elapsed, course } => target().polled(of, polls, elapsed, course),
            What::Process { stage, elapsed, stdout, stderr } => {
                target().process(of, stage, elapsed, [stdout, stderr]);
            }
            What::Waited { waited, .. } => target().waited(of, waited),
            What::Acquired { cost, .. } => target().acquired(of, cost),
            What::HeldBack { .. } => target().held_back(of),
            _ => {}
        }
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics")
            .field("targets", &self.0.targets)
            .field("keys", &self.0.keys)
            .finish_non_exhaustive()
    }
}

// ===== impl MetricsBuilder =====

impl MetricsBuilder {
    /// Targets that have attributes of their own, 128 unless set; those beyond are counted together
    /// as `_OTHER`. Names of stacks and layers are a program's own, so there is room for all, unless
    /// they are made up as it runs.
    pub fn targets(mut self, most: usize) -> Self {
        self.targets = most;
        self
    }

    /// How many keys, of all targets together, are an attribute of their own; those beyond are
    /// counted together as `_OTHER`. None unless set: then whatever has to do with a key is counted
    /// for its target.
    ///
    /// A key is a host where layers are keyed [by host](https://docs.rs/portcullis-http), as those of
    /// a stack are. Metrics of HTTP carry `server.address` and `server.port` then, as the conventions
    /// require; the others `portcullis.key`. Each key is a dozen series or more to whoever stores
    /// them.
    pub fn keys(mut self, most: usize) -> Self {
        self.keys = most;
        self
    }

    /// Metrics that count by instruments of a provider's meter, of the scope `portcullis`.
    ///
    /// The provider has to know bound instruments, as the SDK's does: one that does not drops what
    /// it is told.
    #[must_use]
    pub fn build(self, provider: &impl MeterProvider) -> Metrics {
        let meter = provider.meter_with_scope(scope());
        Metrics(Arc::new(Shared {
            instruments: Instruments::new(&meter),
            meter,
            targets: OnceMap::new(self.targets),
            other: Target::new(OTHER, None),
            keys: (self.keys > 0).then(|| OnceMap::new(self.keys)),
            other_keys: OnceMap::new(self.targets),
        }))
    }
}

// ===== impl Shared =====

impl Shared {
    #[inline]
    fn target(&self, name: &str, key: Option<&str>) -> &Target {
        if let (Some(keys), Some(key)) = (&self.keys, key) {
            let is = |known: &NameAndKey| *known.0 == *name && *known.1 == *key;
            let make = || ((name.into(), key.into()), Target::new(name, Some(key)));
            return keys
                .get_or_insert_with(&(name, key), is, make)
                .unwrap_or_else(|| self.beyond(name));
        }
        let make = || (name.into(), Target::new(name, None));
        self.targets.get_or_insert_with(name, |known| **known == *name, make).unwrap_or(&self.other)
    }

    /// What keys have to do with that there is no room for.
    fn beyond(&self, name: &str) -> &Target {
        let make = || (name.into(), Target::new(name, Some(OTHER)));
        self.other_keys
            .get_or_insert_with(name, |known| **known == *name, make)
            .unwrap_or(&self.other)
    }
}

/// Who measures.
pub(crate) fn scope() -> InstrumentationScope {
    InstrumentationScope::builder(SCOPE).with_version(env!("CARGO_PKG_VERSION")).build()
}
