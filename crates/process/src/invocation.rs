//! What one call gives its process.

use std::{ffi::OsString, fmt};

use bytes::Bytes;

/// What one call gives its process: arguments after those that all calls have, variables of its
/// environment, and its standard input.
///
/// Arguments go to the program as they are, by no shell: nothing in them is special.
///
/// ```
/// use portcullis_process::Invocation;
///
/// let question = Invocation::new().arg("--format=json").stdin("why is checkout slow?");
/// # let _ = question;
/// ```
//
// `Debug` shows neither input nor environment: they hold secrets.
#[derive(Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct Invocation {
    pub(crate) args: Vec<OsString>,
    pub(crate) env: Vec<(OsString, OsString)>,
    pub(crate) stdin: Bytes,
}

// ===== impl Invocation =====

impl Invocation {
    /// No further arguments, an empty input.
    pub fn new() -> Self {
        Self::default()
    }

    /// One more argument.
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// More arguments.
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// A variable of the environment.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// The standard input. A process need not read it to its end.
    pub fn stdin(mut self, input: impl Into<Bytes>) -> Self {
        self.stdin = input.into();
        self
    }
}

impl fmt::Debug for Invocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invocation")
            .field("args", &self.args)
            .field("stdin", &self.stdin.len())
            .finish_non_exhaustive()
    }
}
