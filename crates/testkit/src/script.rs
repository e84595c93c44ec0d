use std::{collections::VecDeque, fmt, time::Duration};

/// How one call is answered.
///
/// A step is an ending, wrapped in what happens before it. The outermost wrapper happens first:
/// `Step::Ok(1).pending_once().after(d)` sleeps for `d`, is pending once more, then answers.
///
/// # Example
///
/// ```
/// use portcullis_testkit::{Step, TestError};
/// use std::time::Duration;
///
/// let at_once: Step<u32> = Step::Ok(1);
/// let slow: Step<u32> = Step::Ok(2).after(Duration::from_millis(40));
/// let failed: Step<u32> = Step::Err(TestError("connection reset"));
/// let never: Step<u32> = Step::Hang;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<Res, E = crate::TestError> {
    /// Answers with a response.
    Ok(Res),
    /// Answers with an error.
    Err(E),
    /// Never answers, and never wakes its caller.
    Hang,
    /// Panics with this message when the response future is polled.
    Panic(&'static str),
    /// Sleeps on tokio's clock, then goes on with the next step. The sleep starts at the first poll
    /// that reaches it.
    After(Duration, Box<Step<Res, E>>),
    /// Is pending for one poll, having woken its caller at once, then goes on with the next step.
    PendingOnce(Box<Step<Res, E>>),
}

impl<Res, E> Step<Res, E> {
    /// The same answer, after `delay` on tokio's clock.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        Self::After(delay, Box::new(self))
    }

    /// The same answer, after one pending poll that wakes its caller at once.
    #[must_use]
    pub fn pending_once(self) -> Self {
        Self::PendingOnce(Box::new(self))
    }
}

impl<Res, E> From<Result<Res, E>> for Step<Res, E> {
    fn from(result: Result<Res, E>) -> Self {
        match result {
            Ok(response) => Self::Ok(response),
            Err(error) => Self::Err(error),
        }
    }
}

type Tail<Req, Res, E> = Box<dyn FnMut(Req, u64) -> Step<Res, E> + Send>;

/// What a [`ScriptedService`](crate::ScriptedService) answers: steps in order, one a call, then a
/// tail.
///
/// Without a tail, a call beyond the last step panics: a test that expects three calls and makes
/// four should say so.
///
/// # Example
///
/// ```
/// use portcullis_testkit::{Script, Step, TestError};
///
/// // Two failures, then a success for ever.
/// let script: Script<(), u32> =
///     Script::new([Step::Err(TestError::default()), Step::Hang]).then_repeat(Step::Ok(200));
///
/// // An answer that depends on the request and on the number of the call, from 0.
/// let echo: Script<u32, u32> = Script::respond_with(|request, n| match n {
///     0 => Step::Hang,
///     _ => Step::Ok(request),
/// });
/// ```
pub struct Script<Req, Res, E = crate::TestError> {
    steps: VecDeque<Step<Res, E>>,
    tail: Option<Tail<Req, Res, E>>,
    answered: u64,
}

impl<Req, Res, E> Script<Req, Res, E> {
    /// A script of these steps, in this order, without a tail.
    #[must_use]
    pub fn new(steps: impl IntoIterator<Item = Step<Res, E>>) -> Self {
        Self { steps: steps.into_iter().collect(), tail: None, answered: 0 }
    }

    /// A script that answers every call with the same step.
    #[must_use]
    pub fn repeat(step: Step<Res, E>) -> Self
    where
        Res: Clone + Send + 'static,
        E: Clone + Send + 'static,
    {
        Self::new([]).then_repeat(step)
    }

    /// A script that asks `respond` for every step, with the request and the number of the call,
    /// from 0.
    #[must_use]
    pub fn respond_with(respond: impl FnMut(Req, u64) -> Step<Res, E> + Send + 'static) -> Self {
        Self::new([]).then_respond_with(respond)
    }

    /// Adds one step at the end of the listed ones, before the tail.
    #[must_use]
    pub fn then(mut self, step: Step<Res, E>) -> Self {
        self.steps.push_back(step);
        self
    }

    /// Sets the tail: once the listed steps are used up, every call gets this one.
    #[must_use]
    pub fn then_repeat(self, step: Step<Res, E>) -> Self
    where
        Res: Clone + Send + 'static,
        E: Clone + Send + 'static,
    {
        self.then_respond_with(move |_, _| step.clone())
    }

    /// Sets the tail: once the listed steps are used up, `respond` is asked, with the request and
    /// the number of the call, from 0 and counting the listed steps.
    #[must_use]
    pub fn then_respond_with(
        mut self,
        respond: impl FnMut(Req, u64) -> Step<Res, E> + Send + 'static,
    ) -> Self {
        self.tail = Some(Box::new(respond));
        self
    }

    pub(crate) fn answer(&mut self, request: Req) -> Step<Res, E> {
        let n = self.answered;
        self.answered += 1;
        match (self.steps.pop_front(), &mut self.tail) {
            (Some(step), _) => step,
            (None, Some(respond)) => respond(request, n),
            (None, None) => panic!("the script has {n} steps and no tail, and call {} came", n + 1),
        }
    }
}

impl<Req, Res, E> fmt::Debug for Script<Req, Res, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Script")
            .field("answered", &self.answered)
            .field("steps_left", &self.steps.len())
            .field("tail", &self.tail.is_some())
            .finish()
    }
}
