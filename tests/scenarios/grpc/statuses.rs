//! The ways a gRPC call fails once it has reached a server: what is told, and what the caller sees.

use h2::Reason;
use portcullis::trace::Query;
use tonic::Code;

use super::{
    kit::{Ear, client, guarded, stack},
    raw::{Play, Raw, Reply},
    wire::ask,
};

/// Where tonic says one or another, by what it notices first.
const ANY: Code = Code::Ok;

/// One way to fail.
struct Case {
    name: &'static str,
    plays: Vec<Play>,
    /// The status that the caller sees, and a part of its message; `None` for an answer.
    seen: Option<(Code, &'static str)>,
    /// How many requests the server saw.
    requests: usize,
    /// What the breaker is told of each attempt.
    attempts: Vec<&'static str>,
    /// What the trace is told of the call.
    call: &'static str,
}

fn good() -> Reply {
    Reply::trailers(&[("grpc-status", "0")]).message("fine")
}

async fn check(case: Case) {
    let Case { name, plays, seen, requests, attempts, call } = case;
    let server = Raw::playing(plays).await;
    let ear = Ear::default();
    let stack = stack().observe(ear.clone()).build().unwrap();
    let answer = guarded(client(&stack, server.addr()).say(ask("hello"))).await;
    match (&answer, seen) {
        (Ok(answer), None) => assert_eq!(answer.get_ref().text, "fine", "{name}"),
        (Err(status), Some((code, message))) => {
            assert!(code == ANY || status.code() == code, "{name}: {status:?}");
            assert!(status.message().contains(message), "{name}: {status:?}");
        }
        (answer, _) => panic!("{name}: {answer:?}"),
    }
    drop(answer);
    let heard = ear.heard();
    assert_eq!(heard.attempts, attempts, "{name}: {heard:?}");
    assert_eq!(heard.calls, [call], "{name}: {heard:?}");
    assert_eq!(server.requests(), requests, "{name}: {heard:?}");
    assert_eq!(stack.retry().budget().unwrap().waiting(), 0, "{name}");
}

const UNAVAILABLE: &str = "failure (grpc status 14)";
const UNKNOWN: &str = "failure (grpc status 2)";
const EXHAUSTED: &str = "throttled (grpc status 8)";

/// A case of a call that is sent once and fails with `code`, as every layer says.
fn once(name: &'static str, reply: Reply, code: Code, verdict: &'static str) -> Case {
    Case {
        name,
        plays: vec![Play::Reply(reply)],
        seen: Some((code, "")),
        requests: 1,
        attempts: vec![verdict],
        call: verdict,
    }
}

#[tokio::test]
async fn a_status_in_the_head_is_all_there_is_and_may_be_tried_again() {
    let down = || Reply::only(&[("grpc-status", "14"), ("grpc-message", "down")]);
    let busy = |wait| Reply::only(&[("grpc-status", "8"), ("grpc-retry-pushback-ms", wait)]);
    for case in [
        Case {
            name: "it stays down",
            plays: vec![Play::Reply(down())],
            seen: Some((Code::Unavailable, "down")),
            requests: 3,
            attempts: vec![UNAVAILABLE; 3],
            call: UNAVAILABLE,
        },
        Case {
            name: "it comes back",
            plays: vec![Play::Reply(down()), Play::Reply(good())],
            seen: None,
            requests: 2,
            attempts: vec![UNAVAILABLE, "success"],
            call: "success",
        },
        Case {
            name: "it says when to come back",
            plays: vec![Play::Reply(busy("5")), Play::Reply(good())],
            seen: None,
            requests: 2,
            attempts: vec![EXHAUSTED, "success"],
            call: "success",
        },
    ] {
        check(case).await;
    }
    let never = |wait| down().with(&[("grpc-retry-pushback-ms", wait)]);
    for case in [
        once("busy", Reply::only(&[("grpc-status", "8")]), Code::ResourceExhausted, EXHAUSTED),
        once("never again", never("-1"), Code::Unavailable, UNAVAILABLE),
        once("malformed pushback", never("soon"), Code::Unavailable, UNAVAILABLE),
        once("it is well", Reply::only(&[("grpc-status", "5")]), Code::NotFound, "success"),
        once("aborted", Reply::only(&[("grpc-status", "10")]), Code::Aborted, "success"),
        once("cancelled", Reply::only(&[("grpc-status", "1")]), Code::Cancelled, "ignored"),
    ] {
        check(case).await;
    }
}

#[tokio::test]
async fn a_status_in_the_trailers_is_the_verdict_of_a_call_that_is_not_repeated() {
    let late = || Reply::trailers(&[("grpc-status", "14"), ("grpc-message", "late")]);
    for case in [
        once("after a message", late().message("fine"), Code::Unavailable, UNAVAILABLE),
        once("at once", late(), Code::Unavailable, UNAVAILABLE),
        once("well", Reply::trailers(&[("grpc-status", "3")]), Code::InvalidArgument, "success"),
    ] {
        check(case).await;
    }
}

#[tokio::test]
async fn a_status_that_is_none_of_grpcs_is_unknown() {
    for status in ["abc", "17", "-1", "", "+14", "1e3", "99999999999999999999"] {
        let head = Reply::only(&[("grpc-status", status)]);
        check(once("in the head", head, Code::Unknown, UNKNOWN)).await;
        let trailers = Reply::trailers(&[("grpc-status", status)]).message("fine");
        check(once("in the trailers", trailers, Code::Unknown, UNKNOWN)).await;
    }
}

#[tokio::test]
async fn the_first_of_several_statuses_counts() {
    let head = Reply::only(&[("grpc-status", "9"), ("grpc-status", "14")]);
    check(once("in the head", head, Code::FailedPrecondition, "success")).await;
    let plays = Reply::trailers(&[("grpc-status", "0"), ("grpc-status", "14")]).message("fine");
    check(Case {
        name: "in the trailers",
        plays: vec![Play::Reply(plays)],
        seen: None,
        requests: 1,
        attempts: vec!["success"],
        call: "success",
    })
    .await;
}

#[tokio::test]
async fn no_status_at_all_is_unknown() {
    for case in [
        once("data ends it", Reply::unended().message("fine"), Code::Unknown, UNKNOWN),
        once("an empty body", Reply::unended(), Code::Unknown, UNKNOWN),
        once(
            "trailers without it",
            Reply::trailers(&[("x-other", "y")]).message("fine"),
            Code::Unknown,
            UNKNOWN,
        ),
    ] {
        check(case).await;
    }
}

#[tokio::test]
async fn without_a_status_the_http_status_decides() {
    for (status, code, verdict) in [
        (404, Code::Unimplemented, "success"),
        (401, Code::Unauthenticated, "success"),
        (403, Code::PermissionDenied, "success"),
        (400, Code::Internal, "failure (grpc status 13)"),
        (500, Code::Unknown, UNKNOWN),
    ] {
        let reply = Reply::only(&[]).status(status).not_grpc();
        check(Case {
            name: "answered by something else",
            plays: vec![Play::Reply(reply)],
            seen: Some((code, "HTTP status code")),
            requests: 1,
            attempts: vec![verdict],
            call: verdict,
        })
        .await;
    }
    for status in [429, 502, 503, 504] {
        let reply = Reply::only(&[]).status(status).not_grpc();
        check(Case {
            name: "the way there is down",
            plays: vec![Play::Reply(reply)],
            seen: Some((Code::Unavailable, "HTTP status code")),
            requests: 3,
            attempts: vec![UNAVAILABLE; 3],
            call: UNAVAILABLE,
        })
        .await;
    }
    // Whatever tonic makes of a page that is no message, the verdict is the status's.
    check(Case {
        name: "with a page",
        plays: vec![Play::Reply(Reply::unended().frame(b"<html>").status(503).not_grpc())],
        seen: Some((Code::Internal, "503")),
        requests: 3,
        attempts: vec![UNAVAILABLE; 3],
        call: UNAVAILABLE,
    })
    .await;
}

#[tokio::test]
async fn a_body_that_breaks_off_is_a_failure_and_not_repeated() {
    const BODY: &str = "failure (body)";
    let half = b"\0\0\0";
    let reset = |reason| Reply::reset(reason).frame(half);
    for case in [
        once("reset", reset(Reason::INTERNAL_ERROR), Code::Internal, BODY),
        once("reset at once", Reply::reset(Reason::INTERNAL_ERROR), Code::Internal, BODY),
        once("reset, calmer", reset(Reason::ENHANCE_YOUR_CALM), Code::ResourceExhausted, BODY),
        // After a head, a refusal is none: the server has begun.
        once("refused late", reset(Reason::REFUSED_STREAM), Code::Unavailable, BODY),
        once("cancelled by the server", reset(Reason::CANCEL), Code::Cancelled, BODY),
        once("cut", Reply::cut().frame(half), ANY, BODY),
    ] {
        check(case).await;
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_an_error_and_no_panic() {
    let big = "x".repeat(60_000);
    let head = Reply::only(&[("grpc-status", "14"), ("x-big", &big)]);
    check(once("an oversized head", head, Code::Internal, "failure (other)")).await;

    // No server's failure: the client gives the call up in the middle.
    let garbage = Reply::trailers(&[("grpc-status", "0")]).frame(b"\x07garbage");
    check(once("no message", garbage, Code::Internal, "cancelled")).await;
}

#[tokio::test]
async fn the_statuss_name_stands_in_the_trace_whatever_the_breaker_makes_of_it() {
    for (plays, expected) in [
        (Reply::only(&[("grpc-status", "5")]), Some("NOT_FOUND")),
        (Reply::trailers(&[("grpc-status", "9")]), Some("FAILED_PRECONDITION")),
        (Reply::trailers(&[("grpc-status", "what")]), Some("UNKNOWN")),
        (good(), None),
    ] {
        let server = Raw::playing(vec![Play::Reply(plays)]).await;
        let stack = stack().build().unwrap();
        drop(guarded(client(&stack, server.addr()).say(ask("hello"))).await);
        let recorder = stack.trace().recorder();
        recorder.flush().await;
        let traces = recorder.store().query(&Query::new()).unwrap().traces;
        let [trace] = &traces[..] else { panic!("{traces:?}") };
        let [call] = &trace.calls[..] else { panic!("{trace:?}") };
        assert_eq!(call.operation.as_deref(), Some("test.Echo/Say"));
        assert_eq!(call.target, None, "the channel knows, and the stack's name tells");
        let status = call.attributes.iter().find(|(key, _)| *key == "grpc.status");
        assert_eq!(status.map(|(_, value)| &**value), expected);
    }
}
