//! Whole stacks on a call that succeeds at once.

use benches::{
    inner::AtOnce,
    scenario::{stack, trace},
};
use tower::Layer;

use super::Plan;
use crate::{
    measure::{Contest, Side},
    peers,
};

const GROUP: &str = "stacks";

// Ours: total timeout, retry, rate limit, breaker, attempt timeout. The peer's: retry, rate limiter,
// breaker, time limiter.
pub(super) fn plans() -> Vec<Plan> {
    let peer = || Side::service("tower-resilience, four layers", peers::resilience_stack(AtOnce));
    vec![
        Plan::new(GROUP, "stack without traces", move |_| {
            Contest::new(Side::service("ours", stack(AtOnce)), [peer()])
        }),
        Plan::new(GROUP, "stack with traces, not kept", move |_| {
            let traced = trace(0.0).layer(stack(AtOnce));
            Contest::new(Side::service("ours", traced), [peer()])
        }),
    ]
}
