//! Who tells what becomes of a process.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use portcullis_core::{
    Call, Outcome, ProcessStage, Voice, What, call, clock,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::{Exit, Output};

/// Tells of one process, in the scope of the call that it is run for.
pub(crate) struct Teller<'a> {
    voice: &'a Voice,
    call: &'a Call,
    since: Instant,
    /// Bytes read of its streams.
    pub(crate) stdout: AtomicU64,
    pub(crate) stderr: AtomicU64,
}

/// A process that was started. Dropped before its [end](Self::ended), it was killed, unless it had exited.
pub(crate) struct Life<'a> {
    pub(crate) teller: Teller<'a>,
    /// How it exited, once it has; its pipes may be held open beyond that.
    pub(crate) exit: Option<Exit>,
    is_over: bool,
}

// ===== impl Teller =====

impl<'a> Teller<'a> {
    pub(crate) fn new(voice: &'a Voice, call: &'a Call) -> Self {
        let none = || AtomicU64::new(0);
        Self { voice, call, since: clock::now(), stdout: none(), stderr: none() }
    }

    /// Of a process that put this out.
    pub(crate) fn after(voice: &'a Voice, call: &'a Call, output: &Output) -> Self {
        let now = clock::now();
        Self {
            voice,
            call,
            since: now.checked_sub(output.elapsed).unwrap_or(now),
            stdout: AtomicU64::new(output.stdout.written()),
            stderr: AtomicU64::new(output.stderr.written()),
        }
    }

    pub(crate) fn name(&self) -> &'a Arc<str> {
        self.voice.name()
    }

    /// Tells, and says how long it took until now.
    pub(crate) fn tell(&self, stage: ProcessStage) -> Duration {
        let now = clock::now();
        let elapsed = now.saturating_duration_since(self.since);
        let [stdout, stderr] = [&self.stdout, &self.stderr].map(|it| it.load(Ordering::Relaxed));
        self.voice.tell(self.call, now, || What::Process { stage, elapsed, stdout, stderr });
        elapsed
    }

    pub(crate) fn started(self) -> Life<'a> {
        self.tell(ProcessStage::Started);
        Life { teller: self, exit: None, is_over: false }
    }
}

// ===== impl Life =====

impl Life<'_> {
    /// Tells how it ended, and says how long it ran.
    pub(crate) fn ended(mut self, stage: ProcessStage) -> Duration {
        self.is_over = true;
        self.teller.tell(stage)
    }
}

impl Drop for Life<'_> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        if let Some(exit) = self.exit {
            self.teller.tell(exit.stage());
            return;
        }
        let late = call::is_expired() || self.teller.call.is_overdue(clock::now());
        let outcome = if late { Outcome::timeout() } else { Outcome::Cancelled };
        self.teller.tell(ProcessStage::Killed(outcome));
    }
}
