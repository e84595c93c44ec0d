//! One call: a process from its start to its end.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use portcullis_core::{ProcessFault, ProcessStage, TraceContext};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    process::Command,
    time::timeout,
};

use crate::{
    Exit, Output, Overflow, ProcessConfig, ProcessError,
    capture::Capture,
    child::{Parts, Running},
    error::TooMuch,
    tell::Teller,
};

/// What a process learns of the trace its call belongs to.
pub(crate) const TRACEPARENT: &str = "TRACEPARENT";
pub(crate) const TRACESTATE: &str = "TRACESTATE";

/// Runs a process to its end. Dropped before that, it ends the process.
pub(crate) async fn run(
    config: &ProcessConfig,
    command: Command,
    stdin: Bytes,
    teller: Teller<'_>,
) -> Result<Output, ProcessError> {
    let name = teller.name();
    let child = Running::start(command, config.grace).map_err(|error| {
        teller.tell(ProcessStage::NotStarted);
        ProcessError::start(name, error)
    })?;
    let mut life = teller.started();
    // Dropped before what tells of it: when that says that the process was killed, it was.
    let mut child = child;
    let mut stdout = Capture::new(config.stdout_limit, &life.teller.stdout);
    let mut stderr = Capture::new(config.stderr_limit, &life.teller.stderr);
    let seen = &mut life.exit;
    let exit = match talk(name, config, &mut child, stdin, &mut stdout, &mut stderr, seen).await {
        Ok(exit) => exit,
        Err(error) => {
            drop(child);
            life.ended(ProcessStage::Broken(error.fault()));
            return Err(error);
        }
    };
    let (stdout, stderr) = (stdout.finish(), stderr.finish());
    let elapsed = life.ended(exit.stage());
    Ok(Output { exit, stdout, stderr, elapsed, value: None })
}

/// Gives a process its input and takes what it puts out, all at once: a process that waits for one of
/// its pipes would not get on with the others. How it exited is `seen` as soon as it has.
async fn talk(
    name: &Arc<str>,
    config: &ProcessConfig,
    child: &mut Running,
    input: Bytes,
    stdout: &mut Capture<'_>,
    stderr: &mut Capture<'_>,
    seen: &mut Option<Exit>,
) -> Result<Exit, ProcessError> {
    let Parts { stdin, stdout: out, stderr: err, mut waiting } = child.parts();
    let fault = |fault| move |error: io::Error| ProcessError::new(name, fault, error);
    let bounded = |fault, limit| {
        move |whole: bool| match whole {
            true => Ok(()),
            false => Err(ProcessError::new(name, fault, TooMuch { limit })),
        }
    };
    let beyond = config.overflow == Overflow::Truncate;
    let feed = async { feed(stdin, &input).await.map_err(fault(ProcessFault::Stdin)) };
    let read_out = async {
        let read = stdout.read(out.as_mut(), beyond).await.map_err(fault(ProcessFault::Stdout));
        read.and_then(bounded(ProcessFault::Stdout, config.stdout_limit))
    };
    let read_err = async {
        let read = stderr.read(err.as_mut(), beyond).await.map_err(fault(ProcessFault::Stderr));
        read.and_then(bounded(ProcessFault::Stderr, config.stderr_limit))
    };
    let pipes = async { tokio::try_join!(feed, read_out, read_err).map(drop) };
    tokio::pin!(pipes);

    let exited = tokio::select! {
        biased;
        exited = waiting.wait() => Some(exited),
        closed = &mut pipes => {
            closed?;
            None
        }
    };
    match exited {
        // It closed its pipes and goes on.
        None => waiting.wait().await,
        Some(exited) => {
            *seen = exited.as_ref().ok().copied();
            linger(config.linger, pipes).await?;
            exited
        }
    }
    .map_err(fault(ProcessFault::Wait))
}

/// Waits for the pipes of a process that has exited, which whatever it left behind may hold open for
/// ever.
async fn linger(
    time: Duration,
    pipes: impl Future<Output = Result<(), ProcessError>>,
) -> Result<(), ProcessError> {
    timeout(time, pipes).await.unwrap_or(Ok(()))
}

async fn feed(stdin: Option<impl AsyncWrite + Unpin>, input: &[u8]) -> io::Result<()> {
    let Some(mut stdin) = stdin else {
        return Ok(());
    };
    match stdin.write_all(input).await {
        // It has read what it wanted.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Writes a `traceparent` of version 00 (W3C Trace Context).
pub(crate) fn traceparent(context: &TraceContext) -> String {
    let TraceContext { trace_id, span_id, sampled } = context;
    format!("00-{trace_id}-{span_id}-{:02x}", u8::from(*sampled))
}
