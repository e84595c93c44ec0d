use std::{
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use pin_project_lite::pin_project;
use tower_service::Service;

/// Waits until `service` is ready.
///
/// # Errors
///
/// The service's own, if it failed to become ready.
///
/// # Example
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// use portcullis_testkit::{ScriptedService, ready};
/// use tower_service::Service;
///
/// let mut service = ScriptedService::<(), u32>::answering(200);
/// ready(&mut service).await.unwrap();
/// assert_eq!(service.call(()).await, Ok(200));
/// # }
/// ```
pub async fn ready<S, Req>(service: &mut S) -> Result<(), S::Error>
where
    S: Service<Req>,
{
    poll_fn(|cx| service.poll_ready(cx)).await
}

/// Waits until `service` is ready, calls it and waits for the answer.
///
/// # Errors
///
/// The service's own, of its readiness or of the call.
///
/// # Example
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// use portcullis_testkit::{ScriptedService, call};
///
/// let mut service = ScriptedService::<&str, u32>::answering(200);
/// assert_eq!(call(&mut service, "GET /").await, Ok(200));
/// # }
/// ```
pub async fn call<S, Req>(service: &mut S, request: Req) -> Result<S::Response, S::Error>
where
    S: Service<Req>,
{
    ready(service).await?;
    service.call(request).await
}

/// Polls `future` at most `k` times and drops it: its output if it was done by then, else `None`.
///
/// The polls follow one another whether or not the future woke its task, at one instant of a paused
/// clock; every future must stand being polled for nothing. Other tasks may run in between. With `k
/// = 0` it is dropped unpolled. To drop a future at a later instant, use [`tokio::time::timeout`].
///
/// # Example
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// use portcullis_testkit::{Script, ScriptedService, Step, call, poll_k};
///
/// let mut service = ScriptedService::<(), u32>::new(Script::repeat(Step::Hang));
/// assert_eq!(poll_k(call(&mut service, ()), 3).await, None);
/// assert_eq!(service.journal().cancelled(), 1);
/// assert_eq!(poll_k(async { 5 }, 1).await, Some(5));
/// # }
/// ```
pub fn poll_k<F: Future>(future: F, k: usize) -> PollK<F> {
    PollK { future: Some(future), polls_left: k }
}

/// Polls `future` as often as it asks for it, at most `polls` times, and drops it: its output if it was
/// done by then, else `None`.
///
/// Unlike [`poll_k`] it polls only when woken, so that a paused clock goes on to whatever the future
/// waits for, and each number of polls is another stage of it. A test that gives up after 0, 1, 2 … polls
/// until there is an output has dropped the future at all of them.
///
/// To look at the drop itself, give it a pinned reference: then only that is dropped.
///
/// # Example
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// use portcullis_testkit::{Leave, ScriptedService, Step, TestError, call, give_up};
/// use std::time::Duration;
///
/// for polls in 0.. {
///     let answer = Step::<u32, TestError>::Ok(5).pending_once().after(Duration::from_secs(1));
///     let mut service = ScriptedService::respond_with(move |(), _| answer.clone());
///     let journal = service.journal();
///     let answer = give_up(call(&mut service, ()), polls, Leave::AtOnce).await;
///     assert_eq!(journal.in_flight(), 0);
///     if let Some(answer) = answer {
///         assert!(answer == Ok(5) && polls >= 3);
///         break;
///     }
/// }
/// # }
/// ```
pub fn give_up<F: Future>(future: F, polls: usize, leave: Leave) -> GiveUp<F> {
    GiveUp { future: Some(future), polls_left: polls, leave }
}

/// When a future is dropped that [`give_up`] gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// Right after its last poll, while it waits.
    AtOnce,
    /// When it is woken for the next one: what it waited for is there, and nobody takes it.
    Woken,
}

/// Awaits `future` and says how often it was polled until it was done: a future that is woken only
/// when it can move on needs one poll more than it has waits.
///
/// # Example
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// use portcullis_testkit::{ScriptedService, Step, TestError, count_polls, ready};
/// use tower_service::Service;
/// use std::time::Duration;
///
/// let mut service = ScriptedService::respond_with(|(), _| {
///     Step::<u32, TestError>::Ok(1).pending_once().after(Duration::from_secs(1))
/// });
/// ready(&mut service).await.unwrap();
/// assert_eq!(count_polls(service.call(())).await, (Ok(1), 3));
/// # }
/// ```
pub fn count_polls<F: Future>(future: F) -> CountPolls<F> {
    CountPolls { future, polls: 0 }
}

pin_project! {
    /// The future of [`poll_k`].
    #[must_use = "a future does nothing unless it is awaited"]
    pub struct PollK<F> {
        #[pin]
        future: Option<F>,
        polls_left: usize,
    }
}

impl<F: Future> Future for PollK<F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let answer = match this.future.as_mut().as_pin_mut() {
            Some(future) if *this.polls_left > 0 => {
                *this.polls_left -= 1;
                future.poll(cx).map(Some)
            }
            _ => Poll::Ready(None),
        };
        if answer.is_pending() && *this.polls_left > 0 {
            // The next poll must come even if the future never wakes its task.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        // Dropped here and not with `PollK`, which the caller may keep.
        this.future.set(None);
        Poll::Ready(match answer {
            Poll::Ready(output) => output,
            Poll::Pending => None,
        })
    }
}

impl<F> fmt::Debug for PollK<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PollK").field("polls_left", &self.polls_left).finish_non_exhaustive()
    }
}

pin_project! {
    /// The future of [`give_up`].
    #[must_use = "a future does nothing unless it is awaited"]
    pub struct GiveUp<F> {
        #[pin]
        future: Option<F>,
        polls_left: usize,
        leave: Leave,
    }
}

impl<F: Future> Future for GiveUp<F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let mut output = None;
        if *this.polls_left > 0
            && let Some(future) = this.future.as_mut().as_pin_mut()
        {
            *this.polls_left -= 1;
            match future.poll(cx) {
                Poll::Ready(ready) => output = Some(ready),
                Poll::Pending if *this.polls_left > 0 || *this.leave == Leave::Woken => {
                    return Poll::Pending;
                }
                Poll::Pending => {}
            }
        }
        // Dropped here and not with `GiveUp`, which the caller may keep.
        this.future.set(None);
        Poll::Ready(output)
    }
}

impl<F> fmt::Debug for GiveUp<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GiveUp")
            .field("polls_left", &self.polls_left)
            .field("leave", &self.leave)
            .finish_non_exhaustive()
    }
}

pin_project! {
    /// The future of [`count_polls`].
    #[must_use = "a future does nothing unless it is awaited"]
    pub struct CountPolls<F> {
        #[pin]
        future: F,
        polls: usize,
    }
}

impl<F: Future> Future for CountPolls<F> {
    type Output = (F::Output, usize);

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        *this.polls += 1;
        this.future.poll(cx).map(|output| (output, *this.polls))
    }
}

impl<F> fmt::Debug for CountPolls<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CountPolls").field("polls", &self.polls).finish_non_exhaustive()
    }
}

/// A waker that counts how often it was woken, for polling by hand.
///
/// # Example
///
/// ```
/// use portcullis_testkit::{ScriptedService, WakeCounter};
/// use tower_service::Service;
/// use std::task::Context;
///
/// let mut service = ScriptedService::<(), u32>::answering(200);
/// service.readiness().hold();
///
/// let wakes = WakeCounter::new();
/// let waker = wakes.waker();
/// assert!(service.poll_ready(&mut Context::from_waker(&waker)).is_pending());
/// assert_eq!(wakes.count(), 0);
/// service.readiness().release();
/// assert_eq!(wakes.count(), 1);
/// ```
#[derive(Clone, Debug, Default)]
pub struct WakeCounter {
    wakes: Arc<Wakes>,
}

#[derive(Debug, Default)]
struct Wakes(AtomicUsize);

impl WakeCounter {
    /// A counter at 0.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A waker that adds to this counter.
    #[must_use]
    pub fn waker(&self) -> Waker {
        Waker::from(Arc::clone(&self.wakes))
    }

    /// How often the wakers of this counter were woken.
    #[must_use]
    pub fn count(&self) -> usize {
        // Acquire, with the release below: what the waking thread did before is seen by whoever
        // reads its wake.
        self.wakes.0.load(Ordering::Acquire)
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.fetch_add(1, Ordering::Release);
    }
}
