//! Events as they happen.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{RawQuery, State},
    http::{HeaderName, HeaderValue, StatusCode},
    response::{IntoResponse, Response, Sse, sse::KeepAlive},
};

use crate::{admin::Shared, live::READERS, params::Params, problem::Problem};

/// How long nothing is sent, at most: what stands between may take a silent connection for a dead one.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Has nginx, and who follows it, hand each event on at once: a reader would think itself connected, and
/// hear nothing until there was enough to fill a buffer.
const UNBUFFERED: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));

pub(crate) async fn events(
    State(shared): State<Arc<Shared>>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    Params::parse(query.as_deref(), &[])?;
    let events = shared.live.read().ok_or_else(|| {
        let detail = format!("There are {READERS} readers already, or events have been closed.");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    })?;
    let events = Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT));
    Ok(([UNBUFFERED], events).into_response())
}
