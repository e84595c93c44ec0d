//! Breakers, and orders to them.

use std::sync::Arc;

use axum::{
    extract::{Path, RawQuery, State as Of, rejection::PathRejection},
    http::HeaderMap,
};
use portcullis_breaker::{Handle, Handles, Mode, Snapshot, Window};
use portcullis_core::{State, clock};
use serde::Serialize;

use super::MOST;
use crate::{
    admin::Shared,
    answer::Json,
    figures::Spark,
    params::{self, Params, named, shorten},
    problem::Problem,
    token::allow,
    words::{date, millis},
};

#[derive(Serialize)]
pub(crate) struct Breakers {
    breakers: Vec<Breaker>,
    omitted: usize,
}

#[derive(Serialize)]
struct Breaker {
    name: Arc<str>,
    key: Option<Arc<str>>,
    shared: bool,
    state: &'static str,
    judged: &'static str,
    mode: &'static str,
    since: Option<String>,
    for_ms: Option<f64>,
    generation: u64,
    calls: u64,
    failures: u64,
    slow: u64,
    failure_rate: Option<f64>,
    slow_rate: Option<f64>,
    failures_in_a_row: u32,
    thresholds: Thresholds,
    tripped_by: Option<String>,
    open_for_ms: Option<f64>,
    half_open_in_ms: Option<f64>,
    probes: u32,
    probes_succeeded: u32,
    probes_needed: u32,
    ramp_share: Option<f64>,
    spark: Option<Spark>,
}

#[derive(Serialize)]
struct Thresholds {
    failure_rate: Option<f64>,
    slow_rate: Option<f64>,
    slow_ms: Option<f64>,
    consecutive_failures: Option<u32>,
    minimum_calls: u32,
    window: String,
}

/// A breaker that is registered, and whether keys share it.
pub(crate) struct Found {
    /// What it is registered as.
    pub(crate) name: Arc<str>,
    pub(crate) handle: Handle,
    shared: bool,
}

/// What a breaker may be ordered to do.
#[derive(Clone, Copy)]
enum Order {
    Reset,
    Open,
    Close,
    Auto,
}

pub(crate) async fn list(
    Of(shared): Of<Arc<Shared>>,
    RawQuery(query): RawQuery,
) -> Result<Json<Breakers>, Problem> {
    Params::parse(query.as_deref(), &[])?;
    Ok(Json(look(&shared, all(&shared))))
}

pub(crate) async fn one(
    Of(shared): Of<Arc<Shared>>,
    path: Result<Path<params::Breaker>, PathRejection>,
    RawQuery(query): RawQuery,
) -> Result<Json<Breakers>, Problem> {
    let params::Breaker { name } = named(path)?;
    let params = Params::parse(query.as_deref(), &["key"])?;
    Ok(Json(look(&shared, find(&shared, &name, params.text("key"))?)))
}

pub(crate) async fn order(
    Of(shared): Of<Arc<Shared>>,
    path: Result<Path<params::Order>, PathRejection>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Json<Breakers>, Problem> {
    allow(shared.token.as_ref(), &headers)?;
    let params::Order { name, order } = named(path)?;
    let order = Order::parse(&order)
        .ok_or_else(|| Problem::not_found("A breaker takes reset, open, close and auto."))?;
    let params = Params::parse(query.as_deref(), &["key"])?;
    let found = find(&shared, &name, params.text("key"))?;
    for Found { handle, .. } in &found {
        order.give(handle);
    }
    Ok(Json(look(&shared, found)))
}

/// Every breaker that is registered, by name and key. One that keys share is there once it is needed.
pub(crate) fn all(shared: &Shared) -> Vec<Found> {
    let mut all = Vec::new();
    for (name, handle) in shared.registry.all::<Handle>() {
        all.push(Found { name, handle, shared: false });
    }
    for (name, handles) in shared.registry.all::<Handles>() {
        let own = |(_, handle)| Found { name: name.clone(), handle, shared: false };
        all.extend(handles.all().into_iter().map(own));
        all.push(Found { handle: handles.overflow().clone(), name, shared: true });
    }
    all.retain(Found::is_in_use);
    all.sort_by_cached_key(Found::place);
    all
}

/// Those that are registered under this name, with this key if there is one.
fn find(shared: &Shared, name: &str, key: Option<&str>) -> Result<Vec<Found>, Problem> {
    let single = shared.registry.get::<Handle>(name);
    let keyed = shared.registry.get::<Handles>(name);
    if single.is_none() && keyed.is_none() {
        let detail = format!("No breaker is registered as {}.", shorten(name));
        return Err(Problem::not_found(detail));
    }
    let is_wanted = |found: &Found| match (key, found.handle.key()) {
        (Some(key), Some(own)) => *key == **own,
        (Some(_), None) => false,
        (None, _) => true,
    };
    let name: Arc<str> = name.into();
    let found = |shared| move |handle| Found { name: name.clone(), handle, shared };
    let (own, of_many) = (found.clone()(false), found(true));
    let mut found: Vec<_> = single.into_iter().map(own.clone()).collect();
    if let Some(handles) = keyed {
        match key.map(|key| handles.get(key)) {
            Some(handle) => found.extend(handle.map(own)),
            None => found.extend(handles.all().into_iter().map(|(_, handle)| own(handle))),
        }
        found.push(of_many(handles.overflow().clone()));
    }
    found.retain(is_wanted);
    found.sort_by_cached_key(Found::place);
    match key {
        Some(key) if found.is_empty() => {
            let detail = format!("No breaker of this name has the key {}.", shorten(key));
            Err(Problem::not_found(detail))
        }
        _ => Ok(found),
    }
}

fn look(shared: &Shared, mut found: Vec<Found>) -> Breakers {
    found.retain(Found::is_in_use);
    let omitted = found.len().saturating_sub(MOST);
    if omitted > 0 {
        // Those that have something to tell go first.
        let is_closed = |found: &Found| found.handle.state() == State::Closed;
        found.sort_by_cached_key(is_closed);
        found.truncate(MOST);
        found.sort_by_cached_key(Found::place);
    }
    Breakers { breakers: found.iter().map(|found| found.look(shared)).collect(), omitted }
}

/// How long until a breaker lets a probe through, while it does not.
pub(crate) fn half_open_in(snapshot: &Snapshot) -> Option<f64> {
    let until = snapshot.open_until.filter(|_| snapshot.state == State::Open)?;
    Some(millis(until.saturating_duration_since(clock::now())))
}

// ===== impl Found =====

impl Found {
    fn place(&self) -> (Arc<str>, Option<Arc<str>>) {
        (self.name.clone(), self.handle.key().cloned())
    }

    /// Whether it is one of its own, or that for those without one was needed.
    fn is_in_use(&self) -> bool {
        if !self.shared {
            return true;
        }
        let snapshot = self.handle.snapshot();
        snapshot.state != State::Closed || snapshot.counts.total > 0
    }

    fn look(&self, shared: &Shared) -> Breaker {
        let snapshot = self.handle.snapshot();
        let Snapshot { counts, config, .. } = &snapshot;
        let key = self.handle.key().map(|key| &**key);
        let heard = shared.figures.heard(self.handle.name(), key, snapshot.state);
        let rate = |part: u64| (counts.total > 0).then(|| part as f64 / counts.total as f64);
        let changed = heard.changed.map(|ago| clock::wall().checked_sub(ago));
        Breaker {
            name: self.name.clone(),
            key: self.handle.key().cloned(),
            shared: self.shared,
            state: snapshot.state.as_str(),
            judged: snapshot.judged.as_str(),
            mode: match snapshot.mode {
                Mode::Automatic => "auto",
                Mode::ForcedOpen => "open",
                Mode::ForcedClosed => "closed",
                Mode::Disabled => "disabled",
            },
            since: changed.flatten().map(date),
            for_ms: heard.changed.map(millis),
            generation: snapshot.generation,
            calls: counts.total,
            failures: counts.failures,
            slow: counts.slow,
            failure_rate: rate(counts.failures),
            slow_rate: rate(counts.slow),
            failures_in_a_row: snapshot.failures_in_a_row,
            thresholds: Thresholds {
                failure_rate: config.failure_rate,
                slow_rate: config.slow_rate,
                slow_ms: config.slow_threshold.map(millis),
                consecutive_failures: config.consecutive_failures,
                minimum_calls: config.minimum_calls,
                window: match config.window {
                    Window::Time(length) => format!("{length:?}"),
                    Window::Count(calls) => format!("{calls} calls"),
                },
            },
            tripped_by: snapshot.tripped_by.map(|reason| reason.to_string()),
            open_for_ms: snapshot.open_for.map(millis),
            half_open_in_ms: half_open_in(&snapshot),
            probes: snapshot.probes,
            probes_succeeded: snapshot.probes_succeeded,
            probes_needed: config.probe_successes,
            ramp_share: snapshot.ramp_share,
            spark: heard.spark,
        }
    }
}

// ===== impl Order =====

impl Order {
    fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "reset" => Self::Reset,
            "open" => Self::Open,
            "close" => Self::Close,
            "auto" => Self::Auto,
            _ => return None,
        })
    }

    fn give(self, handle: &Handle) {
        match self {
            Self::Reset => handle.reset(),
            Self::Open => handle.force_open(),
            Self::Close => handle.force_closed(),
            Self::Auto => handle.automatic(),
        }
    }
}
