//! Scopes: whole executions, whose calls belong together.

use std::{
    error::Error as StdError,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use pin_project_lite::pin_project;
use portcullis_core::{
    Call, Completion, FaultKind, Outcome, RemoteTrace, Replay, Ticket,
    call::{self, Scoped},
    clock,
};

use crate::{Recorder, live::Live};

/// An execution: a user's request, a workflow, a turn of an agent. Each call made in it, through any
/// client with a trace layer, becomes a child of one trace.
///
/// # Where it reaches
///
/// As far as the task's [`Call`]: into everything that is awaited, joined or selected, and into
/// spawned tasks that carry it over with `Call::current().in_scope(…)`. A call in a task that was
/// spawned without is a trace of its own. A scope within a scope is a child, and so are its calls.
///
/// The trace is stored when the scope has ended and the last call that was open in it, too. A call
/// that begins later still, in a task that outlives the scope, leaves a record of its own in the same
/// trace.
///
/// # Where it goes
///
/// To the [recorder](Self::recorder) it is given; else to the enclosing scope's; else to that of the
/// first call in it. A scope with none of these is not recorded.
///
/// ```
/// use portcullis_trace::{Recorder, TraceScope};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), portcullis_core::Invalid> {
/// let recorder = Recorder::builder().sample_rate(1.0).build()?;
/// let answer = TraceScope::start("answer question")
///     .recorder(&recorder)
///     .attribute("user", 7)
///     .run(async { 42 })
///     .await;
/// assert_eq!(answer, 42);
/// recorder.flush().await;
/// assert_eq!(recorder.counts().stored, 1);
/// # Ok(())
/// # }
/// ```
#[must_use = "a scope begins when it is run"]
pub struct TraceScope {
    name: Arc<str>,
    recorder: Option<Recorder>,
    remote: Option<RemoteTrace>,
    attributes: Vec<(String, String)>,
}

pin_project! {
    /// The future of a [`TraceScope`].
    ///
    /// Dropped before its end, it is recorded as `cancelled`, or as `timeout` where a limit had run
    /// out.
    #[must_use = "futures do nothing unless polled"]
    pub struct ScopeFuture<F, J = Completes> {
        #[pin]
        inner: Scoped<F>,
        // `None` once its end is noted.
        live: Option<Arc<Live>>,
        judge: J,
    }

    impl<F, J> PinnedDrop for ScopeFuture<F, J> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if let Some(live) = this.live.take() {
                this.inner.as_mut().clear();
                let now = clock::now();
                let call = this.inner.call();
                let ran_out = call::is_expired() || call.is_overdue(now);
                let outcome = if ran_out { Outcome::timeout() } else { Outcome::Cancelled };
                live.close(outcome, None, now);
            }
        }
    }
}

/// How a scope's status follows from what its future answers.
pub trait Judge<T> {
    /// The error, if that is what it answered.
    fn error<'a>(&self, output: &'a T) -> Option<&'a (dyn StdError + 'static)>;
}

/// A scope that came to its end succeeded, unless [`fail`] was called in it.
#[derive(Clone, Copy, Debug)]
pub struct Completes;

/// A scope whose future answered an error failed.
#[derive(Clone, Copy, Debug)]
pub struct Answers;

/// The attributes of a tool's execution, by the names that OpenTelemetry's conventions have for them.
mod tool {
    pub(super) const OPERATION: &str = "gen_ai.operation.name";
    pub(super) const EXECUTE: &str = "execute_tool";
    pub(super) const NAME: &str = "gen_ai.tool.name";
    pub(super) const CALL_ID: &str = "gen_ai.tool.call.id";
    pub(super) const ARGUMENTS: &str = "gen_ai.tool.call.arguments";
}

/// Notes what came out of the current call or scope, in place of what was noted before. The text is
/// redacted, then cut to the recorder's limit (500 characters); what is not UTF-8 is shown by
/// replacement characters. Nothing happens where nothing is recorded.
pub fn output(text: impl AsRef<[u8]>) {
    if let Some(live) = Live::of(&Call::current()) {
        live.output(&String::from_utf8_lossy(text.as_ref()));
    }
}

/// Notes an attribute of the current scope, in place of one with the same key. The value is redacted
/// and cut as an output is.
pub fn attribute(key: &str, value: impl fmt::Display) {
    if let Some(live) = Live::of(&Call::current()) {
        live.attribute(key, &value.to_string());
    }
}

/// Notes that the current scope failed, though its future may well answer.
pub fn fail(error: &(dyn StdError + 'static)) {
    if let Some(live) = Live::of(&Call::current()) {
        live.fail(outcome_of(error), error);
    }
}

// ===== impl TraceScope =====

impl TraceScope {
    /// Begins to describe an execution.
    pub fn start(name: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), recorder: None, remote: None, attributes: Vec::new() }
    }

    /// Begins to describe the execution of a language-model agent's tool, of this name. Exported, it is
    /// an `execute_tool` span by OpenTelemetry's conventions for generative AI; what is noted by
    /// [`output`] in it is the tool's result.
    ///
    /// ```
    /// use portcullis_trace::{Recorder, TraceScope, output};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), portcullis_core::Invalid> {
    /// # let recorder = Recorder::builder().build()?;
    /// let tool = TraceScope::tool("search").call_id("call_17").arguments(r#"{"for": "skies"}"#);
    /// let found = tool.recorder(&recorder).run(async {
    ///     output("three articles");
    ///     3
    /// });
    /// assert_eq!(found.await, 3);
    /// # Ok(())
    /// # }
    /// ```
    pub fn tool(name: impl Into<Arc<str>>) -> Self {
        let name = name.into();
        let tool = name.to_string();
        let scope = Self::start(name).attribute(tool::OPERATION, tool::EXECUTE);
        scope.attribute(tool::NAME, tool)
    }

    /// Notes which of the model's calls of a tool this is.
    pub fn call_id(self, id: impl fmt::Display) -> Self {
        self.attribute(tool::CALL_ID, id)
    }

    /// Notes what a tool was called with. It may well be confidential: it is redacted and cut as an
    /// output is, kept in the record, and exported only where outputs are.
    pub fn arguments(self, arguments: impl fmt::Display) -> Self {
        self.attribute(tool::ARGUMENTS, arguments)
    }

    /// Where its trace goes.
    pub fn recorder(mut self, recorder: &Recorder) -> Self {
        self.recorder = Some(recorder.clone());
        self
    }

    /// Continues a trace that began elsewhere: what a server read from a request. With `None` it
    /// begins a trace, or continues the enclosing scope's.
    pub fn parent(mut self, remote: impl Into<Option<RemoteTrace>>) -> Self {
        self.remote = remote.into();
        self
    }

    /// Notes an attribute. It is redacted and cut as an output is; the number of attributes is
    /// bounded by the recorder's settings.
    pub fn attribute(mut self, key: impl Into<String>, value: impl fmt::Display) -> Self {
        self.attributes.push((key.into(), value.to_string()));
        self
    }

    /// Runs a future as this execution. It succeeded when the future has ended, whatever it answers,
    /// unless [`fail`] was called in it.
    pub fn run<F: Future>(self, future: F) -> ScopeFuture<F> {
        self.judged(future, Completes)
    }

    /// Runs a future as this execution, which failed if the future answers an error. One that is, or
    /// was caused by, a layer's refusal gives the status that the refusal has.
    pub fn try_run<F, T, E>(self, future: F) -> ScopeFuture<F, Answers>
    where
        F: Future<Output = Result<T, E>>,
        E: StdError + 'static,
    {
        self.judged(future, Answers)
    }

    /// Begins the execution for whoever sees its end elsewhere than at a future's: a server, whose
    /// response ends with its body. It is in `outer`, which is [`Call::current`] or a child of that.
    ///
    /// What belongs to it runs in the call; its status is the verdict that the completion is
    /// [settled](Completion::settle) with, unless [`fail`] was called in it. Dropped instead, it is
    /// `cancelled`, or `timeout` where the call's deadline or a limit had run out.
    ///
    /// ```
    /// use portcullis_core::{Call, Outcome};
    /// use portcullis_trace::{Recorder, TraceScope};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), portcullis_core::Invalid> {
    /// let recorder = Recorder::builder().sample_rate(1.0).build()?;
    /// let (call, done) = TraceScope::start("GET /").recorder(&recorder).open(Call::current());
    /// let head = call.clone().in_scope(async { 200 }).await;
    /// let body = call.in_scope(async { "found" }).await;
    /// done.settle(Outcome::Success);
    /// recorder.flush().await;
    /// assert_eq!((head, body, recorder.counts().stored), (200, "found", 1));
    /// # Ok(())
    /// # }
    /// ```
    pub fn open(self, outer: Call) -> (Call, Completion) {
        let started = outer.now();
        let (call, live) = self.begin(outer, started);
        let done = Completion::new(live, Ticket::default(), call.clone(), started);
        (call, done)
    }

    fn judged<F, J>(self, future: F, judge: J) -> ScopeFuture<F, J> {
        let outer = Call::current();
        let started = outer.now();
        let (call, live) = self.begin(outer, started);
        ScopeFuture { inner: call.in_scope(future), live: Some(live), judge }
    }

    fn begin(self, outer: Call, started: Instant) -> (Call, Arc<Live>) {
        let live = Live::scope(self.name, &outer, self.remote, self.recorder, started);
        for (key, value) in &self.attributes {
            live.attribute(key, value);
        }
        (outer.with_record(live.clone()).with_attempt(0), live)
    }
}

impl fmt::Debug for TraceScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TraceScope")
            .field("name", &self.name)
            .field("parent", &self.remote)
            .field("attributes", &self.attributes)
            .finish_non_exhaustive()
    }
}

// ===== impl ScopeFuture =====

impl<F: Future, J: Judge<F::Output>> Future for ScopeFuture<F, J> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let mut this = self.project();
        let output = ready!(this.inner.as_mut().poll(cx));
        if let Some(live) = this.live.take() {
            let error = this.judge.error(&output);
            if let Some(error) = error {
                live.error(error);
            }
            live.close(error.map_or(Outcome::Success, outcome_of), None, clock::now());
        }
        Poll::Ready(output)
    }
}

impl<F, J> fmt::Debug for ScopeFuture<F, J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScopeFuture").field("ended", &self.live.is_none()).finish_non_exhaustive()
    }
}

// ===== impl Judge =====

impl<T> Judge<T> for Completes {
    fn error<'a>(&self, _: &'a T) -> Option<&'a (dyn StdError + 'static)> {
        None
    }
}

impl<T, E: StdError + 'static> Judge<Result<T, E>> for Answers {
    fn error<'a>(&self, output: &'a Result<T, E>) -> Option<&'a (dyn StdError + 'static)> {
        output.as_ref().err().map(|error| error as _)
    }
}

/// A refusal speaks for itself, wherever in the chain of causes.
fn outcome_of(error: &(dyn StdError + 'static)) -> Outcome {
    portcullis_core::find_rejection(error).map_or_else(
        || Outcome::failure(FaultKind::Other, Replay::IfIdempotent),
        portcullis_core::Rejection::outcome,
    )
}
