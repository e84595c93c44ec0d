//! One deadline, from the caller's `set_timeout` to the server, and to the end of the body.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use portcullis::{
    Phase,
    http::{GRPC_TIMEOUT, parse_grpc_timeout},
    retry::Backoff,
    timeout::Limits,
};
use tonic::{Code, Request};

use super::{
    kit::{Ear, client, guarded, stack, status},
    raw::{Play, Raw, Reply},
    server::Upstream,
    wire::{Ask, ask},
};
use crate::support::{LATE, SOON, eventually};

fn within(limit: Duration) -> Request<Ask> {
    let mut request = Request::new(ask("hang"));
    request.set_timeout(limit);
    request
}

/// The `grpc-timeout` that came with the request of this number.
fn told(server: &Raw, nth: usize) -> Option<Duration> {
    server.head(nth).headers.get(GRPC_TIMEOUT).and_then(parse_grpc_timeout)
}

#[tokio::test]
async fn a_callers_timeout_is_the_calls_deadline_though_the_channel_keeps_it_too() {
    // The channel's own timer runs out at the same moment; it must not matter which is seen first.
    for limit in [20, 21, 23, 30, 50].map(Duration::from_millis) {
        let server = Raw::playing(vec![Play::Hang]).await;
        let ear = Ear::default();
        let stack = stack().observe(ear.clone()).build().unwrap();
        let failed = guarded(client(&stack, server.addr()).say(within(limit))).await.unwrap_err();
        let message = format!("echo: inherited limit of {limit:?} ran out");
        assert_eq!(status(&failed), (Code::DeadlineExceeded, &*message));
        let heard = ear.heard();
        assert_eq!(heard.attempts, ["failure (timeout)"], "{heard:?}");
        assert_eq!(heard.calls, ["failure (timeout)"], "{heard:?}");
        let told = told(&server, 0).unwrap();
        assert!(told <= limit && told > Duration::ZERO, "{told:?}");
        eventually("the server is rid of it", || server.streams() == 0).await;
    }
}

#[tokio::test]
async fn it_only_shortens_the_stacks_own_limit() {
    let server = Raw::playing(vec![Play::Hang]).await;
    let stack = stack().total(|timeout| timeout.total(SOON)).build().unwrap();
    let started = Instant::from(tokio::time::Instant::now());
    let failed = guarded(client(&stack, server.addr()).say(within(LATE))).await.unwrap_err();
    assert_eq!(status(&failed), (Code::DeadlineExceeded, "echo: total limit of 300ms ran out"));
    assert!(started.elapsed() < LATE / 2);
    assert!(told(&server, 0).unwrap() <= SOON);
}

#[tokio::test]
async fn each_attempt_is_told_what_is_left() {
    let wait = Duration::from_millis(30);
    let down = Play::Reply(Reply::only(&[("grpc-status", "14")]));
    let server = Raw::playing(vec![down]).await;
    let stack = stack().retry(|retry| retry.backoff(Backoff::fixed(wait))).build().unwrap();
    let limit = LATE / 4;
    let failed = guarded(client(&stack, server.addr()).say(within(limit))).await.unwrap_err();
    assert_eq!(failed.code(), Code::Unavailable);
    let [first, second, third] = [0, 1, 2].map(|nth| told(&server, nth).unwrap());
    assert!(first <= limit && second + wait <= first && third + wait <= second);
}

#[tokio::test]
async fn a_body_past_its_deadline_ends_with_a_status_and_its_reason() {
    let server = Upstream::well().await;
    let ear = Ear::default();
    let stack = stack().observe(ear.clone()).build().unwrap();
    guarded(async {
        let count = client(&stack, server.addr()).count(within(SOON)).await;
        let mut answers = count.unwrap().into_inner();
        assert_eq!(answers.message().await.unwrap().unwrap().text, "1");
        let late = answers.message().await.unwrap_err();
        assert_eq!(late.code(), Code::DeadlineExceeded, "{late:?}");
        assert!(late.message().starts_with("echo: "), "{late:?}");
        eventually("the server is rid of it", || server.under_way() == 0).await;
    })
    .await;
    assert_eq!(ear.heard().calls, ["failure (timeout)"]);
}

#[tokio::test]
async fn an_idle_stream_ends_with_a_status_too() {
    let server = Raw::playing(vec![Play::Reply(Reply::hanging().message("1"))]).await;
    let stack = stack().attempt(|timeout| timeout.idle(SOON)).build().unwrap();
    let answers = guarded(async {
        let answers = client(&stack, server.addr()).count(ask("on")).await.unwrap();
        answers.into_inner().collect::<Vec<_>>().await
    })
    .await;
    let [Ok(one), Err(idle)] = &answers[..] else { panic!("{answers:?}") };
    assert_eq!(one.text, "1");
    assert_eq!(status(idle), (Code::DeadlineExceeded, "echo: idle limit of 300ms ran out"));
}

#[tokio::test]
async fn absurd_timeouts_pass_and_malformed_ones_are_as_if_absent() {
    for (own, total) in [
        ("99999999H", Some(LATE)),
        ("99999999H", None),
        ("soon", Some(LATE)),
        ("soon", None),
        ("-1S", None),
        ("", None),
    ] {
        let good = Reply::trailers(&[("grpc-status", "0")]).message("fine");
        let server = Raw::playing(vec![Play::Reply(good)]).await;
        let stack = stack()
            .total(|timeout| timeout.total(total.unwrap_or(Limits::NEVER)))
            .attempt(|timeout| timeout.attempt(Limits::NEVER))
            .build()
            .unwrap();
        let mut request = Request::new(ask("hello"));
        request.metadata_mut().insert("grpc-timeout", own.parse().unwrap());
        let answer = guarded(client(&stack, server.addr()).say(request)).await;
        assert_eq!(answer.unwrap().into_inner().text, "fine", "{own:?}");
        match (total, told(&server, 0)) {
            (Some(total), told) => assert!(told.unwrap() <= total, "{own:?}"),
            (None, Some(told)) => assert!(own.ends_with('H') && told > LATE, "{own:?}"),
            (None, None) => assert!(!own.ends_with('H')),
        }
    }
}

#[tokio::test]
async fn no_time_at_all_is_refused_before_it_is_sent() {
    let server = Raw::playing(vec![Play::Hang]).await;
    let stack = stack().build().unwrap();
    let failed = guarded(client(&stack, server.addr()).say(within(Duration::ZERO))).await;
    assert_eq!(failed.unwrap_err().code(), Code::DeadlineExceeded);
    assert_eq!(server.requests(), 0);
}

#[tokio::test]
async fn a_method_has_the_limits_of_its_name() {
    let server = Upstream::well().await;
    let quick = Limits::new().with_total(SOON);
    let stack = stack().total(|timeout| timeout.operation("test.Echo/Say", quick)).build().unwrap();
    let mut client = client(&stack, server.addr());
    let failed = guarded(client.say(ask("hang"))).await.unwrap_err();
    assert_eq!(status(&failed), (Code::DeadlineExceeded, "echo: total limit of 300ms ran out"));
    let waits = client.count(ask("on"));
    let mut answers = guarded(waits).await.unwrap().into_inner();
    assert_eq!(answers.message().await.unwrap().unwrap().text, "1");
    let more = tokio::time::timeout(SOON * 2, answers.message()).await;
    assert!(more.is_err(), "another method is under the stack's own limits");
    assert_eq!(Phase::Total.to_string(), "total");
}
