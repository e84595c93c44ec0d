//! The contract suite passes a good layer, and fails each kind of bad one.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use portcullis_testkit::{ScriptedService, contract::Suite};
use tower_service::Service;

type Inner = ScriptedService<u32, u32>;
type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type Answer = Result<u32, portcullis_testkit::TestError>;

/// A layer that is good unless a flaw is named.
#[derive(Debug)]
struct Layered {
    inner: Inner,
    flaw: Flaw,
    ready: bool,
    failed: Option<portcullis_testkit::TestError>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    KeepsReadinessErrorForTheCall,
    CallsAClone,
    CloneKeepsReadiness,
    SpawnsTheCall,
    LeaksTheInnerService,
    ForgetsTheWaker,
    ForgetsTheLatestWaker,
    KeepsTheFirstWakerOfTheCall,
    AnswersAlone,
    PanicsOnReadinessError,
    SwallowsReadinessError,
    NeverAnswers,
}

fn layered(flaw: Flaw) -> impl Fn(Inner) -> Layered {
    move |inner| Layered { inner, flaw, ready: false, failed: None }
}

async fn run(flaw: Flaw) {
    Suite::new(layered(flaw)).run().await;
}

impl Clone for Layered {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            flaw: self.flaw,
            ready: self.ready && self.flaw == Flaw::CloneKeepsReadiness,
            failed: None,
        }
    }
}

impl Service<u32> for Layered {
    type Response = u32;
    type Error = portcullis_testkit::TestError;
    type Future = BoxFuture<Answer>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        if self.ready {
            return Poll::Ready(Ok(()));
        }
        let mut blind = Context::from_waker(Waker::noop());
        let first = self.inner.journal().ready_polls() == 0;
        let poll = match self.flaw {
            Flaw::ForgetsTheWaker => self.inner.poll_ready(&mut blind),
            Flaw::ForgetsTheLatestWaker if !first => self.inner.poll_ready(&mut blind),
            _ => self.inner.poll_ready(cx),
        };
        self.ready = matches!(poll, Poll::Ready(Ok(())));
        match (poll, self.flaw) {
            (Poll::Ready(Err(error)), Flaw::PanicsOnReadinessError) => {
                panic!("not ready: {error}")
            }
            (Poll::Ready(Err(_)), Flaw::SwallowsReadinessError) => self.poll_ready(cx),
            (Poll::Ready(Err(error)), Flaw::KeepsReadinessErrorForTheCall) => {
                self.failed = Some(error);
                Poll::Ready(Ok(()))
            }
            (poll, _) => poll,
        }
    }

    fn call(&mut self, request: u32) -> Self::Future {
        self.ready = false;
        if let Some(error) = self.failed.take() {
            return Box::pin(async move { Err(error) });
        }
        match self.flaw {
            Flaw::CallsAClone => Box::pin(self.inner.clone().call(request)),
            Flaw::SpawnsTheCall => {
                let task = tokio::spawn(self.inner.call(request));
                Box::pin(async move { task.await.expect("the call does not panic") })
            }
            Flaw::LeaksTheInnerService => {
                std::mem::forget(self.inner.clone());
                Box::pin(self.inner.call(request))
            }
            Flaw::KeepsTheFirstWakerOfTheCall => {
                Box::pin(FirstWaker { inner: Box::pin(self.inner.call(request)), waker: None })
            }
            Flaw::AnswersAlone => Box::pin(async { Ok(0) }),
            Flaw::NeverAnswers => Box::pin(std::future::pending()),
            _ => Box::pin(self.inner.call(request)),
        }
    }
}

struct FirstWaker {
    inner: BoxFuture<Answer>,
    waker: Option<Waker>,
}

impl Future for FirstWaker {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        let waker = self.waker.get_or_insert_with(|| cx.waker().clone()).clone();
        self.inner.as_mut().poll(&mut Context::from_waker(&waker))
    }
}

// ===== good layers =====

#[tokio::test(start_paused = true)]
async fn passes_a_good_layer() {
    run(Flaw::None).await;
}

#[tokio::test(start_paused = true)]
async fn passes_with_requests_and_responses_of_the_tests_own() {
    Suite::new(|inner: Inner| inner).run().await;
    let layer = layered(Flaw::None);
    Suite::with(|| 7, || 8, layer).run().await;
}

#[tokio::test(start_paused = true)]
async fn passes_a_layer_that_returns_the_readiness_error_from_the_call() {
    run(Flaw::KeepsReadinessErrorForTheCall).await;
}

#[tokio::test]
async fn passes_a_good_layer_on_a_clock_that_runs() {
    let start = tokio::time::Instant::now();
    run(Flaw::None).await;
    assert!(start.elapsed() < Duration::from_secs(30));
}

// ===== bad ones =====

#[tokio::test(start_paused = true)]
#[should_panic(expected = "Tower's contract is broken")]
async fn fails_a_layer_that_calls_a_clone() {
    run(Flaw::CallsAClone).await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "a clone of a ready service is ready while the inner service is not")]
async fn fails_a_layer_whose_clone_keeps_readiness() {
    run(Flaw::CloneKeepsReadiness).await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "the inner call is in flight after its future was polled 0 times")]
async fn fails_a_layer_whose_call_outlives_its_future() {
    run(Flaw::SpawnsTheCall).await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "clones of the inner one are alive")]
async fn fails_a_layer_that_leaks_the_inner_service() {
    run(Flaw::LeaksTheInnerService).await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "the waker of the last `poll_ready` was not woken")]
async fn fails_a_layer_that_forgets_the_waker() {
    run(Flaw::ForgetsTheWaker).await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "the waker of the last `poll_ready` was not woken")]
async fn fails_a_layer_that_keeps_an_earlier_waker_of_readiness() {
    run(Flaw::ForgetsTheLatestWaker).await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "the waker of the last poll was not woken")]
async fn fails_a_layer_that_keeps_the_first_waker_of_a_call() {
    run(Flaw::KeepsTheFirstWakerOfTheCall).await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "an answer came without a call of the inner service")]
async fn fails_a_layer_that_answers_alone() {
    run(Flaw::AnswersAlone).await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "not ready: the inner service failed to become ready")]
async fn fails_a_layer_that_panics_on_a_readiness_error() {
    run(Flaw::PanicsOnReadinessError).await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "the inner service failed to become ready and nobody was told")]
async fn fails_a_layer_that_swallows_a_readiness_error() {
    run(Flaw::SwallowsReadinessError).await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "no answer came within 60s")]
async fn fails_a_layer_that_never_answers() {
    run(Flaw::NeverAnswers).await;
}
