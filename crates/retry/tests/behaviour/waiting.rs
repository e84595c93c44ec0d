//! Waits: what is dropped before them, the deadline, readiness, cancellation.

use std::{
    future::{self, Future, Ready},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{self, Context, Poll, Waker},
    time::Duration,
};

use portcullis_core::{
    ByClone, Call, Error, Hint, Outcome, Phase, Reason, Rejection, RejectionKind, call, clock,
};
use portcullis_retry::{Backoff, Exhausted, Jitter, RetryLayer};
use portcullis_testkit::{
    ScriptedService, Step, TestError, WakeCounter, call as send, poll_k, ready,
};
use tokio::{
    task::coop,
    time::{Instant, advance, timeout},
};
use tower_layer::Layer;
use tower_service::Service;

use crate::fakes::{
    Alive, ByText, Ear, Heard, Inner, Reply, SECOND, Unclonable, answering, builder, by_status,
    status, tokens,
};

#[tokio::test(start_paused = true)]
async fn a_refused_response_is_dropped_before_the_wait() {
    let alive = Alive::default();
    let counted = alive.clone();
    let inner = Inner::respond_with(move |(), _| {
        let mut reply = Reply::new(500);
        reply.counted = Some(counted.one());
        Step::Ok(reply)
    });
    let layer = builder().max_attempts(2).classify(by_status()).build();
    let mut service = layer.unwrap().layer(inner);
    let mut answer = pin!(send(&mut service, ()));
    assert!(timeout(SECOND / 2, answer.as_mut()).await.is_err());
    assert_eq!(alive.count(), 0, "the response outlived the decision");
    let last = answer.await.unwrap();
    assert_eq!((alive.count(), last.status), (1, 500));
    drop(last.counted);
}

#[tokio::test(start_paused = true)]
async fn a_hint_is_waited_for_and_jitter_comes_on_top() {
    for (jitter, longest) in [(Jitter::None, 5), (Jitter::Full, 6)] {
        let hint = Hint::After(SECOND * 5);
        let inner = Inner::respond_with(move |(), n| {
            Step::Ok(if n == 0 { Reply::new(429).hinting(hint) } else { Reply::new(200) })
        });
        let layer = builder().jitter(jitter).classify(by_status()).build();
        let start = Instant::now();
        let reply = send(&mut layer.unwrap().layer(inner), ()).await.unwrap();
        let waited = start.elapsed();
        assert_eq!(reply.status, 200);
        let longest = SECOND * longest + Duration::from_millis(1);
        assert!(SECOND * 5 <= waited && waited <= longest, "{waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_or_waited_for_beyond_the_deadline_whatever_it_is() {
    for limit in (0..=80).map(|tenths| Duration::from_millis(100 * tenths)) {
        let ear = Ear::default();
        let inner = Inner::respond_with(|(), _| {
            Step::Ok(Reply::new(500)).after(Duration::from_millis(300))
        });
        let journal = inner.journal();
        let layer =
            builder().max_attempts(4).classify(by_status()).observe(ear.clone()).build().unwrap();
        let start = Instant::now();
        let deadline = start + limit;
        let call = Call::new().with_deadline(deadline.into_std());
        let reply = call.in_scope(send(&mut layer.layer(inner), ())).await.unwrap();

        assert_eq!(reply.status, 500);
        let at = journal.called_at();
        // Attempts begin after 0 s, 1.3 s, 3.6 s and 7.9 s, and take 0.3 s.
        let begin = [0, 1_300, 3_600, 7_900].map(Duration::from_millis);
        let expected = begin.iter().filter(|&&begin| begin < limit || begin.is_zero());
        assert_eq!(at.len(), expected.count(), "{limit:?}");
        assert!(at[1..].iter().all(|&at| at < deadline));
        // Gave up when the last attempt answered, without a further wait.
        assert_eq!(Instant::now(), *at.last().unwrap() + Duration::from_millis(300));
        if at.len() < 4 {
            let reason = ear.last_reason().unwrap();
            assert!(matches!(reason, Reason::DeadlineTooClose { .. }), "{reason:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn time_that_runs_out_during_the_wait_is_exhausted() {
    let ear = Ear::default();
    let layer = builder().classify(by_status()).observe(ear.clone()).build().unwrap();
    let inner = answering(&[500]);
    let journal = inner.journal();
    let mut service = layer.layer(inner);
    let call = Call::new().with_deadline(clock::now() + SECOND * 2);
    let mut answer = pin!(call.in_scope(send(&mut service, ())));
    let wakes = WakeCounter::new();
    let waker = wakes.waker();
    let mut cx = Context::from_waker(&waker);
    assert!(answer.as_mut().poll(&mut cx).is_pending());

    // The wait was to take 1 s; the task is only polled again after 3.
    advance(SECOND * 3).await;
    let Poll::Ready(Err(error)) = answer.as_mut().poll(&mut cx) else {
        panic!("there is no answer");
    };
    let rejection = error.rejection().unwrap();
    assert_eq!(rejection.kind(), RejectionKind::Exhausted);
    assert_eq!(rejection.name(), "search");
    assert_eq!(rejection.outcome(), status(500));
    let reason = Reason::DeadlineTooClose { left: Duration::ZERO, needed: SECOND };
    assert_eq!(rejection.reason(), reason);
    assert_eq!(ear.heard()[1], Heard::GaveUp(1, status(500), reason));
    assert_eq!(
        error.to_string(),
        "search: gave up after 1 attempt, the last a failure (status 500): 1s to wait, 0ns left \
         until the deadline"
    );
    assert_eq!(journal.calls(), 1);
    assert_eq!(layer.budget().unwrap().balance(clock::now()), 100.0);
}

#[tokio::test(start_paused = true)]
async fn the_inner_service_is_made_ready_again_before_each_attempt() {
    let inner = answering(&[500, 200]);
    let (journal, readiness) = (inner.journal(), inner.readiness());
    let layer = builder().classify(by_status()).build().unwrap();
    let mut service = layer.layer(inner);
    let start = Instant::now();
    let answer = async {
        ready(&mut service).await.unwrap();
        readiness.hold();
        service.call(()).await
    };
    let release = async {
        tokio::time::sleep(SECOND * 10).await;
        assert_eq!((journal.calls(), readiness.waiting()), (1, 1));
        assert_eq!(layer.budget().unwrap().waiting(), 1);
        readiness.release();
    };
    let (answer, ()) = tokio::join!(answer, release);
    assert_eq!(answer.unwrap().status, 200);
    assert_eq!(start.elapsed(), SECOND * 10);
    assert_eq!(layer.budget().unwrap().waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_delay_of_zero_does_not_sleep_but_waits_for_readiness() {
    let layer =
        builder().backoff(Backoff::fixed(Duration::ZERO)).classify(by_status()).build().unwrap();
    let mut service = layer.layer(answering(&[500, 500, 200]));
    let answer = poll_k(send(&mut service, ()), 1).await;
    assert_eq!(answer.unwrap().unwrap().status, 200);

    let inner = answering(&[500, 200]);
    let readiness = inner.readiness();
    let mut service = layer.layer(inner);
    ready(&mut service).await.unwrap();
    readiness.hold();
    let mut future = pin!(service.call(()));
    assert!(poll_k(future.as_mut(), 3).await.is_none());
    readiness.release();
    assert_eq!(poll_k(future, 1).await.unwrap().unwrap().status, 200);
}

#[tokio::test(start_paused = true)]
async fn attempts_without_a_wait_let_other_tasks_run() {
    let inner = answering(&[500]);
    let journal = inner.journal();
    let layer = builder()
        .max_attempts(1_000_000)
        .backoff(Backoff::fixed(Duration::ZERO))
        .no_budget()
        .classify(by_status())
        .build()
        .unwrap();
    let mut service = layer.layer(inner);
    tokio::select! {
        biased;
        _ = send(&mut service, ()) => panic!("it had all the time"),
        () = tokio::task::yield_now() => {}
    }
    assert!(journal.calls() < 1_000, "{}", journal.calls());
}

/// Sends one request to a service that is not ready for a second attempt, and then does `then`.
async fn not_ready_again(
    limit: Option<Duration>,
    then: impl AsyncFnOnce(&portcullis_testkit::Readiness),
) -> (Error, Ear, RetryLayer<portcullis_core::ByClone, impl Sized>) {
    let ear = Ear::default();
    let layer = builder().classify(by_status()).observe(ear.clone()).build().unwrap();
    let inner = answering(&[500]);
    let (journal, readiness) = (inner.journal(), inner.readiness());
    let mut service = layer.layer(inner);
    let call = limit.map_or(Call::new(), |limit| Call::new().with_deadline(clock::now() + limit));
    let answer = call.in_scope(async {
        ready(&mut service).await.unwrap();
        readiness.hold();
        service.call(()).await
    });
    let (answer, ()) = tokio::join!(answer, then(&readiness));
    assert_eq!(journal.calls(), 1);
    (answer.unwrap_err(), ear, layer)
}

#[tokio::test(start_paused = true)]
async fn readiness_that_fails_between_attempts_is_exhausted_with_its_error() {
    let (error, ear, layer) = not_ready_again(None, async |readiness| {
        tokio::time::sleep(SECOND * 4).await;
        readiness.fail_next(TestError("no connection"));
    })
    .await;
    let exhausted: &Exhausted = error.find().unwrap();
    assert_eq!((exhausted.attempts(), exhausted.last()), (1, status(500)));
    assert_eq!(exhausted.reason(), Reason::ReadinessFailed);
    assert_eq!(error.find(), Some(&TestError("no connection")));
    let gave_up = Heard::GaveUp(1, status(500), Reason::ReadinessFailed);
    assert_eq!(ear.heard()[1..], [gave_up]);
    // It was never sent.
    assert_eq!(layer.budget().unwrap().balance(clock::now()), 100.0);
}

#[tokio::test(start_paused = true)]
async fn readiness_is_waited_for_until_the_deadline() {
    let start = Instant::now();
    let (error, ear, layer) = not_ready_again(Some(SECOND * 4), async |_| {}).await;
    assert_eq!(start.elapsed(), SECOND * 4);
    let reason = Reason::Elapsed { phase: Phase::Readiness, limit: SECOND * 3 };
    assert_eq!(error.rejection().unwrap().reason(), reason);
    assert_eq!(ear.last_reason(), Some(reason));
    assert_eq!(layer.budget().unwrap().balance(clock::now()), 100.0);
}

/// Fails, and from then on is never ready: it uses up the task's budget whenever it is asked.
#[derive(Clone, Default)]
struct Busy(Arc<AtomicBool>);

impl Service<()> for Busy {
    type Response = u32;
    type Error = TestError;
    type Future = Ready<Result<u32, TestError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TestError>> {
        while self.0.load(Ordering::Relaxed) {
            task::ready!(coop::poll_proceed(cx)).made_progress();
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        self.0.store(true, Ordering::Relaxed);
        future::ready(Err(TestError("reset")))
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_uses_up_the_tasks_budget_is_waited_for_until_the_deadline() {
    let layer = RetryLayer::builder("search", ByClone::idempotent())
        .backoff(Backoff::fixed(Duration::ZERO))
        .jitter(Jitter::None)
        .build()
        .unwrap();
    let mut service = layer.layer(Busy::default());
    ready(&mut service).await.unwrap();
    let call = Call::new().with_deadline(clock::now() + SECOND);
    let answer = tokio::spawn(call.in_scope(async move { service.call(()).await }));
    tokio::task::yield_now().await;
    advance(SECOND).await;
    for _ in 0..3 {
        tokio::task::yield_now().await;
    }
    assert!(answer.is_finished());
    let reason = answer.await.unwrap().unwrap_err().rejection().unwrap().reason();
    assert_eq!(reason, Reason::Elapsed { phase: Phase::Readiness, limit: SECOND });
}

#[tokio::test(start_paused = true)]
async fn dropping_the_call_at_any_moment_frees_everything_at_once() {
    // While the first attempt is under way, waited after, waited for readiness, and in the second.
    for (after, calls) in [(50, 1), (600, 1), (1_500, 1), (2_300, 2)] {
        let alive = Alive::default();
        let inner = ScriptedService::<Unclonable, u32>::respond_with(|_, _| {
            Step::Err(TestError("reset")).after(SECOND / 2)
        });
        let (journal, readiness) = (inner.journal(), inner.readiness());
        let keep = ByText { longest: 64, alive: alive.clone() };
        let layer = RetryLayer::builder("search", keep)
            .backoff(Backoff::fixed(SECOND / 2))
            .jitter(Jitter::None)
            .build()
            .unwrap();
        let mut service = layer.layer(inner);
        let instances = journal.instances();
        ready(&mut service).await.unwrap();
        readiness.hold();
        let release = async {
            tokio::time::sleep(SECOND * 2).await;
            readiness.release();
            std::future::pending::<()>().await;
        };
        let call = service.call(Unclonable("find".into()));
        let both = async { tokio::join!(call, release) };
        assert!(timeout(Duration::from_millis(after), both).await.is_err());

        assert_eq!(alive.count(), 0, "the kept request, after {after} ms");
        assert_eq!(journal.instances(), instances, "the clone, after {after} ms");
        assert_eq!((journal.in_flight(), journal.calls()), (0, calls));
        let budget = layer.budget().unwrap();
        assert_eq!(budget.waiting(), 0);
        let sent = calls - 1;
        assert_eq!(budget.balance(clock::now()), (100 - sent) as f64 + flowed_back(sent, after));
    }
}

#[tokio::test(start_paused = true)]
async fn dropped_after_any_number_of_polls_a_call_leaves_nothing_and_the_budget_whole() {
    const CAPACITY: u32 = 5;
    let (mut dropped_before, mut dropped_while_waiting) = ([0; 4], 0);
    for polls in 0.. {
        let alive = Alive::default();
        let inner = ScriptedService::<Unclonable, u32>::respond_with(|_, n| {
            let step = if n < 2 { Step::Err(TestError("reset")) } else { Step::Ok(200) };
            step.pending_once()
        });
        let (journal, readiness) = (inner.journal(), inner.readiness());
        let keep = ByText { longest: 64, alive: alive.clone() };
        let layer = RetryLayer::builder("search", keep)
            .backoff(Backoff::fixed(SECOND / 4))
            .jitter(Jitter::None)
            .budget(tokens(CAPACITY, 0.0, 0.0))
            .build()
            .unwrap();
        let budget = layer.budget().unwrap();
        let mut service = layer.layer(inner);
        let instances = journal.instances();
        ready(&mut service).await.unwrap();
        readiness.hold();

        let mut future = Box::pin(service.call(Unclonable("find".into())));
        let mut answer = Poll::Pending;
        for poll in 0..polls {
            if poll == 8 {
                readiness.release();
            }
            answer = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            assert!(answer.is_pending() || poll + 1 == polls, "the last round ended there");
            advance(SECOND / 10).await;
        }
        dropped_while_waiting += budget.waiting();
        drop(future);

        assert_eq!(alive.count(), 0, "the kept request, after {polls} polls");
        assert_eq!(journal.instances(), instances, "the clone, after {polls} polls");
        assert_eq!(journal.in_flight(), 0, "after {polls} polls");
        let sent = journal.calls() as u32 - 1;
        assert_eq!(budget.waiting(), 0, "after {polls} polls");
        let balance = f64::from(CAPACITY - sent);
        assert_eq!(budget.balance(clock::now()), balance, "after {polls} polls");
        if let Poll::Ready(answer) = answer {
            assert_eq!((answer.unwrap(), sent), (200, 2));
            break;
        }
        dropped_before[sent as usize] += 1;
    }
    assert!(dropped_before[..3].iter().all(|&often| often > 0), "{dropped_before:?}");
    assert!(dropped_while_waiting > 4, "{dropped_while_waiting}");
}

/// What the reserve paid in since the retry was sent, 2 s after the start.
fn flowed_back(sent: u64, after: u64) -> f64 {
    if sent == 0 { 0.0 } else { (after - 2_000) as f64 / 1_000.0 }
}

#[tokio::test(start_paused = true)]
async fn the_wait_is_the_callers_time_and_a_longer_deadline_does_not_come_from_an_override() {
    let inner = answering(&[500]);
    let journal = inner.journal();
    let layer = builder().classify(by_status()).build().unwrap();
    let mut service = layer.layer(inner);
    let outcome: Outcome = call::with()
        .deadline(clock::now() + SECOND / 2)
        .run(async {
            let later = clock::now() + SECOND * 60;
            let inner = call::with().deadline(later);
            inner.run(send(&mut service, ())).await.unwrap().outcome()
        })
        .await;
    assert_eq!(outcome, status(500));
    assert_eq!(journal.calls(), 1);
}
