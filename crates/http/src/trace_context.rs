//! W3C Trace Context: which trace a request belongs to, off and onto the wire.
//!
//! [`from_headers`] reads what a client sent; hand it to the scope in which the request is served, or
//! to [`Call::with_trace`](portcullis_core::Call::with_trace). [`PropagateLayer`](crate::PropagateLayer)
//! writes what the current call knows.
//!
//! A header that is malformed is as if absent, and never an error.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use portcullis_core::{RemoteTrace, SpanId, TraceContext, TraceId};

/// Which trace a request belongs to (W3C Trace Context, "traceparent").
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// What tracing vendors add to it (W3C Trace Context, "tracestate").
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// What version 00 of `traceparent` is long.
const LENGTH: usize = 55;
/// Members a `tracestate` may have.
const MEMBERS: usize = 32;
/// Characters of `tracestate` that must be handed on; longer ones are not.
const LONGEST_STATE: usize = 512;
const SAMPLED: u8 = 1;

/// The trace that a request belongs to.
///
/// `None` without a `traceparent`, with more than one, or with a malformed one. A malformed
/// `tracestate` is left out.
///
/// ```
/// use http::{HeaderMap, HeaderValue};
/// use portcullis_http::trace_context;
///
/// let mut headers = HeaderMap::new();
/// headers.insert(
///     trace_context::TRACEPARENT,
///     HeaderValue::from_static("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
/// );
/// let remote = trace_context::from_headers(&headers).unwrap();
/// assert!(remote.context.sampled);
/// assert_eq!(remote.context.span_id.to_string(), "00f067aa0ba902b7");
/// ```
#[must_use]
pub fn from_headers(headers: &HeaderMap) -> Option<RemoteTrace> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let context = parse_traceparent(values.next()?)?;
    if values.next().is_some() {
        return None;
    }
    Some(RemoteTrace { context, state: parse_tracestate(headers) })
}

/// Reads a `traceparent`: version 00, or what a later version has in common with it. Ids that are all
/// zero, and version ff, are malformed.
#[must_use]
pub fn parse_traceparent(value: &HeaderValue) -> Option<TraceContext> {
    let text = std::str::from_utf8(value.as_bytes()).ok()?;
    let known = text.get(..LENGTH)?;
    let rest = &text[LENGTH..];
    let mut parts = known.split('-');
    let (version, trace_id, span_id, flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let version = byte(version)?;
    // A later version may have more to say, after another dash.
    let has_room =
        if version == 0 { rest.is_empty() } else { rest.is_empty() || rest.starts_with('-') };
    if version == 0xff || !has_room || parts.next().is_some() {
        return None;
    }
    Some(TraceContext {
        trace_id: trace_id.parse::<TraceId>().ok()?,
        span_id: span_id.parse::<SpanId>().ok()?,
        sampled: byte(flags)? & SAMPLED != 0,
    })
}

/// Writes a `traceparent` of version 00.
#[must_use]
pub fn traceparent(context: &TraceContext) -> HeaderValue {
    let TraceContext { trace_id, span_id, sampled } = context;
    let mut text = [0; LENGTH];
    text[2] = b'-';
    text[35] = b'-';
    text[52] = b'-';
    text[..2].copy_from_slice(b"00");
    digits(&mut text[3..35], trace_id.get());
    digits(&mut text[36..52], u128::from(span_id.get()));
    digits(&mut text[53..], u128::from(*sampled));
    // It is made of digits and dashes.
    HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static(""))
}

/// Writes a `tracestate`; `None` if it is none that may be sent.
pub(crate) fn tracestate(state: &str) -> Option<HeaderValue> {
    is_state(state).then(|| HeaderValue::from_str(state).ok()).flatten()
}

fn parse_tracestate(headers: &HeaderMap) -> Option<Arc<str>> {
    let mut whole = String::new();
    for value in headers.get_all(TRACESTATE) {
        let value = value.to_str().ok()?;
        if !whole.is_empty() {
            whole.push(',');
        }
        whole.push_str(value);
    }
    is_state(&whole).then(|| whole.into())
}

/// Whether it is a list of at most 32 members `key=value`, of which one at least is not empty, and
/// none has a key that came before.
fn is_state(state: &str) -> bool {
    if state.len() > LONGEST_STATE {
        return false;
    }
    let mut keys = [""; MEMBERS];
    let mut count = 0;
    for member in state.split(',').map(|member| member.trim_matches([' ', '\t'])) {
        if member.is_empty() {
            continue;
        }
        let Some((key, value)) = member.split_once('=') else { return false };
        if count == MEMBERS || !is_key(key) || !is_value(value) || keys[..count].contains(&key) {
            return false;
        }
        keys[count] = key;
        count += 1;
    }
    count > 0
}

/// A key: lowercase letters, digits and `_-*/`, with at most one `@`, before which a tenant stands.
fn is_key(key: &str) -> bool {
    let plain = |part: &str| {
        let allowed = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/');
        part.bytes().all(allowed)
    };
    let letter = |part: &str| part.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
    match key.split_once('@') {
        None => key.len() <= 256 && letter(key) && plain(key),
        Some((tenant, system)) => {
            let first = tenant.bytes().next();
            first.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
                && tenant.len() <= 241
                && plain(tenant)
                && system.len() <= 14
                && letter(system)
                && plain(system)
        }
    }
}

/// A value: at most 256 printable characters but `,` and `=`, the last not a blank.
fn is_value(value: &str) -> bool {
    let allowed = |b: u8| matches!(b, b' '..=b'~') && b != b',' && b != b'=';
    (1..=256).contains(&value.len()) && value.bytes().all(allowed) && !value.ends_with(' ')
}

/// Two lowercase hexadecimal digits.
fn byte(text: &str) -> Option<u8> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    match *text.as_bytes() {
        [high, low] => Some(16 * digit(high)? + digit(low)?),
        _ => None,
    }
}

/// Writes a number in as many hexadecimal digits as there is room for.
fn digits(room: &mut [u8], number: u128) {
    let mut rest = number;
    for digit in room.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(rest & 0xf) as usize];
        rest >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn read(parent: &str, state: &[&str]) -> Option<RemoteTrace> {
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, HeaderValue::from_bytes(parent.as_bytes()).unwrap());
        for value in state {
            headers.append(TRACESTATE, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        from_headers(&headers)
    }

    fn state(values: &[&str]) -> Option<String> {
        read(EXAMPLE, values).unwrap().state.map(|state| state.to_string())
    }

    #[test]
    fn what_is_written_is_what_was_read() {
        let context = read(EXAMPLE, &[]).unwrap().context;
        assert_eq!(traceparent(&context), EXAMPLE);
        let unsampled = TraceContext { sampled: false, ..context };
        assert_eq!(traceparent(&unsampled), EXAMPLE.replace("-01", "-00"));
    }

    #[test]
    fn unknown_flags_and_later_versions_are_read_as_far_as_they_are_known() {
        assert!(!read(&EXAMPLE.replace("-01", "-fe"), &[]).unwrap().context.sampled);
        assert!(read(&EXAMPLE.replace("-01", "-ff"), &[]).unwrap().context.sampled);
        assert!(read(&EXAMPLE.replacen("00", "cc", 1), &[]).is_some());
        assert!(
            read(&format!("{}-what-the-future-is-like", EXAMPLE.replacen("00", "cc", 1)), &[])
                .is_some()
        );
    }

    #[test]
    fn a_malformed_parent_is_as_if_absent() {
        for bad in [
            "",
            "00",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01more",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
            "00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01",
            " 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "0x-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(read(bad, &["a=1"]), None, "{bad}");
        }
        let mut twice = HeaderMap::new();
        twice.append(TRACEPARENT, HeaderValue::from_static(EXAMPLE));
        twice.append(TRACEPARENT, HeaderValue::from_static(EXAMPLE));
        assert_eq!(from_headers(&twice), None);
        assert_eq!(from_headers(&HeaderMap::new()), None);
    }

    #[test]
    fn a_state_is_handed_on_as_it_came_and_a_malformed_one_is_left_out() {
        assert_eq!(state(&["rojo=00f067,congo=t61 x"]).as_deref(), Some("rojo=00f067,congo=t61 x"));
        assert_eq!(state(&["a=1", "b=2"]).as_deref(), Some("a=1,b=2"));
        assert_eq!(state(&["t1@sys=1, ,a=b"]).as_deref(), Some("t1@sys=1, ,a=b"));
        let many = (0..33).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
        let long = format!("a={}", "x".repeat(256));
        for bad in ["", " ", "a", "a=", "A=1", "1a=1", "a=1,a=2", "a=b=c", "a@b@c=1", "a=é", &many]
        {
            assert_eq!(state(&[bad]), None, "{bad}");
        }
        assert!(state(&[&long]).is_some());
        assert_eq!(state(&[&long, &long.replace("a=", "b=")]), None, "too long together");
        // 255 and a comma and 256 are the 512 characters that must be handed on.
        let [one, two] = [("a", 253), ("b", 254)].map(|(k, n)| format!("{k}={}", "x".repeat(n)));
        assert_eq!(state(&[&one, &two]).map(|state| state.len()), Some(512));
    }

    proptest! {
        #[test]
        fn no_headers_make_it_panic(
            parent in proptest::collection::vec(any::<u8>(), 0..80),
            vendor in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            let mut headers = HeaderMap::new();
            for (name, value) in [(TRACEPARENT, parent), (TRACESTATE, vendor)] {
                if let Ok(value) = HeaderValue::from_bytes(&value) {
                    headers.insert(name, value);
                }
            }
            let _ = from_headers(&headers);
        }

        #[test]
        fn nearly_right_ones_do_not_either(text in "[0-9a-f]{2}-[0-9a-fé]{30,33}-[0-9a-f]{15,17}-[0-9a-f]{1,3}.{0,3}") {
            let _ = HeaderValue::from_bytes(text.as_bytes()).map(|value| parse_traceparent(&value));
        }

        #[test]
        fn every_context_is_read_as_it_was_written(trace in 1_u128.., span in 1_u64.., sampled: bool) {
            let (Some(trace_id), Some(span_id)) = (TraceId::new(trace), SpanId::new(span)) else {
                return Ok(());
            };
            let context = TraceContext { trace_id, span_id, sampled };
            prop_assert_eq!(parse_traceparent(&traceparent(&context)), Some(context));
        }

        #[test]
        fn every_state_is_handed_on_or_left_out(text in "[a-c@=, ]{0,20}") {
            if let Some(kept) = state(&[&text]) {
                prop_assert!(tracestate(&kept).is_some());
                prop_assert_eq!(kept, text);
            }
        }
    }
}
