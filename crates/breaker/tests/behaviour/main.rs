//! What the layer does, as a user of it sees it.

mod counting;
mod cycle;
mod health;
mod keys;
mod mistakes;
mod modes;
mod readiness;
mod threads;

use std::{sync::Arc, time::Duration};

use portcullis_breaker::{Breaker, BreakerBuilder, BreakerLayer, Handle, Open};
use portcullis_core::{Classify, Completion, Error, Event, Outcome, State, Verdict, sync::Mutex};
use portcullis_testkit::{ScriptedService, Step, TestError, call};
use tower_layer::Layer;

const SECOND: Duration = Duration::from_secs(1);

type Inner = ScriptedService<&'static str, u32>;

/// Answers `ok`, fails for `fail`, hangs for `hang`, is slow for `slow`.
fn inner() -> Inner {
    ScriptedService::respond_with(|req, _| match req {
        "fail" => Step::Err(TestError("reset")),
        "hang" => Step::Hang,
        "slow" => Step::Ok(200).after(3 * SECOND),
        _ => Step::Ok(200),
    })
}

/// Trips on two failures in a row, stays open for 10 s, closes after two of two probes.
fn builder() -> BreakerBuilder {
    BreakerLayer::builder("search")
        .consecutive_failures(2)
        .open_time(10 * SECOND, 10 * SECOND)
        .jitter(false)
        .probes(2, 2)
        .seed(1)
}

fn service(builder: BreakerBuilder) -> (Breaker<Inner>, Handle) {
    let layer = builder.build().unwrap();
    let handle = layer.handle();
    (layer.layer(inner()), handle)
}

async fn trip(service: &mut Breaker<Inner>, handle: &Handle) {
    for _ in 0..2 {
        call(service, "fail").await.unwrap_err();
    }
    assert_eq!(handle.state(), State::Open);
}

fn open(error: &Error) -> &Open {
    error.find().unwrap_or_else(|| panic!("not a refusal: {error:?}"))
}

/// Hands the completion up with the response, as a body that is watched would keep it.
#[derive(Clone, Copy, Debug)]
struct Streams;

impl Classify<u32> for Streams {
    type Response = (u32, Completion);

    fn at_head(&self, result: Result<&u32, &Error>) -> Verdict {
        Verdict::SoFar(result.map_or_else(Error::outcome, |_| Outcome::Success))
    }

    fn classify(
        &self,
        result: Result<u32, Error>,
        done: Completion,
    ) -> Result<Self::Response, Error> {
        match result {
            Ok(response) => Ok((response, done)),
            Err(error) => {
                done.settle(error.outcome());
                Err(error)
            }
        }
    }
}

/// What was told, as sentences.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<String>>>);

impl Told {
    fn observer(&self) -> impl Fn(&Event<'_>) + Send + Sync + 'static + use<> {
        let told = self.0.clone();
        move |event| told.lock().push(event.to_string())
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock())
    }
}
