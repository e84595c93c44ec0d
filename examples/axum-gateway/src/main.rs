//! A gateway of two flaky services. It sends itself some requests, tells what became of them and of the
//! time that they had, and shows one of them as a picture.

mod gateway;
mod world;

#[cfg(test)]
mod tests;

use std::{
    io::{IsTerminal, stdout},
    net::SocketAddr,
    sync::Arc,
};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use portcullis::{
    clock,
    http::trace_context::TRACEPARENT,
    trace::{Query, Recorder, Trace},
};

use self::{
    gateway::X_TIMEOUT,
    world::{NO_PRICE, World},
};

/// The trace that the requests of one client belong to.
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

const INTRODUCTION: &str = "\
A gateway asks a service for what is in stock, and another for prices. Stock fails
every other time, and one of the prices never comes. Each client says how long it
waits, and of which trace it is; both go on to whoever is asked for it.
";

/// A request to the gateway.
#[derive(Clone, Debug)]
struct Ask {
    path: String,
    parent: &'static str,
    timeout: &'static str,
}

/// What became of it.
#[derive(Debug)]
struct Told {
    ask: Ask,
    status: StatusCode,
    text: String,
    millis: u128,
    /// The time that each service was told is left, request by request.
    stock: Vec<String>,
    prices: Vec<String>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    println!("{INTRODUCTION}");
    let (told, traces) = story().await?;
    for Told { ask, status, text, millis, stock, prices } in &told {
        println!("GET {}  {}: {}, traceparent: {}", ask.path, X_TIMEOUT, ask.timeout, ask.parent);
        println!("    {status} after {millis} ms: {}", text.trim_end().replace('\n', ", "));
        println!("    stock was told {stock:?} ms are left, prices {prices:?}\n");
    }
    let name = "GET /items/{id}";
    let cut = |trace: &&Arc<Trace>| {
        trace.name == name && trace.calls.iter().any(|call| call.status.as_str() == "timeout")
    };
    if let Some(trace) = traces.iter().find(cut) {
        println!("The request that had too little time for a price that never comes:\n");
        print!("{}", trace.waterfall().colour(stdout().is_terminal()));
    }
    Ok(())
}

/// A gateway with its world, what it was asked, and what it recorded of that.
async fn story() -> anyhow::Result<(Vec<Told>, Vec<Arc<Trace>>)> {
    let mut world = World::begin().await?;
    let recorder = Recorder::builder().sample_rate(1.0).build()?;
    let gateway = world.serve(gateway::app(&world, &recorder)?).await?;

    let ask = |path: String, parent, timeout| Ask { path, parent, timeout };
    let asks = [
        ask("/items/7".to_owned(), PARENT, "2000"),
        ask(format!("/items/{NO_PRICE}"), PARENT, "700"),
        ask("/prices/7".to_owned(), PARENT, "1500"),
        ask("/items/8".to_owned(), "neither here nor there", "soon"),
    ];
    let mut told = Vec::new();
    for ask in asks {
        told.push(send(gateway, ask, &world).await?);
    }
    recorder.flush().await;
    let page = recorder.store().query(&Query::new()).map_err(anyhow::Error::from_boxed)?;
    Ok((told, page.traces))
}

async fn send(gateway: SocketAddr, ask: Ask, world: &World) -> anyhow::Result<Told> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let request = Request::get(format!("http://{gateway}{}", ask.path))
        .header(TRACEPARENT, ask.parent)
        .header(X_TIMEOUT, ask.timeout)
        .body(Empty::new())?;
    let started = clock::now();
    let response = client.request(request).await?;
    let status = response.status();
    let text = response.into_body().collect().await?.to_bytes();
    Ok(Told {
        ask,
        status,
        text: String::from_utf8_lossy(&text).into_owned(),
        millis: clock::now().saturating_duration_since(started).as_millis(),
        stock: world.stock.was_told(X_TIMEOUT.as_str()),
        prices: world.prices.was_told(X_TIMEOUT.as_str()),
    })
}
