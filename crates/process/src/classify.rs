//! What a process's exit means.

use std::sync::Arc;

use portcullis_core::{Classify, Completion, Error, FaultKind, Outcome, Replay, Verdict};

use crate::{Exit, Output, ProcessError};

/// Judges calls of a [`Process`](crate::Process) by how it exited.
///
/// | what happened | verdict | may be run again |
/// |---|---|---|
/// | exit code 0 | success | – |
/// | any other exit code | failure | if idempotent |
/// | ended by a signal | failure | if idempotent |
/// | could not be started for want of something that may pass (processes, memory, a busy file) | failure | yes |
/// | could not be started for another reason | failure | no |
/// | a pipe broke, or its output could not be understood | failure | if idempotent |
///
/// ```
/// use portcullis_core::{FaultKind, Outcome, Replay};
/// use portcullis_process::ProcessClassifier;
///
/// let grep = ProcessClassifier::new()
///     // Nothing found is an answer, too.
///     .with_code(1, Outcome::Success)
///     // EX_TEMPFAIL: nothing was done, try again.
///     .with_code(75, Outcome::failure(FaultKind::Exit(75), Replay::Safe));
/// # let _ = grep;
/// ```
#[derive(Clone, Debug, Default)]
pub struct ProcessClassifier {
    codes: Option<Arc<[(i32, Outcome)]>>,
}

// ===== impl ProcessClassifier =====

impl ProcessClassifier {
    /// The verdicts of the table above.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Judges one exit code otherwise.
    #[must_use]
    pub fn with_code(mut self, code: i32, outcome: Outcome) -> Self {
        let others = self.codes.as_deref().unwrap_or_default();
        let others = others.iter().copied().filter(|(other, _)| *other != code);
        self.codes = Some(others.chain([(code, outcome)]).collect());
        self
    }

    fn exit(&self, exit: Exit) -> Outcome {
        match exit {
            Exit::Signal(signal) => {
                Outcome::failure(FaultKind::Signal(signal), Replay::IfIdempotent)
            }
            Exit::Code(code) => {
                let own = self.codes.as_deref().unwrap_or_default();
                let own = own.iter().find(|(other, _)| *other == code);
                own.map_or_else(|| by_code(code), |(_, outcome)| *outcome)
            }
        }
    }
}

impl<T> Classify<Output<T>> for ProcessClassifier {
    type Response = Output<T>;

    fn at_head(&self, result: Result<&Output<T>, &Error>) -> Verdict {
        Verdict::Final(match result {
            Ok(output) => self.exit(output.exit),
            // A refusal speaks for itself.
            Err(error) if error.rejection().is_some() => error.outcome(),
            Err(error) => {
                let process = error.find::<ProcessError>();
                process.map_or_else(|| error.outcome(), ProcessError::outcome)
            }
        })
    }

    fn watches(&self) -> bool {
        false
    }

    fn ends_at_head(&self) -> bool {
        true
    }

    fn classify(
        &self,
        result: Result<Output<T>, Error>,
        done: Completion,
    ) -> Result<Output<T>, Error> {
        done.settle_at_head(self.at_head(result.as_ref()).outcome());
        result
    }
}

fn by_code(code: i32) -> Outcome {
    match code {
        0 => Outcome::Success,
        code => Outcome::failure(FaultKind::Exit(code), Replay::IfIdempotent),
    }
}
