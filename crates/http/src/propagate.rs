//! Telling the server what the call knows: the time it has left, which attempt it is, and which trace
//! it belongs to.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use portcullis_core::{Call, LayerKind, Observer, TraceContext, Voice};
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    answered::{Answered, Telling},
    grpc::is_grpc,
    trace_context,
};

/// How long a gRPC server may take: a number of at most 8 digits and a unit.
pub const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// How many attempts a gRPC server was not sent before this one (gRFC A6).
pub const GRPC_PREVIOUS_RPC_ATTEMPTS: HeaderName =
    HeaderName::from_static("grpc-previous-rpc-attempts");

/// Makes [`Propagate`] services. Belongs innermost, right above the client, so that it sees what the
/// other layers have made of the call.
///
/// A call that belongs to a trace carries `traceparent`, with a span of its own for each attempt, and
/// the `tracestate` that came with the trace, both in place of what the request had.
///
/// gRPC requests always carry `grpc-timeout` with what is left of the deadline, and
/// `grpc-previous-rpc-attempts` from the second attempt on; a first attempt has none, whatever the
/// request came with. HTTP has no such headers of its own; name the ones your servers read:
///
/// ```
/// use http::HeaderName;
/// use portcullis_http::PropagateLayer;
///
/// let propagate = PropagateLayer::new()
///     .with_attempt_header(HeaderName::from_static("x-attempt"))
///     .with_timeout_header(HeaderName::from_static("x-timeout-ms"));
/// # let _ = propagate;
/// ```
#[derive(Clone, Debug, Default)]
pub struct PropagateLayer {
    attempt: Option<HeaderName>,
    timeout: Option<HeaderName>,
    voice: Option<Arc<Voice>>,
}

/// Writes what the current [`Call`] knows into the request's headers.
#[derive(Clone, Debug)]
pub struct Propagate<S> {
    inner: S,
    layer: PropagateLayer,
}

// ===== impl PropagateLayer =====

impl PropagateLayer {
    /// Writes the headers of trace context and of gRPC only.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes the number of the attempt, from 1, into this header of every request.
    #[must_use]
    pub fn with_attempt_header(mut self, name: HeaderName) -> Self {
        self.attempt = Some(name);
        self
    }

    /// Writes what is left of the deadline, in whole milliseconds rounded down, into this header of
    /// every request that has a deadline.
    #[must_use]
    pub fn with_timeout_header(mut self, name: HeaderName) -> Self {
        self.timeout = Some(name);
        self
    }

    /// Tells `observer`, and the call's record, what the client answered to each attempt
    /// ([`What::Answered`](portcullis_core::What::Answered)), under this name and with the
    /// [host](crate::ByHost) as the key. With nobody to tell, answers are not looked at.
    #[must_use]
    pub fn with_observer(mut self, name: impl Into<Arc<str>>, observer: impl Observer) -> Self {
        let voice = match &self.voice {
            Some(voice) => (**voice).clone().with_name(name),
            None => Voice::new(LayerKind::Propagate, name),
        };
        self.voice = Some(Arc::new(voice.with_observer(Arc::new(observer))));
        self
    }

    fn write(&self, headers: &mut HeaderMap) {
        let call = Call::here();
        write_trace(&call, headers);
        let left = || call.deadline().map(|at| at.saturating_duration_since(call.now()));
        if let Some(name) = &self.timeout
            && let Some(left) = left()
        {
            let millis = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
            headers.insert(name, HeaderValue::from(millis));
        }
        if let (Some(name), attempt @ 1..) = (&self.attempt, call.attempt()) {
            headers.insert(name, HeaderValue::from(attempt));
        }
        if !is_grpc(headers) {
            return;
        }
        if let Some(left) = left() {
            // A limit the caller wrote may only be shortened.
            let own = headers.get(&GRPC_TIMEOUT).and_then(parse_grpc_timeout);
            let left = own.map_or(left, |own| own.min(left));
            headers.insert(GRPC_TIMEOUT, format_grpc_timeout(left));
        }
        match call.attempt() {
            0 => {}
            // Those of a request that is handed on were made by somebody else.
            1 => drop(headers.remove(GRPC_PREVIOUS_RPC_ATTEMPTS)),
            attempt => {
                headers.insert(GRPC_PREVIOUS_RPC_ATTEMPTS, HeaderValue::from(attempt - 1));
            }
        }
    }
}

impl<S> Layer<S> for PropagateLayer {
    type Service = Propagate<S>;

    fn layer(&self, inner: S) -> Propagate<S> {
        Propagate { inner, layer: self.clone() }
    }
}

// ===== impl Propagate =====

impl<S, B, Res> Service<Request<B>> for Propagate<S>
where
    S: Service<Request<B>, Response = Response<Res>>,
    S::Error: 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Answered<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut req: Request<B>) -> Self::Future {
        self.layer.write(req.headers_mut());
        let telling = self.layer.voice.as_ref().and_then(|voice| Telling::of(voice, &req));
        Answered::new(self.inner.call(req), telling)
    }
}

fn write_trace(call: &Call, headers: &mut HeaderMap) {
    let Some(context) = call.trace() else { return };
    // The attempt is the parent of what the server does. Who records attempts computes the same span.
    let span_id = context.span_id.of_attempt(call.attempt());
    let context = TraceContext { span_id, ..context };
    headers.insert(trace_context::TRACEPARENT, trace_context::traceparent(&context));
    // One that stood beside another parent says nothing of this one.
    headers.remove(trace_context::TRACESTATE);
    if let Some(state) = call.tracestate().as_deref().and_then(trace_context::tracestate) {
        headers.insert(trace_context::TRACESTATE, state);
    }
}

/// Reads a `grpc-timeout`: 1 to 8 digits and a unit (gRPC over HTTP/2, "Requests"). A malformed one
/// is as if absent.
#[must_use]
pub fn parse_grpc_timeout(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number = digits.parse::<u64>().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3_600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// Writes a `grpc-timeout` in the finest unit that 8 digits can hold, rounded down.
fn format_grpc_timeout(left: Duration) -> HeaderValue {
    const LIMIT: u128 = 100_000_000;
    let seconds = u128::from(left.as_secs());
    let (number, unit) = [
        (left.as_nanos(), 'n'),
        (left.as_micros(), 'u'),
        (left.as_millis(), 'm'),
        (seconds, 'S'),
        (seconds / 60, 'M'),
    ]
    .into_iter()
    .find(|(number, _)| *number < LIMIT)
    .unwrap_or(((seconds / 3_600).min(LIMIT - 1), 'H'));
    HeaderValue::try_from(format!("{number}{unit}")).unwrap_or(HeaderValue::from_static("0n"))
}

#[cfg(test)]
mod tests {
    use http::header;
    use portcullis_core::{RemoteTrace, SpanId, TraceId, clock};
    use proptest::prelude::*;

    use super::*;

    fn written(layer: &PropagateLayer, grpc: bool) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if grpc {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        }
        layer.write(&mut headers);
        headers.remove(header::CONTENT_TYPE);
        headers
    }

    #[tokio::test(start_paused = true)]
    async fn grpc_learns_the_time_left_and_the_attempts_before() {
        let call = Call::new().with_deadline(clock::now() + Duration::from_secs(2)).with_attempt(3);
        let headers = call.in_scope(async { written(&PropagateLayer::new(), true) }).await;
        assert_eq!(headers[GRPC_TIMEOUT], "2000000u");
        assert_eq!(headers[GRPC_PREVIOUS_RPC_ATTEMPTS], "2");
    }

    #[tokio::test(start_paused = true)]
    async fn http_learns_what_it_asked_for() {
        let call = Call::new().with_deadline(clock::now() + Duration::from_secs(2)).with_attempt(1);
        let asked = PropagateLayer::new()
            .with_attempt_header(HeaderName::from_static("x-attempt"))
            .with_timeout_header(HeaderName::from_static("x-timeout-ms"));
        let (plain, asked) = call
            .in_scope(async { (written(&PropagateLayer::new(), false), written(&asked, false)) })
            .await;
        assert!(plain.is_empty());
        assert_eq!(asked["x-attempt"], "1");
        assert_eq!(asked["x-timeout-ms"], "2000");
    }

    #[tokio::test]
    async fn the_server_learns_the_trace_and_each_attempt_is_a_parent_of_its_own() {
        let context = TraceContext {
            trace_id: TraceId::new(7).unwrap(),
            span_id: SpanId::new(8).unwrap(),
            sampled: true,
        };
        let state = Some("rojo=1".into());
        let call = Call::new().with_trace(RemoteTrace { context, state });
        for attempt in 0..3 {
            let call = call.clone().with_attempt(attempt);
            let headers = call.in_scope(async { written(&PropagateLayer::new(), false) }).await;
            let remote = trace_context::from_headers(&headers).unwrap();
            assert_eq!(remote.context.trace_id, context.trace_id);
            assert_eq!(remote.context.span_id, context.span_id.of_attempt(attempt));
            assert!(remote.context.sampled);
            assert_eq!(remote.state.as_deref(), Some("rojo=1"));
        }
    }

    #[tokio::test]
    async fn a_state_beside_another_parent_is_not_handed_on() {
        let mut headers = HeaderMap::new();
        headers.insert(trace_context::TRACESTATE, HeaderValue::from_static("old=1"));
        let context = TraceContext {
            trace_id: TraceId::new(7).unwrap(),
            span_id: SpanId::new(8).unwrap(),
            sampled: false,
        };
        let headers = Call::new()
            .with_trace(context)
            .in_scope(async {
                PropagateLayer::new().write(&mut headers);
                headers
            })
            .await;
        assert!(!headers.contains_key(trace_context::TRACESTATE));
        assert!(headers[trace_context::TRACEPARENT].to_str().unwrap().ends_with("-00"));
    }

    #[tokio::test]
    async fn attempts_of_a_call_before_are_not_handed_on() {
        let handed_on = async |attempt| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert(GRPC_PREVIOUS_RPC_ATTEMPTS, HeaderValue::from_static("7"));
            let writing = async {
                PropagateLayer::new().write(&mut headers);
                headers.get(GRPC_PREVIOUS_RPC_ATTEMPTS).cloned()
            };
            Call::new().with_attempt(attempt).in_scope(writing).await
        };
        assert_eq!(handed_on(1).await, None);
        assert_eq!(handed_on(2).await, Some(HeaderValue::from(1)));
        assert_eq!(handed_on(0).await, Some(HeaderValue::from(7)), "nobody here counts");
    }

    #[tokio::test]
    async fn outside_a_call_nothing_is_written() {
        assert!(written(&PropagateLayer::new(), true).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_the_caller_wrote_is_only_shortened() {
        let call = Call::new().with_deadline(clock::now() + Duration::from_secs(2));
        for (own, expected) in [("1S", "1000000u"), ("5S", "2000000u"), ("5 years", "2000000u")] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert(GRPC_TIMEOUT, HeaderValue::from_static(own));
            let headers = call
                .clone()
                .in_scope(async {
                    PropagateLayer::new().write(&mut headers);
                    headers
                })
                .await;
            assert_eq!(headers[GRPC_TIMEOUT], expected, "{own}");
        }
    }

    #[test]
    fn malformed_timeouts_are_as_if_absent_and_absurd_ones_are_read() {
        for value in ["", "S", "5", "123456789S", "-5S", "5s", "٥S", "5.5S"] {
            let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            assert_eq!(parse_grpc_timeout(&value), None, "{value:?}");
        }
        let absurd = HeaderValue::from_static("99999999H");
        assert!(parse_grpc_timeout(&absurd).unwrap() > Duration::from_secs(86_400));
    }

    #[test]
    fn each_unit_of_a_timeout_is_read_as_what_it_says() {
        for (value, expected) in [
            ("3H", Duration::from_secs(3 * 3_600)),
            ("3M", Duration::from_secs(3 * 60)),
            ("3S", Duration::from_secs(3)),
            ("3m", Duration::from_millis(3)),
            ("3u", Duration::from_micros(3)),
            ("3n", Duration::from_nanos(3)),
        ] {
            let read = parse_grpc_timeout(&HeaderValue::from_static(value));
            assert_eq!(read, Some(expected), "{value}");
        }
    }

    #[test]
    fn a_timeout_is_written_in_the_finest_unit_that_eight_digits_hold() {
        const MOST: u64 = 99_999_999;
        for (left, expected) in [
            (Duration::ZERO, "0n"),
            (Duration::from_nanos(MOST), "99999999n"),
            (Duration::from_nanos(MOST + 1), "100000u"),
            (Duration::from_micros(MOST + 1), "100000m"),
            (Duration::from_millis(MOST + 1), "100000S"),
            (Duration::from_secs(MOST + 1), "1666666M"),
            (Duration::from_secs(60 * (MOST + 1)), "1666666H"),
            (Duration::MAX, "99999999H"),
        ] {
            assert_eq!(format_grpc_timeout(left), expected, "{left:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back_and_never_longer(nanos in any::<u64>()) {
            let left = Duration::from_nanos(nanos);
            let back = parse_grpc_timeout(&format_grpc_timeout(left)).unwrap();
            prop_assert!(back <= left);
            prop_assert!(left - back <= left / 1_000 + Duration::from_nanos(1));
        }

        #[test]
        fn no_timeout_makes_it_panic(value in proptest::collection::vec(any::<u8>(), 0..16)) {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                let _ = parse_grpc_timeout(&value);
            }
        }
    }
}
