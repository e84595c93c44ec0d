//! A test bench that takes jobs on and is asked about them until they are done.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use portcullis::{
    Backoff, Error, HttpStack, Invalid, Jitter, Report, Stack,
    http::FollowAccepted,
    poll::PollLayer,
    timeout::TimeoutLayer,
    trace::{Recorder, TraceLayer},
};
use tower::{Layer, ServiceBuilder, ServiceExt, util::BoxCloneSyncService};

use crate::tools::{Http, said};

/// A job is one call, and each request about it another, made through a stack of its own.
pub(crate) struct Bench {
    requests: HttpStack,
    jobs: BoxCloneSyncService<Request<Full<Bytes>>, String, Error>,
}

// ===== impl Bench =====

impl Bench {
    pub(crate) fn new(client: &Http, recorder: &Recorder, seed: u64) -> Result<Self, Invalid> {
        let requests = Stack::production("bench")
            .recorder(recorder)
            .total(|timeout| timeout.total(Duration::from_secs(3)))
            .attempt(|timeout| timeout.attempt(Duration::from_secs(1)))
            .retry(|retry| retry.backoff(Backoff::fixed(Duration::from_millis(100))).seed(seed))
            .limit(|limit| limit.max_wait(Duration::from_secs(1)))
            .breaker(|breaker| breaker.seed(seed))
            .build()?;
        let limit = Duration::from_secs(20);
        let polls = PollLayer::builder("bench job", FollowAccepted::new())
            .backoff(Backoff::fixed(Duration::from_millis(300)))
            .jitter(Jitter::None)
            .limit(limit);
        let jobs = ServiceBuilder::new()
            .layer(TraceLayer::builder("bench job").recorder(recorder).build()?)
            .layer(TimeoutLayer::builder("bench job").total(limit).build()?)
            .layer(polls.build()?)
            .service(requests.layer(client.clone()))
            .and_then(said);
        Ok(Self { requests, jobs: BoxCloneSyncService::new(jobs) })
    }

    /// Has a job done.
    pub(crate) async fn run(&self, job: &str) -> Result<String, Error> {
        let request = Request::post("http://bench.example/runs").body(Full::from(job.to_owned()));
        self.jobs.clone().oneshot(request.map_err(Error::inner)?).await
    }

    /// What the settings of the stack come to that its requests are made through.
    pub(crate) fn check(&self) -> Report {
        self.requests.check()
    }
}
