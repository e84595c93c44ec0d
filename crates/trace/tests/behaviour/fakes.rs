//! What the tests are written with.

use std::{sync::Arc, time::Duration};

use portcullis_core::{ByClone, FaultKind, Outcome, Replay, classify_fn};
use portcullis_testkit::{ScriptedService, Step, TestError};
use portcullis_trace::{Query, Recorder, Trace, TraceConfig};

pub(crate) const MS: Duration = Duration::from_millis(1);
pub(crate) const SECOND: Duration = Duration::from_secs(1);

pub(crate) type Inner = ScriptedService<&'static str, u16>;

/// A recorder that keeps everything and stores it at once.
pub(crate) fn recorder() -> Recorder {
    Recorder::builder().config(config()).build().unwrap()
}

pub(crate) fn config() -> TraceConfig {
    let mut config = TraceConfig::default();
    config.sample_rate = 1.0;
    config.batch_interval = Duration::ZERO;
    config
}

/// All that is stored, in the order of the starts.
pub(crate) async fn stored(recorder: &Recorder) -> Vec<Arc<Trace>> {
    recorder.flush().await;
    let mut traces = recorder.store().query(&Query::new().limit(1000)).unwrap().traces;
    traces.reverse();
    traces
}

/// The one trace that is stored.
pub(crate) async fn one(recorder: &Recorder) -> Arc<Trace> {
    let mut traces = stored(recorder).await;
    assert_eq!(traces.len(), 1, "{traces:?}");
    traces.remove(0)
}

/// A service that answers these statuses in turn, each after 10 ms; 0 is an error.
pub(crate) fn answering<const N: usize>(statuses: [u16; N]) -> Inner {
    ScriptedService::respond_with(move |_, n| {
        let step = match statuses[usize::try_from(n).unwrap_or(0).min(N - 1)] {
            0 => Step::Err(TestError("connection reset")),
            status => Step::Ok(status),
        };
        step.after(10 * MS)
    })
}

pub(crate) fn failure(status: u16) -> Outcome {
    Outcome::failure(FaultKind::Status(status), Replay::Safe)
}

/// Judges by the status.
pub(crate) fn by_status()
-> portcullis_core::ClassifyFn<impl Fn(Result<&u16, &portcullis_core::Error>) -> Outcome + Copy> {
    classify_fn(|result: Result<&u16, &portcullis_core::Error>| match result {
        Ok(&status) if status >= 500 => failure(status),
        Ok(_) => Outcome::Success,
        Err(error) => error.outcome(),
    })
}

pub(crate) fn keep() -> ByClone {
    ByClone::idempotent()
}
