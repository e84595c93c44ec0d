//! What limits do, as a user of them sees it.

mod hints;
mod keys;
mod limits;
mod threads;
mod waiting;
mod weights;

use std::{sync::Arc, time::Duration};

use portcullis_core::{Error, Event, sync::Mutex};
use portcullis_ratelimit::{Limited, Limiter, LimiterBuilder, RateLimitBuilder, RateLimitLayer};
use portcullis_testkit::{ScriptedService, Step};

const SECOND: Duration = Duration::from_secs(1);

type Inner = ScriptedService<&'static str, u32>;

/// Answers at once with the length of the request; `hang` hangs.
fn inner() -> Inner {
    ScriptedService::respond_with(|req: &'static str, _| match req {
        "hang" => Step::Hang,
        _ => Step::Ok(u32::try_from(req.len()).unwrap()),
    })
}

/// One a second, with this burst.
fn limiter(burst: u32) -> LimiterBuilder {
    Limiter::builder("search").rate(1, SECOND).burst(burst)
}

fn layer(burst: u32) -> RateLimitBuilder {
    RateLimitLayer::builder("search").rate(1, SECOND).burst(burst)
}

fn limited(error: &Error) -> &Limited {
    error.find().unwrap_or_else(|| panic!("not a refusal: {error:?}"))
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
