//! The whole stack, watched: its traces kept, its events made into metrics, and both.

use std::{convert::Infallible, time::Duration};

use benches::{
    inner::AtOnce,
    scenario::{BURST, LIMIT, RATE, SECOND, recorder, stack},
};
use opentelemetry_sdk::{
    error::OTelSdkResult,
    metrics::{
        PeriodicReader, SdkMeterProvider, Temporality, data::ResourceMetrics,
        exporter::PushMetricExporter,
    },
};
use portcullis::{
    ByClone, Error,
    breaker::{BreakerLayer, Window},
    otel::Metrics,
    ratelimit::RateLimitLayer,
    retry::RetryLayer,
    timeout::TimeoutLayer,
    trace::TraceLayer,
};
use tower::{Layer, Service, ServiceBuilder};

use super::{
    Plan,
    traces::{KEPT_ELSEWHERE, keeping, kept},
};
use crate::measure::{Contest, Side};

const GROUP: &str = "observed";

pub(super) fn plans() -> Vec<Plan> {
    vec![
        Plan::new(GROUP, "stack with traces, all kept", |_| {
            let (recorder, layer) = keeping();
            let traced = layer.build().expect("valid").layer(stack(AtOnce));
            Contest::new(kept(recorder, traced), []).noted(KEPT_ELSEWHERE)
        }),
        Plan::new(GROUP, "stack with traces, and metrics", |_| {
            let metrics = metrics();
            let layer = TraceLayer::builder("bench").recorder(&recorder(0.0));
            let layer = layer.observe(metrics.clone()).build().expect("valid");
            Contest::new(Side::service("ours", layer.layer(measured(AtOnce, &metrics))), [])
        }),
        Plan::new(GROUP, "stack with traces, all kept, and metrics", |_| {
            let metrics = metrics();
            let (recorder, layer) = keeping();
            let layer = layer.observe(metrics.clone()).build().expect("valid");
            let traced = layer.layer(measured(AtOnce, &metrics));
            Contest::new(kept(recorder, traced), []).noted(KEPT_ELSEWHERE)
        }),
    ]
}

/// Metrics of the SDK's, collected once a minute and exported nowhere.
pub(crate) fn metrics() -> Metrics {
    let provider =
        SdkMeterProvider::builder().with_reader(PeriodicReader::builder(Nowhere).build()).build();
    let metrics = Metrics::new(&provider);
    // Dropped, it would shut down what records for it.
    std::mem::forget(provider);
    metrics
}

/// The layers of the [`stack`], each of which tells `metrics`.
fn measured<S>(
    inner: S,
    metrics: &Metrics,
) -> impl Service<(), Response = S::Response, Error = Error> + use<S>
where
    S: Service<(), Error = Infallible> + Clone,
{
    let timeout = || TimeoutLayer::builder("bench").observe(metrics.clone());
    let retry = RetryLayer::builder("bench", ByClone::idempotent()).observe(metrics.clone());
    let limit = RateLimitLayer::builder("bench").rate(RATE, SECOND).burst(BURST);
    let breaker = BreakerLayer::builder("bench").window(Window::Time(LIMIT));
    ServiceBuilder::new()
        .layer(timeout().total(LIMIT).build().expect("valid"))
        .layer(retry.build().expect("valid"))
        .layer(limit.observe(metrics.clone()).build().expect("valid"))
        .layer(breaker.observe(metrics.clone()).build().expect("valid"))
        .layer(timeout().attempt(LIMIT).build().expect("valid"))
        .service(inner)
}

/// Exports nothing.
#[derive(Debug)]
struct Nowhere;

impl PushMetricExporter for Nowhere {
    async fn export(&self, _: &ResourceMetrics) -> OTelSdkResult {
        Ok(())
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }

    fn temporality(&self) -> Temporality {
        Temporality::Cumulative
    }
}
