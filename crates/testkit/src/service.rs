use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use tower_service::Service;

use crate::{
    future::ResponseFuture,
    journal::Journal,
    readiness::Readiness,
    script::{Script, Step},
    sync::Mutex,
};

/// A service that answers from a [`Script`], keeps a [`Journal`] and checks how it is used.
///
/// Clones share the script, the journal and the readiness, so a layer may clone it as it would a
/// client.
///
/// # Panics
///
/// Unless [`lenient`](Self::lenient), `call` panics when `poll_ready` has not answered `Ready(Ok)`
/// on this very instance since the last call; a clone starts unready. That is Tower's contract, and
/// the usual way to break it is to call a clone of the instance that was readied.
///
/// # Example
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// use portcullis_testkit::{Script, ScriptedService, Step, TestError, call};
///
/// let script = Script::new([Step::Err(TestError("reset"))]).then_repeat(Step::Ok(200));
/// let mut service = ScriptedService::new(script);
/// let journal = service.journal();
///
/// assert_eq!(call(&mut service, "GET /").await, Err(TestError("reset")));
/// assert_eq!(call(&mut service, "GET /").await, Ok(200));
/// assert_eq!(journal.calls(), 2);
/// # }
/// ```
pub struct ScriptedService<Req, Res, E = crate::TestError> {
    shared: Arc<Shared<Req, Res, E>>,
    instance: u64,
    readied: bool,
    strict: bool,
}

struct Shared<Req, Res, E> {
    script: Mutex<Script<Req, Res, E>>,
    journal: Journal<Req>,
    readiness: Readiness<E>,
}

impl<Req, Res, E> ScriptedService<Req, Res, E> {
    /// A service that answers from `script`, strict, ready at once.
    #[must_use]
    pub fn new(script: Script<Req, Res, E>) -> Self {
        let shared = Arc::new(Shared {
            script: Mutex::new(script),
            journal: Journal::new(),
            readiness: Readiness::new(),
        });
        Self::instance_of(shared, true)
    }

    /// A service that answers every call with this response, at once.
    #[must_use]
    pub fn answering(response: Res) -> Self
    where
        Res: Clone + Send + 'static,
        E: Clone + Send + 'static,
    {
        Self::new(Script::repeat(Step::Ok(response)))
    }

    /// A service that asks `respond` for each answer, with the request and the number of the call,
    /// from 0.
    #[must_use]
    pub fn respond_with(respond: impl FnMut(Req, u64) -> Step<Res, E> + Send + 'static) -> Self {
        Self::new(Script::respond_with(respond))
    }

    /// Keeps every request in the journal, on this instance and all that share its script.
    #[must_use]
    pub fn recording(self) -> Self
    where
        Req: Clone,
    {
        self.shared.journal.record_requests();
        self
    }

    /// Allows `call` without readiness, on this instance and on its later clones: for the rare test
    /// that is not about a service.
    #[must_use]
    pub fn lenient(mut self) -> Self {
        self.strict = false;
        self
    }

    /// The journal this service and its clones write.
    #[must_use]
    pub fn journal(&self) -> Journal<Req> {
        self.shared.journal.clone()
    }

    /// The handle that says when this service and its clones are ready.
    #[must_use]
    pub fn readiness(&self) -> Readiness<E> {
        self.shared.readiness.clone()
    }

    fn instance_of(shared: Arc<Shared<Req, Res, E>>, strict: bool) -> Self {
        shared.journal.instance_made();
        Self { instance: shared.readiness.instance(), shared, readied: false, strict }
    }
}

// ===== impl Service =====

impl<Req, Res, E> Service<Req> for ScriptedService<Req, Res, E> {
    type Response = Res;
    type Error = E;
    type Future = ResponseFuture<Req, Res, E>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), E>> {
        self.shared.journal.ready_polled();
        // Tower: once ready, ready until called.
        if self.readied {
            return Poll::Ready(Ok(()));
        }
        let answer = self.shared.readiness.poll(self.instance, cx);
        self.readied = matches!(answer, Poll::Ready(Ok(())));
        answer
    }

    fn call(&mut self, request: Req) -> Self::Future {
        assert!(
            self.readied || !self.strict,
            "Tower's contract is broken: `call` came to an instance whose own `poll_ready` has not \
             answered `Ready(Ok)` since its last call (a clone starts unready)"
        );
        self.readied = false;
        let flight = self.shared.journal.call();
        self.shared.journal.record(&request);
        let step = self.shared.script.lock().answer(request);
        ResponseFuture::new(step, flight)
    }
}

// ===== other traits =====

impl<Req, Res, E> Clone for ScriptedService<Req, Res, E> {
    fn clone(&self) -> Self {
        Self::instance_of(Arc::clone(&self.shared), self.strict)
    }
}

impl<Req, Res, E> Drop for ScriptedService<Req, Res, E> {
    fn drop(&mut self) {
        self.shared.readiness.forget(self.instance);
        self.shared.journal.instance_dropped();
    }
}

impl<Req, Res, E> fmt::Debug for ScriptedService<Req, Res, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptedService")
            .field("instance", &self.instance)
            .field("readied", &self.readied)
            .field("strict", &self.strict)
            .field("journal", &self.shared.journal)
            .finish_non_exhaustive()
    }
}
