//! Metrics as text, and figures from zero.

use std::sync::Arc;

use axum::{
    extract::{RawQuery, State},
    http::{HeaderMap, HeaderValue, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};

use crate::{admin::Shared, params::Params, problem::Problem, token::allow};

/// The text format of Prometheus, as every version of it reads.
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

pub(crate) async fn text(
    State(shared): State<Arc<Shared>>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    Params::parse(query.as_deref(), &[])?;
    let none = || Problem::not_found("No metrics are configured here.");
    let make = shared.prometheus.clone().ok_or_else(none)?;
    let text = shared.metrics.run(move || make()).await?.ok_or_else(none)?;
    Ok(([(CONTENT_TYPE, TEXT)], text).into_response())
}

pub(crate) async fn reset(
    State(shared): State<Arc<Shared>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    allow(shared.token.as_ref(), &headers)?;
    Params::parse(query.as_deref(), &[])?;
    shared.figures.reset();
    shared.touch();
    Ok(StatusCode::NO_CONTENT)
}
