//! gRPC's verdicts: by the status in the trailers, or in a head that is all there is.

mod codes;

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use portcullis_core::{
    Call, Classify, Completion, Error, Fault, FaultKind, Hint, Operations, Outcome, Replay,
    Throttle, Verdict,
};

pub use self::codes::{GrpcCodes, GrpcRetryable};
use crate::{Body, body::Judge, client, hint};

/// gRPC's status, in trailers or in a head that is all there is.
pub const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Judges gRPC calls by their status, which arrives in the trailers after the body, or in the head
/// when there is no body.
///
/// | status | verdict | may be sent again, unless [set otherwise](Self::retryable) |
/// |---|---|---|
/// | OK | success | – |
/// | UNAVAILABLE | failure | yes, also where the RPC is not idempotent (gRFC A6's custom); see [`unavailable_if_idempotent`](Self::unavailable_if_idempotent) |
/// | DEADLINE_EXCEEDED | failure | if idempotent |
/// | UNKNOWN, and what is no status of gRPC's; INTERNAL, DATA_LOSS | failure | no |
/// | RESOURCE_EXHAUSTED | throttled | only if the server sent a pushback |
/// | CANCELLED | ignored | no |
/// | the rest | success: the server is well | no |
///
/// Without a status, the HTTP status decides; without that, it is UNKNOWN. A call whose body is dropped
/// before its status is cancelled, or timed out if its deadline passed while somebody waited for more.
///
/// A status that is not OK stands in the trace as `grpc.status`.
///
/// What may be sent again is set [for all](Self::retryable), or [by method](Self::retryable_for). A code
/// that is listed there is a failure to retry, and what the table says to all other layers: an ABORTED
/// that is tried again opens no breaker.
///
/// A head that is not the whole response commits the call: retry hands it up. A pushback is waited for
/// exactly, without jitter, and the backoff starts over after it (gRFC A6).
///
/// ```
/// use portcullis_http::{GrpcClassifier, GrpcCodes, GrpcRetryable};
///
/// let grpc = GrpcClassifier::new()
///     .retryable_for("shop.Cart/Add", GrpcRetryable::of(GrpcCodes::UNAVAILABLE | GrpcCodes::ABORTED))
///     .retryable_for("shop.Payments/", GrpcRetryable::new().if_idempotent(GrpcCodes::UNAVAILABLE));
/// # let _ = grpc;
/// ```
#[derive(Clone, Debug, Default)]
pub struct GrpcClassifier {
    table: Table,
    methods: Option<Arc<Operations<GrpcRetryable>>>,
}

/// The table of verdicts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Table {
    retryable: GrpcRetryable,
    /// Whether it is one's own response that is judged, which throttles somebody else.
    serving: bool,
}

/// The codes judged by name here.
mod code {
    pub(super) const OK: u8 = 0;
    pub(super) const CANCELLED: u8 = 1;
    pub(super) const UNKNOWN: u8 = 2;
    pub(super) const DEADLINE_EXCEEDED: u8 = 4;
    pub(super) const PERMISSION_DENIED: u8 = 7;
    pub(super) const RESOURCE_EXHAUSTED: u8 = 8;
    pub(super) const UNIMPLEMENTED: u8 = 12;
    pub(super) const INTERNAL: u8 = 13;
    pub(super) const UNAVAILABLE: u8 = 14;
    pub(super) const DATA_LOSS: u8 = 15;
    pub(super) const UNAUTHENTICATED: u8 = 16;
}

/// Trailers that say a deadline ran out, for a body that is ended here.
pub(crate) fn deadline_exceeded(message: &str) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2);
    let mut status = HeaderValue::from(u16::from(code::DEADLINE_EXCEEDED));
    // The mark by which the bodies around ours know whose status it is: trailers have no room for a
    // note that would not go over the wire. To HTTP/2 it means a value that is not put in a table.
    status.set_sensitive(true);
    trailers.insert(GRPC_STATUS, status);
    write_message(&mut trailers, message);
    trailers
}

/// Writes `grpc-message`: what is not printable ASCII, and the percent sign, percent-encoded (gRPC
/// over HTTP/2, "Responses").
pub(crate) fn write_message(headers: &mut HeaderMap, text: &str) {
    let mut message = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => message.push(char::from(byte)),
            _ => message.push_str(&format!("%{byte:02X}")),
        }
    }
    if let Ok(message) = HeaderValue::try_from(message) {
        headers.insert(GRPC_MESSAGE, message);
    }
}

/// Whether these trailers are not the server's, but of a body that was [ended
/// here](deadline_exceeded).
pub(crate) fn is_ended_here(trailers: &HeaderMap) -> bool {
    trailers.get(GRPC_STATUS).is_some_and(HeaderValue::is_sensitive)
}

/// Whether headers announce a gRPC message. `application/grpc-web` is another protocol.
#[must_use]
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| {
        value
            .as_bytes()
            .strip_prefix(b"application/grpc")
            .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
    })
}

/// Tells the records a status that is not OK by its name. To a breaker many of them are successes.
pub(crate) fn note_status(headers: &HeaderMap, done: &Completion) {
    let name = status(headers).and_then(|(code, _)| FaultKind::GRPC_NAMES.get(usize::from(code)));
    if let Some(name) = name.filter(|name| **name != FaultKind::GRPC_NAMES[0]) {
        done.note("grpc.status", name);
    }
}

// ===== impl GrpcClassifier =====

impl GrpcClassifier {
    /// The verdicts of the table above.
    #[must_use]
    pub const fn new() -> Self {
        let table = Table { retryable: GrpcRetryable::new(), serving: false };
        Self { table, methods: None }
    }

    /// Which codes may be sent again, for methods that have no rule of their own.
    #[must_use]
    pub const fn retryable(mut self, codes: GrpcRetryable) -> Self {
        self.table.retryable = codes;
        self
    }

    /// Which codes of a method may be sent again. The method is told by the name of the call's operation,
    /// which [`GrpcCallLayer`](crate::GrpcCallLayer) finds, or the caller says:
    /// `call::with().name("shop.Cart/Add")`. A name that ends in a slash, `shop.Cart/`, stands for all the
    /// service's methods that have no rule of their own.
    #[must_use]
    pub fn retryable_for(mut self, method: impl Into<Box<str>>, codes: GrpcRetryable) -> Self {
        let others = self.methods.as_deref().into_iter().flat_map(Operations::iter);
        let others = others.map(|(name, codes)| (Box::from(name), *codes));
        self.methods = Some(Arc::new(others.chain([(method.into(), codes)]).collect()));
        self
    }

    /// Takes UNAVAILABLE as a sign that the server may have acted, so that only idempotent RPCs are
    /// sent again.
    #[must_use]
    pub const fn unavailable_if_idempotent(self) -> Self {
        let codes = self.table.retryable.if_idempotent(GrpcCodes::UNAVAILABLE);
        self.retryable(codes)
    }

    /// What holds for the method that `call` is of.
    fn of(&self, call: &Call) -> GrpcRetryable {
        let method = self.methods.as_ref().and_then(|methods| methods.of(call));
        method.copied().unwrap_or(self.table.retryable)
    }
}

// ===== impl Table =====

impl Table {
    /// Judges what a server answers: to refuse is no failure of its own.
    pub(crate) fn serving() -> Self {
        Self { serving: true, ..Self::default() }
    }

    /// How the rest of a response is judged whose head is there.
    pub(crate) fn judge<B>(self, response: &Response<B>) -> Judge {
        match self.head(response) {
            Some(outcome) => Judge::http(outcome),
            None => Judge::grpc(self, self.without_status(StatusCode::OK)),
        }
    }

    /// The verdict of trailers, or of a head that is all there is; `None` if no status is in it.
    pub(crate) fn trailers(self, headers: &HeaderMap) -> Option<Outcome> {
        let (code, hint) = status(headers)?;
        Some(self.code(code, hint))
    }

    fn code(self, code: u8, hint: Hint) -> Outcome {
        match code {
            code::RESOURCE_EXHAUSTED if self.serving => Outcome::Success,
            code::UNAVAILABLE
            | code::DEADLINE_EXCEEDED
            | code::UNKNOWN
            | code::INTERNAL
            | code::DATA_LOSS
            | code::RESOURCE_EXHAUSTED => refusal(code, self.retryable.replay(code, hint), hint),
            code::CANCELLED => Outcome::Ignored,
            _ => Outcome::Success,
        }
    }

    /// What a response means whose end brings no status: the HTTP status decides, else it is
    /// unknown (gRPC's "HTTP to gRPC status code mapping").
    fn without_status(self, status: StatusCode) -> Outcome {
        self.code(code_of(status), Hint::None)
    }

    /// The verdict of a head that settles the call, if it does.
    fn head<B>(self, response: &Response<B>) -> Option<Outcome> {
        head(response).map(|(code, hint)| self.code(code, hint))
    }
}

/// The failure or refusal that a code stands for.
fn refusal(code: u8, replay: Replay, hint: Hint) -> Outcome {
    let kind = FaultKind::Grpc(code);
    match code {
        code::RESOURCE_EXHAUSTED => {
            Outcome::Throttled(Throttle { replay, ..Throttle::new(kind).with_hint(hint) })
        }
        _ => Outcome::Failure(Fault::new(kind, replay).with_hint(hint)),
    }
}

/// The code that settles the call at its head, if one does, and the server's pushback.
fn head<B>(response: &Response<B>) -> Option<(u8, Hint)> {
    status(response.headers()).or_else(|| {
        let ok = response.status() == StatusCode::OK;
        (!ok).then(|| (code_of(response.status()), Hint::None))
    })
}

/// The status in trailers, or in a head that is all there is, and the server's pushback.
fn status(headers: &HeaderMap) -> Option<(u8, Hint)> {
    let status = headers.get(GRPC_STATUS)?;
    // Digits alone: a number's own parser takes a sign as well. An unparsable status is an unknown one
    // (gRPC over HTTP/2, "Responses"), and so is one that gRPC does not have.
    let number = status.to_str().ok().and_then(hint::digits);
    let code = number.and_then(|number| u8::try_from(number).ok());
    let code = code.filter(|code| *code <= code::UNAUTHENTICATED).unwrap_or(code::UNKNOWN);
    Some((code, hint::grpc_pushback(headers)))
}

/// Whether trailers say that the call failed.
pub(crate) fn has_failed(trailers: &HeaderMap) -> bool {
    status(trailers).is_some_and(|(code, _)| code != code::OK)
}

/// gRPC's "HTTP to gRPC status code mapping".
fn code_of(status: StatusCode) -> u8 {
    match status {
        StatusCode::UNAUTHORIZED => code::UNAUTHENTICATED,
        StatusCode::FORBIDDEN => code::PERMISSION_DENIED,
        StatusCode::NOT_FOUND => code::UNIMPLEMENTED,
        StatusCode::BAD_REQUEST => code::INTERNAL,
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => code::UNAVAILABLE,
        _ => code::UNKNOWN,
    }
}

impl<B> Classify<Response<B>> for GrpcClassifier
where
    B: http_body::Body,
{
    type Response = Response<Body<B>>;

    fn at_head(&self, result: Result<&Response<B>, &Error>) -> Verdict {
        match result {
            Ok(response) => match self.table.head(response) {
                Some(outcome) => Verdict::Final(outcome),
                None => Verdict::SoFar(Outcome::Success),
            },
            Err(error) => Verdict::Final(client::outcome(error)),
        }
    }

    fn for_retry(&self, result: Result<&Response<B>, &Error>, call: &Call) -> Outcome {
        // No status follows a head that is all there is.
        let settled = |response: &Response<B>| {
            let ended = || (code_of(response.status()), hint::grpc_pushback(response.headers()));
            head(response).or_else(|| response.body().is_end_stream().then(ended))
        };
        match result.map(settled) {
            Ok(None | Some((code::OK, _))) => Outcome::Success,
            Ok(Some((code, hint))) => {
                let table = Table { retryable: self.of(call), ..self.table };
                match (table.retryable.replay(code, hint), table.code(code, hint)) {
                    // No retries, says the server, whatever the code: who counts failures for them wants to
                    // know.
                    (Replay::Forbidden, _) if hint == Hint::Never => {
                        refusal(code, Replay::Forbidden, hint)
                    }
                    // Well as the server is, the call did not succeed.
                    (Replay::Forbidden, Outcome::Success) => Outcome::Ignored,
                    (Replay::Forbidden, outcome) => outcome,
                    (replay, _) => refusal(code, replay, hint),
                }
            }
            Err(error) => client::outcome(error),
        }
    }

    /// A gRPC client reads `grpc-timeout` and gives up by itself when it runs out.
    fn stands_for_deadline(&self, error: &Error) -> bool {
        error.rejection().is_none()
    }

    fn classify(
        &self,
        result: Result<Response<B>, Error>,
        done: Completion,
    ) -> Result<Self::Response, Error> {
        match result {
            Ok(response) => {
                note_status(response.headers(), &done);
                let judge = self.table.judge(&response);
                Ok(response.map(|body| Body::watched(body, judge, done)))
            }
            Err(error) => {
                done.settle_at_head(client::outcome(&error));
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(status: Option<&'static str>, pushback: Option<&'static str>) -> Verdict {
        let mut response = Response::new(String::new());
        if let Some(status) = status {
            response.headers_mut().insert(GRPC_STATUS, HeaderValue::from_static(status));
        }
        if let Some(pushback) = pushback {
            let name = hint::GRPC_RETRY_PUSHBACK_MS;
            response.headers_mut().insert(name, HeaderValue::from_static(pushback));
        }
        GrpcClassifier::new().at_head(Ok(&response))
    }

    #[test]
    fn a_head_with_a_status_settles_the_call() {
        assert_eq!(head(Some("0"), None), Verdict::Final(Outcome::Success));
        assert_eq!(head(Some("5"), None), Verdict::Final(Outcome::Success));
        assert_eq!(head(Some("1"), None), Verdict::Final(Outcome::Ignored));
        let unavailable = Outcome::failure(FaultKind::Grpc(14), Replay::Safe);
        assert_eq!(head(Some("14"), None), Verdict::Final(unavailable));
    }

    #[test]
    fn a_status_that_is_none_of_grpcs_is_unknown() {
        let unknown = Outcome::failure(FaultKind::Grpc(2), Replay::Forbidden);
        for status in ["", "what", "-1", "+14", " 14", "17", "255", "256", "99999999999999999999"] {
            assert_eq!(head(Some(status), None), Verdict::Final(unknown), "{status:?}");
        }
        assert_eq!(head(Some("16"), None), Verdict::Final(Outcome::Success));
    }

    #[test]
    fn a_head_without_one_commits_the_call() {
        assert_eq!(head(None, None), Verdict::SoFar(Outcome::Success));
    }

    #[test]
    fn exhausted_resources_are_retried_only_on_a_pushback() {
        let replay = |pushback| head(Some("8"), pushback).outcome().replay();
        assert_eq!(replay(None), Some(Replay::Forbidden));
        assert_eq!(replay(Some("20")), Some(Replay::Safe));
        assert_eq!(head(Some("8"), Some("-1")).outcome().hint(), Hint::Never);
    }

    fn for_retry(grpc: &GrpcClassifier, call: &Call, status: &'static str) -> Outcome {
        let mut response = Response::new(String::new());
        response.headers_mut().insert(GRPC_STATUS, HeaderValue::from_static(status));
        grpc.for_retry(Ok(&response), call)
    }

    #[test]
    fn a_code_that_is_listed_is_a_failure_to_retry_and_to_nobody_else() {
        let codes = GrpcRetryable::of(GrpcCodes::ABORTED | GrpcCodes::RESOURCE_EXHAUSTED);
        let grpc = GrpcClassifier::new().retryable(codes);
        let call = Call::new();
        let aborted = Outcome::failure(FaultKind::Grpc(10), Replay::Safe);
        assert_eq!(for_retry(&grpc, &call, "10"), aborted);
        assert_eq!(grpc.table.code(10, Hint::None), Outcome::Success);
        assert_eq!(
            for_retry(&grpc, &call, "8"),
            Outcome::Throttled(Throttle::new(FaultKind::Grpc(8)))
        );
        let unavailable = Outcome::failure(FaultKind::Grpc(14), Replay::Forbidden);
        assert_eq!(for_retry(&grpc, &call, "14"), unavailable);
        assert_eq!(for_retry(&grpc, &call, "0"), Outcome::Success);
        for status in ["1", "3", "5", "16"] {
            assert_eq!(for_retry(&grpc, &call, status), Outcome::Ignored, "{status}");
        }
    }

    #[test]
    fn a_head_that_is_all_there_is_and_has_no_status_is_a_failure_to_retry_too() {
        let verdict = |grpc: &GrpcClassifier, body: &str| {
            grpc.for_retry(Ok(&Response::new(body.to_owned())), &Call::new())
        };
        let unknown = |replay| Outcome::failure(FaultKind::Grpc(2), replay);
        let grpc = GrpcClassifier::new();
        assert_eq!(verdict(&grpc, ""), unknown(Replay::Forbidden));
        assert_eq!(verdict(&grpc, "message"), Outcome::Success);
        let grpc = grpc.retryable(GrpcRetryable::of(GrpcCodes::UNKNOWN));
        assert_eq!(verdict(&grpc, ""), unknown(Replay::Safe));
    }

    #[tokio::test]
    async fn a_method_has_its_own_codes_else_its_services() {
        let grpc = GrpcClassifier::new()
            .retryable_for("shop.Cart/Add", GrpcRetryable::of(GrpcCodes::ABORTED))
            .retryable_for(
                "shop.Cart/",
                GrpcRetryable::new().if_idempotent(GrpcCodes::UNAVAILABLE),
            );
        let replay = async |name: &str, status| {
            let judge = async { for_retry(&grpc, &Call::current(), status).replay() };
            portcullis_core::call::with().name(name).run(judge).await
        };
        assert_eq!(replay("shop.Cart/Add", "10").await, Some(Replay::Safe));
        assert_eq!(replay("shop.Cart/Add", "14").await, Some(Replay::Forbidden));
        assert_eq!(replay("shop.Cart/List", "10").await, None);
        assert_eq!(replay("shop.Cart/List", "14").await, Some(Replay::IfIdempotent));
        assert_eq!(replay("shop.Stock/List", "14").await, Some(Replay::Safe));
    }

    #[test]
    fn without_a_status_the_http_status_decides() {
        let mut response = Response::new(String::new());
        *response.status_mut() = StatusCode::BAD_GATEWAY;
        let verdict = GrpcClassifier::new().at_head(Ok(&response));
        assert_eq!(verdict.outcome().kind(), Some(FaultKind::Grpc(14)));
    }

    #[test]
    fn grpc_is_told_by_its_content_type() {
        let is = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(value));
            is_grpc(&headers)
        };
        assert!(is("application/grpc") && is("application/grpc+proto"));
        assert!(!is("application/grpc-web") && !is("application/json"));
    }
}
