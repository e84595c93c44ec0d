//! The whole of it over real connections, on one thread.

use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use portcullis::{Registry, Stack, trace::Recorder};
use portcullis_admin::Admin;
use portcullis_testkit::call as send;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    time::timeout,
};
use tower::Layer;

use crate::{answering, outgoing};

type Browser = Client<HttpConnector, Full<Bytes>>;

/// A server that stops when it is told to, once all connections are done.
async fn serve(
    app: Router,
    admin: Admin,
) -> (String, oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (stop, stopped) = oneshot::channel();
    let server = axum::serve(listener, app).with_graceful_shutdown(async move {
        let _ = stopped.await;
        admin.close_events();
    });
    (address, stop, tokio::spawn(async move { server.await.unwrap() }))
}

fn browser() -> Browser {
    Client::builder(TokioExecutor::new()).build_http()
}

async fn json(browser: &Browser, url: &str) -> Value {
    let response = browser.get(url.parse().unwrap()).await.unwrap();
    assert_eq!(response.status(), 200, "{url}");
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    serde_json::from_slice(&bytes).unwrap()
}

#[tokio::test(flavor = "current_thread")]
async fn a_program_shows_what_its_stack_does_under_any_prefix() {
    let registry = Registry::new();
    let recorder = Recorder::builder().sample_rate(1.0).build().unwrap();
    let admin = Admin::builder()
        .registry(&registry)
        .shared_store(recorder.store().clone())
        .token("t")
        .build()
        .unwrap();
    let stack = Stack::production("shop/eu")
        .recorder(&recorder)
        .register_in(&registry)
        .observe(admin.observer())
        .build()
        .unwrap();
    let app = Router::new().nest("/internal/{tenant}/portcullis", admin.router());
    let (address, stop, server) = serve(app, admin).await;
    let browser = browser();
    let root = format!("http://{address}/internal/acme/portcullis");

    let mut client = stack.layer(answering([200, 404, 200]));
    for _ in 0..3 {
        send(&mut client, outgoing("http://shop.test/")).await.unwrap();
    }
    recorder.flush().await;
    let targets = json(&browser, &format!("{root}/api/targets")).await;
    assert_eq!(targets["targets"][0]["outcomes"]["success"], 3);
    let list = json(&browser, &format!("{root}/api/traces?limit=1")).await;
    let id = list["traces"][0]["id"].as_str().unwrap();
    let trace = json(&browser, &format!("{root}/api/traces/{id}")).await;
    assert_eq!(trace["traces"][0]["calls"][0]["name"], "shop/eu");
    let breakers = json(&browser, &format!("{root}/api/breakers/shop%2Feu")).await;
    assert_eq!(breakers["breakers"][0]["calls"], 3);

    let order = axum::http::Request::post(format!("{root}/api/breakers/shop%2Feu/open"))
        .header("authorization", "Bearer t")
        .body(Full::default())
        .unwrap();
    assert_eq!(browser.request(order).await.unwrap().status(), 200);
    send(&mut client, outgoing("http://shop.test/")).await.unwrap_err();
    let health = json(&browser, &format!("{root}/health")).await;
    assert_eq!(health["status"], "degraded");

    stop.send(()).unwrap();
    drop(browser);
    timeout(Duration::from_secs(30), server).await.unwrap().unwrap();
}

#[tokio::test(flavor = "current_thread")]
async fn a_connection_that_nobody_reads_holds_up_neither_calls_nor_the_end() {
    let registry = Registry::new();
    let admin = Admin::builder().registry(&registry).build().unwrap();
    let stack = Stack::production("shop").observe(admin.observer()).register_in(&registry);
    let stack = stack.build().unwrap();
    let (address, stop, server) = serve(admin.router(), admin.clone()).await;

    let mut silent = TcpStream::connect(&address).await.unwrap();
    silent.write_all(b"GET /api/events HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut head = [0; 12];
    silent.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");

    let handle = stack.breaker().handles().get_or_create("shop.test");
    for round in 0..50_000 {
        handle.force_open();
        handle.automatic();
        if round % 100 == 0 {
            // The server goes on writing what the connection takes.
            tokio::task::yield_now().await;
        }
    }
    let browser = browser();
    let about = json(&browser, &format!("http://{address}/api/about")).await;
    assert_eq!(about["title"], "Portcullis");
    drop(browser);
    stop.send(()).unwrap();
    // It takes what was written before the end, and then finds it.
    let mut rest = Vec::new();
    let end = async { silent.read_to_end(&mut rest).await.unwrap() };
    timeout(Duration::from_secs(30), end).await.unwrap();
    assert!(String::from_utf8_lossy(&rest).contains("event: missed"));
    assert!(rest.len() < 20_000_000, "{}", rest.len());
    timeout(Duration::from_secs(30), server).await.unwrap().unwrap();
}
