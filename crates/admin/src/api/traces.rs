//! Traces that were kept.

use std::{cmp::Reverse, sync::Arc, time::Duration};

use axum::{
    extract::{Path, RawQuery, State, rejection::PathRejection},
    http::StatusCode,
    response::Response,
};
use portcullis_core::{BoxError, TraceId};
use portcullis_trace::{Cursor, Page, Query, Status, Trace, TraceStore};
use serde::Serialize;

use super::record::{OfTrace, Summary};
use crate::{
    admin::Shared,
    answer::json,
    params::{self, Params, named, wrong},
    problem::Problem,
};

#[derive(Serialize)]
struct Traces<'a> {
    traces: Vec<Summary<'a>>,
    next: Option<String>,
    sampling: Sampling,
}

#[derive(Serialize)]
struct Sampling {
    rate: Option<f64>,
}

#[derive(Serialize)]
struct Records<'a> {
    traces: Vec<OfTrace<'a>>,
}

/// How traces ended that are looked for.
#[derive(Clone, Copy)]
enum Ended {
    Somehow,
    So(Status),
    NotWell,
}

/// On a page.
const MOST: usize = 200;
/// Characters of a text that is searched for.
const TEXT: usize = 200;
/// In milliseconds: a year.
const LONGEST: f64 = 31_536_000_000.0;

const NOT_WELL: [Status; 4] = [Status::Error, Status::Timeout, Status::Rejected, Status::Cancelled];

const PARAMS: [&str; 9] =
    ["status", "target", "name", "min_ms", "since", "until", "q", "limit", "cursor"];

pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let store = store(&shared)?;
    let (query, ended) = asked(&Params::parse(query.as_deref(), &PARAMS)?)?;
    let rate = shared.sampling_rate();
    read(&shared, move || {
        let page = find(&*store, query, ended).map_err(unreadable)?;
        Ok(json(&Traces {
            traces: page.traces.iter().map(|trace| Summary::of(trace)).collect(),
            next: page.next.map(|cursor| cursor.to_string()),
            sampling: Sampling { rate },
        }))
    })
    .await
}

pub(crate) async fn one(
    State(shared): State<Arc<Shared>>,
    path: Result<Path<params::Trace>, PathRejection>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    Params::parse(query.as_deref(), &[])?;
    records(&shared, path, |all| {
        json(&Records { traces: all.iter().map(|trace| OfTrace::of(trace)).collect() })
    })
    .await
}

#[cfg(not(feature = "otlp"))]
pub(crate) async fn otlp() -> Problem {
    Problem::not_found("OTLP is not built in: that takes the feature `otlp`.")
}

#[cfg(feature = "otlp")]
pub(crate) async fn otlp(
    State(shared): State<Arc<Shared>>,
    path: Result<Path<params::Trace>, PathRejection>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    Params::parse(query.as_deref(), &[])?;
    let service = shared.title.clone();
    records(&shared, path, move |all| {
        crate::answer::json_text(portcullis_otel::otlp_json(&service, all))
    })
    .await
}

/// What `show` makes of the records of the trace that a path names.
async fn records(
    shared: &Shared,
    path: Result<Path<params::Trace>, PathRejection>,
    show: impl FnOnce(&[Arc<Trace>]) -> Response + Send + 'static,
) -> Result<Response, Problem> {
    let store = store(shared)?;
    let params::Trace { id: text } = named(path)?;
    let id: TraceId = text
        .parse()
        .map_err(|_| wrong("the id", &text, "32 lowercase hexadecimal digits, not all 0"))?;
    read(shared, move || {
        let all = store.get(id).map_err(unreadable)?;
        if all.is_empty() {
            return Err(Problem::not_found(format!("No trace {id} is kept.")));
        }
        Ok(show(&all))
    })
    .await
}

fn store(shared: &Shared) -> Result<Arc<dyn TraceStore>, Problem> {
    shared.store.clone().ok_or_else(|| Problem::not_found("No trace store is configured here."))
}

async fn read(
    shared: &Shared,
    work: impl FnOnce() -> Result<Response, Problem> + Send + 'static,
) -> Result<Response, Problem> {
    shared.traces.run(work).await?
}

/// The text of a store's error is for whoever runs the program, as is this API; its causes are not told.
#[expect(clippy::needless_pass_by_value, reason = "it is what a store fails with")]
fn unreadable(error: BoxError) -> Problem {
    let text: String = error.to_string().chars().take(TEXT).collect();
    let detail = format!("The traces could not be read: {text}.");
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
}

/// What is asked for.
fn asked(params: &Params) -> Result<(Query, Ended), Problem> {
    let mut query = Query::new();
    let statuses = "success, error, timeout, rejected, cancelled or failed";
    let ended = params.parsed("status", statuses, Ended::parse)?.unwrap_or(Ended::Somehow);
    let text = |name| params.text(name).filter(|text| !text.is_empty()).map(str::to_owned);
    query.target = text("target");
    query.name = text("name");
    let short = |text: &str| (text.chars().count() <= TEXT).then(|| text.to_owned());
    query.text = params.parsed("q", &format!("at most {TEXT} characters"), short)?;
    let least = params.number("min_ms", 0.0, LONGEST)?;
    query.min_duration = least.map(|millis| Duration::from_secs_f64(millis / 1000.0));
    let date = "a date such as 2026-01-31T12:00:00Z";
    let parse = |text: &str| humantime::parse_rfc3339(text).ok();
    query.since = params.parsed("since", date, parse)?;
    query.until = params.parsed("until", date, parse)?;
    query.limit = params.number("limit", 1, MOST)?.unwrap_or(query.limit);
    let cursor = "the `next` of the page before";
    query.cursor = params.parsed("cursor", cursor, |text| text.parse().ok())?;
    Ok((query, ended))
}

/// The traces that match.
fn find(store: &dyn TraceStore, query: Query, ended: Ended) -> Result<Page, BoxError> {
    match ended {
        Ended::Somehow => store.query(&query),
        Ended::So(status) => store.query(&query.status(status)),
        Ended::NotWell => not_well(store, &query),
    }
}

/// Stores look for one status at a time. The newest of all are among the newest of each.
fn not_well(store: &dyn TraceStore, query: &Query) -> Result<Page, BoxError> {
    let mut page = Page::default();
    let mut is_all = true;
    for status in NOT_WELL {
        let of_status = store.query(&query.clone().status(status))?;
        is_all &= of_status.next.is_none();
        page.traces.extend(of_status.traces);
    }
    page.traces.sort_by_key(|trace| Reverse(Cursor::after(trace)));
    is_all &= page.traces.len() <= query.page_size();
    page.traces.truncate(query.page_size());
    let last = page.traces.last().filter(|_| !is_all);
    page.next = last.map(|trace| Cursor::after(trace));
    Ok(page)
}

// ===== impl Ended =====

impl Ended {
    fn parse(word: &str) -> Option<Self> {
        if word == "failed" {
            return Some(Self::NotWell);
        }
        let mut all = NOT_WELL.into_iter().chain([Status::Success]);
        all.find(|status| status.as_str() == word).map(Self::So)
    }
}
