//! Whether all is well.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use axum::{extract::State as Of, http::StatusCode};
use portcullis_core::State;
use portcullis_trace::Recorder;
use serde::Serialize;

use super::{
    MOST,
    breakers::{all, half_open_in},
};
use crate::{
    admin::{Check as IsWell, Shared},
    answer::Json,
};

#[derive(Serialize)]
pub(crate) struct Health {
    status: &'static str,
    open: Vec<Open>,
    traces: Option<Traces>,
}

#[derive(Serialize)]
struct Open {
    name: Arc<str>,
    key: Option<Arc<str>>,
    state: &'static str,
    half_open_in_ms: Option<f64>,
}

#[derive(Default, Serialize)]
struct Traces {
    seen: u64,
    kept: u64,
    dropped: u64,
    lost: u64,
    waiting: u64,
}

#[derive(Serialize)]
pub(crate) struct Live {
    status: &'static str,
}

#[derive(Serialize)]
pub(crate) struct Ready {
    status: &'static str,
    checks: Vec<Check>,
}

#[derive(Serialize)]
struct Check {
    name: String,
    ok: bool,
}

/// What is not well. It answers 200 in either case: a program whose peer is down has no need of a restart.
pub(crate) async fn health(Of(shared): Of<Arc<Shared>>) -> Json<Health> {
    let refuses = |state| matches!(state, State::Open | State::HalfOpen | State::ForcedOpen);
    let found = all(&shared).into_iter().filter(|found| refuses(found.handle.state()));
    let open: Vec<_> = found
        .take(MOST)
        .map(|found| {
            let snapshot = found.handle.snapshot();
            Open {
                key: found.handle.key().cloned(),
                state: snapshot.state.as_str(),
                half_open_in_ms: half_open_in(&snapshot),
                name: found.name,
            }
        })
        .collect();
    let status = if open.is_empty() { "ok" } else { "degraded" };
    Json(Health { status, open, traces: traces(&shared) })
}

pub(crate) async fn live() -> Json<Live> {
    Json(Live { status: "live" })
}

/// What the program says of itself.
pub(crate) async fn ready(Of(shared): Of<Arc<Shared>>) -> (StatusCode, Json<Ready>) {
    let check = |(name, is_well): &(String, IsWell)| {
        // One that panics has not said that all is well.
        let ok = catch_unwind(AssertUnwindSafe(is_well)).unwrap_or(false);
        Check { name: name.clone(), ok }
    };
    let checks: Vec<_> = shared.ready.iter().map(check).collect();
    match checks.iter().all(|check| check.ok) {
        true => (StatusCode::OK, Json(Ready { status: "ready", checks })),
        false => (StatusCode::SERVICE_UNAVAILABLE, Json(Ready { status: "not ready", checks })),
    }
}

/// What all recorders have counted, each once however many stacks share it.
fn traces(shared: &Shared) -> Option<Traces> {
    let recorders = shared.recorders();
    if recorders.is_empty() {
        return None;
    }
    let counts = recorders.iter().map(Recorder::counts);
    Some(counts.fold(Traces::default(), |sum, counts| Traces {
        seen: sum.seen + counts.seen,
        kept: sum.kept + counts.kept,
        dropped: sum.dropped + counts.dropped_successes + counts.dropped_others,
        lost: sum.lost + counts.lost,
        waiting: sum.waiting + counts.waiting,
    }))
}
