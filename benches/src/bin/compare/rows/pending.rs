//! An inner service that is pending once, so that timers are really registered.

use benches::{
    inner::PendingOnce,
    scenario::{LIMIT, stack, timeout, trace},
};
use tower::Layer;

use super::Plan;
use crate::{
    measure::{Contest, Side},
    peers,
};

const GROUP: &str = "pending once";

pub(super) fn plans() -> Vec<Plan> {
    let time_limiter = || {
        let peer = peers::resilience_timeout().layer(PendingOnce);
        Side::service("tower-resilience time limiter", peer)
    };
    let four = || {
        let peer = peers::resilience_stack(PendingOnce);
        Side::service("tower-resilience, four layers", peer)
    };
    vec![
        Plan::new(GROUP, "timeout, pending once", move |_| {
            let tower = tower::timeout::Timeout::new(PendingOnce, LIMIT);
            Contest::new(
                Side::service("ours", timeout().layer(PendingOnce)),
                [Side::service("tower", tower), time_limiter()],
            )
        }),
        Plan::new(GROUP, "stack without traces, pending once", move |_| {
            let ours = Side::service("ours", stack(PendingOnce));
            Contest::new(ours, [time_limiter(), four()])
        }),
        Plan::new(GROUP, "stack with traces, pending once", move |_| {
            let ours = Side::service("ours", trace(0.0).layer(stack(PendingOnce)));
            Contest::new(ours, [time_limiter(), four()])
        }),
    ]
}
