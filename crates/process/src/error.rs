//! Why a process gave no answer.

use std::{fmt, io, sync::Arc};

use portcullis_core::{BoxError, FaultKind, Outcome, ProcessFault, Replay};

use crate::Output;

/// A process that could not be run, or be spoken with, or whose output could not be understood. One that
/// exits with whatever code is no error: that is its answer.
#[derive(Debug)]
pub struct ProcessError {
    name: Arc<str>,
    fault: ProcessFault,
    replay: Replay,
    source: BoxError,
    output: Option<Box<Output>>,
}

/// A process that put out more than is kept, and was killed for it.
#[derive(Debug)]
pub(crate) struct TooMuch {
    pub(crate) limit: usize,
}

// ===== impl ProcessError =====

impl ProcessError {
    pub(crate) fn start(name: &Arc<str>, error: io::Error) -> Self {
        use io::ErrorKind::{ExecutableFileBusy, OutOfMemory, ResourceBusy, WouldBlock};
        // The machine is short of something, which may pass. A program that is not there will not be
        // there the next time.
        let passes =
            matches!(error.kind(), WouldBlock | OutOfMemory | ResourceBusy | ExecutableFileBusy);
        let replay = if passes { Replay::Safe } else { Replay::Forbidden };
        Self { replay, ..Self::new(name, ProcessFault::Start, error) }
    }

    pub(crate) fn new(name: &Arc<str>, fault: ProcessFault, source: impl Into<BoxError>) -> Self {
        let replay = Replay::IfIdempotent;
        Self { name: name.clone(), fault, replay, source: source.into(), output: None }
    }

    pub(crate) fn parse(name: &Arc<str>, source: BoxError, output: Output) -> Self {
        let output = Some(Box::new(output));
        Self { output, ..Self::new(name, ProcessFault::Parse, source) }
    }

    /// The service's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What failed.
    #[must_use]
    pub fn fault(&self) -> ProcessFault {
        self.fault
    }

    /// What the process put out that could not be understood.
    #[must_use]
    pub fn output(&self) -> Option<&Output> {
        self.output.as_deref()
    }

    pub(crate) fn outcome(&self) -> Outcome {
        Outcome::failure(FaultKind::Process(self.fault), self.replay)
    }
}

impl fmt::Display for ProcessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.fault {
            ProcessFault::Start => "could not be started",
            ProcessFault::Stdin => "could not be given its input",
            ProcessFault::Stdout => "could not be read from",
            ProcessFault::Stderr => "could not be read from (standard error)",
            ProcessFault::Wait => "could not be waited for",
            ProcessFault::Parse => "put out what could not be understood",
            _ => "failed",
        };
        write!(f, "{}: {what}: {}", self.name, self.source)
    }
}

impl std::error::Error for ProcessError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.source)
    }
}

// ===== impl TooMuch =====

impl fmt::Display for TooMuch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it put out more than {} bytes, and was killed", self.limit)
    }
}

impl std::error::Error for TooMuch {}
