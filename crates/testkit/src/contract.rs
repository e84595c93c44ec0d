//! Tower's contract, checked on any layer.
//!
//! The suite builds the layer round a [`ScriptedService`], whose strict mode panics when the
//! contract is broken towards the inner service, and looks at the rest from outside.
//!
//! # Example
//!
//! A layer of one service, and its test. With `inner.call(…)` on a fresh clone instead of on the
//! instance that was readied, the suite would panic.
//!
//! ```
//! use portcullis_testkit::{ScriptedService, contract::Suite};
//! use std::task::{Context, Poll};
//! use tower_service::Service;
//!
//! #[derive(Clone)]
//! struct PassThrough<S>(S);
//!
//! impl<S: Service<Req>, Req> Service<Req> for PassThrough<S> {
//!     type Response = S::Response;
//!     type Error = S::Error;
//!     type Future = S::Future;
//!
//!     fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
//!         self.0.poll_ready(cx)
//!     }
//!
//!     fn call(&mut self, request: Req) -> S::Future {
//!         self.0.call(request)
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! Suite::new(|inner: ScriptedService<String, u32>| PassThrough(inner)).run().await;
//! # }
//! ```

use std::{
    fmt::{self, Debug},
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Context,
    time::Duration,
};

use tower_service::Service;

use crate::{ScriptedService, Step, TestError, WakeCounter, poll_k, ready};

/// How often a dropped future is polled first: never, once, and often enough to pass whatever a
/// layer does in its first polls.
const POLLS_BEFORE_DROP: [usize; 4] = [0, 1, 2, MOST_POLLS_BEFORE_DROP];
const MOST_POLLS_BEFORE_DROP: usize = 8;

/// How long a scripted answer takes where a check needs one that is not there at once.
const ANSWER_AFTER: Duration = Duration::from_millis(2);

/// How long a check waits for an answer that must come. On a paused clock it takes no time, and turns
/// a layer that hangs into a message.
const GIVE_UP_AFTER: Duration = Duration::from_secs(60);

/// The contract suite for one layer.
///
/// It wants the layered service and its future to be `Send` (and the service `Clone`) at compile
/// time; its error may be anything that is `Debug`. Each check builds a fresh stack: a closure that
/// makes the layer anew gives each check fresh state as well.
///
/// Run it with tokio's clock paused. The inner service answers at once or after 2 ms, so a layer
/// that waits or gives up sooner than that, or that admits fewer than three calls at a time, must
/// be configured wider for the suite.
///
/// # Example
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// use portcullis_testkit::{ScriptedService, contract::Suite};
///
/// # fn layer<S>(inner: S) -> S { inner }
/// // Requests and responses are their types' defaults…
/// Suite::new(|inner: ScriptedService<(), String>| layer(inner)).run().await;
///
/// // … or made by the test.
/// struct Request(&'static str);
/// Suite::with(|| Request("GET /"), || 200_u16, |inner| layer(inner)).run().await;
/// # }
/// ```
pub struct Suite<Req, Res, B> {
    request: Box<dyn Fn() -> Req>,
    response: Arc<dyn Fn() -> Res + Send + Sync>,
    build: B,
}

impl<Req, Res, B, L> Suite<Req, Res, B>
where
    B: Fn(ScriptedService<Req, Res>) -> L,
    L: Service<Req, Error: Debug, Future: Send> + Clone + Send,
    Req: 'static,
    Res: 'static,
{
    /// A suite over the default request and the default response of their types.
    #[must_use]
    pub fn new(build: B) -> Self
    where
        Req: Default,
        Res: Default,
    {
        Self::with(Req::default, Res::default, build)
    }

    /// A suite over the requests and responses these make.
    #[must_use]
    pub fn with(
        request: impl Fn() -> Req + 'static,
        response: impl Fn() -> Res + Send + Sync + 'static,
        build: B,
    ) -> Self {
        Self { request: Box::new(request), response: Arc::new(response), build }
    }

    /// Runs every check.
    ///
    /// # Panics
    ///
    /// Where the layer breaks the contract, with a message that starts with `contract:`, or
    /// `Tower's contract is broken` if the inner service noticed it.
    pub async fn run(&self) {
        self.calls_the_readied_instance().await;
        self.clone_has_no_readiness().await;
        self.drop_frees_everything().await;
        self.readiness_passes_through_and_wakes().await;
        self.latest_waker_of_a_response_is_woken().await;
        self.readiness_error_is_returned().await;
    }

    /// The instance that was readied is the one that is called: one call after another, several in
    /// flight at once from one instance, and after `poll_ready` was asked more often than needed.
    ///
    /// # Panics
    ///
    /// If the inner service was called on another instance, or not at all.
    pub async fn calls_the_readied_instance(&self) {
        let inner = self.answering_after(Duration::ZERO);
        let journal = inner.journal();
        let mut service = (self.build)(inner);
        for done in 1..=2 {
            expect_ready(&mut service).await;
            expect_answer(service.call((self.request)())).await;
            assert!(
                journal.calls() >= done,
                "contract: an answer came without a call of the inner service"
            );
        }

        let inner = self.answering_after(ANSWER_AFTER);
        let journal = inner.journal();
        let mut service = (self.build)(inner);
        let mut early = Vec::new();
        for _ in 0..3 {
            expect_ready(&mut service).await;
            expect_ready(&mut service).await;
            early.push(Box::pin(service.call((self.request)())));
        }
        for future in early {
            expect_answer(future).await;
        }
        assert_eq!(
            journal.in_flight(),
            0,
            "contract: inner calls are in flight after every answer"
        );
    }

    /// A clone starts unready: it asks the inner service for readiness of its own, and takes none
    /// from the instance it was cloned from.
    ///
    /// # Panics
    ///
    /// If a clone of a ready service is ready while the inner service is not, or the original no
    /// longer is.
    pub async fn clone_has_no_readiness(&self) {
        let inner = self.answering_after(Duration::ZERO);
        let (journal, readiness) = (inner.journal(), inner.readiness());
        let mut service = (self.build)(inner);
        expect_ready(&mut service).await;

        readiness.hold();
        let mut clone = service.clone();
        assert!(
            poll_k(ready(&mut clone), 1).await.is_none(),
            "contract: a clone of a ready service is ready while the inner service is not"
        );
        expect_ready(&mut service).await;
        expect_answer(service.call((self.request)())).await;

        readiness.release();
        expect_ready(&mut clone).await;
        expect_answer(clone.call((self.request)())).await;
        assert!(
            journal.calls() >= 2,
            "contract: an answer came without a call of the inner service"
        );
    }

    /// Dropping the response future, before its first poll or after some, frees what the call held,
    /// and the service goes on working. Dropping the service frees every clone of the inner one.
    ///
    /// # Panics
    ///
    /// If an inner call is still in flight, or an inner service still alive.
    pub async fn drop_frees_everything(&self) {
        for polls in POLLS_BEFORE_DROP {
            let response = Arc::clone(&self.response);
            let hanging = Arc::new(AtomicBool::new(true));
            let hangs = Arc::clone(&hanging);
            let inner =
                ScriptedService::respond_with(move |_, _| match hangs.load(Ordering::Relaxed) {
                    true => Step::Hang,
                    false => Step::Ok(response()),
                });
            let journal = inner.journal();
            let mut service = (self.build)(inner);

            expect_ready(&mut service).await;
            let answer = poll_k(service.call((self.request)()), polls).await;
            assert!(
                answer.is_none(),
                "contract: there is an answer though the inner service gave none"
            );
            settle().await;
            assert_eq!(
                journal.in_flight(),
                0,
                "contract: the inner call is in flight after its future was polled {polls} times \
                 and dropped"
            );
            assert!(
                journal.calls() > 0 || polls < MOST_POLLS_BEFORE_DROP,
                "contract: {polls} polls of the future did not reach the inner service"
            );

            hanging.store(false, Ordering::Relaxed);
            expect_ready(&mut service).await;
            expect_answer(service.call((self.request)())).await;
            drop(service);
            settle().await;
            assert_eq!(
                journal.instances(),
                0,
                "contract: the service is dropped and clones of the inner one are alive"
            );
        }
    }

    /// While the inner service is not ready the layered one is not, and the waker of the last poll
    /// is woken when it becomes so.
    ///
    /// # Panics
    ///
    /// If the service is ready too early, or its task is not woken.
    pub async fn readiness_passes_through_and_wakes(&self) {
        let inner = self.answering_after(Duration::ZERO);
        let readiness = inner.readiness();
        readiness.hold();
        let mut service = (self.build)(inner);

        let (earlier, latest) = (WakeCounter::new(), WakeCounter::new());
        for wakes in [&earlier, &latest] {
            let poll = service.poll_ready(&mut Context::from_waker(&wakes.waker()));
            assert!(
                poll.is_pending(),
                "contract: the service is {poll:?} while the inner service is not ready"
            );
        }
        readiness.release();
        settle().await;
        assert!(
            latest.count() > 0,
            "contract: the inner service became ready and the waker of the last `poll_ready` was \
             not woken"
        );
        expect_ready(&mut service).await;
        expect_answer(service.call((self.request)())).await;
    }

    /// A response future that was polled by one task and moved to another wakes the latter.
    ///
    /// # Panics
    ///
    /// If the answer is there and the waker of the last poll was not woken.
    pub async fn latest_waker_of_a_response_is_woken(&self) {
        let mut service = (self.build)(self.answering_after(ANSWER_AFTER));
        expect_ready(&mut service).await;
        let mut future = pin!(service.call((self.request)()));

        let (earlier, latest) = (WakeCounter::new(), WakeCounter::new());
        for wakes in [&earlier, &latest] {
            let poll = future.as_mut().poll(&mut Context::from_waker(&wakes.waker()));
            assert!(
                poll.is_pending(),
                "contract: there is an answer before the inner service gave one"
            );
        }
        tokio::time::sleep(ANSWER_AFTER * 2).await;
        assert!(
            latest.count() > 0,
            "contract: the inner service answered and the waker of the last poll was not woken"
        );
        expect_answer(future).await;
    }

    /// An inner service that fails to become ready is an error of the layered one: of its
    /// `poll_ready`, or of the call that follows.
    ///
    /// # Panics
    ///
    /// If the error is lost, and wherever the layer panics.
    pub async fn readiness_error_is_returned(&self) {
        let inner = self.answering_after(Duration::ZERO);
        let (journal, readiness) = (inner.journal(), inner.readiness());
        readiness.fail_next(TestError("the inner service failed to become ready"));
        let mut service = (self.build)(inner);
        if answer_in_time(ready(&mut service)).await.is_ok() {
            // A layer may keep the error for the call's future; what it must not do is ask again
            // and forget it.
            let answer = answer_in_time(service.call((self.request)())).await;
            assert!(
                answer.is_err(),
                "contract: the inner service failed to become ready and nobody was told"
            );
            assert_eq!(
                journal.calls(),
                0,
                "contract: the inner service was called though it had failed to become ready"
            );
        }
    }

    fn answering_after(&self, delay: Duration) -> ScriptedService<Req, Res> {
        let response = Arc::clone(&self.response);
        ScriptedService::respond_with(move |_, _| match delay {
            Duration::ZERO => Step::Ok(response()),
            _ => Step::Ok(response()).after(delay),
        })
    }
}

impl<Req, Res, B> Debug for Suite<Req, Res, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Suite").finish_non_exhaustive()
    }
}

/// Readies the service. It must not take more than the inner service does, which is ready at once.
async fn expect_ready<S, Req>(service: &mut S)
where
    S: Service<Req, Error: Debug>,
{
    match poll_k(ready(service), 8).await {
        Some(Ok(())) => {}
        Some(Err(error)) => {
            panic!("contract: `poll_ready` failed with {error:?}, the inner service did not")
        }
        None => panic!("contract: the inner service is ready and the service is not"),
    }
}

/// Awaits a response the inner service gives in good order.
async fn expect_answer<Res, E: Debug>(future: impl Future<Output = Result<Res, E>>) {
    if let Err(error) = answer_in_time(future).await {
        panic!("contract: a good answer became {error:?}");
    }
}

async fn answer_in_time<F: Future>(future: F) -> F::Output {
    match tokio::time::timeout(GIVE_UP_AFTER, future).await {
        Ok(output) => output,
        Err(_) => panic!("contract: no answer came within {GIVE_UP_AFTER:?}"),
    }
}

/// Lets tasks that were told to stop do so.
async fn settle() {
    for _ in 0..8 {
        tokio::task::yield_now().await;
    }
}
