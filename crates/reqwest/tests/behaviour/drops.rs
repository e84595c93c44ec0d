//! Callers that give up, at every stage.

use http_body_util::BodyExt;
use portcullis::HttpStack;
use portcullis_reqwest::{KeepBody, Middleware};
use portcullis_testkit::{Leave, give_up};
use reqwest_middleware::ClientBuilder;
use tower::{Layer, ServiceExt};

use crate::support::{
    BOTH, Protocol, Reply, Upstream, breaker, build, builder, client, eventually, stack,
};

fn replies() -> [Reply; 6] {
    [
        Reply::Whole(200, "fine"),
        Reply::Whole(503, "no"),
        Reply::retry_after(429, "0"),
        Reply::Stream,
        Reply::Cut,
        Reply::header(302, "location", "/"),
    ]
}

async fn nothing_is_left(stack: &HttpStack<KeepBody>, upstream: &Upstream, when: &str) {
    assert_eq!(breaker(stack, upstream).snapshot().probes, 0, "{when}");
    assert_eq!(stack.retry().budget().unwrap().waiting(), 0, "{when}");
    eventually(when, || upstream.under_way() == 0).await;
}

/// A call, from the request to the end of the response's body, is given up after every number of
/// polls that it takes.
async fn at_every_stage<F: Future>(
    protocol: Protocol,
    call: impl Fn(&HttpStack<KeepBody>, &Upstream) -> F,
) {
    for reply in replies() {
        let upstream = Upstream::always(protocol, reply.clone()).await;
        for leave in [Leave::AtOnce, Leave::Woken] {
            for polls in 0.. {
                assert!(polls < 200, "the call never ends: {reply:?}");
                let stack = build(stack());
                let over = give_up(call(&stack, &upstream), polls, leave).await.is_some();
                let when = format!("{protocol:?}, {reply:?}, {leave:?} after {polls} polls");
                nothing_is_left(&stack, &upstream, &when).await;
                if over {
                    break;
                }
            }
        }
    }
}

#[tokio::test]
async fn a_service_call_that_is_dropped_leaves_nothing_behind() {
    for protocol in BOTH {
        at_every_stage(protocol, |stack, upstream| {
            let call = stack.layer(client(protocol)).oneshot(upstream.get("/"));
            async { call.await?.into_body().collect().await }
        })
        .await;
    }
}

#[tokio::test]
async fn a_call_through_the_chain_that_is_dropped_leaves_nothing_behind() {
    for protocol in BOTH {
        at_every_stage(protocol, |stack, upstream| {
            let client = ClientBuilder::new(builder(protocol).build().unwrap());
            let client = client.with(Middleware::new(stack.clone())).build();
            let call = client.get(upstream.url("/")).send();
            async { reqwest_middleware::Result::Ok(call.await?.bytes().await?) }
        })
        .await;
    }
}

#[tokio::test]
async fn extensions_come_back_from_a_call_that_is_dropped() {
    let upstream = Upstream::always(Protocol::Http1, Reply::Hang).await;
    let client = ClientBuilder::new(builder(Protocol::Http1).build().unwrap());
    let client = client.with(Middleware::new(build(stack()))).build();
    let mut extensions = http::Extensions::new();
    extensions.insert("mine");
    let request = client.get(upstream.url("/")).build().unwrap();
    let call = client.execute_with_extensions(request, &mut extensions);
    assert!(give_up(call, 1, Leave::AtOnce).await.is_none());
    assert_eq!(extensions.get(), Some(&"mine"));
}
