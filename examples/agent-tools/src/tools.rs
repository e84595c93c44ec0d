//! What the agent works with: servers and programs, and a stack in front of each.

use std::{path::Path, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use portcullis::{Backoff, BoxError, Error, HttpStack, Invalid, Report, Stack, trace::Recorder};
use tower::{Layer, ServiceExt};

use crate::{
    bench::Bench,
    program::Program,
    world::{Names, World},
};

/// The same jitter in every run.
const SEED: u64 = 17;

pub(crate) type Http = Client<HttpConnector<Names>, Full<Bytes>>;

pub(crate) struct Tools {
    pub(crate) model: Tool,
    pub(crate) search: Tool,
    pub(crate) metrics: Tool,
    pub(crate) people: Tool,
    pub(crate) logs: Program,
    pub(crate) profile: Program,
    pub(crate) replay: Program,
    pub(crate) dump: Program,
    pub(crate) bench: Bench,
}

/// A server of this name, and how it is called.
pub(crate) struct Tool {
    name: &'static str,
    stack: HttpStack,
    service: <HttpStack as Layer<Http>>::Service,
}

/// What differs from tool to tool.
struct Patience {
    total: Duration,
    attempt: Duration,
    attempts: u32,
}

// ===== impl Tools =====

impl Tools {
    pub(crate) fn new(world: &World, folder: &Path, recorder: &Recorder) -> anyhow::Result<Self> {
        let connector = HttpConnector::new_with_resolver(world.names());
        let client = Client::builder(TokioExecutor::new()).build(connector);
        let tool = |name, total, attempt, attempts| {
            let [total, attempt] = [total, attempt].map(Duration::from_millis);
            Tool::new(name, &Patience { total, attempt, attempts }, &client, recorder)
        };
        let program = |name, patience| {
            Program::new(name, Duration::from_millis(patience), folder, recorder, SEED)
        };
        Ok(Self {
            logs: program("logs", 5_000)?,
            profile: program("profile", 5_000)?,
            replay: program("replay", 400)?,
            dump: program("dump", 5_000)?,
            bench: Bench::new(&client, recorder, SEED)?,
            model: tool("model", 6_000, 2_000, 3)?,
            search: tool("search", 3_000, 1_000, 3)?,
            metrics: tool("metrics", 1_500, 300, 2)?,
            people: tool("people", 3_000, 1_000, 3)?,
        })
    }

    /// What the settings of the stacks in front of servers come to.
    pub(crate) fn checks(&self) -> [Report; 5] {
        let [model, search, metrics, people] =
            [&self.model, &self.search, &self.metrics, &self.people].map(Tool::check);
        [model, search, metrics, people, self.bench.check()]
    }
}

// ===== impl Tool =====

impl Tool {
    fn new(
        name: &'static str,
        patience: &Patience,
        client: &Http,
        recorder: &Recorder,
    ) -> Result<Self, Invalid> {
        let backoff = Backoff::exponential(Duration::from_millis(200), Duration::from_secs(2));
        let stack = Stack::production(name)
            .recorder(recorder)
            .total(|timeout| timeout.total(patience.total))
            .attempt(|timeout| timeout.attempt(patience.attempt))
            .retry(|retry| retry.max_attempts(patience.attempts).backoff(backoff).seed(SEED))
            .limit(|limit| {
                limit.rate(50, Duration::from_secs(1)).burst(10).max_wait(patience.attempt)
            })
            .breaker(|breaker| breaker.seed(SEED))
            .build()?;
        let service = stack.layer(client.clone());
        Ok(Self { name, stack, service })
    }

    pub(crate) async fn get(&self, path: &str) -> Result<String, Error> {
        self.send(Method::GET, path, "").await
    }

    pub(crate) async fn post(&self, path: &str, text: &str) -> Result<String, Error> {
        self.send(Method::POST, path, text).await
    }

    /// What the settings of its stack come to.
    pub(crate) fn check(&self) -> Report {
        self.stack.check()
    }

    async fn send(&self, method: Method, path: &str, text: &str) -> Result<String, Error> {
        let uri = format!("http://{}.example{path}", self.name);
        let body = Full::from(text.to_owned());
        let request = Request::builder().method(method).uri(uri).body(body);
        let response = self.service.clone().oneshot(request.map_err(Error::inner)?).await?;
        said(response).await
    }
}

/// What a server said, unless it failed.
pub(crate) async fn said<B>(response: Response<B>) -> Result<String, Error>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    let status = response.status();
    let text = response.into_body().collect().await.map_err(Error::inner)?.to_bytes();
    match status.is_success() {
        true => Ok(String::from_utf8_lossy(&text).into_owned()),
        false => Err(Error::inner(format!("status {status}"))),
    }
}
