//! Who answers what.

use std::sync::Arc;

use axum::{
    Router,
    extract::{OriginalUri, State},
    http::{Method, StatusCode, header::LOCATION},
    middleware::map_response,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Serialize;

use crate::{
    admin::Shared,
    answer::{Json, file, secured},
    api::{breakers, events, health, limits, metrics, targets, traces},
    problem::Problem,
};

const HTML: &str = include_str!("../page/page.html");
const CSS: &str = include_str!("../page/page.css");
const JS: &str = include_str!("../page/page.js");
const ICON: &str = include_str!("../page/icon.svg");

pub(crate) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/", get(root))
        .route("/page.html", get(async || page()))
        .route("/page.css", get(async || file("text/css; charset=utf-8", CSS)))
        .route("/page.js", get(async || file("text/javascript; charset=utf-8", JS)))
        .route("/icon.svg", get(async || file("image/svg+xml", ICON)))
        .route("/api/about", get(about))
        .route("/api/breakers", get(breakers::list))
        .route("/api/breakers/{portcullis_breaker}", get(breakers::one))
        .route("/api/breakers/{portcullis_breaker}/{portcullis_order}", post(breakers::order))
        .route("/api/limits", get(limits::list))
        .route("/api/targets", get(targets::list))
        .route("/api/traces", get(traces::list))
        .route("/api/traces/{portcullis_trace}", get(traces::one))
        .route("/api/traces/{portcullis_trace}/otlp", get(traces::otlp))
        .route("/api/events", get(events::events))
        .route("/api/metrics/reset", post(metrics::reset))
        .route("/metrics", get(metrics::text))
        .route("/health", get(health::health))
        .route("/health/live", get(health::live))
        .route("/health/ready", get(health::ready))
        .fallback(other)
        .method_not_allowed_fallback(other_method)
        .layer(map_response(secured))
        .with_state(shared)
}

fn page() -> Response {
    file("text/html; charset=utf-8", HTML)
}

/// The page. Its addresses are relative, so it has to be asked for in its folder; and the folder itself
/// is no route of a router that is nested by `nest`.
async fn root(OriginalUri(asked): OriginalUri) -> Response {
    let path = asked.path();
    if path.ends_with('/') {
        return page();
    }
    // Relative as well: whoever stands in front may have another path for this one.
    let last = path.rsplit('/').next().unwrap_or_default();
    let query = asked.query().map(|query| format!("?{query}")).unwrap_or_default();
    let to = format!("./{last}/page.html{query}");
    (StatusCode::TEMPORARY_REDIRECT, [(LOCATION, to)]).into_response()
}

async fn other() -> Problem {
    Problem::not_found("There is nothing at this address.")
}

async fn other_method(method: Method) -> Problem {
    let detail = format!("This address does not take {method}.");
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail)
}

#[derive(Serialize)]
struct About {
    title: String,
    version: &'static str,
    token: bool,
    store: bool,
    prometheus: bool,
    otlp: bool,
}

async fn about(State(shared): State<Arc<Shared>>) -> Json<About> {
    Json(About {
        title: shared.title.clone(),
        version: env!("CARGO_PKG_VERSION"),
        token: shared.token.is_some(),
        store: shared.store.is_some(),
        prometheus: shared.prometheus.is_some(),
        otlp: cfg!(feature = "otlp"),
    })
}
