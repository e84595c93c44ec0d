//! Recording one call: by the trace layer, and by a `tracing` span.

use std::{
    hint::black_box,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use benches::{
    inner::{AtOnce, call},
    scenario::trace,
};
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::{
    error::OTelSdkResult,
    trace::{Sampler, SdkTracerProvider, SpanData, SpanExporter},
};
use portcullis::{
    clock,
    trace::{Recorder, TraceBuilder, TraceConfig, TraceLayer},
};
use tokio::runtime::Handle;
use tower::{Layer, Service};
use tracing::{Dispatch, field::Empty, info_span};
use tracing_subscriber::layer::SubscriberExt;

use super::Plan;
use crate::measure::{Contest, Side};

const GROUP: &str = "traces";
/// Calls in one round of those that are kept: what takes them from us must find room for all.
const KEPT: u64 = 1000;

/// What is said of rows whose traces are kept.
pub(super) const KEPT_ELSEWHERE: &str =
    "what stores or exports them runs in its own thread, and is not timed";

pub(super) fn plans() -> Vec<Plan> {
    vec![
        Plan::new(GROUP, "trace layer, not kept", |_| {
            let registry = Dispatch::new(tracing_subscriber::registry());
            let (_, sampled_out) = opentelemetry(Sampler::AlwaysOff);
            Contest::new(
                Side::service("ours", trace(0.0).layer(AtOnce)),
                [
                    spans("tracing span, registry", registry, || ()),
                    spans("tracing-opentelemetry, sampled out", sampled_out, || ()),
                ],
            )
        }),
        Plan::new(GROUP, "trace layer, kept", |_| {
            let (provider, kept) = opentelemetry(Sampler::AlwaysOn);
            let flush = move || provider.force_flush().expect("its exporter never fails");
            let peer = spans("tracing-opentelemetry, no-op exporter", kept, flush);
            Contest::new(ours_kept(), [peer.at_most(KEPT)]).noted(KEPT_ELSEWHERE)
        }),
    ]
}

/// The trace layer, its traces kept in memory.
fn ours_kept() -> Side {
    let (recorder, layer) = keeping();
    kept(recorder, layer.build().expect("valid").layer(AtOnce))
}

/// A layer whose traces are all kept in memory, in the making.
pub(super) fn keeping() -> (Recorder, TraceBuilder) {
    let mut config = TraceConfig::default();
    (config.sample_rate, config.queue) = (1.0, 4 * KEPT as usize);
    let recorder = Recorder::builder().config(config).build().expect("valid");
    let layer = TraceLayer::builder("bench").recorder(&recorder);
    (recorder, layer)
}

/// Ours, of whose calls all traces are kept.
pub(super) fn kept<S: Service<()> + 'static>(recorder: Recorder, mut service: S) -> Side {
    let side = Side::timed("ours", move |calls| {
        let start = clock::now();
        for _ in 0..calls {
            _ = black_box(call(&mut service, ()));
        }
        let took = start.elapsed();
        Handle::current().block_on(recorder.flush());
        took
    });
    side.at_most(KEPT)
}

/// A span round each call, with a name and what became of it.
fn spans(name: &str, subscriber: Dispatch, flush: impl Fn() + 'static) -> Side {
    Side::timed(name, move |calls| {
        let took = tracing::dispatcher::with_default(&subscriber, || {
            let start = clock::now();
            for _ in 0..calls {
                in_span();
            }
            start.elapsed()
        });
        flush();
        took
    })
}

#[inline]
fn in_span() {
    let mut service = AtOnce;
    let span = info_span!("call", layer = "bench", outcome = Empty);
    let mut future = std::pin::pin!(service.call(()));
    let mut cx = Context::from_waker(Waker::noop());
    let poll = span.in_scope(|| future.as_mut().poll(&mut cx));
    if let Poll::Ready(Ok(())) = black_box(poll) {
        span.record("outcome", "success");
    }
}

fn opentelemetry(sampler: Sampler) -> (Arc<SdkTracerProvider>, Dispatch) {
    let provider =
        SdkTracerProvider::builder().with_batch_exporter(Nowhere).with_sampler(sampler).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("bench"));
    let subscriber = tracing_subscriber::registry().with(layer);
    (Arc::new(provider), Dispatch::new(subscriber))
}

/// Exports nothing.
#[derive(Debug)]
struct Nowhere;

impl SpanExporter for Nowhere {
    async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}
