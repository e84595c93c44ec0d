//! The whole stack, watched: its events made into metrics.

use std::{convert::Infallible, time::Duration};

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
};
use tower::{Service, ServiceBuilder};

use crate::scenario::{BURST, LIMIT, RATE, SECOND};

/// Metrics of the SDK's, collected once a minute and exported nowhere.
#[must_use]
pub fn metrics() -> Metrics {
    let provider =
        SdkMeterProvider::builder().with_reader(PeriodicReader::builder(Nowhere).build()).build();
    let metrics = Metrics::new(&provider);
    // Dropped, it would shut down what records for it.
    std::mem::forget(provider);
    metrics
}

/// The layers of the [`stack`](crate::scenario::stack), each of which tells `metrics`.
pub fn measured<S>(
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
