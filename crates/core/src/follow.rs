//! Operations that take longer than one request: who follows them to their end.

use std::{
    borrow::Cow,
    fmt,
    future::{Ready, ready},
};

use crate::{BoxError, Hint};

/// Follows operations that take longer than one request: says of each answer whether the operation is
/// over, and what to ask next while it is not.
///
/// Answers come by value, so what is in a body can be read, by a future of the follower's own type. For
/// most a closure will do: [`follow_fn`] where the answer says it all at once, [`follow_async`] where it
/// has to be read first.
///
/// ```
/// use portcullis_core::{BoxError, Follow, Next, Progress};
/// use std::future::{Ready, ready};
///
/// /// Starts a job by its name and asks for it by its number, which only the first answer has.
/// struct Jobs;
///
/// enum Request { Start(&'static str), Look(u32) }
/// enum Answer { Started(u32), Running, Finished(String) }
///
/// impl Follow<Request, Answer> for Jobs {
///     type Operation = Option<u32>;
///     type Response = String;
///     type Look = Ready<Result<Progress<Request, String, Option<u32>>, BoxError>>;
///
///     fn begin(&self, _: &Request) -> Option<u32> {
///         None
///     }
///
///     fn look(&self, job: Option<u32>, answer: Answer) -> Self::Look {
///         let ask = |job: u32| Next::new(Request::Look(job)).with_operation(Some(job));
///         ready(match (answer, job) {
///             (Answer::Started(job), _) => Ok(Progress::Pending(ask(job).seen("started"))),
///             (Answer::Running, Some(job)) => Ok(Progress::Pending(ask(job).seen("running"))),
///             (Answer::Running, None) => Err("it runs and has no number".into()),
///             (Answer::Finished(text), _) => Ok(Progress::Done(text)),
///         })
///     }
/// }
/// ```
pub trait Follow<Req, Res> {
    /// What is known of one operation from one answer to the next.
    type Operation;
    /// What the operation as a whole answers.
    type Response;
    /// Looks at one answer.
    type Look: Future<Output = Look<Req, Self::Response, Self::Operation>>;

    /// Notes what is to be known of the request that begins an operation. It is asked for every call, be
    /// it over at once or not.
    fn begin(&self, request: &Req) -> Self::Operation;

    /// Looks at an answer: that to the request which began the operation, or to one that
    /// [asked on](Next). An error says that the operation failed, or that the answer cannot be
    /// understood; it is handed up to the caller.
    fn look(&self, operation: Self::Operation, response: Res) -> Self::Look;
}

/// What an answer says of an operation, or why it is of no use.
pub type Look<Req, Res, Op = ()> = Result<Progress<Req, Res, Op>, BoxError>;

/// What an answer says of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress<Req, Res, Op = ()> {
    /// It is over, with this answer.
    Done(Res),
    /// It is not, and this is how to ask on.
    Pending(Next<Req, Op>),
}

/// How to ask on.
///
/// ```
/// use portcullis_core::{Hint, Next};
/// use std::time::Duration;
///
/// let next = Next::new("GET /jobs/7")
///     .hint(Hint::After(Duration::from_secs(2)))
///     .seen("running, 40 %");
/// # let _ = next;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub struct Next<Req, Op = ()> {
    /// The request to send.
    pub request: Req,
    /// What is known of the operation by now.
    pub operation: Op,
    /// The peer's advice on when.
    pub hint: Hint,
    /// What the answer said of the operation, for whoever reads why it was given up.
    pub seen: Option<Cow<'static, str>>,
}

/// Follows by a closure that needs nothing but the answer: see [`follow_fn`].
#[derive(Clone, Copy)]
pub struct FollowFn<F>(F);

/// Follows by a closure that reads the answer first: see [`follow_async`].
#[derive(Clone, Copy)]
pub struct FollowAsync<F>(F);

/// Follows operations by a closure that is given each answer.
///
/// ```
/// use portcullis_core::{Next, Progress, follow_fn};
///
/// struct Job { number: u32, is_done: bool }
///
/// let jobs = follow_fn(|job: Job| match job {
///     Job { is_done: true, .. } => Ok(Progress::Done(job)),
///     Job { number, .. } => Ok(Progress::Pending(Next::new(number))),
/// });
/// # let _ = jobs;
/// ```
pub const fn follow_fn<F, Req, Res, Out>(look: F) -> FollowFn<F>
where
    F: Fn(Res) -> Look<Req, Out>,
{
    FollowFn(look)
}

/// Follows operations by a closure that is given each answer, and reads it.
///
/// ```
/// use portcullis_core::{Next, Progress, follow_async};
///
/// # async fn read(body: Vec<u8>) -> Result<String, std::string::FromUtf8Error> { String::from_utf8(body) }
/// let jobs = follow_async(|body: Vec<u8>| async {
///     let text = read(body).await?;
///     Ok(match text.strip_prefix("running ") {
///         Some(job) => Progress::Pending(Next::new(format!("look {job}"))),
///         None => Progress::Done(text),
///     })
/// });
/// # let _ = jobs;
/// ```
pub const fn follow_async<F, Fut, Req, Res, Out>(look: F) -> FollowAsync<F>
where
    F: Fn(Res) -> Fut,
    Fut: Future<Output = Look<Req, Out>>,
{
    FollowAsync(look)
}

// ===== impl Next =====

impl<Req> Next<Req> {
    /// Asks on by this request, when the backoff says.
    pub const fn new(request: Req) -> Self {
        Self { request, operation: (), hint: Hint::None, seen: None }
    }
}

impl<Req, Op> Next<Req, Op> {
    /// The same, with the peer's advice on when.
    pub fn hint(mut self, hint: Hint) -> Self {
        self.hint = hint;
        self
    }

    /// The same, with what the answer said of the operation: `running, 40 %`.
    pub fn seen(mut self, seen: impl Into<Cow<'static, str>>) -> Self {
        self.seen = Some(seen.into());
        self
    }

    /// The same, with what is known of the operation by now.
    pub fn with_operation<P>(self, operation: P) -> Next<Req, P> {
        let Self { request, operation: _, hint, seen } = self;
        Next { request, operation, hint, seen }
    }
}

// ===== impl FollowFn =====

impl<F, Req, Res, Out> Follow<Req, Res> for FollowFn<F>
where
    F: Fn(Res) -> Look<Req, Out>,
{
    type Operation = ();
    type Response = Out;
    type Look = Ready<Look<Req, Out>>;

    fn begin(&self, _: &Req) {}

    fn look(&self, (): (), response: Res) -> Self::Look {
        ready((self.0)(response))
    }
}

impl<F> fmt::Debug for FollowFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FollowFn").finish_non_exhaustive()
    }
}

// ===== impl FollowAsync =====

impl<F, Fut, Req, Res, Out> Follow<Req, Res> for FollowAsync<F>
where
    F: Fn(Res) -> Fut,
    Fut: Future<Output = Look<Req, Out>>,
{
    type Operation = ();
    type Response = Out;
    type Look = Fut;

    fn begin(&self, _: &Req) {}

    fn look(&self, (): (), response: Res) -> Fut {
        (self.0)(response)
    }
}

impl<F> fmt::Debug for FollowAsync<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FollowAsync").finish_non_exhaustive()
    }
}
