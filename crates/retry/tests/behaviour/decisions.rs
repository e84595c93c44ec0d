//! Whether there is another attempt, and the reason given.

use portcullis_core::{
    Call, ClassifyFn, Error, Fault, FaultKind, Hint, Outcome, Reason, Replay, call, clock,
};
use portcullis_retry::{Attempt, Decision, Opinion, Policy, Progress, RetryBuilder, RetryConfig};
use portcullis_testkit::{ScriptedService, Step, TestError, call as send};
use tower_layer::Layer;

use crate::fakes::{
    Ear, Heard, Inner, Refusal, Reply, SECOND, answering, builder, by_status, status,
};

/// Sends one request; how often the peer was called, the status handed up, and the last reason.
async fn outcome_of<F>(
    builder: RetryBuilder<portcullis_core::ByClone, ClassifyFn<F>>,
    inner: Inner,
) -> (u64, u16, Option<Reason>)
where
    F: Fn(Result<&Reply, &Error>) -> Outcome,
{
    let (ear, journal) = (Ear::default(), inner.journal());
    let layer = builder.observe(ear.clone()).build().unwrap();
    let reply = send(&mut layer.layer(inner), ()).await.unwrap();
    (journal.calls(), reply.status, ear.last_reason())
}

#[tokio::test(start_paused = true)]
async fn verdicts_decide() {
    let not = portcullis_core::ByClone::not_idempotent();
    for (answered, idempotent, calls, reason) in [
        (200, true, 1, None),
        (204, true, 1, None),
        (501, true, 1, Some(Reason::NotRetryable)),
        (500, true, 3, Some(Reason::AttemptsUsed { max: 3 })),
        (500, false, 1, Some(Reason::NotIdempotent)),
        (421, false, 3, Some(Reason::AttemptsUsed { max: 3 })),
        (429, false, 3, Some(Reason::AttemptsUsed { max: 3 })),
    ] {
        let inner = Inner::respond_with(move |(), _| Step::Ok(Reply::new(answered)));
        let seen = if idempotent {
            outcome_of(builder().classify(by_status()), inner).await
        } else {
            let layer = portcullis_retry::RetryLayer::builder("search", not);
            outcome_of(layer.classify(by_status()), inner).await
        };
        assert_eq!(seen, (calls, answered, reason), "{answered}, {idempotent}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_callers_word_on_idempotency_stands_above_the_requests() {
    let seen = call::with()
        .not_idempotent()
        .run(outcome_of(builder().classify(by_status()), answering(&[500])))
        .await;
    assert_eq!(seen, (1, 500, Some(Reason::NotIdempotent)));

    let not = portcullis_core::ByClone::not_idempotent();
    let layer = portcullis_retry::RetryLayer::builder("search", not).classify(by_status());
    let seen = call::with().idempotent().run(outcome_of(layer, answering(&[500, 200]))).await;
    assert_eq!((seen.0, seen.1), (2, 200));
}

#[tokio::test(start_paused = true)]
async fn the_callers_word_on_attempts_stands_above_the_settings() {
    let one = call::with()
        .no_retry()
        .run(outcome_of(builder().classify(by_status()), answering(&[500])))
        .await;
    assert_eq!(one, (1, 500, Some(Reason::RetryDisabled)));

    let more = call::with()
        .max_attempts(5)
        .run(outcome_of(builder().classify(by_status()), answering(&[500])))
        .await;
    assert_eq!(more, (5, 500, Some(Reason::AttemptsUsed { max: 5 })));

    let off = builder().max_attempts(1).classify(by_status());
    let seen = outcome_of(off, answering(&[500])).await;
    assert_eq!(seen, (1, 500, Some(Reason::AttemptsUsed { max: 1 })));
}

#[tokio::test(start_paused = true)]
async fn a_users_rule_forbids_allows_or_has_no_opinion() {
    let rule = |attempt: &Attempt<'_>| match attempt.outcome.kind() {
        Some(FaultKind::Status(500)) => Opinion::Forbid,
        Some(FaultKind::Status(501)) => Opinion::Retry,
        _ => Opinion::None,
    };
    let with_rule = || builder().classify(by_status()).retry_if(rule);

    let seen = outcome_of(with_rule(), answering(&[502, 500])).await;
    assert_eq!(seen, (2, 500, Some(Reason::NotRetryable)));
    let seen = outcome_of(with_rule(), answering(&[501, 200])).await;
    assert_eq!((seen.0, seen.1), (2, 200));
    let seen = call::with().not_idempotent().run(outcome_of(with_rule(), answering(&[501]))).await;
    assert_eq!(seen, (1, 501, Some(Reason::NotIdempotent)));
}

#[tokio::test(start_paused = true)]
async fn a_users_rule_sees_the_error() {
    let inner = ScriptedService::<(), u32>::respond_with(|(), n| match n {
        0 => Step::Err(TestError("reset")),
        _ => Step::Err(TestError("no such host")),
    });
    let journal = inner.journal();
    let layer = builder().max_attempts(9).retry_if(|attempt| {
        let error = attempt.error.and_then(|error| error.find::<TestError>());
        match error {
            Some(TestError("no such host")) => Opinion::Forbid,
            _ => Opinion::None,
        }
    });
    let error = send(&mut layer.build().unwrap().layer(inner), ()).await.unwrap_err();
    assert_eq!(error.find(), Some(&TestError("no such host")));
    assert_eq!(journal.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_hint_that_says_never_or_asks_too_long_ends_it() {
    for (hint, reason) in [
        (Hint::Never, Reason::HintNever),
        (Hint::After(SECOND * 61), Reason::HintTooLong { hint: SECOND * 61, max: SECOND * 60 }),
    ] {
        let inner =
            ScriptedService::respond_with(move |(), _| Step::Ok(Reply::new(429).hinting(hint)));
        let seen = outcome_of(builder().classify(by_status()), inner).await;
        assert_eq!(seen, (1, 429, Some(reason)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_below_is_waited_for_if_it_says_how_long_and_not_tried_again_if_not() {
    let refused_once = |after| {
        ScriptedService::<(), u32, Error>::respond_with(move |(), n| match n {
            0 => Step::Err(Error::rejected(Refusal(after))),
            _ => Step::Ok(200),
        })
    };
    let inner = refused_once(Some(SECOND * 7));
    let journal = inner.journal();
    let layer = builder().build().unwrap();
    assert_eq!(send(&mut layer.layer(inner), ()).await.unwrap(), 200);
    let at = journal.called_at();
    assert_eq!(at[1] - at[0], SECOND * 7);

    let ear = Ear::default();
    let inner = refused_once(None);
    let journal = inner.journal();
    let layer = builder().observe(ear.clone()).build().unwrap();
    let error = send(&mut layer.layer(inner), ()).await.unwrap_err();
    assert!(error.is::<Refusal>());
    assert_eq!(journal.calls(), 1);
    assert_eq!(ear.last_reason(), Some(Reason::RefusedBelow));

    // No longer than the longest backoff, which is 30 s here: it refuses to spare the wait.
    let inner = refused_once(Some(SECOND * 31));
    let journal = inner.journal();
    let error = send(&mut layer.layer(inner), ()).await.unwrap_err();
    assert!(error.is::<Refusal>());
    assert_eq!(journal.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn events_tell_each_decision_with_its_reason_in_the_scope_of_the_attempt() {
    let ear = Ear::default();
    let inner = Inner::respond_with(|(), n| {
        let hint = Hint::After(SECOND * 5);
        Step::Ok(if n == 0 { Reply::new(429).hinting(hint) } else { Reply::new(500) })
    });
    let layer = builder().classify(by_status()).observe(ear.clone()).build();
    send(&mut layer.unwrap().layer(inner), ()).await.unwrap();

    let hint = SECOND * 5;
    let throttled = Reply::new(429).hinting(Hint::After(hint)).outcome();
    assert_eq!(
        ear.heard(),
        [
            Heard::Retrying(1, throttled, hint, Reason::Hinted { hint }),
            Heard::Retrying(2, status(500), SECOND * 2, Reason::Backoff { retry: 2 }),
            Heard::GaveUp(3, status(500), Reason::AttemptsUsed { max: 3 }),
        ]
    );
    assert_eq!(ear.attempts(), [1, 2, 3]);
}

#[test]
fn the_first_rule_that_says_no_names_the_reason_and_the_request_is_asked_for_last() {
    let policy = Policy::new(&RetryConfig::default()).unwrap();
    let now = clock::now();
    let late = Call::new().with_deadline(now);
    let fault =
        |replay, hint| Outcome::Failure(Fault::new(FaultKind::Other, replay).with_hint(hint));
    let decide = |attempt: Attempt<'_>, call: &Call, replayable: bool| {
        let decision = policy.decide(
            &attempt,
            call,
            now,
            Progress::default(),
            |_| replayable.then_some(()),
            || 0,
        );
        match decision {
            Decision::GiveUp(reason) => reason,
            other => panic!("{other:?}"),
        }
    };

    // Each line mends what the line above was refused for.
    let forbidden = Attempt::new(3, fault(Replay::Forbidden, Hint::Never));
    assert_eq!(decide(forbidden, &late, false), Reason::NotRetryable);
    let acted = Attempt::new(3, fault(Replay::IfIdempotent, Hint::Never));
    assert_eq!(decide(acted, &late, false), Reason::NotIdempotent);
    let last = acted.idempotent(true);
    assert_eq!(decide(last, &late, false), Reason::AttemptsUsed { max: 3 });
    let never = Attempt::new(2, last.outcome).idempotent(true);
    assert_eq!(decide(never, &late, false), Reason::HintNever);
    let first = Attempt::new(2, fault(Replay::Safe, Hint::None));
    assert!(matches!(decide(first, &late, false), Reason::DeadlineTooClose { .. }));
    assert_eq!(decide(first, &Call::new(), false), Reason::NotReplayable);
    assert_eq!(policy.budget().unwrap().balance(now), 100.0);

    let held: Vec<_> = std::iter::from_fn(|| policy.budget().unwrap().withdraw(now).ok()).collect();
    assert_eq!(held.len(), 100);
    let spent = Reason::BudgetSpent { balance_milli: 0 };
    assert_eq!(decide(first, &Call::new(), true), spent);

    // Asking for it ends what is still being sent of the one that is under way.
    let again = |_| -> Option<()> { panic!("a request that is not sent was asked for") };
    let decision = policy.decide(&first, &Call::new(), now, Progress::default(), again, || 0);
    assert!(matches!(decision, Decision::GiveUp(Reason::BudgetSpent { .. })));
}
