//! gRPC's retries as gRFC A6 has them: its rules, and the cases of its diagrams.
//!
//! Time is paused; the server is a script that notes what it was sent.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use portcullis::{
    call,
    http::{
        CloneBody, GRPC_PREVIOUS_RPC_ATTEMPTS, GRPC_RETRY_PUSHBACK_MS, GRPC_STATUS, GrpcClassifier,
        GrpcCodes, GrpcRetryable, PeekLayer, PropagateLayer,
    },
    retry::{
        Backoff, Jitter, OperationConfig, RetryBuilder, RetryLayer, Throttling, ThrottlingConfig,
    },
    sync::Mutex,
};
use portcullis_testkit::{ScriptedService, Step, TestError, call as send};
use tokio::time::Instant;
use tower::Layer;

const MS: Duration = Duration::from_millis(1);

type Message = UnsyncBoxBody<Bytes, Infallible>;
type Server = ScriptedService<Request<Full<Bytes>>, Response<Message>>;

/// How the server answers one attempt.
#[derive(Clone, Copy, Debug)]
enum Answer {
    /// A head that is all there is, with this status.
    TrailersOnly(u8),
    /// The same, with a pushback.
    Pushback(u8, &'static str),
    /// Response headers, and a message after them.
    Headers,
    /// Response headers, and a status in the trailers right after them.
    Trailers(u8),
}

/// What a server saw of one attempt: when it came, and what it said of those before.
type Seen = (Duration, Option<String>);

/// Sends an RPC to a server that answers so: the status of the head that is handed up, if there is one in
/// it, and what the server saw.
async fn rpc(
    retry: RetryBuilder<CloneBody, GrpcClassifier>,
    answers: impl Into<Vec<Answer>>,
) -> (Option<u8>, Vec<Seen>) {
    let (answers, seen) = (answers.into(), Arc::new(Mutex::new(Vec::new())));
    let (note, start) = (seen.clone(), Instant::now());
    let server = Server::respond_with(move |request, n| {
        let previous = request.headers().get(GRPC_PREVIOUS_RPC_ATTEMPTS);
        let previous = previous.map(|value| value.to_str().unwrap().to_owned());
        note.lock().push((start.elapsed(), previous));
        match answers.get(n as usize).or(answers.last()) {
            Some(answer) => Step::Ok(answer.response()),
            None => Step::Err(TestError("no answer")),
        }
    });
    let client = PropagateLayer::new().layer(PeekLayer::new().layer(server));
    let service = retry.build().unwrap().layer(client);
    let request = Request::post("http://shop/shop.Cart/Add")
        .header(header::CONTENT_TYPE, "application/grpc")
        .body(Full::from("message"))
        .unwrap();
    let head = send(&mut { service }, request).await.unwrap();
    let status = head.headers().get(GRPC_STATUS);
    let status = status.map(|status| status.to_str().unwrap().parse().unwrap());
    let seen = seen.lock().clone();
    (status, seen)
}

/// The waits before each attempt but the first, in whole milliseconds. Timers may be late by one.
fn waits(seen: &[Seen]) -> Vec<u128> {
    seen.windows(2).map(|pair| (pair[1].0 - pair[0].0).as_millis()).collect()
}

/// The document's example: 4 attempts, 100 ms doubling up to 1 s, UNAVAILABLE; but no jitter.
fn policy() -> RetryBuilder<CloneBody, GrpcClassifier> {
    let unavailable = GrpcRetryable::of(GrpcCodes::UNAVAILABLE);
    RetryLayer::builder("shop", CloneBody)
        .max_attempts(4)
        .backoff(Backoff::exponential(100 * MS, 1_000 * MS))
        .jitter(Jitter::None)
        .classify(GrpcClassifier::new().retryable(unavailable))
}

const UNAVAILABLE: Answer = Answer::TrailersOnly(14);
const OK: Answer = Answer::TrailersOnly(0);

// ===== impl Answer =====

impl Answer {
    fn response(self) -> Response<Message> {
        let mut response = Response::new(Message::default());
        let (status, pushback) = match self {
            Self::Headers => return response.map(|_| Message::new(Full::from("message"))),
            Self::Trailers(status) => {
                let grpc = HeaderValue::from_static("application/grpc");
                response.headers_mut().insert(header::CONTENT_TYPE, grpc);
                let status = [(GRPC_STATUS, u16::from(status).into())].into_iter().collect();
                let trailers = std::future::ready(Some(Ok(status)));
                return response.map(|_| Message::new(Full::default().with_trailers(trailers)));
            }
            Self::TrailersOnly(status) => (status, None),
            Self::Pushback(status, pushback) => (status, Some(pushback)),
        };
        let headers = response.headers_mut();
        headers.insert(GRPC_STATUS, u16::from(status).into());
        if let Some(pushback) = pushback {
            headers.insert(GRPC_RETRY_PUSHBACK_MS, HeaderValue::from_static(pushback));
        }
        response
    }
}

// ===== attempts and backoff =====

#[tokio::test(start_paused = true)]
async fn a_retryable_status_is_retried_and_the_server_told_of_the_attempts_before() {
    let (status, seen) = rpc(policy(), [UNAVAILABLE, UNAVAILABLE, OK]).await;
    assert_eq!(status, Some(0));
    assert_eq!(waits(&seen), [100, 200]);
    let previous: Vec<_> = seen.iter().map(|(_, previous)| previous.as_deref()).collect();
    assert_eq!(previous, [None, Some("1"), Some("2")]);
}

#[tokio::test(start_paused = true)]
async fn after_too_many_attempts_the_last_failure_is_the_callers() {
    let (status, seen) = rpc(policy(), [UNAVAILABLE]).await;
    assert_eq!(status, Some(14));
    assert_eq!(waits(&seen), [100, 200, 400]);
}

#[tokio::test(start_paused = true)]
async fn the_backoff_grows_by_the_multiplier_up_to_its_maximum_with_a_fifth_of_jitter() {
    let backoff = Backoff::Exponential { initial: 100 * MS, multiplier: 3.0, max: 1_000 * MS };
    let mut drawn = Vec::new();
    for seed in 0..64 {
        let retry = policy().max_attempts(5).backoff(backoff).jitter(Jitter::Around(0.2));
        drawn.push(waits(&rpc(retry.seed(seed), [UNAVAILABLE]).await.1));
    }
    for (n, (low, high)) in [(80, 120), (240, 360), (720, 1_080), (800, 1_200)].iter().enumerate() {
        let of_retry: Vec<_> = drawn.iter().map(|waits| waits[n]).collect();
        assert!(of_retry.iter().all(|wait| (*low..=high + 1).contains(wait)), "{of_retry:?}");
        // All of the range is made use of.
        let (quarter, least, most) =
            ((high - low) / 4, of_retry.iter().min(), of_retry.iter().max());
        assert!(*least.unwrap() < low + quarter && *most.unwrap() > high - quarter, "{of_retry:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_deadline_covers_all_attempts_together() {
    let call = call::with().deadline(portcullis::clock::now() + 250 * MS);
    let (status, seen) = call.run(rpc(policy(), [UNAVAILABLE])).await;
    // A second retry would be at 300 ms.
    assert_eq!((status, waits(&seen)), (Some(14), vec![100]));
}

#[tokio::test(start_paused = true)]
async fn a_fatal_status_is_the_callers_at_once() {
    for status in [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 16] {
        let (handed_up, seen) = rpc(policy(), [Answer::TrailersOnly(status)]).await;
        assert_eq!((handed_up, seen.len()), (Some(status), 1), "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn any_status_may_be_made_retryable() {
    for code in 1..=16 {
        let codes = GrpcRetryable::of(GrpcCodes::from_code(code).unwrap());
        let retry = policy().classify(GrpcClassifier::new().retryable(codes));
        let (handed_up, seen) = rpc(retry, [Answer::TrailersOnly(code), OK]).await;
        assert_eq!((handed_up, seen.len()), (Some(0), 2), "{code}");
    }
}

// ===== commitment =====

#[tokio::test(start_paused = true)]
async fn response_headers_commit_the_call() {
    let (status, seen) = rpc(policy(), [UNAVAILABLE, Answer::Headers]).await;
    assert_eq!((status, seen.len()), (None, 2));
}

#[tokio::test(start_paused = true)]
async fn a_failure_right_after_the_headers_is_seen_before_they_commit_the_call() {
    let (status, seen) = rpc(policy(), [Answer::Trailers(14), OK]).await;
    assert_eq!((status, waits(&seen)), (Some(0), vec![100]));
    let (status, seen) = rpc(policy(), [Answer::Trailers(0)]).await;
    assert_eq!((status, seen.len()), (None, 1));
}

// ===== pushback =====

#[tokio::test(start_paused = true)]
async fn a_retry_comes_exactly_after_the_servers_delay_and_the_backoff_starts_over() {
    let delayed = Answer::Pushback(14, "777");
    let jittered = policy().max_attempts(5).jitter(Jitter::Around(0.2)).seed(1);
    let (status, seen) = rpc(jittered, [UNAVAILABLE, UNAVAILABLE, delayed, UNAVAILABLE, OK]).await;
    assert_eq!(status, Some(0));
    let waits = waits(&seen);
    assert_eq!(waits[2], 777);
    assert!((160..=241).contains(&waits[1]) && (80..=121).contains(&waits[3]), "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn a_pushback_of_nothing_is_a_retry_at_once() {
    let (_, seen) = rpc(policy(), [Answer::Pushback(14, "0"), OK]).await;
    assert_eq!(waits(&seen), [0]);
}

#[tokio::test(start_paused = true)]
async fn a_pushback_that_is_negative_or_unparsable_asks_for_no_retry() {
    for pushback in ["-1", "-2147483648", "", "soon", "1.5", "+1", "0x10", "99999999999"] {
        let (status, seen) = rpc(policy(), [Answer::Pushback(14, pushback), OK]).await;
        assert_eq!((status, seen.len()), (Some(14), 1), "{pushback:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pushback_makes_no_fatal_status_retryable_and_gives_no_further_attempt() {
    let (status, seen) = rpc(policy(), [Answer::Pushback(13, "10"), OK]).await;
    assert_eq!((status, seen.len()), (Some(13), 1));
    let (status, seen) = rpc(policy(), [Answer::Pushback(14, "10")]).await;
    assert_eq!((status, waits(&seen)), (Some(14), vec![10, 10, 10]));
}

#[tokio::test(start_paused = true)]
async fn exhausted_resources_are_retried_by_default_where_the_server_said_when() {
    let lenient = || policy().classify(GrpcClassifier::new());
    let (status, seen) = rpc(lenient(), [Answer::Pushback(8, "30"), OK]).await;
    assert_eq!((status, waits(&seen)), (Some(0), vec![30]));
    let (status, seen) = rpc(lenient(), [Answer::TrailersOnly(8), OK]).await;
    assert_eq!((status, seen.len()), (Some(8), 1));
}

// ===== throttling =====

/// 10 tokens, of which a failure takes one and a success gives back a tenth.
fn throttling() -> Throttling {
    Throttling::new(ThrottlingConfig::new(10, 0.1)).unwrap()
}

#[tokio::test(start_paused = true)]
async fn there_are_no_retries_while_no_more_than_half_of_the_tokens_are_left() {
    let tokens = throttling();
    let retry = || policy().shared_throttling(tokens.clone());
    // Four failures leave 6 of 10. The next one leaves 5, which are not more than half.
    assert_eq!(rpc(retry(), [UNAVAILABLE]).await.1.len(), 4);
    assert_eq!(tokens.tokens(), 6.0);
    let (status, seen) = rpc(retry(), [UNAVAILABLE]).await;
    assert_eq!((status, seen.len(), tokens.tokens()), (Some(14), 1, 5.0));

    // A success of whatever call gives back a tenth; then a failure needs ten more to be retried.
    for _ in 0..10 {
        assert_eq!(rpc(retry(), [OK]).await.0, Some(0));
    }
    assert_eq!(tokens.tokens(), 6.0);
    assert_eq!(rpc(retry(), [UNAVAILABLE]).await.1.len(), 1);
    for _ in 0..11 {
        rpc(retry(), [Answer::Headers]).await;
    }
    assert_eq!(tokens.tokens(), 6.1);
    // The failure leaves 5.1, and the retry that it is allowed gives back a tenth.
    assert_eq!(rpc(retry(), [UNAVAILABLE, OK]).await.1.len(), 2);
    assert_eq!(tokens.tokens(), 5.2);
}

#[tokio::test(start_paused = true)]
async fn only_failures_that_are_retryable_or_that_ask_for_no_retry_count() {
    let tokens = throttling();
    let retry = || policy().shared_throttling(tokens.clone());
    for status in [1, 2, 3, 5, 8, 13, 16] {
        rpc(retry(), [Answer::TrailersOnly(status)]).await;
    }
    assert_eq!(tokens.tokens(), 10.0);
    // What is no success gives nothing back either.
    rpc(retry(), [Answer::Pushback(14, "-1")]).await;
    rpc(retry(), [Answer::TrailersOnly(3)]).await;
    assert_eq!(tokens.tokens(), 9.0);
    for status in [3, 8, 13] {
        let (handed_up, seen) = rpc(retry(), [Answer::Pushback(status, "-1")]).await;
        assert_eq!((handed_up, seen.len()), (Some(status), 1));
    }
    assert_eq!(tokens.tokens(), 6.0);
    for _ in 0..20 {
        rpc(retry(), [Answer::Pushback(14, "-1")]).await;
    }
    assert_eq!(tokens.tokens(), 0.0);
}

// ===== by method =====

#[tokio::test(start_paused = true)]
async fn a_method_has_its_own_attempts_backoff_and_codes() {
    let retry = || {
        let aborted = GrpcRetryable::of(GrpcCodes::ABORTED);
        let careful = GrpcRetryable::new().if_idempotent(GrpcCodes::UNAVAILABLE);
        let twice = OperationConfig::new().with_max_attempts(2);
        policy().operation("shop.Cart/Add", twice.with_backoff(Backoff::fixed(7 * MS))).classify(
            GrpcClassifier::new()
                .retryable_for("shop.Cart/Add", aborted)
                .retryable_for("shop.Payments/", careful),
        )
    };
    let of = async |name: &str, answer| {
        let (_, seen) = call::with().name(name).run(rpc(retry(), [answer])).await;
        waits(&seen)
    };
    assert_eq!(of("shop.Cart/Add", Answer::TrailersOnly(10)).await, [7]);
    assert_eq!(of("shop.Cart/Add", UNAVAILABLE).await, []);
    assert_eq!(of("shop.Payments/Pay", UNAVAILABLE).await, []);
    assert_eq!(of("shop.Stock/List", UNAVAILABLE).await, [100, 200, 400]);

    let idempotent = call::with().name("shop.Payments/Pay").idempotent();
    let (_, seen) = idempotent.run(rpc(retry(), [UNAVAILABLE])).await;
    assert_eq!(waits(&seen), [100, 200, 400]);
}
