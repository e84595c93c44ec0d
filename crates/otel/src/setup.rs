//! The whole of it in a few lines.

use std::fmt;

use opentelemetry::KeyValue;
use opentelemetry_sdk::{
    Resource,
    metrics::{
        MeterProviderBuilder, PeriodicReader, SdkMeterProvider, exporter::PushMetricExporter,
    },
    trace::SpanExporter,
};
use portcullis_core::{Invalid, Registry};
use portcullis_trace::{Recorder, RecorderBuilder, TraceStore};

use crate::{Metrics, MetricsBuilder, Spans};

/// Metrics and spans, set up together for one process: what most programs need.
///
/// - Give [`metrics`](Self::metrics) to what is to be observed.
/// - Register it in the [`registry`](Self::registry), for the levels.
/// - Take [recorders](Self::recorder) from it, to have their traces exported.
/// - [Shut down](Self::shutdown) at the end.
///
/// It needs no runtime, and works beside any: exports are made by threads of their own.
///
/// # Clone
///
/// Clones are the same.
///
/// ```
/// use opentelemetry_sdk::{metrics::InMemoryMetricExporter, trace::InMemorySpanExporter};
/// use portcullis::{Stack, trace::{MemoryStore, Recorder}};
/// use portcullis_otel::Telemetry;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), portcullis::Invalid> {
/// let telemetry = Telemetry::builder("shop")
///     .metrics(InMemoryMetricExporter::default())
///     .spans(InMemorySpanExporter::default())
///     .build()?;
///
/// let recorder = telemetry.recorder(MemoryStore::new()).sample_rate(0.05).build()?;
/// let payments = Stack::production("payments")
///     .recorder(&recorder)
///     .observe(telemetry.metrics().clone())
///     .register_in(telemetry.registry())
///     .build()?;
///
/// // … calls through `payments` …
/// # let _ = payments;
///
/// recorder.shutdown().await;
/// telemetry.shutdown();
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Telemetry {
    metrics: Metrics,
    registry: Registry,
    provider: SdkMeterProvider,
    spans: Option<Spans>,
    #[cfg(feature = "prometheus")]
    prometheus: Option<prometheus::Registry>,
}

/// [`Telemetry`] in the making: see [`Telemetry::builder`].
#[must_use = "a builder does nothing until `build`"]
pub struct TelemetryBuilder {
    resource: Resource,
    metrics: MetricsBuilder,
    registry: Option<Registry>,
    provider: MeterProviderBuilder,
    spans: Option<Start>,
    set_spans: SetSpans,
    #[cfg(feature = "prometheus")]
    prometheus: Option<prometheus::Registry>,
    failed: Option<Invalid>,
}

/// Begins the export, once the resource is known.
type Start = Box<dyn FnOnce(Resource, SetSpans) -> Result<Spans, Invalid> + Send>;

/// What was set of it.
#[derive(Clone, Copy, Debug, Default)]
struct SetSpans {
    outputs: bool,
}

// ===== impl Telemetry =====

impl Telemetry {
    /// Begins it for the service of this name. What the environment says of the resource
    /// (`OTEL_RESOURCE_ATTRIBUTES`) is added.
    pub fn builder(service: impl Into<String>) -> TelemetryBuilder {
        TelemetryBuilder {
            resource: Resource::builder().with_service_name(service.into()).build(),
            metrics: Metrics::builder(),
            registry: None,
            provider: SdkMeterProvider::builder(),
            spans: None,
            set_spans: SetSpans::default(),
            #[cfg(feature = "prometheus")]
            prometheus: None,
            failed: None,
        }
    }

    /// The observer that counts events.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// What is registered here has its levels observed.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The SDK's provider of meters, for instruments of one's own.
    #[must_use]
    pub fn provider(&self) -> &SdkMeterProvider {
        &self.provider
    }

    /// The export of spans; `None` if there is none.
    #[must_use]
    pub fn spans(&self) -> Option<&Spans> {
        self.spans.as_ref()
    }

    /// Begins a recorder that keeps traces in `store`, and has them exported if spans are.
    pub fn recorder(&self, store: impl TraceStore) -> RecorderBuilder {
        let recorder = Recorder::builder();
        match &self.spans {
            Some(spans) => recorder.store(spans.store(store)),
            None => recorder.store(store),
        }
    }

    /// Exports what there is by now. It blocks the thread, for as long as the exporters take.
    pub fn flush(&self) {
        if let Some(spans) = &self.spans {
            spans.flush();
        }
        // An error of an exporter's is in its log.
        let _ = self.provider.force_flush();
    }

    /// Exports what there is by now, and ends, for all clones. What is counted later goes nowhere.
    /// It blocks the thread, for as long as the exporters take; in async code, call it through
    /// `spawn_blocking`, or where it does not matter any more.
    ///
    /// Recorders are shut down before, so that what waits with them is exported.
    pub fn shutdown(&self) {
        if let Some(spans) = &self.spans {
            spans.shutdown();
        }
        let _ = self.provider.shutdown();
    }
}

#[cfg(feature = "prometheus")]
impl Telemetry {
    /// All metrics as text for Prometheus (version 0.0.4); `None` if that was not
    /// [asked for](TelemetryBuilder::prometheus). Send it as [`TEXT`](crate::TEXT).
    ///
    /// Levels are looked at while it is made. It may take milliseconds where there is much.
    #[must_use]
    pub fn prometheus(&self) -> Option<String> {
        let families = self.prometheus.as_ref()?.gather();
        // Into a string, writing does not fail; what cannot be encoded is a family without metrics.
        prometheus::TextEncoder::new().encode_to_string(&families).ok()
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry")
            .field("metrics", &self.metrics)
            .field("spans", &self.spans)
            .finish_non_exhaustive()
    }
}

// ===== impl TelemetryBuilder =====

impl TelemetryBuilder {
    /// Adds an attribute of the resource, such as `deployment.environment.name`.
    pub fn resource_attribute(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        let attribute = KeyValue::new(key.into(), value.into());
        let known =
            self.resource.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
        let known: Vec<_> = known.collect();
        self.resource =
            Resource::builder_empty().with_attributes(known).with_attribute(attribute).build();
        self
    }

    /// The registry whose levels are observed. One of its own unless set.
    pub fn registry(mut self, registry: &Registry) -> Self {
        self.registry = Some(registry.clone());
        self
    }

    /// How many keys are attributes: see [`MetricsBuilder::keys`].
    pub fn keys(mut self, most: usize) -> Self {
        self.metrics = self.metrics.keys(most);
        self
    }

    /// Has metrics exported every minute, or as often as `OTEL_METRIC_EXPORT_INTERVAL` says, in
    /// milliseconds; besides by exporters given before.
    pub fn metrics(mut self, exporter: impl PushMetricExporter) -> Self {
        self.provider = self.provider.with_reader(PeriodicReader::builder(exporter).build());
        self
    }

    /// Has kept traces exported as spans, in place of an exporter set before.
    pub fn spans<E: SpanExporter + 'static>(mut self, exporter: E) -> Self {
        self.spans = Some(Box::new(move |resource, set: SetSpans| {
            let spans = Spans::builder(exporter).resource(resource);
            if set.outputs { spans.outputs() } else { spans }.build()
        }));
        self
    }

    /// Exports what was captured of outputs: see [`SpansBuilder::outputs`](crate::SpansBuilder::outputs).
    pub fn outputs(mut self) -> Self {
        self.set_spans.outputs = true;
        self
    }

    /// All of it. Threads of exporters are started.
    ///
    /// # Errors
    ///
    /// The first setting that is out of its range, or `exporter`, if one cannot be started.
    pub fn build(self) -> Result<Telemetry, Invalid> {
        if let Some(failed) = self.failed {
            return Err(failed);
        }
        let provider = self.provider.with_resource(self.resource.clone()).build();
        let metrics = self.metrics.build(&provider);
        let registry = self.registry.unwrap_or_default();
        metrics.watch(&registry);
        let spans = self.spans.map(|start| start(self.resource, self.set_spans)).transpose()?;
        if let Some(spans) = &spans {
            spans.watch(&metrics);
        }
        Ok(Telemetry {
            metrics,
            registry,
            provider,
            spans,
            #[cfg(feature = "prometheus")]
            prometheus: self.prometheus,
        })
    }
}

#[cfg(feature = "otlp")]
impl TelemetryBuilder {
    /// Sends metrics every minute, and spans as traces are kept, to a collector by OTLP over HTTP, in
    /// protobuf. `endpoint` is its root, such as `http://localhost:4318`; by `None` it is what the
    /// environment says (`OTEL_EXPORTER_OTLP_ENDPOINT`), or else that one. Headers and more are for
    /// the variables that OpenTelemetry has for them.
    ///
    /// There is no TLS here: a collector is near. For one that is not, give the exporters of
    /// `opentelemetry-otlp`, with a client of your own, to [`metrics`](Self::metrics) and
    /// [`spans`](Self::spans).
    pub fn otlp<'a>(mut self, endpoint: impl Into<Option<&'a str>>) -> Self {
        match crate::otlp::exporters(endpoint.into()) {
            Ok((metrics, spans)) => self.metrics(metrics).spans(spans),
            Err(invalid) => {
                self.failed.get_or_insert(invalid);
                self
            }
        }
    }
}

#[cfg(feature = "prometheus")]
impl TelemetryBuilder {
    /// Has metrics ready as text for Prometheus: see [`Telemetry::prometheus`].
    pub fn prometheus(mut self) -> Self {
        let registry = prometheus::Registry::new();
        let exporter = opentelemetry_prometheus::exporter().with_registry(registry.clone()).build();
        match exporter {
            Ok(exporter) => {
                self.prometheus = Some(registry);
                self.provider = self.provider.with_reader(exporter);
            }
            Err(error) => {
                let failed = Invalid::new("prometheus", error, "an exporter that can be made");
                self.failed.get_or_insert(failed);
            }
        }
        self
    }
}

impl fmt::Debug for TelemetryBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TelemetryBuilder")
            .field("resource", &self.resource)
            .field("metrics", &self.metrics)
            .field("spans", &self.spans.is_some())
            .finish_non_exhaustive()
    }
}
