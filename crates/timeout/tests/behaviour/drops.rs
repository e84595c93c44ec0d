//! What is dropped and when, and what the layers below make of it.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll},
};

use portcullis_core::{
    BoxError, Call, Completion, End, Error, Outcome, Settle, Ticket, sync::Mutex,
};
use portcullis_testkit::{Script, Step, call as ask, poll_k, ready};
use portcullis_timeout::TimeoutLayer;
use tokio::time::advance;
use tower_layer::Layer;
use tower_service::Service;

use crate::kit::{Inner, Log, MS, elapsed, hanging, ready_after};

/// A layer that holds a permit and a completion while its call is in flight, as a breaker does.
#[derive(Clone)]
struct Guarded<S> {
    inner: S,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    name: Option<Arc<str>>,
    permits: AtomicU32,
    outcomes: Mutex<Vec<Outcome>>,
}

impl Seen {
    fn new() -> Arc<Self> {
        Arc::new(Self { name: Some("guard".into()), ..Self::default() })
    }
}

impl Settle for Seen {
    fn name(&self) -> &Arc<str> {
        self.name.as_ref().unwrap()
    }

    fn settle(&self, _: Ticket, end: &End<'_>) {
        self.permits.fetch_sub(1, Ordering::Relaxed);
        self.outcomes.lock().push(end.outcome);
    }
}

impl<S> Service<()> for Guarded<S>
where
    S: Service<(), Error: Into<BoxError>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, Error>> + Send + 'static>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx).map_err(Error::inner)
    }

    fn call(&mut self, (): ()) -> Self::Future {
        let call = Call::current();
        let now = call.now();
        self.seen.permits.fetch_add(1, Ordering::Relaxed);
        let done = Completion::new(self.seen.clone(), Ticket(0, 0), call.clone(), now);
        let inner = call.enter(now, || self.inner.call(()));
        Box::pin(async move {
            let result = inner.await.map_err(Error::inner);
            done.settle(match &result {
                Ok(_) => Outcome::Success,
                Err(error) => error.outcome(),
            });
            result
        })
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_inner_call_held_is_free_when_the_caller_sees_the_error() {
    let limits = [
        TimeoutLayer::total("search", 50 * MS),
        TimeoutLayer::attempt("search", 50 * MS),
        // Before the deadline, for there is none.
        TimeoutLayer::builder("search").head(50 * MS).build(),
        TimeoutLayer::builder("search").total(90 * MS).head(50 * MS).build(),
    ];
    for layer in limits {
        let seen = Seen::new();
        let inner = hanging();
        let journal = inner.journal();
        // Two of them: a scope in between must not hide why the call is dropped.
        let guarded = Guarded { inner: Guarded { inner, seen: seen.clone() }, seen: seen.clone() };
        let mut service = layer.unwrap().layer(guarded);
        ready(&mut service).await.unwrap();
        let mut future = pin!(service.call(()));
        assert_eq!(seen.permits.load(Ordering::Relaxed), 2);

        // The future itself is still there.
        elapsed(future.as_mut().await);
        assert_eq!(seen.permits.load(Ordering::Relaxed), 0);
        assert_eq!(journal.cancelled(), 1);
        assert_eq!(*seen.outcomes.lock(), [Outcome::timeout(), Outcome::timeout()]);
    }
}

#[tokio::test(start_paused = true)]
async fn timeouts_are_counted_below_however_many_there_are() {
    let seen = Seen::new();
    let guarded = Guarded { inner: hanging(), seen: seen.clone() };
    let mut service = TimeoutLayer::total("search", 50 * MS).unwrap().layer(guarded);
    for _ in 0..200 {
        elapsed(ask(&mut service, ()).await);
    }
    assert_eq!(*seen.outcomes.lock(), [Outcome::timeout(); 200]);
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_gives_up_is_no_timeout() {
    let (seen, log) = (Seen::new(), Log::default());
    let layer = TimeoutLayer::builder("search").total(50 * MS).observe(log.clone()).build();
    let guarded = Guarded { inner: hanging(), seen: seen.clone() };
    let mut service = layer.unwrap().layer(guarded);

    let given_up = tokio::time::timeout(30 * MS, ask(&mut service, ())).await;
    assert!(given_up.is_err());
    assert_eq!(*seen.outcomes.lock(), [Outcome::Cancelled]);
    assert_eq!(log.take(), ["settled: cancelled, head None, end 30ms"]);
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_at_any_stage_is_told_once() {
    let log = Log::default();
    let layer = TimeoutLayer::builder("search").total(50 * MS).observe(log.clone()).build();
    let inner = hanging();
    let (journal, readiness) = (inner.journal(), inner.readiness());
    let mut service = layer.unwrap().layer(inner);

    // Ready, but not called: there was no call.
    ready(&mut service).await.unwrap();
    assert!(log.take().is_empty());

    // Called, but never polled.
    drop(service.call(()));
    assert_eq!(log.take(), ["settled: cancelled, head None, end 0ns"]);
    assert_eq!(journal.in_flight(), 0);

    // Polled: pending without and with a timer.
    for polls in [1, 2] {
        poll_k(ask(&mut service, ()), polls).await;
        assert_eq!(log.take(), ["settled: cancelled, head None, end 0ns"]);
        assert_eq!(journal.in_flight(), 0);
    }

    // Refused, and dropped before anybody was told.
    ready_after(&mut service, &readiness, 50 * MS).await;
    drop(service.call(()));
    assert_eq!(log.take(), ["settled: cancelled, head None, end 50ms"]);

    // Dropped after its deadline, though nobody had polled it since.
    ready(&mut service).await.unwrap();
    let mut late = Box::pin(service.call(()));
    assert!(poll_k(late.as_mut(), 1).await.is_none());
    advance(50 * MS).await;
    drop(late);
    assert_eq!(log.take(), ["settled: failure (timeout), head None, end 50ms"]);

    // Answered, and then dropped: told already.
    {
        ready(&mut service).await.unwrap();
        let mut future = pin!(service.call(()));
        elapsed(future.as_mut().await);
        log.take();
    }
    assert!(log.take().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_panic_below_leaves_the_service_usable() {
    let inner = Inner::new(
        Script::new([Step::Ok(1).pending_once(), Step::Panic("inside")]).then_repeat(Step::Ok(200)),
    );
    let mut service = TimeoutLayer::total("search", 50 * MS).unwrap().layer(inner);
    assert_eq!(ask(&mut service, ()).await.unwrap(), 1);
    let mut other = service.clone();
    let panicked = tokio::spawn(async move { ask(&mut other, ()).await }).await;
    assert!(panicked.unwrap_err().is_panic());
    assert_eq!(ask(&mut service, ()).await.unwrap(), 200);
}
