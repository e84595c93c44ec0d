//! A process that runs, and ends with its call.

use std::{io, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncRead, copy, sink},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
    runtime::Handle,
    time::timeout,
};

use crate::Exit;

/// A process that is ended when this is dropped before it [has exited](Waiting::wait).
#[derive(Debug)]
pub(crate) struct Running {
    /// `None` only while it is dropped.
    child: Option<Child>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    grace: Duration,
}

/// What there is to do with a running process, each apart from the others.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    pub(crate) stdin: Option<ChildStdin>,
    pub(crate) stdout: &'a mut Option<ChildStdout>,
    pub(crate) stderr: &'a mut Option<ChildStderr>,
    pub(crate) waiting: Waiting<'a>,
}

/// Waits for a process to exit.
#[derive(Debug)]
pub(crate) struct Waiting<'a>(&'a mut Option<Child>);

// ===== impl Running =====

impl Running {
    pub(crate) fn start(mut command: Command, grace: Duration) -> io::Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // What tokio does when a child is dropped: it reaps it, which is why it is told even though
        // more than the child is killed here.
        command.kill_on_drop(true);
        // A group of its own, so that what it starts is ended with it.
        #[cfg(unix)]
        command.process_group(0);
        let mut child = command.spawn()?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        Ok(Self { child: Some(child), stdout, stderr, grace })
    }

    pub(crate) fn parts(&mut self) -> Parts<'_> {
        Parts {
            stdin: self.child.as_mut().and_then(|child| child.stdin.take()),
            stdout: &mut self.stdout,
            stderr: &mut self.stderr,
            waiting: Waiting(&mut self.child),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        if child.id().is_none() {
            return;
        }
        // Whoever waits until it has ended by itself needs a runtime; while that is shut down there is
        // none, and no time to wait either.
        let runtime = Handle::try_current();
        if let (false, Ok(runtime)) = (self.grace.is_zero(), runtime)
            && signal(&mut child, Urgency::Ask)
        {
            let (grace, stdout, stderr) = (self.grace, self.stdout.take(), self.stderr.take());
            runtime.spawn(async move {
                // It is still listened to: one that has a last word to say would otherwise die of it,
                // before it has tidied up.
                let ending = async { tokio::join!(child.wait(), drain(stdout), drain(stderr)) };
                // What it started may outlast it, and cannot be told from others once it is reaped.
                if timeout(grace, ending).await.is_err() {
                    signal(&mut child, Urgency::Kill);
                }
            });
        } else {
            signal(&mut child, Urgency::Kill);
        }
    }
}

// ===== impl Waiting =====

impl Waiting<'_> {
    /// Waits until it has exited. Nothing of it is killed from then on: its number may be another's.
    pub(crate) async fn wait(&mut self) -> io::Result<Exit> {
        match &mut self.0 {
            Some(child) => child.wait().await.map(Exit::from),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

/// Reads what nobody wants any more.
async fn drain(stream: Option<impl AsyncRead + Unpin>) {
    if let Some(mut stream) = stream {
        let _ = copy(&mut stream, &mut sink()).await;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Urgency {
    Ask,
    Kill,
}

/// Signals a process that has not been reaped, and all of its group; `false` if it was not asked,
/// because it cannot be.
#[cfg(unix)]
fn signal(child: &mut Child, urgency: Urgency) -> bool {
    use rustix::process::{Pid, Signal, kill_process_group};

    let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let signal = match urgency {
        Urgency::Ask => Signal::TERM,
        Urgency::Kill => Signal::KILL,
    };
    // It fails if the whole group is gone, which is as well.
    id.is_some_and(|id| kill_process_group(id, signal).is_ok())
}

#[cfg(not(unix))]
fn signal(child: &mut Child, urgency: Urgency) -> bool {
    urgency == Urgency::Kill && child.start_kill().is_ok()
}
