//! A tonic client behind the stack. The server, on the loopback interface, fails in a new way for
//! everybody it is to greet; what became of each call is shown, and in the end one of them as a story.

mod hello;
mod world;

#[cfg(test)]
mod tests;

use std::{
    io::{IsTerminal, stdout},
    sync::Arc,
    time::Duration,
};

use portcullis::{
    GrpcStack, Stack,
    trace::{Query, record::Trace},
};
use tonic::{Request, Status, body::Body, transport::Endpoint};
use tower::Layer;

use self::{
    hello::{GreeterClient, HelloRequest},
    world::World,
};

/// Who is greeted, each by one call.
const GUESTS: [&str; 6] = ["Ada", "a late riser", "nobody", "a wall", "a fool", "Grace"];

/// What became of one greeting.
struct Met {
    guest: &'static str,
    answer: Result<String, Status>,
    /// How many requests the server saw.
    requests: usize,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    println!("A client greets six guests at a server that fails in a new way for each.\n");
    let (met, story) = party().await?;
    for Met { guest, answer, requests } in &met {
        let answer = match answer {
            Ok(greeting) => greeting.clone(),
            Err(status) => format!("{:?}: {}", status.code(), status.message()),
        };
        println!("{guest:14} {requests} sent   {answer}");
    }
    println!("\nHow it went with the late riser:\n");
    print!("{}", story.waterfall().colour(stdout().is_terminal()));
    Ok(())
}

/// The stack in front of the channel.
fn stack() -> anyhow::Result<GrpcStack<Body>> {
    let stack = Stack::production("greeter").sample_rate(1.0);
    // Two failures in a row are few, and here enough to see it open.
    Ok(stack.breaker(|breaker| breaker.consecutive_failures(2)).grpc(Body::new).build()?)
}

/// Greets everybody: what became of it, and the story of the second call.
async fn party() -> anyhow::Result<(Vec<Met>, Arc<Trace>)> {
    let world = World::begin().await?;
    let channel = Endpoint::from_shared(format!("http://{}", world.addr))?.connect_lazy();
    let stack = stack()?;
    let mut greeter = GreeterClient::new(stack.layer(channel));

    let mut met = Vec::new();
    for guest in GUESTS {
        let mut request = Request::new(HelloRequest { name: guest.to_owned() });
        request.set_timeout(Duration::from_millis(800));
        let answer = greeter.say_hello(request).await;
        let answer = answer.map(|answer| answer.into_inner().message);
        met.push(Met { guest, answer, requests: world.requests() });
    }

    let recorder = stack.trace().recorder();
    recorder.flush().await;
    // The newest is first.
    let page = recorder.store().query(&Query::new()).map_err(anyhow::Error::from_boxed)?;
    let story = page.traces.iter().rev().nth(1).cloned();
    Ok((met, story.ok_or_else(|| anyhow::anyhow!("no trace was kept"))?))
}
