//! What shares a connection, and what becomes of a connection that is no request's any more.

use axum::{Router, body::Body, extract::Request, routing::any};
use http::{Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use portcullis::{
    Call, clock,
    inbound::InboundLayer,
    trace::{Query, Recorder, Status},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::gateway::X_TIMEOUT;
use crate::support::{SOON, eventually};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// What the handler finds itself in.
async fn scope() -> String {
    tokio::task::yield_now().await;
    let call = Call::current();
    let trace = call.trace().map(|trace| trace.trace_id.to_string()).unwrap_or_default();
    format!("{};{trace};{}!", call.deadline().is_some(), call.attempt())
}

/// Takes the connection over, and gives back what comes until that has ended.
async fn echo(request: Request) -> Response<Body> {
    tokio::spawn(async move {
        let mut io = TokioIo::new(hyper::upgrade::on(request).await.unwrap());
        let mut byte = [0];
        while io.read_exact(&mut byte).await.is_ok() {
            io.write_all(&byte).await.unwrap();
            io.flush().await.unwrap();
        }
    });
    let head = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "upgrade")
        .header(header::UPGRADE, "echo");
    head.body(Body::empty()).unwrap()
}

/// A connection to a server with `inbound` outermost, which ends with what is returned beside it.
async fn connected(inbound: InboundLayer) -> (TcpStream, JoinSet<std::io::Result<()>>) {
    let inner = Router::new().route("/scope", any(scope)).layer(InboundLayer::new());
    let app = Router::new().route("/echo", any(echo)).nest("/nested", inner);
    let app = app.route("/scope", any(scope)).fallback(any(scope)).layer(inbound);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let mut serving = JoinSet::new();
    serving.spawn(axum::serve(listener, app).into_future());
    (TcpStream::connect(addr).await.unwrap(), serving)
}

fn request(method: &str, path: &str, headers: &[&str]) -> String {
    let headers: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    format!("{method} {path} HTTP/1.1\r\nhost: here\r\n{headers}\r\n")
}

#[tokio::test]
async fn requests_that_come_in_one_write_share_nothing() {
    let inbound = InboundLayer::builder("app").timeout_header(X_TIMEOUT).build().unwrap();
    let (mut client, _serving) = connected(inbound).await;
    let parent = format!("traceparent: {PARENT}");
    let asked = [
        request("GET", "/scope", &[&parent, "x-timeout-ms: 60000"]),
        request("GET", "/scope", &[]),
        request("HEAD", "/scope", &[&parent, "x-timeout-ms: 0"]),
        request("GET", "/nested/scope", &[&parent]),
        request("OPTIONS", "/scope", &["x-timeout-ms: 0"]),
        request("GET", "/nowhere", &["x-timeout-ms: 60000", "connection: close"]),
    ];
    client.write_all(asked.concat().as_bytes()).await.unwrap();
    let mut answers = String::new();
    client.read_to_string(&mut answers).await.unwrap();

    let heads = answers.match_indices("HTTP/1.1 ");
    let statuses: Vec<_> = heads.map(|(at, _)| &answers[at + 9..at + 12]).collect();
    assert_eq!(statuses, ["200", "200", "504", "200", "504", "200"], "{answers}");
    let trace_id = &PARENT[3..35];
    let bodies = |text: &str| answers.matches(text).count();
    assert_eq!(bodies(&format!("\r\n\r\ntrue;{trace_id};0!")), 1, "{answers}");
    assert_eq!(bodies("\r\n\r\nfalse;;0!"), 1, "{answers}");
    assert_eq!(bodies(&format!("\r\n\r\nfalse;{trace_id};0!")), 1, "{answers}");
    assert_eq!(bodies("\r\n\r\ntrue;;0!"), 1, "{answers}");
}

#[tokio::test]
async fn a_connection_that_has_become_something_else_outlives_the_requests_deadline() {
    let recorder = Recorder::builder().sample_rate(1.0).build().unwrap();
    let inbound = InboundLayer::builder("app").default_timeout(SOON).recorder(&recorder);
    let (mut client, _serving) = connected(inbound.build().unwrap()).await;
    let asked = request("GET", "/echo", &["connection: upgrade", "upgrade: echo"]);
    let began = clock::now();
    client.write_all(asked.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    eventually("it is over with its head", || recorder.counts().seen == 1).await;

    while clock::now() <= began + 2 * SOON {
        client.write_all(b"!").await.unwrap();
        assert_eq!(client.read_u8().await.unwrap(), b'!');
    }
    recorder.flush().await;
    let traces = recorder.store().query(&Query::new()).unwrap().traces;
    assert_eq!(traces[0].status, Status::Success);
}
