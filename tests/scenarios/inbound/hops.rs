//! What goes on from hop to hop: the trace, the time left, and that somebody has gone.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use portcullis::{
    clock,
    http::{parse_grpc_timeout, trace_context},
    sync::Mutex,
    trace::{Status, record::Call},
};

use super::gateway::{Gateway, X_TIMEOUT, millis};
use crate::support::{LATE, Reply, SOON, Upstream, client, eventually};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

type Log = Arc<Mutex<Vec<HeaderMap>>>;

/// A server that answers as `reply` says by the number of the request, and what headers it got.
async fn upstream(reply: impl Fn(usize) -> Reply + Send + Sync + 'static) -> (Upstream, Log) {
    let log = Log::default();
    let seen = log.clone();
    let upstream = Upstream::new(move |asked| {
        seen.lock().push(asked.head.headers.clone());
        reply(asked.index)
    });
    (upstream.await, log)
}

fn found(_: usize) -> Reply {
    Reply::Whole(200, "found")
}

#[tokio::test]
async fn the_upstream_has_the_same_trace_with_our_attempt_as_its_parent() {
    let (upstream, log) = upstream(|index| match index {
        0 => Reply::Whole(503, "not yet"),
        _ => Reply::Whole(200, "found"),
    })
    .await;
    let gateway = Gateway::new(&upstream).await;
    let headers: [(&str, &[u8]); 2] =
        [("traceparent", PARENT.as_bytes()), ("tracestate", b"rojo=1")];
    assert_eq!(gateway.ask("/one", &headers).await.1, "found");

    let traces = gateway.traces(1).await;
    let sent = trace_context::parse_traceparent(&PARENT.parse().unwrap()).unwrap();
    assert_eq!(traces[0].id, sent.trace_id);
    assert_eq!(traces[0].parent, Some(sent.span_id));
    let [call]: &[Call; 1] = traces[0].calls.as_slice().try_into().unwrap();
    assert_eq!(call.parent, Some(traces[0].span));

    let log = log.lock();
    let got: Vec<_> = log.iter().filter_map(trace_context::from_headers).collect();
    assert_eq!((got.len(), call.attempts.len()), (2, 2));
    for (got, attempt) in got.iter().zip(&call.attempts) {
        assert_eq!(got.context.trace_id, sent.trace_id);
        assert_eq!(got.context.span_id, attempt.span);
        assert_ne!(got.context.span_id, sent.span_id);
        assert_eq!(got.state.as_deref(), Some("rojo=1"));
        assert!(got.context.sampled);
    }
    assert_ne!(got[0].context.span_id, got[1].context.span_id);
}

#[tokio::test]
async fn the_upstream_has_less_time_than_the_request_had() {
    let (upstream, log) = upstream(found).await;
    let gateway = Gateway::new(&upstream).await;
    gateway.ask("/one", &[("x-timeout-ms", b"1500")]).await;
    let grpc: [(&str, &[u8]); 2] =
        [("content-type", b"application/grpc"), ("grpc-timeout", b"1500m")];
    let sent = clock::now();
    gateway.ask("/shop.Items/Get", &grpc).await;
    // Both, and the shorter one counts.
    let both = [grpc[0], grpc[1], ("x-timeout-ms", b"900".as_slice())];
    gateway.ask("/shop.Items/Get", &both).await;

    let log = log.lock();
    let said = |nth: usize| millis(log[nth].get(X_TIMEOUT).unwrap().to_str().unwrap());
    assert!(said(0) <= millis("1500") && said(0) > Duration::ZERO);
    assert_eq!(log[0].get("grpc-timeout"), None, "it is no gRPC call");
    let left = parse_grpc_timeout(&log[1]["grpc-timeout"]).unwrap();
    assert!(left < millis("1500"), "{left:?} of what was sent {:?} ago", clock::now() - sent);
    assert!(parse_grpc_timeout(&log[2]["grpc-timeout"]).unwrap() < millis("900"));
    assert!(said(2) < millis("900"));
}

#[tokio::test]
async fn a_deadline_that_passes_behind_is_answered_and_nothing_is_left() {
    let (upstream, _) = upstream(|_| Reply::Hang).await;
    let gateway = Gateway::new(&upstream).await;
    let limit = SOON.as_millis().to_string();
    let started = clock::now();
    let (status, text) = gateway.ask("/one", &[("x-timeout-ms", limit.as_bytes())]).await;
    assert_eq!(status, StatusCode::GATEWAY_TIMEOUT);
    let took = clock::now() - started;
    assert!(took >= SOON && took < LATE / 2, "{took:?}");
    // The handler's words if it had the last one, else none.
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(text.is_empty() || text.contains("limit of"), "{text}");

    let traces = gateway.traces(1).await;
    assert_eq!(traces[0].calls[0].status, Status::Timeout, "{}", traces[0]);
    eventually("the connection is closed", || upstream.connections() == 0).await;
    assert_eq!(gateway.stack.retry().budget().unwrap().waiting(), 0);
}

#[tokio::test]
async fn a_request_that_comes_too_late_is_asked_of_nobody() {
    let (upstream, _) = upstream(found).await;
    let gateway = Gateway::new(&upstream).await;
    assert_eq!(gateway.ask("/one", &[("x-timeout-ms", b"0")]).await.0, 504);
    let grpc: [(&str, &[u8]); 2] = [("content-type", b"application/grpc"), ("grpc-timeout", b"0n")];
    let response = client().request(gateway.get("/shop.Items/Get", &grpc)).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["grpc-status"]),
        (200, &"4".parse().unwrap())
    );
    assert_eq!(upstream.requests(), 0);
    let traces = gateway.traces(2).await;
    assert!(traces.iter().all(|trace| trace.status == Status::Timeout));
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_what_was_asked_for_it_and_leaves_nothing() {
    for (path, reply, of_call) in [
        ("/one", Reply::Hang, Status::Cancelled),
        // A call whose body is dropped after a good head is judged by that.
        ("/one", Reply::Unfinished(200), Status::Success),
        ("/stream", Reply::Hang, Status::Cancelled),
    ] {
        let (upstream, _) = upstream(move |_| reply.clone()).await;
        let gateway = Gateway::new(&upstream).await;
        let client = client();
        let asking = tokio::spawn({
            let response = client.request(gateway.get(path, &[]));
            async move {
                let _ = response.await.unwrap().into_body().collect().await;
            }
        });
        eventually("the upstream is asked", || upstream.requests() == 1).await;
        asking.abort();
        let _ = asking.await;
        drop(client);

        let traces = gateway.traces(1).await;
        assert_eq!(traces[0].status, Status::Cancelled, "{path}: {}", traces[0]);
        assert_eq!(traces[0].calls.len(), 1);
        assert_eq!(traces[0].calls[0].status, of_call, "{path}: {}", traces[0]);
        eventually("the connection is closed", || upstream.connections() == 0).await;
        assert_eq!(gateway.stack.retry().budget().unwrap().waiting(), 0);
    }
}

#[tokio::test]
async fn a_handler_that_streams_makes_its_calls_in_the_requests_trace_and_time() {
    let (upstream, log) = upstream(found).await;
    let gateway = Gateway::new(&upstream).await;
    let headers: [(&str, &[u8]); 2] =
        [("traceparent", PARENT.as_bytes()), ("x-timeout-ms", b"5000")];
    let (status, text) = gateway.ask("/stream", &headers).await;
    assert_eq!((status.as_u16(), &*text), (200, b"foundfoundfound".as_slice()));

    let traces = gateway.traces(1).await;
    assert_eq!((traces[0].status, traces[0].calls.len()), (Status::Success, 3));
    assert!(traces[0].calls.iter().all(|call| call.parent == Some(traces[0].span)));
    for headers in &*log.lock() {
        assert!(
            PARENT.contains(
                &trace_context::from_headers(headers).unwrap().context.trace_id.to_string()
            )
        );
        assert!(millis(headers[X_TIMEOUT].to_str().unwrap()) <= millis("5000"));
    }
}

#[tokio::test]
async fn a_stream_that_outlasts_its_deadline_is_broken_off() {
    let (upstream, _) = upstream(|index| match index {
        0 => Reply::Whole(200, "found"),
        _ => Reply::Hang,
    })
    .await;
    let gateway = Gateway::new(&upstream).await;
    let limit = SOON.as_millis().to_string();
    let request = gateway.get("/stream", &[("x-timeout-ms", limit.as_bytes())]);
    let response = client().request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.into_body().collect().await.is_err());
    assert_eq!(gateway.traces(1).await[0].status, Status::Timeout);
    eventually("the connection is closed", || upstream.connections() == 0).await;
}

#[tokio::test]
async fn malformed_headers_of_every_kind_never_fail_a_request() {
    let (upstream, log) = upstream(found).await;
    let gateway = Gateway::new(&upstream).await;
    let long = [b'9'; 400];
    let odd: [&[u8]; 12] = [
        b"",
        b" ",
        b"soon",
        b"-1",
        b"1.5",
        b"0x10",
        b"\xff\xfe",
        "٥".as_bytes(),
        b"00-",
        b"99999999H",
        &long,
        b"5S, 6S",
    ];
    let mut asked = 0;
    for name in ["traceparent", "tracestate", "grpc-timeout", "x-timeout-ms"] {
        for value in odd {
            for kind in [b"application/grpc".as_slice(), b"text/plain"] {
                let headers = [("content-type", kind), (name, value), (name, value)];
                for many in [2, 3] {
                    let (status, text) = gateway.ask("/one", &headers[..many]).await;
                    assert_eq!(
                        (status.as_u16(), &*text),
                        (200, b"found".as_slice()),
                        "{headers:?}"
                    );
                    asked += 1;
                }
            }
        }
    }
    let log = log.lock();
    assert_eq!(log.len(), asked);
    // And what goes on is well-formed.
    assert!(log.iter().all(|headers| trace_context::from_headers(headers).is_some()));
}
