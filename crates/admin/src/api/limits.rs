//! Rate limits.

use std::{cmp::Reverse, sync::Arc};

use axum::extract::{RawQuery, State};
use portcullis_ratelimit::{KeyedLimiter, Limiter, Snapshot};
use serde::Serialize;

use super::MOST;
use crate::{admin::Shared, answer::Json, params::Params, problem::Problem, words::millis};

#[derive(Serialize)]
pub(crate) struct Limits {
    limits: Vec<Limit>,
    omitted: usize,
}

#[derive(Serialize)]
struct Limit {
    name: Arc<str>,
    key: Option<Arc<str>>,
    shared: bool,
    limit: u32,
    per_ms: f64,
    burst: u32,
    left: u32,
    wait_ms: f64,
    held: bool,
}

/// Keys that are looked at of one name, for the ones with something to tell among them.
const LOOKED_AT: usize = 10_000;

pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    RawQuery(query): RawQuery,
) -> Result<Json<Limits>, Problem> {
    Params::parse(query.as_deref(), &[])?;
    let mut limits = Vec::new();
    let mut omitted = 0;
    for (name, limiter) in shared.registry.all::<Limiter>() {
        limits.push(Limit::of(&name, None, false, &limiter.snapshot()));
    }
    for (name, keyed) in shared.registry.all::<KeyedLimiter>() {
        let keys = keyed.snapshots(LOOKED_AT);
        omitted += keyed.len().saturating_sub(keys.len());
        limits.extend(keys.iter().map(|(key, it)| Limit::of(&name, Some(key), false, it)));
        let overflow = keyed.overflow().snapshot();
        // It takes part once something has gone to it.
        if overflow.left < overflow.burst || overflow.held {
            let key = keyed.overflow().key().map(Arc::from);
            limits.push(Limit::of(&name, key.as_ref(), true, &overflow));
        }
    }
    if limits.len() > MOST {
        omitted += limits.len() - MOST;
        // Those that hold calls up go first.
        limits.sort_by_key(|it| (Reverse(it.held), it.left));
        limits.truncate(MOST);
    }
    limits.sort_by(|a, b| (&a.name, &a.key).cmp(&(&b.name, &b.key)));
    Ok(Json(Limits { limits, omitted }))
}

// ===== impl Limit =====

impl Limit {
    fn of(name: &Arc<str>, key: Option<&Arc<str>>, shared: bool, snapshot: &Snapshot) -> Self {
        Self {
            name: name.clone(),
            key: key.cloned(),
            shared,
            limit: snapshot.limit,
            per_ms: millis(snapshot.per),
            burst: snapshot.burst,
            left: snapshot.left,
            wait_ms: millis(snapshot.wait),
            held: snapshot.held,
        }
    }
}
