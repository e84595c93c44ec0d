//! What becomes of a process that is run for a call.

use std::{fmt, time::Duration};

use crate::{Outcome, ProcessFault};

/// What became of a process that is run for a call. Each that was started is told of once more, when it
/// is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProcessStage {
    /// It was started.
    Started,
    /// It could not be started.
    NotStarted,
    /// It is over: it exited with this code.
    Exited(i32),
    /// It is over: it was ended by this signal, which did not come from here.
    Signalled(i32),
    /// It is over: it was killed because it could not be spoken with any more, or put out too much.
    Broken(ProcessFault),
    /// It is over: it was killed, or asked to end, because its call was dropped; by a limit that ran out,
    /// or by its caller.
    Killed(Outcome),
    /// It had exited well, and what it put out could not be understood.
    NotUnderstood,
}

// ===== impl ProcessStage =====

impl ProcessStage {
    /// One bounded word, fit for a metric's label.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::NotStarted => "not_started",
            Self::Exited(_) => "exited",
            Self::Signalled(_) => "signalled",
            Self::Broken(_) => "broken",
            Self::Killed(_) => "killed",
            Self::NotUnderstood => "not_understood",
        }
    }

    /// What failed in running it, if that did: not that it exited with whatever code.
    #[must_use]
    pub const fn fault(&self) -> Option<ProcessFault> {
        match self {
            Self::NotStarted => Some(ProcessFault::Start),
            Self::NotUnderstood => Some(ProcessFault::Parse),
            Self::Broken(fault) => Some(*fault),
            Self::Started | Self::Exited(_) | Self::Signalled(_) | Self::Killed(_) => None,
        }
    }

    /// The name of a signal, `SIGKILL` for 9; `None` for one that has no name, or not the same one on all
    /// systems and none that is known on this.
    #[must_use]
    pub const fn signal_name(signal: i32) -> Option<&'static str> {
        Some(match signal {
            1 => "SIGHUP",
            2 => "SIGINT",
            3 => "SIGQUIT",
            4 => "SIGILL",
            5 => "SIGTRAP",
            6 => "SIGABRT",
            8 => "SIGFPE",
            9 => "SIGKILL",
            11 => "SIGSEGV",
            13 => "SIGPIPE",
            14 => "SIGALRM",
            15 => "SIGTERM",
            24 => "SIGXCPU",
            25 => "SIGXFSZ",
            7 if cfg!(target_os = "linux") => "SIGBUS",
            10 if cfg!(target_os = "linux") => "SIGUSR1",
            12 if cfg!(target_os = "linux") => "SIGUSR2",
            31 if cfg!(target_os = "linux") => "SIGSYS",
            _ => return None,
        })
    }

    /// The sentence of an event.
    pub(crate) fn write(
        self,
        f: &mut fmt::Formatter<'_>,
        elapsed: Duration,
        [stdout, stderr]: [u64; 2],
    ) -> fmt::Result {
        match self {
            Self::Started => return f.write_str("started"),
            Self::NotStarted => return f.write_str("could not be started"),
            Self::NotUnderstood => {
                return f.write_str("exited well, and put out what cannot be understood");
            }
            Self::Exited(code) => write!(f, "exited with code {code}")?,
            Self::Signalled(signal) => {
                write!(f, "ended by signal {signal}")?;
                if let Some(name) = Self::signal_name(signal) {
                    write!(f, " ({name})")?;
                }
            }
            Self::Broken(fault) => write!(f, "killed, for its {} failed", fault.as_str())?,
            Self::Killed(Outcome::Cancelled) => f.write_str("killed, for the caller gave up")?,
            Self::Killed(_) => f.write_str("killed, for its time was up")?,
        }
        write!(f, " after {elapsed:.1?}, having put out {stdout} bytes and {stderr} of errors")
    }
}
