use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use crate::sync::Mutex;

/// Says when a [`ScriptedService`](crate::ScriptedService) and its clones are ready. Clones share
/// one state.
///
/// As Tower asks, an instance that has answered `Ready` stays ready until it is called, whatever
/// happens here.
///
/// # Example
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// use portcullis_testkit::{ScriptedService, TestError, poll_k, ready};
///
/// let mut service = ScriptedService::<(), u32>::answering(200);
/// let readiness = service.readiness();
///
/// readiness.hold();
/// assert!(poll_k(ready(&mut service), 1).await.is_none());
/// readiness.release();
/// assert!(ready(&mut service).await.is_ok());
///
/// readiness.fail_next(TestError("no connection"));
/// let mut clone = service.clone();
/// assert_eq!(ready(&mut clone).await, Err(TestError("no connection")));
/// assert!(ready(&mut clone).await.is_ok());
/// # }
/// ```
pub struct Readiness<E = crate::TestError> {
    state: Arc<Mutex<State<E>>>,
}

struct State<E> {
    held: bool,
    failures: VecDeque<E>,
    /// The last waker of each instance that is waiting, by the instance's number: a later poll
    /// replaces an earlier one, as it would in a real service.
    waiting: BTreeMap<u64, Waker>,
    instances: u64,
}

impl<E> Readiness<E> {
    pub(crate) fn new() -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                held: false,
                failures: VecDeque::new(),
                waiting: BTreeMap::new(),
                instances: 0,
            })),
        }
    }

    /// From now on `poll_ready` is pending, on every instance that is not ready yet.
    pub fn hold(&self) {
        self.state.lock().held = true;
    }

    /// From now on `poll_ready` is ready. Wakes every instance that waits.
    pub fn release(&self) {
        let mut state = self.state.lock();
        state.held = false;
        let woken = std::mem::take(&mut state.waiting);
        drop(state);
        // Woken outside the lock: a waker may run the task, and with it `poll_ready`, at once.
        woken.into_values().for_each(Waker::wake);
    }

    /// The next `poll_ready` of an instance that is not ready yet fails with `error`, even while
    /// held. Wakes every instance that waits. Errors given before one was taken are taken in order.
    pub fn fail_next(&self, error: E) {
        let mut state = self.state.lock();
        state.failures.push_back(error);
        let woken = std::mem::take(&mut state.waiting);
        drop(state);
        woken.into_values().for_each(Waker::wake);
    }

    /// How many instances were told to wait and have neither been woken nor dropped since.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.state.lock().waiting.len()
    }

    pub(crate) fn instance(&self) -> u64 {
        let mut state = self.state.lock();
        state.instances += 1;
        state.instances
    }

    pub(crate) fn forget(&self, instance: u64) {
        // The waker is dropped outside the lock: it may own the task, and with it another instance.
        let waker = self.state.lock().waiting.remove(&instance);
        drop(waker);
    }

    pub(crate) fn poll(&self, instance: u64, cx: &mut Context<'_>) -> Poll<Result<(), E>> {
        let mut state = self.state.lock();
        let (answer, replaced) = if let Some(error) = state.failures.pop_front() {
            let waker = state.waiting.remove(&instance);
            (Poll::Ready(Err(error)), waker)
        } else if state.held {
            let waker = state.waiting.insert(instance, cx.waker().clone());
            (Poll::Pending, waker)
        } else {
            (Poll::Ready(Ok(())), None)
        };
        drop(state);
        drop(replaced);
        answer
    }
}

impl<E> Clone for Readiness<E> {
    fn clone(&self) -> Self {
        Self { state: Arc::clone(&self.state) }
    }
}

impl<E> fmt::Debug for Readiness<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        f.debug_struct("Readiness")
            .field("held", &state.held)
            .field("failures", &state.failures.len())
            .field("waiting", &state.waiting.len())
            .finish_non_exhaustive()
    }
}
