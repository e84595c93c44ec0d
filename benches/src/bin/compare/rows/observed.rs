//! The whole stack, watched: its traces kept, its events made into metrics, and both.

use benches::{
    inner::AtOnce,
    observed::{measured, metrics},
    scenario::{recorder, stack},
};
use portcullis::trace::TraceLayer;
use tower::Layer;

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
