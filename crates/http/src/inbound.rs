//! The server's side: what a request brings along, and what its response means to who gives it.
//!
//! What [`PropagateLayer`](crate::PropagateLayer) writes is read here. A header that is malformed is as
//! if absent, and never an error.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Response};
use portcullis_core::{Completion, FaultKind, Outcome, Rejection, Replay};

use crate::{
    Body, GRPC_TIMEOUT,
    body::Judge,
    grpc::{Table, is_grpc},
    hint, parse_grpc_timeout, rejections,
};

/// How long the sender of a request waits for its response: what `grpc-timeout` says in a gRPC
/// request, and what `header`, in whole milliseconds, says in any. The shorter one, if both do.
///
/// One that is malformed, or there more than once, is as if absent. What is legal but absurd comes back
/// as it is; [`clock::after`](portcullis_core::clock::after) makes a point in time of it that exists.
///
/// ```
/// use http::{HeaderMap, HeaderName, HeaderValue};
/// use portcullis_http::inbound;
/// use std::time::Duration;
///
/// let header = HeaderName::from_static("x-timeout-ms");
/// let mut headers = HeaderMap::new();
/// headers.insert(&header, HeaderValue::from_static("1500"));
/// assert_eq!(inbound::timeout(&headers, Some(&header)), Some(Duration::from_millis(1500)));
/// assert_eq!(inbound::timeout(&headers, None), None);
/// ```
#[must_use]
pub fn timeout(headers: &HeaderMap, header: Option<&HeaderName>) -> Option<Duration> {
    let grpc = only(headers, &GRPC_TIMEOUT).filter(|_| is_grpc(headers));
    let own = header.and_then(|name| only(headers, name)).and_then(parse_timeout_millis);
    [grpc.and_then(parse_grpc_timeout), own].into_iter().flatten().min()
}

/// Reads a time limit in whole milliseconds, as [`PropagateLayer`](crate::PropagateLayer) writes it. A
/// malformed one is as if absent; one beyond 2⁶⁴ is as long as can be.
#[must_use]
pub fn parse_timeout_millis(value: &HeaderValue) -> Option<Duration> {
    value.to_str().ok().and_then(hint::digits).map(Duration::from_millis)
}

/// Has `done` learn how a response ended that is given here: of a gRPC request, if it was one.
///
/// | response | verdict |
/// |---|---|
/// | a status below 500 | success: what the client did wrong is no failure of ours |
/// | 500 and above | failure |
/// | gRPC, in the trailers or the head | as [`GrpcClassifier`](crate::GrpcClassifier) has it, but RESOURCE_EXHAUSTED is a success |
/// | a body that breaks off | failure |
/// | a limit that ends the body | timeout |
/// | a body that is dropped while more of it is waited for | cancelled: the client has gone |
/// | a body that is dropped otherwise | HTTP: the head's; gRPC: cancelled |
/// | a body that panics | cancelled |
///
/// What is there of a response whose head came no earlier than its limit is not cut: the limit ends
/// such a body as soon as it is pending.
pub fn watch<B>(response: Response<B>, grpc: bool, done: Completion) -> Response<Body<B>>
where
    B: http_body::Body,
{
    let judge = if grpc {
        Table::serving().judge(&response)
    } else {
        let status = response.status();
        let failure = || Outcome::failure(FaultKind::Status(status.as_u16()), Replay::IfIdempotent);
        let failed = status.is_server_error();
        Judge::http(if failed { failure() } else { Outcome::Success }).served()
    };
    let until = done.watch().until;
    let is_late = until.zip(done.head()).is_some_and(|(until, head)| until.at <= head);
    let judge = if is_late { judge.late() } else { judge };
    response.map(|body| Body::watched(body, judge, done))
}

/// The head of the response that stands for a refusal, with the status and the wait that
/// [`RejectionsLayer`](crate::RejectionsLayer) gives it. For gRPC it is all there is; HTTP has room
/// for a text besides.
#[must_use]
pub fn refusal(rejection: &dyn Rejection, grpc: bool) -> Response<()> {
    rejections::head(rejection, grpc)
}

/// The value of a header that is there once.
pub(crate) fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        sync::Arc,
        task::{Context, Poll, Waker},
    };

    use http::{StatusCode, header};
    use http_body::Body as _;
    use http_body_util::{Channel, Empty};
    use portcullis_core::{Call, End, Settle, Ticket, clock, sync::Mutex};
    use proptest::prelude::*;

    use super::*;

    const X_TIMEOUT: HeaderName = HeaderName::from_static("x-timeout-ms");

    fn read(grpc: bool, lines: &[(HeaderName, &str)]) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        if grpc {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        }
        for (name, value) in lines {
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        timeout(&headers, Some(&X_TIMEOUT))
    }

    #[test]
    fn the_shorter_of_what_a_request_says_is_its_limit() {
        let ms = |number| Some(Duration::from_millis(number));
        assert_eq!(read(true, &[(GRPC_TIMEOUT, "2S")]), ms(2000));
        assert_eq!(read(true, &[(GRPC_TIMEOUT, "2S"), (X_TIMEOUT, "1500")]), ms(1500));
        assert_eq!(read(true, &[(GRPC_TIMEOUT, "1S"), (X_TIMEOUT, "1500")]), ms(1000));
        assert_eq!(read(false, &[(X_TIMEOUT, "0")]), ms(0));
        assert_eq!(read(false, &[(GRPC_TIMEOUT, "2S")]), None, "it is no gRPC request");
        assert_eq!(read(false, &[]), None);
    }

    #[test]
    fn a_malformed_limit_is_as_if_absent_and_an_absurd_one_is_read() {
        for bad in ["", " ", "soon", "-1", "+1", "1.5", "1s", "0x10", "٥", "1 2", "1,2"] {
            assert_eq!(read(false, &[(X_TIMEOUT, bad)]), None, "{bad:?}");
            assert_eq!(read(true, &[(GRPC_TIMEOUT, bad)]), None, "{bad:?}");
        }
        assert_eq!(read(false, &[(X_TIMEOUT, "5"), (X_TIMEOUT, "9")]), None, "which one?");
        assert_eq!(read(true, &[(GRPC_TIMEOUT, "5S"), (GRPC_TIMEOUT, "5S")]), None);
        let day = Duration::from_secs(86_400);
        assert!(read(true, &[(GRPC_TIMEOUT, "99999999H")]) > Some(day));
        assert!(read(false, &[(X_TIMEOUT, &"9".repeat(400))]) > Some(day));
    }

    #[derive(Default)]
    struct Heard(Arc<str>, Mutex<Vec<Outcome>>);

    impl Settle for Heard {
        fn name(&self) -> &Arc<str> {
            &self.0
        }

        fn settle(&self, _: Ticket, end: &End<'_>) {
            self.1.lock().push(end.outcome);
        }
    }

    fn verdict<B: http_body::Body>(
        response: Response<B>,
        grpc: bool,
        end: impl FnOnce(Body<B>),
    ) -> Outcome {
        let heard = Arc::new(Heard::default());
        let done = Completion::new(heard.clone(), Ticket::default(), Call::new(), clock::now());
        end(watch(response, grpc, done).into_body());
        let heard = heard.1.lock();
        assert_eq!(heard.len(), 1);
        heard[0]
    }

    #[test]
    fn only_what_the_server_did_wrong_is_its_failure() {
        let of = |status: u16| {
            let response = Response::builder().status(status).header("retry-after", "1");
            let body = Empty::<bytes::Bytes>::new();
            verdict(response.body(body).unwrap(), false, drop)
        };
        for fine in [200, 302, 400, 404, 408, 429] {
            assert_eq!(of(fine), Outcome::Success, "{fine}");
        }
        for failed in [500, 501, 503, 504] {
            assert_eq!(of(failed).kind(), Some(FaultKind::Status(failed)), "{failed}");
        }
    }

    #[test]
    fn a_grpc_response_is_judged_by_its_status() {
        let of = |code: &'static str| {
            let response = Response::builder().header("grpc-status", code);
            verdict(response.body(Empty::<bytes::Bytes>::new()).unwrap(), true, drop)
        };
        assert_eq!(of("0"), Outcome::Success);
        assert_eq!(of("5"), Outcome::Success);
        assert_eq!(of("8"), Outcome::Success, "to refuse is no failure of its own");
        assert_eq!(of("13").kind(), Some(FaultKind::Grpc(13)));
        let mut missing = Response::new(Empty::<bytes::Bytes>::new());
        *missing.status_mut() = StatusCode::BAD_GATEWAY;
        assert_eq!(verdict(missing, true, drop).kind(), Some(FaultKind::Grpc(14)));
    }

    #[test]
    fn a_body_dropped_while_more_is_waited_for_is_a_client_who_has_gone() {
        let waiting = |grpc| {
            let (sender, body) = Channel::<bytes::Bytes>::new(1);
            let outcome = verdict(Response::new(body), grpc, |body| {
                let mut cx = Context::from_waker(Waker::noop());
                let mut body = pin!(body);
                assert!(matches!(body.as_mut().poll_frame(&mut cx), Poll::Pending));
            });
            drop(sender);
            outcome
        };
        assert_eq!(waiting(false), Outcome::Cancelled);
        assert_eq!(waiting(true), Outcome::Cancelled);
        // As of the answer to a HEAD: nobody asks for it.
        let (_sender, body) = Channel::<bytes::Bytes>::new(1);
        assert_eq!(verdict(Response::new(body), false, drop), Outcome::Success);
    }

    proptest! {
        #[test]
        fn no_headers_make_it_panic(
            grpc: bool,
            one in proptest::collection::vec(any::<u8>(), 0..24),
            two in proptest::collection::vec(any::<u8>(), 0..24),
        ) {
            let mut headers = HeaderMap::new();
            if grpc {
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            }
            for (name, value) in [(GRPC_TIMEOUT, one), (X_TIMEOUT, two)] {
                if let Ok(value) = HeaderValue::from_bytes(&value) {
                    headers.insert(name, value);
                }
            }
            let _ = timeout(&headers, Some(&X_TIMEOUT));
        }

        #[test]
        fn what_is_written_is_what_is_read(millis: u64) {
            let value = HeaderValue::from(millis);
            prop_assert_eq!(parse_timeout_millis(&value), Some(Duration::from_millis(millis)));
        }
    }
}
