//! A job that is asked about, and an observer for these tests.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use portcullis_core::{
    Backoff, BoxError, Course, Event, Follow, Hint, Jitter, Next, Observer, Progress, What,
    follow_fn, sync::Mutex,
};
use portcullis_poll::{PollBuilder, PollLayer};
use portcullis_testkit::{Script, ScriptedService, Step};

pub(crate) const SECOND: Duration = Duration::from_secs(1);

pub(crate) type Inner = ScriptedService<&'static str, Answer>;

/// How far a job is, in percent: 100 is done, beyond that it failed.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) percent: u32,
    pub(crate) hint: Hint,
    pub(crate) _counted: Option<Counted>,
}

/// Something of which is known how many are alive.
#[derive(Debug)]
pub(crate) struct Counted(Arc<AtomicUsize>);

/// Notes what was told of polls.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ear(Arc<Mutex<Vec<(u32, Duration, Course)>>>);

/// Waits of 1, 2, 4 … 30 s, exactly.
pub(crate) fn builder<P>(follow: P) -> PollBuilder<P> {
    PollLayer::builder("render", follow)
        .backoff(Backoff::exponential(SECOND, SECOND * 30))
        .jitter(Jitter::None)
}

/// Asks on by `look` until the job is done.
pub(crate) fn to_the_end()
-> impl Follow<&'static str, Answer, Response = u32, Operation: Send, Look: Send> + Send + Sync {
    follow_fn(|answer: Answer| match answer.percent {
        100 => Ok(Progress::Done(100)),
        101.. => Err(BoxError::from("the job failed")),
        percent => {
            let next = Next::new("look").hint(answer.hint).seen(format!("{percent} %"));
            Ok(Progress::Pending(next))
        }
    })
}

pub(crate) fn at(percent: u32) -> Step<Answer> {
    Step::Ok(Answer { percent, hint: Hint::None, _counted: None })
}

pub(crate) fn hinting(percent: u32, hint: Hint) -> Step<Answer> {
    Step::Ok(Answer { percent, hint, _counted: None })
}

pub(crate) fn answering(steps: impl IntoIterator<Item = Step<Answer>>) -> Inner {
    ScriptedService::new(Script::new(steps)).recording()
}

// ===== impl Counted =====

impl Counted {
    pub(crate) fn new(alive: &Arc<AtomicUsize>) -> Self {
        alive.fetch_add(1, Ordering::Relaxed);
        Self(alive.clone())
    }
}

impl Clone for Counted {
    fn clone(&self) -> Self {
        Self::new(&self.0)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

// ===== impl Ear =====

impl Ear {
    pub(crate) fn heard(&self) -> Vec<(u32, Duration, Course)> {
        std::mem::take(&mut *self.0.lock())
    }
}

impl Observer for Ear {
    fn on_event(&self, event: &Event<'_>) {
        if let What::Polled { polls, elapsed, course } = event.what {
            assert_eq!((event.name, event.layer.as_str()), ("render", "poll"));
            self.0.lock().push((polls, elapsed, course));
        }
    }
}
