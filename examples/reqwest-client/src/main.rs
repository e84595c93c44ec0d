//! Two programs that call the same moody server through reqwest: one with reqwest's own builder and a
//! middleware, the other through a Tower service. Both have the same stack, and so the same breaker.

mod moody;

#[cfg(test)]
mod tests;

use std::time::Duration;

use portcullis::{
    Event, HttpStack, LayerKind, Stack, What,
    reqwest::{Client, KeepBody, Middleware, rejection, response},
};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use tower::{Layer, ServiceExt};

use self::moody::Moody;

const INTRODUCTION: &str = "\
A server that is moody, and reqwest in front of it: through a middleware first, then through a
service. Both share one stack, and its breaker for the server's host.
";

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    println!("{INTRODUCTION}");
    for line in story(|event| println!("    {event}")).await? {
        println!("{line}");
    }
    Ok(())
}

/// What each call came to; `tell` hears what the layers decide meanwhile.
async fn story(tell: impl Fn(&Event<'_>) + Send + Sync + 'static) -> anyhow::Result<Vec<String>> {
    let server = Moody::begin().await?;
    let stack = Stack::production("moody")
        .keep(KeepBody::new())
        .breaker(|breaker| breaker.consecutive_failures(3))
        .observe(move |event: &Event<'_>| {
            let retry = event.layer == LayerKind::Retry;
            let failed = matches!(event.what, What::Retrying { .. } | What::GaveUp { .. });
            if retry && failed || matches!(event.what, What::StateChanged { .. }) {
                tell(event);
            }
        })
        .build()?;
    // A proxy of the environment's is not for the loopback interface.
    let client = reqwest::Client::builder().no_proxy().build()?;

    let chain = ClientBuilder::new(client.clone()).with(Middleware::new(stack.clone())).build();
    let line = |call: &str, end: String| format!("{call:<24} {end}");
    let mut lines = Vec::new();
    for path in ["/flaky", "/busy", "/cut"] {
        lines.push(line(&format!("middleware, {path}:"), sent(&chain, &server.url(path)).await));
    }
    for path in ["/flaky-again", "/down", "/down"] {
        let end = called(&stack, &client, &server.url(path)).await;
        lines.push(line(&format!("service, {path}:"), end));
    }
    lines.push(line("middleware, /down:", sent(&chain, &server.url("/down")).await));
    Ok(lines)
}

/// A call as users of reqwest write it.
async fn sent(client: &ClientWithMiddleware, url: &str) -> String {
    let response = match client.put(url).body("a question").send().await {
        Ok(response) => response,
        Err(error) => return refused(&error),
    };
    let status = response.status();
    match response.text().await {
        Ok(text) => format!("{status}, {text:?}"),
        Err(error) => format!("{status}, but {error}"),
    }
}

fn refused(error: &reqwest_middleware::Error) -> String {
    match rejection(error) {
        Some(refused) => {
            let after = refused.retry_after().unwrap_or(Duration::ZERO);
            format!("refused ({}), come back in {} s", refused.kind().as_str(), after.as_secs())
        }
        None => error.to_string(),
    }
}

/// A call as users of Tower write it.
async fn called(stack: &HttpStack<KeepBody>, client: &reqwest::Client, url: &str) -> String {
    let call = async {
        let request = http::Request::put(url).body("a question".to_owned())?;
        let answer = stack.layer(Client::new(client.clone())).oneshot(request).await?;
        let status = answer.status();
        anyhow::Ok(format!("{status}, {:?}", response(answer).text().await?))
    };
    call.await.unwrap_or_else(|error| error.to_string())
}
