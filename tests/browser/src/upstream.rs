//! Servers that do what the request's query says.

use std::{collections::HashMap, convert::Infallible, sync::Arc, time::Duration};

use anyhow::Context;
use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response, StatusCode, header::RETRY_AFTER};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use portcullis::{
    http::trace_context,
    trace::{Recorder, TraceScope},
};
use portcullis_core::{BoxError, sync::Mutex};
use tokio::time::sleep;

pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// All servers that there are. Each address is answered by the steps in its query, one after the other;
/// the last is repeated.
///
/// A step is a status, and what the head and the body of the response take in ms: `200:120+30`. A 429 or
/// 503 may say when to come back, in seconds: `503:10!1`. One that is `hang` never answers.
///
/// A server whose name begins with `traced` records what it does, as part of the caller's trace.
#[derive(Clone, Debug)]
pub(crate) struct Upstream {
    asked: Arc<Mutex<HashMap<String, usize>>>,
    recorder: Recorder,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Answer { status: StatusCode, head: Duration, body: Duration, back: Option<u32> },
    Hang,
}

// ===== impl Upstream =====

impl Upstream {
    pub(crate) fn new(recorder: &Recorder) -> Self {
        Self { asked: Arc::default(), recorder: recorder.clone() }
    }

    pub(crate) async fn answer(
        self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Body>, BoxError> {
        if !request.uri().host().is_some_and(|host| host.starts_with("traced")) {
            return self.step(&request).await;
        }
        let scope = TraceScope::start(format!("serve {}", request.uri().path()));
        let scope = scope.recorder(&self.recorder);
        scope.parent(trace_context::from_headers(request.headers())).run(self.step(&request)).await
    }

    async fn step(&self, request: &Request<Full<Bytes>>) -> Result<Response<Body>, BoxError> {
        let script = request.uri().query().unwrap_or("200:1").to_owned();
        let at = {
            let mut asked = self.asked.lock();
            let times = asked.entry(request.uri().to_string()).or_default();
            *times += 1;
            *times - 1
        };
        let steps: Vec<&str> = script.split(',').collect();
        let step = steps.get(at).or(steps.last()).copied().unwrap_or("200:1");
        match Step::parse(step)? {
            Step::Hang => std::future::pending().await,
            Step::Answer { status, head, body, back } => {
                sleep(head).await;
                let mut response = Response::new(trickle(body));
                *response.status_mut() = status;
                if let Some(seconds) = back {
                    response.headers_mut().insert(RETRY_AFTER, seconds.into());
                }
                Ok(response)
            }
        }
    }
}

/// A body that takes so long.
fn trickle(takes: Duration) -> Body {
    let last = stream::once(async move {
        if !takes.is_zero() {
            sleep(takes).await;
        }
        Ok(Frame::data(Bytes::from_static(b"there you are")))
    });
    StreamBody::new(last).boxed_unsync()
}

// ===== impl Step =====

impl Step {
    fn parse(step: &str) -> anyhow::Result<Self> {
        if step == "hang" {
            return Ok(Self::Hang);
        }
        let millis = |text: &str| anyhow::Ok(Duration::from_millis(text.parse()?));
        let (status, times) = step.split_once(':').context("a step is status:head+body")?;
        let (times, back) = match times.split_once('!') {
            Some((times, back)) => (times, Some(back.parse()?)),
            None => (times, None),
        };
        let (head, body) = times.split_once('+').unwrap_or((times, "0"));
        Ok(Self::Answer { status: status.parse()?, head: millis(head)?, body: millis(body)?, back })
    }
}
