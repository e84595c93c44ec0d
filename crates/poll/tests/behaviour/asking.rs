//! What is asked, when, and what becomes of the answers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use portcullis_core::{
    BoxError, Call, FaultKind, Follow, Hint, Judged, Look, Next, Outcome, Progress, Replay, call,
    follow_async,
};
use portcullis_testkit::{ScriptedService, Step, TestError, call as send};
use tokio::time::{Instant, sleep};
use tower_layer::Layer;

use crate::fakes::{Answer, Counted, SECOND, answering, at, builder, hinting, to_the_end};

fn since(start: Instant, times: &[Instant]) -> Vec<u64> {
    times.iter().map(|at| at.duration_since(start).as_secs()).collect()
}

#[tokio::test(start_paused = true)]
async fn asks_on_with_growing_waits_until_it_is_done() {
    let inner = answering([at(0), at(30), at(60), at(100)]);
    let journal = inner.journal();
    let mut service = builder(to_the_end()).build().unwrap().layer(inner);

    let start = Instant::now();
    assert_eq!(send(&mut service, "start").await.unwrap(), 100);
    assert_eq!(journal.requests(), ["start", "look", "look", "look"]);
    assert_eq!(since(start, &journal.called_at()), [0, 1, 3, 7]);
}

#[tokio::test(start_paused = true)]
async fn what_is_done_at_once_is_asked_once() {
    let inner = answering([at(100)]);
    let journal = inner.journal();
    let mut service = builder(to_the_end()).build().unwrap().layer(inner);
    assert_eq!(send(&mut service, "start").await.unwrap(), 100);
    assert_eq!(journal.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_hint_is_a_floor_an_exact_one_starts_the_backoff_over_and_never_ends_it() {
    let hints = [
        Hint::None,
        Hint::After(SECOND * 20),
        Hint::None,
        Hint::Exactly(SECOND * 5),
        Hint::None,
        Hint::Never,
    ];
    let inner = answering(hints.map(|hint| hinting(10, hint)));
    let journal = inner.journal();
    let mut service = builder(to_the_end()).build().unwrap().layer(inner);

    let start = Instant::now();
    let error = send(&mut service, "start").await.unwrap_err();
    // 1 by the backoff, 20 by the hint, 4 by the backoff, which went on; 5 exactly, and 1 again.
    assert_eq!(since(start, &journal.called_at()), [0, 1, 21, 25, 30, 31]);
    let said = "render: not done after 5 polls in 31.0s, last seen: 10 %: asked not to come back";
    assert_eq!(error.to_string(), said);
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_dropped_before_the_wait_that_follows_it() {
    let alive = Arc::new(AtomicUsize::new(0));
    let counted = alive.clone();
    let inner = ScriptedService::respond_with(move |_: &str, number| {
        let percent = if number < 3 { 10 } else { 100 };
        let counted = Some(Counted::new(&counted));
        Step::<_>::Ok(Answer { percent, hint: Hint::None, _counted: counted })
    });
    let journal = inner.journal();
    let mut service = builder(to_the_end()).build().unwrap().layer(inner);
    let watch = async {
        for polls in 1..=3 {
            sleep(SECOND / 2).await;
            assert_eq!((journal.calls(), alive.load(Ordering::Relaxed)), (polls, 0));
            sleep(SECOND * (1 << (polls - 1)) - SECOND / 4).await;
        }
    };
    let (answer, ()) = tokio::join!(send(&mut service, "start"), watch);
    assert_eq!(answer.unwrap(), 100);
    assert_eq!(journal.instances(), 1, "the instance that asked on is gone with its call");
}

#[tokio::test(start_paused = true)]
async fn an_answer_may_take_reading() {
    let read = follow_async(|answer: Answer| async move {
        sleep(SECOND).await;
        if answer.percent > 100 {
            Err(TestError("broke off"))?;
        }
        Ok(match answer.percent {
            100 => Progress::Done("read"),
            _ => Progress::Pending(Next::new("look")),
        })
    });
    let inner = answering([at(0), at(100), at(0), at(999)]);
    let mut service = builder(read).build().unwrap().layer(inner);
    let start = Instant::now();
    assert_eq!(send(&mut service, "start").await.unwrap(), "read");
    assert_eq!(start.elapsed(), SECOND * 3);
    let error = send(&mut service, "start").await.unwrap_err();
    assert!(error.is::<TestError>() && error.rejection().is_none());
}

#[tokio::test(start_paused = true)]
async fn an_error_is_handed_up_as_it_is_whoever_makes_it() {
    let inner = answering([at(0), Step::Err(TestError("reset")), at(0), at(999)]);
    let mut service = builder(to_the_end()).build().unwrap().layer(inner);
    assert!(send(&mut service, "start").await.unwrap_err().is::<TestError>());
    let error = send(&mut service, "start").await.unwrap_err();
    assert_eq!(error.to_string(), "the job failed");

    let judged = Outcome::failure(FaultKind::Exit(3), Replay::Forbidden);
    let look = follow_async(move |_: Answer| async move {
        Err::<Progress<&str, ()>, BoxError>(Judged::new("it exited", judged).into())
    });
    let mut service = builder(look).build().unwrap().layer(answering([at(0)]));
    assert_eq!(send(&mut service, "start").await.unwrap_err().outcome(), judged);
}

/// Keeps what only the first answer says.
struct ByNumber;

impl Follow<String, Option<u32>> for ByNumber {
    type Operation = (String, u32);
    type Response = String;
    type Look = std::future::Ready<Look<String, String, (String, u32)>>;

    fn begin(&self, request: &String) -> (String, u32) {
        (request.clone(), 0)
    }

    fn look(&self, (what, looks): (String, u32), answer: Option<u32>) -> Self::Look {
        std::future::ready(Ok(match answer {
            Some(number) => Progress::Done(format!("{what}: {number} after {looks} looks")),
            None => {
                let next = Next::new(format!("look {}", looks + 1));
                Progress::Pending(next.with_operation((what, looks + 1)))
            }
        }))
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_known_of_an_operation_goes_from_answer_to_answer() {
    let inner = ScriptedService::respond_with(|_: String, number| {
        Step::<_>::Ok(if number % 3 == 2 { Some(7) } else { None })
    })
    .recording();
    let journal = inner.journal();
    let mut service = builder(ByNumber).build().unwrap().layer(inner);
    let answer = send(&mut service, "add".to_owned()).await.unwrap();
    assert_eq!(answer, "add: 7 after 2 looks");
    assert_eq!(journal.requests(), ["add", "look 1", "look 2"]);
}

#[tokio::test(start_paused = true)]
async fn what_the_caller_says_of_the_first_request_is_not_said_of_those_that_follow() {
    let seen = Arc::new(portcullis_core::sync::Mutex::new(Vec::new()));
    let notes = seen.clone();
    let inner = ScriptedService::respond_with(move |_: &'static str, number| {
        let call = Call::current();
        let said = call.overrides();
        notes.lock().push((
            said.cost,
            said.idempotent,
            said.key.as_deref() == Some("k"),
            call.attempt(),
        ));
        at(if number % 3 < 2 { 0 } else { 100 })
    });
    let mut service = builder(to_the_end()).build().unwrap().layer(inner);
    let with = call::with().cost(900).not_idempotent().key("k");
    with.run(send(&mut service, "start")).await.unwrap();
    let (first, poll) = ((Some(900), Some(false), true, 0), (None, None, true, 0));
    assert_eq!(*seen.lock(), [first, poll, poll]);
    for with in [call::with().cost(7), call::with().idempotent()] {
        seen.lock().clear();
        with.run(send(&mut service, "start")).await.unwrap();
        let (cost, idempotent, ..) = seen.lock()[0];
        assert!(cost.is_some() != idempotent.is_some());
        assert_eq!(seen.lock()[1..], [(None, None, false, 0); 2]);
    }
}

#[tokio::test(start_paused = true)]
async fn polls_without_a_wait_let_other_tasks_run() {
    let inner = ScriptedService::respond_with(|_: &str, _| at(0));
    let layer = builder(to_the_end()).backoff(portcullis_core::Backoff::fixed(Duration::ZERO));
    let mut service = layer.max_polls(u32::MAX).build().unwrap().layer(inner);
    let others = async {
        tokio::task::yield_now().await;
        "ran"
    };
    tokio::select! {
        biased;
        _ = send(&mut service, "start") => panic!("it has no end"),
        ran = others => assert_eq!(ran, "ran"),
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_allocated_for_what_is_done_at_once_nor_for_asking_on() {
    for mut left in [1, 3] {
        let follow = portcullis_core::follow_fn(move |percent: u32| match percent {
            100 => Ok(Progress::Done(())),
            _ => Ok(Progress::Pending(Next::new(()).seen("halfway"))),
        });
        let inner = tower_of(move || {
            left -= 1;
            if left == 0 { 100 } else { 99 }
        });
        let mut service = builder(follow).build().unwrap().layer(inner);
        let mut answer = Box::pin(send(&mut service, ()));
        let mut cost = 0;
        let ended = std::future::poll_fn(|cx| {
            let mut polled = std::task::Poll::Pending;
            let info = allocation_counter::measure(|| polled = answer.as_mut().poll(cx));
            cost += info.count_total;
            polled
        });
        assert!(ended.await.is_ok());
        assert_eq!(cost, 0);
    }
}

/// A service that answers at once, and allocates nothing.
fn tower_of(answer: impl FnMut() -> u32) -> Plain<impl FnMut() -> u32> {
    Plain(Arc::new(portcullis_core::sync::Mutex::new(answer)))
}

struct Plain<F>(Arc<portcullis_core::sync::Mutex<F>>);

impl<F> Clone for Plain<F> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<F: FnMut() -> u32> tower_service::Service<()> for Plain<F> {
    type Response = u32;
    type Error = TestError;
    type Future = std::future::Ready<Result<u32, TestError>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), TestError>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        std::future::ready(Ok((self.0.lock())()))
    }
}
