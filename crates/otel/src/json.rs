//! Traces as a file that tools open: OTLP in its JSON encoding.

use std::{borrow::Cow, sync::Arc, time::SystemTime};

use opentelemetry::{
    Array, InstrumentationScope, KeyValue, SpanId, Value,
    trace::{Event, SpanKind, Status},
};
use opentelemetry_sdk::trace::SpanData;
use portcullis_trace::Trace;
use serde::Serialize;

use crate::{
    metrics::scope,
    spans::{self, Choice},
};

/// Traces as OTLP in JSON (OTLP 1.5, "JSON Protobuf Encoding"), of the service of this name: the spans
/// that an export of them would have, and what was captured of outputs. Jaeger opens it as a file, and
/// any receiver of OTLP over HTTP takes it as `application/json` at `/v1/traces`.
///
/// ```
/// use portcullis_otel::otlp_json;
///
/// let json = otlp_json("shop", &[]);
/// assert!(json.starts_with(r#"{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name""#));
/// ```
#[must_use]
pub fn otlp_json(service: &str, traces: &[Arc<Trace>]) -> String {
    let choice = Choice { outputs: true };
    let spans: Vec<_> = traces.iter().flat_map(|trace| spans::of(trace, choice)).collect();
    let service = KeyValue::new("service.name", service.to_owned());
    let file = File {
        resource_spans: [OfResource {
            resource: Resource { attributes: [Pair::of(&service)] },
            scope_spans: [OfScope {
                scope: Scope::of(&scope()),
                spans: spans.iter().map(Span::of).collect(),
            }],
        }],
    };
    // Strings and numbers: writing them does not fail.
    serde_json::to_string(&file).unwrap_or_default()
}

// The names are those of the protocol's messages, in lowerCamelCase; 64-bit numbers are strings, ids
// hexadecimal, enums numbers.

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct File<'a> {
    resource_spans: [OfResource<'a>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OfResource<'a> {
    resource: Resource<'a>,
    scope_spans: [OfScope<'a>; 1],
}

#[derive(Serialize)]
struct Resource<'a> {
    attributes: [Pair<'a>; 1],
}

#[derive(Serialize)]
struct OfScope<'a> {
    scope: Scope,
    spans: Vec<Span<'a>>,
}

#[derive(Serialize)]
struct Scope {
    name: String,
    version: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Span<'a> {
    trace_id: String,
    span_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_span_id: Option<String>,
    flags: u32,
    name: &'a str,
    kind: u8,
    start_time_unix_nano: String,
    end_time_unix_nano: String,
    attributes: Vec<Pair<'a>>,
    dropped_attributes_count: u32,
    events: Vec<Happened<'a>>,
    dropped_events_count: u32,
    status: Ended<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Happened<'a> {
    time_unix_nano: String,
    name: &'a str,
    attributes: Vec<Pair<'a>>,
}

#[derive(Serialize)]
struct Ended<'a> {
    code: u8,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
}

#[derive(Serialize)]
struct Pair<'a> {
    key: &'a str,
    value: Of<'a>,
}

#[derive(Serialize)]
enum Of<'a> {
    #[serde(rename = "boolValue")]
    Bool(bool),
    #[serde(rename = "intValue")]
    Int(String),
    #[serde(rename = "doubleValue")]
    Double(f64),
    #[serde(rename = "stringValue")]
    Text(Cow<'a, str>),
    #[serde(rename = "arrayValue")]
    Array { values: Vec<Of<'a>> },
}

/// That the flags say whether the parent is in another process, and that it is (OTLP, `SpanFlags`).
const TELLS_OF_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

// ===== impl Scope =====

impl Scope {
    fn of(scope: &InstrumentationScope) -> Self {
        let version = scope.version().unwrap_or_default().to_owned();
        Self { name: scope.name().to_owned(), version }
    }
}

// ===== impl Span =====

impl<'a> Span<'a> {
    fn of(span: &'a SpanData) -> Self {
        let context = &span.span_context;
        let parent = span.parent_span_id;
        let remote = if span.parent_span_is_remote { IS_REMOTE } else { 0 };
        Self {
            trace_id: context.trace_id().to_string(),
            span_id: context.span_id().to_string(),
            parent_span_id: (parent != SpanId::INVALID).then(|| parent.to_string()),
            flags: u32::from(context.trace_flags().to_u8()) | TELLS_OF_REMOTE | remote,
            name: &span.name,
            kind: match span.span_kind {
                SpanKind::Internal => 1,
                SpanKind::Server => 2,
                SpanKind::Client => 3,
                SpanKind::Producer => 4,
                SpanKind::Consumer => 5,
            },
            start_time_unix_nano: nanos(span.start_time),
            end_time_unix_nano: nanos(span.end_time),
            attributes: span.attributes.iter().map(Pair::of).collect(),
            dropped_attributes_count: span.dropped_attributes_count,
            events: span.events.iter().map(Happened::of).collect(),
            dropped_events_count: span.events.dropped_count,
            status: match &span.status {
                Status::Unset => Ended { code: 0, message: "" },
                Status::Ok => Ended { code: 1, message: "" },
                Status::Error { description } => Ended { code: 2, message: description },
            },
        }
    }
}

// ===== impl Happened =====

impl<'a> Happened<'a> {
    fn of(event: &'a Event) -> Self {
        Self {
            time_unix_nano: nanos(event.timestamp),
            name: &event.name,
            attributes: event.attributes.iter().map(Pair::of).collect(),
        }
    }
}

// ===== impl Pair =====

impl<'a> Pair<'a> {
    fn of(pair: &'a KeyValue) -> Self {
        Self { key: pair.key.as_str(), value: Of::value(&pair.value) }
    }
}

// ===== impl Of =====

impl<'a> Of<'a> {
    fn value(value: &'a Value) -> Self {
        match value {
            Value::Bool(value) => Self::Bool(*value),
            Value::I64(value) => Self::Int(value.to_string()),
            Value::F64(value) => Self::Double(*value),
            Value::String(value) => Self::Text(value.as_str().into()),
            Value::Array(array) => Self::Array { values: Self::all(array) },
            other => Self::Text(other.as_str()),
        }
    }

    fn all(array: &'a Array) -> Vec<Self> {
        match array {
            Array::Bool(all) => all.iter().map(|it| Self::Bool(*it)).collect(),
            Array::I64(all) => all.iter().map(|it| Self::Int(it.to_string())).collect(),
            Array::F64(all) => all.iter().map(|it| Self::Double(*it)).collect(),
            Array::String(all) => all.iter().map(|it| Self::Text(it.as_str().into())).collect(),
            _ => Vec::new(),
        }
    }
}

/// A date before 1970 is 1970, as the SDK's exporters have it.
fn nanos(at: SystemTime) -> String {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos().to_string()
}
