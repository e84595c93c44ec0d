//! What a process answered.

use std::{fmt, process::ExitStatus, time::Duration};

use portcullis_core::ProcessStage;

use crate::Captured;

/// What a process answered: how it exited, and what it put out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Output<T = ()> {
    /// How it exited.
    pub exit: Exit,
    /// What it wrote to its standard output, as far as that is kept.
    pub stdout: Captured,
    /// What it wrote to its standard error, as far as that is kept.
    pub stderr: Captured,
    /// How long it ran, from its start until its exit was known and its pipes were closed.
    pub elapsed: Duration,
    /// What the standard output [means](crate::ProcessBuilder::parse); `None` of a process that is not
    /// parsed, or that failed.
    pub value: Option<T>,
}

/// How a process exited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

// ===== impl Output =====

impl Output {
    pub(crate) fn with_value<T>(self, value: Option<T>) -> Output<T> {
        let Self { exit, stdout, stderr, elapsed, value: _ } = self;
        Output { exit, stdout, stderr, elapsed, value }
    }
}

// ===== impl Exit =====

impl Exit {
    /// Whether it exited by itself, with code 0.
    #[must_use]
    pub const fn is_success(self) -> bool {
        matches!(self, Self::Code(0))
    }

    pub(crate) const fn stage(self) -> ProcessStage {
        match self {
            Self::Code(code) => ProcessStage::Exited(code),
            Self::Signal(signal) => ProcessStage::Signalled(signal),
        }
    }
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        #[cfg(unix)]
        if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
            return Self::Signal(signal);
        }
        // Without a signal there is a code.
        Self::Code(status.code().unwrap_or(-1))
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}
