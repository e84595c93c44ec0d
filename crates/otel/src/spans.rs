//! Traces as spans.

use std::{borrow::Cow, time::SystemTime};

use opentelemetry::{
    KeyValue,
    trace::{
        Event as SpanEvent, SpanContext, SpanId as OtelSpanId, SpanKind, Status as SpanStatus,
        TraceFlags, TraceId as OtelTraceId, TraceState,
    },
};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use portcullis_core::{FaultKind, ProcessStage, SpanId};
use portcullis_trace::{
    Status, Trace,
    record::{Attempt, Call, Event, Kind, Output},
};

use crate::{
    metrics::scope,
    names::{OTHER, attribute},
    words,
};

/// What of a trace is handed on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Choice {
    pub(crate) outputs: bool,
}

/// What a call was made by.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http,
    Grpc,
    /// A tool, a queue, whatever else is a service.
    Other,
}

/// The spans of a trace: of its scopes, its calls and their attempts.
pub(crate) fn of(trace: &Trace, choice: Choice) -> Vec<SpanData> {
    let maker = Maker { trace, choice };
    let root = is_scope(trace).then(|| maker.root());
    root.into_iter().chain(trace.calls.iter().flat_map(|call| maker.call(call))).collect()
}

/// How many they are.
pub(crate) fn count(trace: &Trace) -> usize {
    let attempts = |call: &Call| match only(call) {
        Some(_) => 0,
        None => sent(call).count(),
    };
    let calls = trace.calls.iter().map(|call| 1 + attempts(call));
    usize::from(is_scope(trace)) + calls.sum::<usize>()
}

/// A trace that is one call outside of any scope has no span beside that call's.
fn is_scope(trace: &Trace) -> bool {
    !trace.calls.iter().any(|call| call.span == trace.span)
}

/// The attempts that went as far as the client. A refused one did not; its refusal is an event.
fn sent(call: &Call) -> impl Iterator<Item = &Attempt> {
    call.attempts.iter().filter(|it| it.outcome.kind() != Some(FaultKind::Rejected))
}

/// Where nobody retries, the call is its one attempt, and both are one span.
fn only(call: &Call) -> Option<&Attempt> {
    sent(call).find(|attempt| attempt.span == call.span)
}

/// What the conventions call it when an agent uses a tool.
const EXECUTE_TOOL: &str = "execute_tool";

struct Maker<'a> {
    trace: &'a Trace,
    choice: Choice,
}

// ===== impl Maker =====

impl Maker<'_> {
    fn root(&self) -> SpanData {
        let Trace { span, parent, name, duration, status, error, .. } = self.trace;
        let tool = tool(&self.trace.attributes);
        let kind = match parent {
            // Its parent came with a request that is served in it.
            Some(_) if tool.is_none() => SpanKind::Server,
            _ => SpanKind::Internal,
        };
        let name = tool.map_or_else(|| name.clone(), execution);
        let mut span = self.span(*span, *parent, kind, name, Default::default(), *duration);
        span.parent_span_is_remote = parent.is_some();
        span.attributes.extend(self.noted(&self.trace.attributes));
        self.about_the_whole(&mut span);
        self.end(&mut span, *status, None, error.as_deref());
        span.attributes.extend(self.output(self.trace.output.as_ref(), tool));
        span.dropped_attributes_count = self.trace.omitted.attributes;
        span.events = self.events(self.trace.events.iter(), self.trace.omitted.events);
        span
    }

    /// The spans of a call and its attempts, or of a nested scope.
    fn call(&self, call: &Call) -> Vec<SpanData> {
        let protocol = Protocol::of(call);
        let only = only(call);
        let kind = match (call.kind, protocol) {
            (Kind::Call, Protocol::Grpc) => SpanKind::Client,
            (Kind::Call, Protocol::Http) if only.is_some() => SpanKind::Client,
            _ => SpanKind::Internal,
        };
        let tool = tool(&call.attributes).filter(|_| call.kind == Kind::Scope);
        let mut span = self.span(
            call.span,
            call.parent,
            kind,
            tool.map_or_else(|| name(call, protocol, only.is_some()), execution),
            call.started,
            call.duration,
        );
        span.parent_span_is_remote = call.parent.is_some() && call.span == self.trace.span;
        if call.kind == Kind::Call {
            self.describe(&mut span, call, protocol);
        }
        span.attributes.extend(self.noted(&call.attributes));
        span.dropped_attributes_count = call.omitted_attributes;
        if call.span == self.trace.span {
            self.about_the_whole(&mut span);
        }
        if let Some(attempt) = only {
            answer(&mut span, attempt, protocol);
        }
        let error = call.error_kind.as_deref().map(words::error_type_of);
        self.end(&mut span, call.status, error, call.error.as_deref());
        span.attributes.extend(self.output(call.output.as_ref(), tool));
        // What retry decides is about the call; what is within an attempt belongs to that.
        let of_attempt = |event: &Event, attempt: &Attempt| {
            only.is_none() && event.layer != "retry" && event.attempt == attempt.number
        };
        let own = call.events.iter().filter(|event| !sent(call).any(|it| of_attempt(event, it)));
        span.events = self.events(own, call.omitted_events);

        let mut spans = vec![span];
        for attempt in sent(call).filter(|_| only.is_none()) {
            let mut span = self.attempt(call, attempt, protocol);
            let own = call.events.iter().filter(|event| of_attempt(event, attempt));
            span.events = self.events(own, 0);
            spans.push(span);
        }
        spans
    }

    fn attempt(&self, call: &Call, attempt: &Attempt, protocol: Protocol) -> SpanData {
        let name = match (protocol, &call.operation) {
            (Protocol::Other, _) | (_, None) => call.name.clone(),
            (_, Some(operation)) => operation.clone(),
        };
        let kind = match protocol {
            Protocol::Other => SpanKind::Internal,
            Protocol::Http | Protocol::Grpc => SpanKind::Client,
        };
        let (started, took) = (attempt.started, attempt.ended_after);
        let mut span = self.span(attempt.span, Some(call.span), kind, name, started, took);
        self.describe(&mut span, call, protocol);
        span.attributes.push(KeyValue::new(attribute::ATTEMPT, i64::from(attempt.number)));
        if let resent @ 1.. = attempt.number.saturating_sub(1)
            && protocol == Protocol::Http
        {
            let resent = KeyValue::new(attribute::HTTP_REQUEST_RESEND_COUNT, i64::from(resent));
            span.attributes.push(resent);
        }
        answer(&mut span, attempt, protocol);
        let error = attempt.outcome.kind().map(words::error_type);
        self.end(&mut span, Status::of(&attempt.outcome), error, None);
        span
    }

    /// What is known of whom a call asked for what.
    fn describe(&self, span: &mut SpanData, call: &Call, protocol: Protocol) {
        let attributes = &mut span.attributes;
        attributes.push(KeyValue::new(attribute::TARGET, call.name.clone()));
        if let Some(operation) = &call.operation {
            let key = match protocol {
                Protocol::Http => attribute::HTTP_REQUEST_METHOD,
                Protocol::Grpc => attribute::RPC_METHOD,
                Protocol::Other => attribute::OPERATION,
            };
            attributes.push(KeyValue::new(key, operation.clone()));
        }
        if protocol == Protocol::Grpc {
            attributes.push(KeyValue::new(attribute::RPC_SYSTEM, "grpc"));
        }
        if let Some(target) = call.target.as_deref().filter(|target| !target.is_empty()) {
            let (host, written) = words::host_and_port(target);
            attributes.push(KeyValue::new(attribute::SERVER_ADDRESS, host.to_owned()));
            let told = || call.attempts.iter().find_map(|attempt| attempt.port);
            let port = written.or_else(told).map(i64::from);
            attributes.extend(port.map(|port| KeyValue::new(attribute::SERVER_PORT, port)));
        }
        let key = call.key.clone();
        attributes.extend(key.map(|key| KeyValue::new(attribute::KEY, key)));
    }

    /// What a caller noted. A URL is exported without the credentials in it.
    fn noted<'n>(&self, pairs: &'n [(String, String)]) -> impl Iterator<Item = KeyValue> + use<'n> {
        let outputs = self.choice.outputs;
        let pairs = pairs.iter().filter(move |(key, _)| {
            // What goes into a tool is as confidential as what comes out.
            outputs || key != attribute::GEN_AI_TOOL_CALL_ARGUMENTS
        });
        pairs.map(|(key, value)| match key.as_str() {
            attribute::URL_FULL => KeyValue::new(attribute::URL_FULL, without_credentials(value)),
            _ => KeyValue::new(key.clone(), value.clone()),
        })
    }

    /// What came out, if that is to be exported.
    fn output(&self, output: Option<&Output>, tool: Option<&str>) -> Option<KeyValue> {
        let output = output.filter(|_| self.choice.outputs)?;
        let key = match tool {
            Some(_) => attribute::GEN_AI_TOOL_CALL_RESULT,
            None => attribute::OUTPUT,
        };
        Some(KeyValue::new(key, output.text.clone()))
    }

    /// What stands for the whole trace is at its first span.
    fn about_the_whole(&self, span: &mut SpanData) {
        let rate = KeyValue::new(attribute::SAMPLING_RATE, self.trace.sampling_rate);
        span.attributes.extend([rate, KeyValue::new(attribute::KEPT, self.trace.kept.as_str())]);
    }

    /// How it ended. That the caller gave up is no error of anybody's.
    fn end(
        &self,
        span: &mut SpanData,
        status: Status,
        error: Option<Cow<'static, str>>,
        text: Option<&str>,
    ) {
        let attributes = &mut span.attributes;
        attributes.push(KeyValue::new(attribute::OUTCOME, status.as_str()));
        if matches!(status, Status::Success | Status::Cancelled) {
            return;
        }
        span.status = SpanStatus::error(text.unwrap_or_default().to_owned());
        if !attributes.iter().any(|known| known.key.as_str() == attribute::ERROR_TYPE) {
            let error = error.unwrap_or(match status {
                Status::Timeout => "timeout".into(),
                Status::Rejected => "rejected".into(),
                _ => OTHER.into(),
            });
            attributes.push(KeyValue::new(attribute::ERROR_TYPE, error));
        }
    }

    fn events<'e>(&self, events: impl Iterator<Item = &'e Event>, omitted: u32) -> SpanEvents {
        let mut made = SpanEvents::default();
        made.dropped_count = omitted;
        made.events.extend(events.map(|event| {
            let mut attributes = vec![
                KeyValue::new(attribute::LAYER, event.layer.clone().into_owned()),
                KeyValue::new(attribute::TARGET, event.name.clone()),
                KeyValue::new(attribute::REASON, event.why.clone()),
            ];
            attributes.extend(event.key.clone().map(|key| KeyValue::new(attribute::KEY, key)));
            if event.attempt > 0 {
                let attempt = i64::from(event.attempt);
                attributes.push(KeyValue::new(attribute::ATTEMPT, attempt));
            }
            let name = format!("portcullis.{}.{}", event.layer, event.what);
            SpanEvent::new(name, self.at(event.offset), attributes, 0)
        }));
        made
    }

    fn span(
        &self,
        span: SpanId,
        parent: Option<SpanId>,
        span_kind: SpanKind,
        name: String,
        started: std::time::Duration,
        took: std::time::Duration,
    ) -> SpanData {
        let trace_id = OtelTraceId::from(self.trace.id.get());
        let span_id = OtelSpanId::from(span.get());
        let (flags, state) = (TraceFlags::SAMPLED, TraceState::default());
        SpanData {
            span_context: SpanContext::new(trace_id, span_id, flags, false, state),
            parent_span_id: OtelSpanId::from(parent.map_or(0, SpanId::get)),
            parent_span_is_remote: false,
            span_kind,
            name: name.into(),
            start_time: self.at(started),
            end_time: self.at(started.saturating_add(took)),
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: SpanStatus::Unset,
            instrumentation_scope: scope(),
        }
    }

    fn at(&self, offset: std::time::Duration) -> SystemTime {
        self.trace.started_at.checked_add(offset).unwrap_or(self.trace.started_at)
    }
}

// ===== impl Protocol =====

impl Protocol {
    fn of(call: &Call) -> Self {
        const METHODS: [&str; 11] = [
            "GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS", "CONNECT", "TRACE",
            "QUERY", OTHER,
        ];
        let answered = call.attempts.iter().any(|attempt| attempt.status.is_some());
        match call.operation.as_deref() {
            Some(method) if METHODS.contains(&method) => Self::Http,
            // The name of a remote method, `package.Service/Method`.
            Some(name) if name.contains('/') => Self::Grpc,
            _ if answered => Self::Http,
            _ => Self::Other,
        }
    }
}

/// The name of a call's span: as the conventions have it where it is a request itself.
fn name(call: &Call, protocol: Protocol, is_request: bool) -> String {
    match (&call.operation, protocol) {
        (Some(operation), Protocol::Grpc) => operation.clone(),
        (Some(operation), Protocol::Http) if is_request => operation.clone(),
        (Some(operation), _) => format!("{} {operation}", call.name),
        (None, _) => call.name.clone(),
    }
}

/// What the server answered to a request.
fn answer(span: &mut SpanData, attempt: &Attempt, protocol: Protocol) {
    let fault = attempt.outcome.kind();
    match protocol {
        Protocol::Http => {
            let status = attempt.status.or(match fault {
                Some(FaultKind::Status(code)) => Some(code),
                _ => None,
            });
            let Some(status) = status else { return };
            let code = KeyValue::new(attribute::HTTP_RESPONSE_STATUS_CODE, i64::from(status));
            span.attributes.push(code);
            // To a client, what it did wrong itself is an error as well (HTTP spans, "Status").
            if status >= 400 {
                let error = words::error_type(FaultKind::Status(status));
                span.attributes.push(KeyValue::new(attribute::ERROR_TYPE, error));
                span.status = SpanStatus::error("");
            }
        }
        Protocol::Grpc => {
            if let Some(FaultKind::Grpc(code)) = fault {
                let status = words::grpc_status(code);
                span.attributes.push(KeyValue::new(attribute::RPC_STATUS, status));
            }
        }
        Protocol::Other => match fault {
            Some(FaultKind::Exit(code @ 0..=255)) => {
                let code = KeyValue::new(attribute::PROCESS_EXIT_CODE, i64::from(code));
                span.attributes.push(code);
            }
            Some(FaultKind::Signal(signal)) => {
                let name = ProcessStage::signal_name(signal).unwrap_or(OTHER);
                span.attributes.push(KeyValue::new(attribute::PROCESS_SIGNAL, name));
            }
            _ => {}
        },
    }
}

/// The tool that a scope is the execution of, by what was noted of it.
fn tool(noted: &[(String, String)]) -> Option<&str> {
    let of = |wanted| noted.iter().find(|(key, _)| key == wanted).map(|(_, value)| &**value);
    let tool = of(attribute::GEN_AI_TOOL_NAME)?;
    (of(attribute::GEN_AI_OPERATION_NAME) == Some(EXECUTE_TOOL)).then_some(tool)
}

/// The name of a tool's execution (generative AI, "Execute tool span").
fn execution(tool: &str) -> String {
    format!("{EXECUTE_TOOL} {tool}")
}

fn without_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) => format!("{scheme}://REDACTED:REDACTED@{}", &rest[at + 1..]),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_exported_without_credentials() {
        let url = "https://me:pa@ss@a.test/x?a=b@c";
        assert_eq!(without_credentials(url), "https://REDACTED:REDACTED@a.test/x?a=b@c");
        for harmless in ["https://a.test/x?mail=me@b.test", "/x", "https://a.test"] {
            assert_eq!(without_credentials(harmless), harmless);
        }
    }
}
