//! What responses have in common.

use axum::{
    http::{
        HeaderValue, StatusCode,
        header::{
            CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY,
            X_CONTENT_TYPE_OPTIONS,
        },
    },
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::problem::Problem;

/// What a browser may do with what it gets from here: load the page's own files, and ask the API.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A value as JSON.
pub(crate) struct Json<T>(pub(crate) T);

pub(crate) fn json(value: &impl Serialize) -> Response {
    match serde_json::to_string(value) {
        Ok(text) => json_text(text),
        Err(error) => {
            let detail = format!("The answer could not be written as JSON: {error}.");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail).into_response()
        }
    }
}

/// What is JSON already.
pub(crate) fn json_text(text: String) -> Response {
    ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], text).into_response()
}

/// One of the page's files.
pub(crate) fn file(kind: &'static str, text: &'static str) -> Response {
    // Asked for anew after the program was updated.
    let cache = HeaderValue::from_static("no-cache");
    let kind = HeaderValue::from_static(kind);
    ([(CONTENT_TYPE, kind), (CACHE_CONTROL, cache)], text).into_response()
}

/// Adds what keeps a browser from doing more with a response than it is meant for.
pub(crate) async fn secured(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

// ===== impl Json =====

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        json(&self.0)
    }
}
