//! The scripted service: what it answers, what its journal says, and what it refuses.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use portcullis_testkit::{
    Journal, Readiness, ResponseFuture, Script, ScriptedService, Step, TestError, WakeCounter,
    assert_clone, assert_debug, assert_send, assert_static, assert_sync, assert_unpin, call,
    count_polls, poll_k, ready,
};
use tokio::time::{Instant, timeout};
use tower_service::Service;

const TICK: Duration = Duration::from_millis(10);

#[tokio::test(start_paused = true)]
async fn answers_steps_in_order_and_then_the_tail() {
    let script = Script::new([Step::Ok(1), Step::Err(TestError("two"))])
        .then(Step::Ok(3))
        .then_respond_with(|request: u64, n| Step::Ok(request * 100 + n));
    let mut service = ScriptedService::new(script);

    assert_eq!(call(&mut service, 9).await, Ok(1));
    assert_eq!(call(&mut service, 9).await, Err(TestError("two")));
    assert_eq!(call(&mut service, 9).await, Ok(3));
    assert_eq!(call(&mut service, 7).await, Ok(703));
    assert_eq!(call(&mut service, 8).await, Ok(804));
}

#[tokio::test(start_paused = true)]
async fn clones_share_the_script_and_the_journal() {
    let mut first = ScriptedService::<(), u32>::new(Script::new([Step::Ok(1), Step::Ok(2)]));
    let mut second = first.clone();
    assert_eq!(first.journal().instances(), 2);

    assert_eq!(call(&mut second, ()).await, Ok(1));
    assert_eq!(call(&mut first, ()).await, Ok(2));
    assert_eq!(second.journal().calls(), 2);

    drop(first);
    assert_eq!(second.journal().instances(), 1);
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "the script has 1 steps and no tail, and call 2 came")]
async fn a_call_beyond_a_script_without_a_tail_panics() {
    let mut service = ScriptedService::<(), u32>::new(Script::new([Step::Ok(1)]));
    assert_eq!(call(&mut service, ()).await, Ok(1));
    let _ = call(&mut service, ()).await;
}

#[tokio::test(start_paused = true)]
async fn wrapped_steps_happen_from_the_outside_in() {
    let step = Step::Ok("done").pending_once().after(TICK).after(TICK);
    let mut service = ScriptedService::<(), _>::new(Script::repeat(step));
    let start = Instant::now();

    ready(&mut service).await.unwrap();
    // One poll starts each sleep, one is the pending one, and the last answers.
    assert_eq!(count_polls(service.call(())).await, (Ok("done"), 4));
    assert_eq!(start.elapsed(), 2 * TICK);
}

#[tokio::test(start_paused = true)]
async fn a_hanging_step_neither_answers_nor_wakes() {
    let mut service = ScriptedService::<(), u32>::new(Script::repeat(Step::Hang));
    let hanging = timeout(Duration::from_secs(3600), count_polls(call(&mut service, ())));
    assert!(hanging.await.is_err());
    assert_eq!(service.journal().cancelled(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_panicking_step_panics_in_the_future_and_frees_the_call() {
    let mut service = ScriptedService::<(), u32>::new(Script::repeat(Step::Panic("as told")));
    let journal = service.journal();
    let task = tokio::spawn(async move { call(&mut service, ()).await });

    let panic = task.await.unwrap_err().into_panic();
    assert_eq!(*panic.downcast::<String>().unwrap(), "as told");
    assert_eq!((journal.in_flight(), journal.completed(), journal.cancelled()), (0, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn the_journal_counts_what_is_in_flight_and_the_peak() {
    let mut service = ScriptedService::<(), u32>::respond_with(|(), n| match n {
        0 | 1 => Step::Ok(1).after(TICK),
        _ => Step::Hang,
    });
    let journal = service.journal();
    let mut futures = Vec::new();
    for expected in 1..=3 {
        ready(&mut service).await.unwrap();
        futures.push(service.call(()));
        assert_eq!(journal.in_flight(), expected);
    }

    let hanging = futures.pop();
    for future in futures {
        assert_eq!(future.await, Ok(1));
    }
    assert_eq!((journal.in_flight(), journal.completed()), (1, 2));
    drop(hanging);
    assert_eq!((journal.in_flight(), journal.cancelled()), (0, 1));
    assert_eq!(journal.peak_in_flight(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_journal_notes_when_calls_begin_and_end() {
    let start = Instant::now();
    let mut service = ScriptedService::respond_with(|delay: u32, _| {
        Step::<(), TestError>::Ok(()).after(TICK * delay)
    });
    let journal = service.journal();
    call(&mut service, 1).await.unwrap();
    assert!(timeout(TICK, call(&mut service, 5)).await.is_err());

    assert_eq!(journal.called_at(), [start, start + TICK]);
    let ended: Vec<_> = journal.ended_at().iter().map(|at| *at - start).collect();
    assert_eq!(ended, [TICK, 2 * TICK]);
}

#[tokio::test(start_paused = true)]
async fn requests_are_kept_when_asked_for() {
    let mut service = ScriptedService::<String, u32>::answering(200).recording();
    let mut clone = service.clone();
    call(&mut service, "a".to_owned()).await.unwrap();
    call(&mut clone, "b".to_owned()).await.unwrap();
    assert_eq!(service.journal().requests(), ["a", "b"]);
}

#[test]
#[should_panic(expected = "ScriptedService::recording")]
fn requests_that_were_not_kept_cannot_be_asked_for() {
    drop(ScriptedService::<u32, u32>::answering(200).journal().requests());
}

// ===== the contract =====

#[tokio::test(start_paused = true)]
#[should_panic(expected = "Tower's contract is broken")]
async fn a_call_without_readiness_panics() {
    drop(ScriptedService::<(), u32>::answering(200).call(()));
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "Tower's contract is broken")]
async fn a_clone_starts_unready() {
    let mut service = ScriptedService::<(), u32>::answering(200);
    ready(&mut service).await.unwrap();
    drop(service.clone().call(()));
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "Tower's contract is broken")]
async fn readiness_is_good_for_one_call() {
    let mut service = ScriptedService::<(), u32>::answering(200);
    ready(&mut service).await.unwrap();
    assert_eq!(service.call(()).await, Ok(200));
    drop(service.call(()));
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "Tower's contract is broken")]
async fn a_pending_poll_does_not_ready() {
    let mut service = ScriptedService::<(), u32>::answering(200);
    service.readiness().hold();
    assert!(poll_k(ready(&mut service), 1).await.is_none());
    drop(service.call(()));
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "Tower's contract is broken")]
async fn a_failed_poll_does_not_ready() {
    let mut service = ScriptedService::<(), u32>::answering(200);
    service.readiness().fail_next(TestError::default());
    assert!(ready(&mut service).await.is_err());
    drop(service.call(()));
}

#[tokio::test(start_paused = true)]
async fn a_lenient_service_and_its_clones_can_be_called_unready() {
    let mut service = ScriptedService::<(), u32>::answering(200).lenient();
    assert_eq!(service.clone().call(()).await, Ok(200));
    assert_eq!(service.call(()).await, Ok(200));
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "polled after it had answered")]
async fn a_response_future_polled_after_its_answer_panics() {
    let mut service = ScriptedService::<(), u32>::answering(200);
    ready(&mut service).await.unwrap();
    let mut future = std::pin::pin!(service.call(()));
    assert_eq!(future.as_mut().await, Ok(200));
    let _ = future.await;
}

// ===== readiness =====

fn poll<S: Service<()>>(service: &mut S, wakes: &WakeCounter) -> Poll<Result<(), S::Error>> {
    service.poll_ready(&mut Context::from_waker(&wakes.waker()))
}

#[test]
fn held_readiness_wakes_the_latest_waker_of_every_instance() {
    let mut first = ScriptedService::<(), u32>::answering(200);
    let mut second = first.clone();
    let readiness = first.readiness();
    let (stale, one, two) = (WakeCounter::new(), WakeCounter::new(), WakeCounter::new());

    readiness.hold();
    assert!(poll(&mut first, &stale).is_pending());
    assert!(poll(&mut first, &one).is_pending());
    assert!(poll(&mut second, &two).is_pending());
    assert_eq!(readiness.waiting(), 2);

    readiness.release();
    assert_eq!((stale.count(), one.count(), two.count()), (0, 1, 1));
    assert_eq!(readiness.waiting(), 0);
    assert!(poll(&mut first, &one).is_ready());
    assert_eq!(first.journal().ready_polls(), 4);
}

#[test]
fn an_instance_that_was_readied_stays_ready_while_held() {
    let mut service = ScriptedService::<(), u32>::answering(200);
    let wakes = WakeCounter::new();
    assert!(poll(&mut service, &wakes).is_ready());
    service.readiness().hold();
    assert_eq!(poll(&mut service, &wakes), Poll::Ready(Ok(())));
    assert!(poll(&mut service.clone(), &wakes).is_pending());
}

#[test]
fn an_instance_that_is_dropped_waits_no_more() {
    let mut service = ScriptedService::<(), u32>::answering(200);
    let readiness = service.readiness();
    readiness.hold();
    assert!(poll(&mut service, &WakeCounter::new()).is_pending());
    assert_eq!(readiness.waiting(), 1);
    drop(service);
    assert_eq!(readiness.waiting(), 0);
}

#[test]
fn readiness_fails_as_often_as_told_even_while_held() {
    let mut service = ScriptedService::<(), u32>::answering(200);
    let readiness = service.readiness();
    let wakes = WakeCounter::new();
    readiness.hold();
    assert!(poll(&mut service, &wakes).is_pending());

    readiness.fail_next(TestError("one"));
    assert_eq!(wakes.count(), 1);
    readiness.fail_next(TestError("two"));
    assert_eq!(poll(&mut service, &wakes), Poll::Ready(Err(TestError("one"))));
    assert_eq!(poll(&mut service, &wakes), Poll::Ready(Err(TestError("two"))));
    assert!(poll(&mut service, &wakes).is_pending());
    readiness.release();
    assert_eq!(poll(&mut service, &wakes), Poll::Ready(Ok(())));
}

// ===== types =====

#[test]
fn the_types_are_what_a_layer_may_ask_for() {
    type Service = ScriptedService<String, Vec<u8>>;
    assert_send::<Service>();
    assert_sync::<Service>();
    assert_unpin::<Service>();
    assert_clone::<Service>();
    assert_debug::<Service>();
    assert_static::<Service>();
    assert_send::<ResponseFuture<String, Vec<u8>, TestError>>();
    assert_send::<Journal<String>>();
    assert_sync::<Journal<String>>();
    assert_send::<Readiness>();
    assert_sync::<Readiness>();

    // Nothing is asked of the type parameters: neither `Clone` nor `Debug`.
    struct Bare;
    assert_clone::<ScriptedService<Bare, Bare, Bare>>();
    assert_debug::<ScriptedService<Bare, Bare, Bare>>();
    assert_debug::<Script<Bare, Bare, Bare>>();
}
