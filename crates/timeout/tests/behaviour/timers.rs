//! Layers above each other, of which one timer wakes the task for all.

use std::{
    future::{Future, pending, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use portcullis_core::{BoxError, Phase};
use portcullis_testkit::{call as ask, ready};
use portcullis_timeout::{Timeout, TimeoutLayer};
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

use crate::kit::{Inner, MS, answering_after, elapsed, hanging};

type Answer = Pin<Box<dyn Future<Output = Result<u32, BoxError>>>>;

/// An inner service that is a closure: somebody's own layer between two limits.
struct Between<F>(F);

impl<F: FnMut() -> Answer> Service<()> for Between<F> {
    type Response = u32;
    type Error = BoxError;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Answer {
        (self.0)()
    }
}

fn attempt(limit: Duration, inner: Inner) -> Timeout<Inner> {
    TimeoutLayer::attempt("attempt", limit).unwrap().layer(inner)
}

/// Sees that a total limit of 50 ms above `between` ends the call in time.
async fn ends_in_time(between: impl FnMut() -> Answer) {
    let mut total = TimeoutLayer::total("total", 50 * MS).unwrap().layer(Between(between));
    let start = Instant::now();
    // Where it does not, nothing would.
    let ended = tokio::time::timeout(1000 * MS, ask(&mut total, ())).await;
    elapsed(ended.expect("the limit holds"));
    assert_eq!(start.elapsed(), 50 * MS);
}

/// Polls with the task's own waker.
async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn an_answer_below_comes_through_whichever_limit_is_the_longer() {
    for (outer, inner) in [(50, 20), (20, 50), (50, 50)] {
        let below = attempt(inner * MS, answering_after(10 * MS));
        let mut total = TimeoutLayer::total("total", outer * MS).unwrap().layer(below);
        assert_eq!(ask(&mut total, ()).await.unwrap(), 200);
    }
}

#[tokio::test(start_paused = true)]
async fn one_timer_serves_the_layers_above_each_other() {
    struct Task;

    impl Wake for Task {
        fn wake(self: Arc<Self>) {}
    }

    for (outer, timers) in [(50, 1), (20, 1), (10, 2)] {
        let below = attempt(20 * MS, hanging());
        // A limit on heads alone is not inherited.
        let mut total =
            TimeoutLayer::builder("total").head(outer * MS).build().unwrap().layer(below);
        ready(&mut total).await.unwrap();

        let task = Arc::new(Task);
        let waker = Waker::from(task.clone());
        let mut call = Box::pin(total.call(()));
        assert!(call.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        // Each timer holds whom it wakes.
        assert_eq!(Arc::strong_count(&task) - 2, timers);
    }
}

#[tokio::test(start_paused = true)]
async fn the_limit_above_holds_when_the_one_below_has_run_out() {
    ends_in_time(|| {
        Box::pin(async {
            let mut below = attempt(10 * MS, hanging());
            assert_eq!(elapsed(ask(&mut below, ()).await).0, Phase::Attempt);
            pending().await
        })
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_limit_above_holds_when_the_one_below_is_dropped_within_the_poll() {
    ends_in_time(|| {
        Box::pin(async {
            let mut below = attempt(10 * MS, hanging());
            ready(&mut below).await.unwrap();
            {
                let mut dropped = pin!(below.call(()));
                assert!(poll_once(dropped.as_mut()).await.is_none());
            }
            pending().await
        })
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_limit_above_holds_when_the_one_below_is_not_polled_any_more() {
    ends_in_time(|| {
        Box::pin(async {
            let mut below = attempt(10 * MS, hanging());
            ready(&mut below).await.unwrap();
            let mut kept = Box::pin(below.call(()));
            assert!(poll_once(kept.as_mut()).await.is_none());
            tokio::task::yield_now().await;
            let never = pending().await;
            drop(kept);
            never
        })
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_limit_above_holds_when_the_one_below_wakes_somebody_else() {
    ends_in_time(|| {
        Box::pin(async {
            let mut below = attempt(10 * MS, hanging());
            ready(&mut below).await.unwrap();
            let mut kept = Box::pin(below.call(()));
            poll_fn(move |_| kept.as_mut().poll(&mut Context::from_waker(Waker::noop())))
                .await
                .map_err(BoxError::from)
        })
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_limit_above_holds_when_the_one_below_moves_to_another_task() {
    ends_in_time(|| {
        Box::pin(async {
            let mut below = attempt(10 * MS, hanging());
            ready(&mut below).await.unwrap();
            let mut moved = Box::pin(below.call(()));
            assert!(poll_once(moved.as_mut()).await.is_none());
            // From now on its timer wakes that task, which has nothing to say for ever.
            tokio::spawn(async move {
                elapsed(moved.await);
                pending::<()>().await;
            });
            pending().await
        })
    })
    .await;
}
