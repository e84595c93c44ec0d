//! One deadline for a call, whoever set it.

use std::time::Duration;

use portcullis_core::{ByResult, Call, Classify, Completion, Error, Phase, Verdict, call, clock};
use portcullis_testkit::{Script, Step, TestError, call as ask};
use portcullis_timeout::TimeoutLayer;
use tokio::time::Instant;
use tower_layer::Layer;

use crate::kit::{Inner, Log, MS, elapsed, hanging, telling_time_left};

// ===== the deadline =====

#[tokio::test(start_paused = true)]
async fn the_limit_is_the_deadline_of_everything_below() {
    let layer = TimeoutLayer::total("search", 50 * MS).unwrap();
    assert_eq!(ask(&mut layer.layer(telling_time_left()), ()).await.unwrap(), Some(50 * MS));

    // A head's limit is not: what follows the head has more time.
    let layer = TimeoutLayer::builder("search").total(50 * MS).head(10 * MS).build().unwrap();
    assert_eq!(ask(&mut layer.layer(telling_time_left()), ()).await.unwrap(), Some(50 * MS));
}

#[tokio::test(start_paused = true)]
async fn a_nested_deadline_can_only_shorten() {
    let layer = TimeoutLayer::total("search", 50 * MS).unwrap();
    let seen = |own: Duration| {
        let mut service = layer.layer(telling_time_left());
        call::with()
            .deadline(clock::now() + own)
            .run(async move { ask(&mut service, ()).await.unwrap() })
    };
    assert_eq!(seen(20 * MS).await, Some(20 * MS));
    assert_eq!(seen(80 * MS).await, Some(50 * MS));

    // A scope in a scope.
    let outer = Call::new().with_deadline(clock::now() + 10 * MS);
    assert_eq!(outer.in_scope(async { seen(20 * MS).await }).await, Some(10 * MS));
}

#[tokio::test(start_paused = true)]
async fn an_inherited_deadline_is_kept_and_named() {
    let layer = TimeoutLayer::total("search", 50 * MS).unwrap();
    let mut service = layer.layer(hanging());
    let start = Instant::now();
    let deadline = clock::now() + 20 * MS;
    let answer = call::with().deadline(deadline).run(ask(&mut service, ())).await;
    assert_eq!(elapsed(answer), (Phase::Inherited, 20 * MS));
    assert_eq!(start.elapsed(), 20 * MS);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_comes_overdue_is_not_made() {
    let inner = Inner::answering(200);
    let journal = inner.journal();
    let mut service = TimeoutLayer::total("search", 50 * MS).unwrap().layer(inner);
    let deadline = clock::now();
    let answer = call::with().deadline(deadline).run(ask(&mut service, ())).await;
    assert_eq!(elapsed(answer), (Phase::Inherited, Duration::ZERO));
    assert_eq!(journal.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn joined_calls_have_each_its_own_deadline() {
    let layer = TimeoutLayer::total("search", 50 * MS).unwrap();
    let (mut one, mut two, mut three) =
        (layer.layer(hanging()), layer.layer(hanging()), layer.layer(telling_time_left()));
    let now = clock::now();
    let (one, two, three) = Call::new()
        .with_deadline(now + 40 * MS)
        .in_scope(async {
            tokio::join!(
                call::with().deadline(now + 10 * MS).run(ask(&mut one, ())),
                call::with().timeout(5 * MS).run(ask(&mut two, ())),
                ask(&mut three, ()),
            )
        })
        .await;
    assert_eq!(elapsed(one), (Phase::Inherited, 10 * MS));
    assert_eq!(elapsed(two), (Phase::Total, 5 * MS));
    assert_eq!(three.unwrap(), Some(40 * MS));
}

// ===== layers in layers =====

#[tokio::test(start_paused = true)]
async fn of_a_total_limit_outside_an_attempts_the_shorter_names_the_error() {
    let total = TimeoutLayer::total("total", 50 * MS).unwrap();
    let attempt = |limit| TimeoutLayer::attempt("attempt", limit).unwrap();

    let mut service = total.layer(attempt(20 * MS).layer(hanging()));
    let error = ask(&mut service, ()).await.unwrap_err();
    assert_eq!(error.to_string(), "attempt: attempt limit of 20ms ran out");

    // The inner one keeps the outer one's deadline, and the outer one gives it its name.
    let mut service = total.layer(attempt(80 * MS).layer(hanging()));
    let start = Instant::now();
    let error = ask(&mut service, ()).await.unwrap_err();
    assert_eq!(error.to_string(), "total: total limit of 50ms ran out");
    assert_eq!(start.elapsed(), 50 * MS);
}

#[tokio::test(start_paused = true)]
async fn an_attempts_limit_outside_a_total_one_is_as_correct() {
    let attempt = TimeoutLayer::attempt("attempt", 20 * MS).unwrap();
    let mut service =
        attempt.layer(TimeoutLayer::total("total", 50 * MS).unwrap().layer(hanging()));
    let error = ask(&mut service, ()).await.unwrap_err();
    assert_eq!(error.to_string(), "attempt: attempt limit of 20ms ran out");

    // What the caller orders replaces the total limit, wherever it stands.
    let answer = call::with().timeout(10 * MS).run(ask(&mut service, ())).await;
    assert_eq!(answer.unwrap_err().to_string(), "total: total limit of 10ms ran out");
    let answer = call::with().timeout(80 * MS).run(ask(&mut service, ())).await;
    assert_eq!(answer.unwrap_err().to_string(), "attempt: attempt limit of 20ms ran out");
}

#[tokio::test(start_paused = true)]
async fn a_scopes_deadline_stays_inherited_at_every_height() {
    let total = TimeoutLayer::total("outer", 50 * MS).unwrap();
    let attempt = TimeoutLayer::attempt("inner", 40 * MS).unwrap();
    let mut service = total.layer(attempt.layer(hanging()));
    let deadline = clock::now() + 30 * MS;
    let answer = call::with().deadline(deadline).run(ask(&mut service, ())).await;
    assert_eq!(answer.unwrap_err().to_string(), "inner: inherited limit of 30ms ran out");
}

// ===== clients that keep the deadline, too =====

/// Knows a client that gives up by itself at the deadline.
#[derive(Clone)]
struct KnowsItsClient;

impl<Res> Classify<Res> for KnowsItsClient {
    type Response = Res;

    fn at_head(&self, result: Result<&Res, &Error>) -> Verdict {
        ByResult.at_head(result)
    }

    fn stands_for_deadline(&self, error: &Error) -> bool {
        error.is::<TestError>()
    }

    fn classify(&self, result: Result<Res, Error>, done: Completion) -> Result<Res, Error> {
        ByResult.classify(result, done)
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_gives_up_at_the_deadline_is_the_deadline() {
    let gives_up = |after| Inner::new(Script::repeat(Step::Err(TestError("expired")).after(after)));
    let layer = TimeoutLayer::total("search", 50 * MS).unwrap();
    let error = ask(&mut layer.layer(gives_up(50 * MS)), ()).await.unwrap_err();
    assert!(error.is::<TestError>(), "nobody said what that client does");

    let log = Log::default();
    let layer = TimeoutLayer::builder("search").total(50 * MS).observe(log.clone());
    let layer = layer.classify(KnowsItsClient).build().unwrap();
    assert_eq!(
        elapsed(ask(&mut layer.layer(gives_up(50 * MS)), ()).await),
        (Phase::Total, 50 * MS)
    );
    assert_eq!(log.take()[0], "timed out: total 50ms after 50ms");

    let error = ask(&mut layer.layer(gives_up(49 * MS)), ()).await.unwrap_err();
    assert!(error.is::<TestError>(), "earlier it is the client's own failure");
}
