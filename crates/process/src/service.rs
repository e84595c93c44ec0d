//! The service and its builder.

use std::{
    ffi::OsString,
    fmt,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use portcullis_core::{
    BoxError, Call, Invalid, LayerKind, Observer, ProcessStage, TraceContext, Voice,
};
use tokio::process::Command;
use tower_service::Service;

use crate::{
    Invocation, Output, Overflow, ProcessConfig, ProcessError,
    run::{TRACEPARENT, TRACESTATE, run, traceparent},
    tell::Teller,
};

/// Runs a program for each call.
///
/// It is always ready: as many processes run as calls do. Bound them with
/// `tower::limit::ConcurrencyLimitLayer`, or a rate limit.
///
/// # Errors
///
/// [`ProcessError`], if the process could not be run or its output not be understood. A process that
/// exits with whatever code, or by a signal, has answered: see [`Output::exit`].
///
/// # Panics
///
/// A call panics outside a tokio runtime with its IO and its timer enabled.
///
/// # Cancellation
///
/// Dropping the call's future kills the process with all that it started and that is still in its
/// process group: at once, or after [`grace`](ProcessConfig::grace). Where there are no process groups,
/// the process alone is killed.
///
/// What a process leaves behind when it exits by itself is not killed.
pub struct Process<T = ()> {
    shared: Arc<Shared<T>>,
}

/// A [`Process`] in the making: see [`Process::builder`].
#[must_use = "a builder does nothing until `build`"]
pub struct ProcessBuilder<T = ()> {
    voice: Voice,
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    clear_env: bool,
    dir: Option<PathBuf>,
    config: ProcessConfig,
    parse: Option<Parse<T>>,
}

type Parse<T> = Arc<dyn Fn(&Output) -> Result<T, BoxError> + Send + Sync>;

struct Shared<T> {
    voice: Voice,
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    clear_env: bool,
    dir: Option<PathBuf>,
    config: ProcessConfig,
    parse: Option<Parse<T>>,
}

/// The future of a [`Process`]. The process is started when it is first polled.
//
// Boxed, unlike those of the layers: it is run through once for a process, which costs some thousand
// times as much.
#[must_use = "futures do nothing unless polled"]
pub struct ResponseFuture<T = ()> {
    inner: Pin<Box<dyn Future<Output = Result<Output<T>, ProcessError>> + Send>>,
}

// ===== impl Process =====

impl Process {
    /// Begins a service called `name`, which runs `program`: a path, or a name that is looked for in
    /// `PATH`.
    pub fn builder(name: impl Into<Arc<str>>, program: impl Into<OsString>) -> ProcessBuilder {
        ProcessBuilder {
            voice: Voice::new(LayerKind::Process, name),
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            clear_env: false,
            dir: None,
            config: ProcessConfig::default(),
            parse: None,
        }
    }
}

impl<T> Process<T> {
    /// The service's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.shared.voice.name()
    }
}

impl<T: Send + 'static> Service<Invocation> for Process<T> {
    type Response = Output<T>;
    type Error = ProcessError;
    type Future = ResponseFuture<T>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ProcessError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, invocation: Invocation) -> ResponseFuture<T> {
        let (shared, call) = (self.shared.clone(), Call::current());
        let command = shared.command(&invocation, &call);
        let inner = async move {
            let teller = Teller::new(&shared.voice, &call);
            let output = run(&shared.config, command, invocation.stdin, teller).await?;
            shared.parsed(output, &call)
        };
        ResponseFuture { inner: Box::pin(inner) }
    }
}

impl<T> Clone for Process<T> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<T> fmt::Debug for Process<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process")
            .field("name", self.shared.voice.name())
            .field("program", &self.shared.program)
            .finish_non_exhaustive()
    }
}

// ===== impl Shared =====

impl<T> Shared<T> {
    fn command(&self, invocation: &Invocation, call: &Call) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.args).args(&invocation.args);
        if self.clear_env {
            command.env_clear();
        }
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        if let (true, Some(context)) = (self.config.propagate, call.trace()) {
            // Each attempt is the parent of what it does, as it is over HTTP.
            let span_id = context.span_id.of_attempt(call.attempt());
            command.env(TRACEPARENT, traceparent(&TraceContext { span_id, ..context }));
            match call.tracestate() {
                Some(state) => command.env(TRACESTATE, &*state),
                // One that this program was started with says nothing of this trace.
                None => command.env_remove(TRACESTATE),
            };
        }
        for (name, value) in self.env.iter().chain(&invocation.env) {
            command.env(name, value);
        }
        command
    }

    fn parsed(&self, output: Output, call: &Call) -> Result<Output<T>, ProcessError> {
        let parse = self.parse.as_deref().filter(|_| output.exit.is_success());
        let value = parse.map(|parse| parse(&output)).transpose();
        match value {
            Ok(value) => Ok(output.with_value(value)),
            Err(error) => {
                Teller::after(&self.voice, call, &output).tell(ProcessStage::NotUnderstood);
                Err(ProcessError::parse(self.voice.name(), error, output))
            }
        }
    }
}

// ===== impl ProcessBuilder =====

impl<T> ProcessBuilder<T> {
    /// All settings at once, in place of those made so far.
    pub fn config(mut self, config: ProcessConfig) -> Self {
        self.config = config;
        self
    }

    /// One more argument of every call, before the call's own.
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// A variable of every process's environment, beside those of this program.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Starts processes without this program's environment, `PATH` included.
    pub fn clear_env(mut self) -> Self {
        self.clear_env = true;
        self
    }

    /// The folder in which processes are started, in place of this program's.
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// How much of the standard output is kept, in bytes: at most 1 GiB. 1 MiB unless set.
    pub fn stdout_limit(mut self, bytes: usize) -> Self {
        self.config.stdout_limit = bytes;
        self
    }

    /// How much of the standard error is kept, in bytes: at most 1 GiB. 64 KiB unless set.
    pub fn stderr_limit(mut self, bytes: usize) -> Self {
        self.config.stderr_limit = bytes;
        self
    }

    /// What becomes of a process that puts out more than is kept.
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.config.overflow = overflow;
        self
    }

    /// How long a process that is to end has to end by itself, from 0 to 1 h, before it is killed. 0
    /// unless set.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.config.grace = grace;
        self
    }

    /// Adds somebody who is told what becomes of processes: of their start and their end, with how they
    /// exited and how much they put out.
    pub fn observe(mut self, observer: impl Observer) -> Self {
        self.voice = self.voice.with_observer(Arc::new(observer));
        self
    }

    /// Understands what a process that exited with code 0 put out, as [`Output::value`]. An error of
    /// `parse` is the call's, with the output: see [`ProcessError::output`].
    ///
    /// ```
    /// use portcullis_process::Process;
    ///
    /// let count = Process::builder("count", "wc")
    ///     .arg("-l")
    ///     .parse(|output| output.stdout.text().trim().parse::<u64>());
    /// # let _ = count;
    /// ```
    pub fn parse<U, E>(
        self,
        parse: impl Fn(&Output) -> Result<U, E> + Send + Sync + 'static,
    ) -> ProcessBuilder<U>
    where
        E: Into<BoxError>,
    {
        let parse = move |output: &Output| parse(output).map_err(Into::into);
        ProcessBuilder {
            voice: self.voice,
            program: self.program,
            args: self.args,
            env: self.env,
            clear_env: self.clear_env,
            dir: self.dir,
            config: self.config,
            parse: Some(Arc::new(parse)),
        }
    }

    /// Makes the service. Whether there is such a program is found out when it is called.
    ///
    /// # Errors
    ///
    /// The first setting that is out of its range; a program without a name.
    pub fn build(self) -> Result<Process<T>, Invalid> {
        if self.program.is_empty() {
            return Err(Invalid::new("program", self.program, "a path, or a name"));
        }
        self.config.validate()?;
        let Self { voice, program, args, env, clear_env, dir, config, parse } = self;
        let shared = Shared { voice, program, args, env, clear_env, dir, config, parse };
        Ok(Process { shared: Arc::new(shared) })
    }
}

impl<T> fmt::Debug for ProcessBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessBuilder")
            .field("name", self.voice.name())
            .field("program", &self.program)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

// ===== impl ResponseFuture =====

impl<T> Future for ResponseFuture<T> {
    type Output = Result<Output<T>, ProcessError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.inner.as_mut().poll(cx)
    }
}

impl<T> fmt::Debug for ResponseFuture<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
