//! Attempts that no application saw.

use std::{sync::Arc, time::Duration};

use portcullis_core::{ByClone, Call, Event, Hint, Reason, What, call, clock, sync::Mutex};
use portcullis_retry::{Backoff, Exhausted, Jitter, Opinion, RetryBuilder};
use portcullis_testkit::{Step, call as send};
use tower_layer::Layer;

use crate::fakes::{
    Ear, Heard, Inner, Reply, SECOND, answering, builder, by_status, status, tokens,
};

const MS: Duration = Duration::from_millis(1);
/// What the peer's transport gave back, and what never left the client.
const UNPROCESSED: u16 = 598;
const UNSENT: u16 = 599;

/// The status that is handed up, when each request was sent in milliseconds since the first, and what was
/// heard.
async fn sent(builder: RetryBuilder<ByClone>, inner: Inner) -> (u16, Vec<u128>, Vec<Heard>) {
    let (ear, journal) = (Ear::default(), inner.journal());
    let layer = builder.classify(by_status()).observe(ear.clone()).build().unwrap();
    let reply = send(&mut layer.layer(inner), ()).await.unwrap();
    assert!(layer.budget().is_none_or(|budget| budget.waiting() == 0));
    let at = journal.called_at();
    let at = at.iter().map(|one| (*one - at[0]).as_millis()).collect();
    (reply.status, at, ear.heard())
}

#[tokio::test(start_paused = true)]
async fn what_the_peers_transport_gave_back_is_sent_again_at_once_and_once() {
    let (status_up, at, heard) = sent(builder(), answering(&[UNPROCESSED, UNPROCESSED, 200])).await;
    // The second time, the ordinary rules decide: with their wait, and as another attempt.
    assert_eq!((status_up, at), (200, vec![0, 0, 1_000]));
    let failed = status(UNPROCESSED);
    assert_eq!(
        heard,
        [
            Heard::Resending(1, Duration::ZERO, Reason::Unprocessed),
            Heard::Retrying(1, failed, SECOND, Reason::Backoff { retry: 1 }),
        ]
    );

    // Once for the call, not once for each attempt.
    let (_, at, _) = sent(builder(), answering(&[UNPROCESSED, 500, UNPROCESSED, 200])).await;
    assert_eq!(at, [0, 0, 1_000, 3_000]);
}

#[tokio::test(start_paused = true)]
async fn the_same_attempt_once_more_costs_neither_an_attempt_nor_a_token() {
    let none = tokens(1, 0.0, 0.0);
    let (status_up, at, _) =
        sent(builder().budget(none), answering(&[UNPROCESSED, 500, UNSENT, UNSENT, 500])).await;
    // The one token goes for attempt 2, and there is none for attempt 3.
    assert_eq!((status_up, at), (500, vec![0, 0, 1_000, 1_000, 2_000]));

    let numbers: Arc<Mutex<Vec<u32>>> = Arc::default();
    let note = numbers.clone();
    let inner = Inner::respond_with(move |(), n| {
        note.lock().push(Call::current().attempt());
        Step::Ok(Reply::new([UNPROCESSED, UNSENT, 500, UNSENT, 200][n as usize]))
    });
    sent(builder(), inner).await;
    assert_eq!(*numbers.lock(), [1, 1, 1, 2, 2]);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_is_told_to_begin_once_however_often_it_is_sent() {
    let begun: Arc<Mutex<Vec<u32>>> = Arc::default();
    let note = begun.clone();
    let layer = builder().observe(move |event: &Event<'_>| {
        if let What::Attempting { attempt } = event.what {
            note.lock().push(attempt);
        }
    });
    let inner = answering(&[UNSENT, UNPROCESSED, 500, UNSENT, 200]);
    let layer = layer.classify(by_status()).build().unwrap();
    send(&mut layer.layer(inner), ()).await.unwrap();
    assert_eq!(*begun.lock(), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn what_never_left_the_client_is_sent_again_until_the_deadline_and_at_a_walk() {
    let deadline = clock::now() + SECOND * 20;
    let (status_up, at, heard) =
        call::with().deadline(deadline).run(sent(builder(), answering(&[UNSENT]))).await;
    assert_eq!(status_up, UNSENT);
    // At once, then as the backoff has it: after 1, 2, 4 and 8 s.
    assert_eq!(at, [0, 0, 1_000, 3_000, 7_000, 15_000]);
    let too_close = Reason::DeadlineTooClose { left: SECOND * 5, needed: SECOND * 16 };
    assert_eq!(heard.last(), Some(&Heard::GaveUp(1, status(UNSENT), too_close)));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_gives_all_back_at_once_keeps_no_processor_busy() {
    let deadline = clock::now() + SECOND;
    let eager = || builder().backoff(Backoff::fixed(Duration::ZERO)).jitter(Jitter::Full);
    let (_, at, _) = call::with().deadline(deadline).run(sent(eager(), answering(&[UNSENT]))).await;
    // Two at once, and then one in 10 ms.
    assert!((90..=102).contains(&at.len()), "{}", at.len());
}

#[tokio::test(start_paused = true)]
async fn without_a_deadline_it_is_left_to_the_ordinary_rules_at_last() {
    let quick = builder().backoff(Backoff::fixed(MS * 50));
    let (status_up, at, heard) = sent(quick, answering(&[UNSENT])).await;
    assert_eq!(status_up, UNSENT);
    let resent = heard.iter().filter(|heard| matches!(heard, Heard::Resending(..))).count();
    assert_eq!((resent, at.len()), (10, 13));
    let used = Reason::AttemptsUsed { max: 3 };
    assert_eq!(heard.last(), Some(&Heard::GaveUp(3, status(UNSENT), used)));
}

#[tokio::test(start_paused = true)]
async fn it_is_sent_again_though_it_may_have_one_attempt_but_not_against_the_callers_word() {
    let one = || builder().max_attempts(1);
    assert_eq!(sent(one(), answering(&[UNPROCESSED, UNSENT, 200])).await.0, 200);
    assert_eq!(sent(one(), answering(&[500, 200])).await.0, 500);

    let (status_up, _, heard) =
        call::with().no_retry().run(sent(builder(), answering(&[UNSENT, 200]))).await;
    assert_eq!(status_up, UNSENT);
    assert_eq!(heard, [Heard::GaveUp(1, status(UNSENT), Reason::RetryDisabled)]);

    let forbidding = builder().retry_if(|_| Opinion::Forbid);
    assert_eq!(sent(forbidding, answering(&[UNSENT, 200])).await.0, UNSENT);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_not_idempotent_is_sent_again_as_well() {
    let careful = builder().keep(ByClone::not_idempotent());
    let harmful = call::with().not_idempotent();
    let (status_up, at, _) =
        harmful.run(sent(careful, answering(&[UNPROCESSED, UNSENT, UNSENT, 200]))).await;
    assert_eq!((status_up, at), (200, vec![0, 0, 0, 1_000]));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_says_when_to_come_back_is_heeded() {
    let inner = Inner::respond_with(|(), n| {
        Step::Ok(match n {
            0 => Reply::new(UNSENT).hinting(Hint::After(SECOND * 3)),
            _ => Reply::new(200),
        })
    });
    let (_, at, heard) = sent(builder(), inner).await;
    assert_eq!(at, [0, 3_000]);
    assert!(matches!(heard[..], [Heard::Retrying(1, ..)]));
}

#[tokio::test(start_paused = true)]
async fn at_the_deadline_nothing_is_sent_again() {
    let inner = Inner::respond_with(|(), _| Step::Ok(Reply::new(UNPROCESSED)).after(SECOND));
    let call = call::with().deadline(clock::now() + SECOND);
    let (status_up, at, heard) = call.run(sent(builder(), inner)).await;
    assert_eq!((status_up, at.len()), (UNPROCESSED, 1));
    let late = Reason::DeadlineTooClose { left: Duration::ZERO, needed: Duration::ZERO };
    assert_eq!(heard, [Heard::GaveUp(1, status(UNPROCESSED), late)]);
}

#[tokio::test(start_paused = true)]
async fn the_client_is_made_ready_again_before_the_same_attempt_too() {
    let inner = answering(&[UNPROCESSED, 200]);
    let (readiness, journal) = (inner.readiness(), inner.journal());
    let layer = builder().classify(by_status()).build().unwrap();
    let mut service = layer.layer(inner);
    portcullis_testkit::ready(&mut service).await.unwrap();
    readiness.hold();
    let call = call::with().deadline(clock::now() + SECOND);
    let call = call.run(async { tower_service::Service::call(&mut service, ()).await });
    let error = call.await.unwrap_err();
    assert!(error.is::<Exhausted>());
    assert_eq!(journal.calls(), 1);
}
