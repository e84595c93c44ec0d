//! What the two ways cost, in allocations: a whole call in front of a server, against the same call by
//! reqwest alone.

use std::{net::SocketAddr, sync::mpsc, thread};

use allocation_counter::measure;
use http_body_util::BodyExt;
use portcullis::Stack;
use portcullis_reqwest::{Client, KeepBody, Middleware};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    runtime::{Builder, Runtime},
};
use tower::{Layer, Service, ServiceExt, layer::util::Identity};

/// A server on a thread of its own, whose allocations are not counted.
fn server() -> SocketAddr {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        runtime().block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            while let Ok((mut socket, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut read = [0; 4096];
                    while socket.read(&mut read).await.is_ok_and(|read| read > 0) {
                        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                        socket.write_all(answer).await.unwrap();
                    }
                });
            }
        });
    });
    told.recv().unwrap()
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// The fewest allocations of several calls: now and then a buffer or a table grows.
fn allocations(runtime: &Runtime, mut call: impl AsyncFnMut()) -> u64 {
    runtime.block_on(call());
    (0..32).map(|_| measure(|| runtime.block_on(call())).count_total).min().unwrap()
}

#[test]
fn what_the_service_and_the_middleware_add_to_a_call() {
    let url = format!("http://{}/", server());
    let runtime = runtime();
    let _entered = runtime.enter();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = || http::Request::get(&url).body(reqwest::Body::default()).unwrap();

    let alone = allocations(&runtime, async || {
        let request = request().try_into().unwrap();
        client.execute(request).await.unwrap().bytes().await.unwrap();
    });

    async fn serve<S, B>(mut service: S, request: http::Request<reqwest::Body>)
    where
        S: Service<http::Request<reqwest::Body>, Response = http::Response<B>>,
        S::Error: std::fmt::Debug,
        B: http_body::Body<Error: std::fmt::Debug>,
    {
        let response = service.ready().await.unwrap().call(request).await.unwrap();
        response.into_body().collect().await.unwrap();
    }
    let service =
        allocations(&runtime, async || serve(Client::new(client.clone()), request()).await);
    let stack = Stack::production("search").keep(KeepBody::new()).build().unwrap();
    let layered = stack.layer(Client::new(client.clone()));
    let stacked = allocations(&runtime, async || serve(layered.clone(), request()).await);

    async fn send(client: &ClientWithMiddleware, url: &str) {
        client.get(url).send().await.unwrap().bytes().await.unwrap();
    }
    let chain = || ClientBuilder::new(client.clone());
    let none = chain().build();
    let chain_alone = allocations(&runtime, async || send(&none, &url).await);
    let passing = chain().with(Middleware::new(Identity::new())).build();
    let chain_passing = allocations(&runtime, async || send(&passing, &url).await);
    let full = chain().with(Middleware::new(stack)).build();
    let chain_stacked = allocations(&runtime, async || send(&full, &url).await);

    let as_service = (service - alone, stacked - service);
    let as_middleware = (chain_passing - chain_alone, chain_stacked - chain_passing);
    println!(
        "a service over {alone}: {as_service:?}; a middleware over {chain_alone}: {as_middleware:?}"
    );
    assert!(as_service.0 <= 4 && as_service.1 <= 5, "{as_service:?}");
    assert!(as_middleware.0 <= 18 && as_middleware.1 <= 5, "{as_middleware:?}");
}
