//! W3C Trace Context, read.

use http::HeaderMap;
use portcullis_core::{SpanId, TraceContext, TraceId};
use portcullis_http::trace_context::{
    TRACEPARENT, TRACESTATE, from_headers, parse_traceparent, traceparent,
};

use crate::text;

/// Line 1 is `traceparent`, those after it are `tracestate`s.
pub fn trace_context(data: &[u8]) {
    let mut headers = text::headers(data, &[TRACEPARENT, TRACESTATE]);
    let Some(value) = headers.get(TRACEPARENT).cloned() else {
        return assert_eq!(from_headers(&headers), None);
    };
    let context = std::str::from_utf8(value.as_bytes()).ok().and_then(parent);
    assert_eq!(parse_traceparent(&value), context);
    let remote = from_headers(&headers);
    assert_eq!(remote.as_ref().map(|remote| remote.context), context);
    if let Some(remote) = remote {
        assert_eq!(parse_traceparent(&traceparent(&remote.context)), context);
        assert_eq!(remote.state.as_deref(), state(&headers).as_deref());
    }

    headers.append(TRACEPARENT, value);
    assert_eq!(from_headers(&headers), None, "of two parents, neither is believed");
}

fn parent(text: &str) -> Option<TraceContext> {
    let parts: Vec<&str> = text.split('-').collect();
    let [version, trace_id, span_id, flags, more @ ..] = &parts[..] else { return None };
    let hex = |part: &str, length| {
        let digit = |letter: char| matches!(letter, '0'..='9' | 'a'..='f');
        let good = part.chars().count() == length && part.chars().all(digit);
        good.then(|| u128::from_str_radix(part, 16).ok()).flatten()
    };
    let version = hex(version, 2).filter(|version| *version != 0xff)?;
    if version == 0 && !more.is_empty() {
        return None;
    }
    Some(TraceContext {
        trace_id: TraceId::new(hex(trace_id, 32)?)?,
        span_id: SpanId::new(hex(span_id, 16)? as u64)?,
        sampled: hex(flags, 2)? % 2 == 1,
    })
}

/// The `tracestate`s of a request in one, if they are good.
fn state(headers: &HeaderMap) -> Option<String> {
    let values = headers.get_all(TRACESTATE).iter().map(text::whole);
    let values: Vec<&str> = values.collect::<Option<_>>()?;
    let values: Vec<&str> = values.into_iter().skip_while(|value| value.is_empty()).collect();
    Some(values.join(",")).filter(|state| is_state(state))
}

/// Whether a `tracestate` may be handed on.
pub(crate) fn is_state(state: &str) -> bool {
    let blank = [' ', '\t'];
    let members: Vec<&str> = state
        .split(',')
        .map(|member| member.trim_matches(blank))
        .filter(|it| !it.is_empty())
        .collect();
    let pairs: Option<Vec<(&str, &str)>> =
        members.iter().map(|member| member.split_once('=')).collect();
    let Some(pairs) = pairs else { return false };
    let mut keys: Vec<&str> = pairs.iter().map(|(key, _)| *key).collect();
    keys.sort_unstable();
    keys.dedup();
    state.len() <= 512
        && (1..=32).contains(&pairs.len())
        && keys.len() == pairs.len()
        && pairs.iter().all(|(key, value)| is_key(key) && is_value(value))
}

fn is_key(key: &str) -> bool {
    let part = |text: &str, most, digit_first| {
        let first = text.chars().next();
        first.is_some_and(|c| c.is_ascii_lowercase() || digit_first && c.is_ascii_digit())
            && text.len() <= most
            && text.chars().all(|c| "abcdefghijklmnopqrstuvwxyz0123456789_-*/".contains(c))
    };
    match key.split('@').collect::<Vec<_>>()[..] {
        [key] => part(key, 256, false),
        [tenant, system] => part(tenant, 241, true) && part(system, 14, false),
        _ => false,
    }
}

fn is_value(value: &str) -> bool {
    (1..=256).contains(&value.len())
        && value.chars().all(|c| (' '..='~').contains(&c) && c != '=')
        && !value.ends_with(' ')
}
