//! The budget, seen through the layer.

use portcullis_core::{Hint, Reason, clock};
use portcullis_retry::{Backoff, Budget, Jitter};
use portcullis_testkit::{Step, call as send};
use tokio::task::JoinSet;
use tower_layer::Layer;

use crate::fakes::{Ear, Inner, Reply, SECOND, answering, builder, by_status, tokens};

#[tokio::test(start_paused = true)]
async fn five_thousand_failing_requests_are_retried_to_the_budget_and_no_more() {
    let inner = answering(&[500]);
    let journal = inner.journal();
    let layer = builder()
        .backoff(Backoff::fixed(std::time::Duration::ZERO))
        .budget(tokens(10, 0.2, 0.0))
        .classify(by_status())
        .build()
        .unwrap();
    let mut service = layer.layer(inner);
    for _ in 0..5_000 {
        send(&mut service, ()).await.unwrap();
    }
    // 10 to begin with, 1000 that the requests paid in; the first payment found the bucket full.
    let retries = journal.calls() - 5_000;
    assert!((1_009..=1_010).contains(&retries), "{retries}");
}

#[tokio::test(start_paused = true)]
async fn successes_are_not_what_fills_the_budget() {
    let inner = answering(&[200]);
    let layer = builder().budget(tokens(5, 0.1, 0.0)).classify(by_status());
    let layer = layer.build().unwrap();
    let budget = layer.budget().unwrap();
    for _ in 0..5 {
        budget.withdraw(clock::now()).unwrap().spend(clock::now());
    }
    let mut service = layer.layer(inner);
    for _ in 0..10 {
        send(&mut service, ()).await.unwrap();
    }
    assert_eq!(budget.balance(clock::now()), 1.0);
}

#[tokio::test(start_paused = true)]
async fn a_spent_budget_hands_the_response_up_at_once() {
    let ear = Ear::default();
    let inner = answering(&[500]);
    let journal = inner.journal();
    let layer = builder()
        .budget(tokens(1, 0.0, 0.0))
        .classify(by_status())
        .observe(ear.clone())
        .build()
        .unwrap();
    let reply = send(&mut layer.layer(inner), ()).await.unwrap();
    assert_eq!((reply.status, journal.calls()), (500, 2));
    let spent = Reason::BudgetSpent { balance_milli: 0 };
    assert_eq!(ear.last_reason(), Some(spent));
}

#[tokio::test(start_paused = true)]
async fn all_services_of_a_layer_share_its_budget_and_layers_may_share_one() {
    let budget = Budget::new(tokens(3, 0.0, 0.0)).unwrap();
    let inner = answering(&[500]);
    let journal = inner.journal();
    for _ in 0..2 {
        let layer = builder().shared_budget(budget.clone()).classify(by_status());
        let layer = layer.build().unwrap();
        for layer in [layer.clone(), layer] {
            send(&mut layer.layer(inner.clone()), ()).await.unwrap();
        }
    }
    assert_eq!(journal.calls(), 4 + 3);
    assert_eq!(budget.balance(clock::now()), 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_hint_that_many_calls_were_given_does_not_send_them_all_off_together() {
    let hint = Hint::After(SECOND * 30);
    let inner = Inner::respond_with(move |(), _| Step::Ok(Reply::new(429).hinting(hint)));
    let journal = inner.journal();
    let layer = builder()
        .max_attempts(2)
        .budget(tokens(10, 0.2, 1.0))
        .jitter(Jitter::None)
        .classify(by_status())
        .build()
        .unwrap();

    let mut calls = JoinSet::new();
    for _ in 0..500 {
        let mut service = layer.layer(inner.clone());
        calls.spawn(async move { send(&mut service, ()).await.map(|reply| reply.status) });
    }
    let answers = calls.join_all().await;
    assert!(answers.into_iter().all(|answer| answer.unwrap() == 429));
    assert_eq!(journal.calls() - 500, 10);
}

#[tokio::test(start_paused = true)]
async fn without_a_budget_only_the_attempts_bound_it() {
    let inner = answering(&[500]);
    let journal = inner.journal();
    let layer = builder().no_budget().classify(by_status()).build().unwrap();
    assert!(layer.budget().is_none());
    let mut service = layer.layer(inner);
    for _ in 0..200 {
        send(&mut service, ()).await.unwrap();
    }
    assert_eq!(journal.calls(), 600);
}
