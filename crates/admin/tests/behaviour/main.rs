//! What is answered to whom.

mod breakers;
mod cost;
mod events;
mod health;
mod hostile;
mod page;
mod server;
mod targets;
mod tokens;
mod traces;

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Request, StatusCode, header},
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use portcullis::{Call, LayerKind, Observer, Voice, What, clock};
use portcullis_admin::Admin;
use portcullis_testkit::{Script, ScriptedService, Step};
use serde_json::Value;
use tower::ServiceExt;

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

pub(crate) type Outgoing = axum::http::Request<Full<Bytes>>;
pub(crate) type Upstream = ScriptedService<Outgoing, axum::http::Response<Full<Bytes>>>;

// ===== impl Answer =====

impl Answer {
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/json", "{}", self.text);
        serde_json::from_str(&self.text).unwrap()
    }

    /// The problem, which has to be one.
    pub(crate) fn problem(&self) -> String {
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/problem+json", "{self:?}");
        let problem: Value = serde_json::from_str(&self.text).unwrap();
        assert_eq!(problem["type"], "about:blank");
        assert_eq!(problem["status"], self.status.as_u16());
        assert!(!problem["title"].as_str().unwrap().is_empty());
        problem["detail"].as_str().unwrap().to_owned()
    }
}

pub(crate) async fn ask(router: &Router, request: Request<Body>) -> Answer {
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    Answer { status: parts.status, headers: parts.headers, text }
}

pub(crate) fn request(method: &str, path: &str) -> Request<Body> {
    Request::builder().method(method).uri(path).body(Body::empty()).unwrap()
}

pub(crate) fn with_token(method: &str, path: &str, token: &str) -> Request<Body> {
    let mut request = request(method, path);
    let value = format!("Bearer {token}").parse().unwrap();
    request.headers_mut().insert(header::AUTHORIZATION, value);
    request
}

pub(crate) async fn get(admin: &Admin, path: &str) -> Answer {
    ask(&admin.router(), request("GET", path)).await
}

/// What there is at a path.
pub(crate) async fn read(admin: &Admin, path: &str) -> Value {
    let answer = get(admin, path).await;
    assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text);
    answer.json()
}

/// Tells of something as a layer would.
pub(crate) fn tell(
    admin: &Admin,
    layer: LayerKind,
    name: &str,
    key: Option<&str>,
    what: What<'static>,
) {
    let observer: Arc<dyn Observer> = Arc::new(admin.observer());
    let voice = Voice::new(layer, name).with_observer(observer);
    voice.tell_of(key, &Call::new(), clock::now(), || what);
}

/// A server that answers with these statuses, and then with 200.
pub(crate) fn answering(statuses: impl IntoIterator<Item = u16>) -> Upstream {
    let response = |status: u16| {
        let mut response = axum::http::Response::new(Full::from("text"));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        response
    };
    let steps: Vec<_> = statuses.into_iter().map(|it| Step::Ok(response(it))).collect();
    let mut steps = steps.into_iter();
    ScriptedService::new(Script::respond_with(move |_, _| {
        steps.next().unwrap_or_else(|| Step::Ok(response(200)))
    }))
}

pub(crate) fn outgoing(uri: &str) -> Outgoing {
    axum::http::Request::get(uri).body(Full::default()).unwrap()
}
