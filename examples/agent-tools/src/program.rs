//! Tools that are programs: this one, started again with a word that says which of them to be.

use std::{
    convert::Infallible,
    fs,
    io::{self, Read, Write},
    path::Path,
    process::{ExitCode, abort},
    time::Duration,
};

use portcullis::{
    Backoff, ByClone, Error, FaultKind, Outcome, Replay,
    breaker::BreakerLayer,
    process::{Exit, Invocation, Output, Overflow, Process, ProcessClassifier},
    ratelimit::RateLimitLayer,
    retry::RetryLayer,
    timeout::TimeoutLayer,
    trace::{Recorder, TraceLayer},
};
use tower::{ServiceBuilder, ServiceExt, util::BoxCloneSyncService};

/// The argument that makes this program one of its own tools.
pub(crate) const AS_TOOL: &str = "--as-tool";

/// What says that nothing was done, and that another try makes sense (`sysexits.h`).
const EX_TEMPFAIL: u8 = 75;

/// How long a call may take beyond its two runs.
const SPARE: Duration = Duration::from_secs(2);

/// A program of this name, and how it is run: through the layers that the servers have in front of them,
/// in the same order.
pub(crate) struct Program {
    runs: BoxCloneSyncService<Invocation, Output, Error>,
}

// ===== impl Program =====

impl Program {
    /// A program that has so long for a run. What it knows from run to run is in `folder`.
    pub(crate) fn new(
        name: &'static str,
        patience: Duration,
        folder: &Path,
        recorder: &Recorder,
        seed: u64,
    ) -> anyhow::Result<Self> {
        let for_now = Outcome::failure(FaultKind::Exit(EX_TEMPFAIL.into()), Replay::Safe);
        let judge = ProcessClassifier::new().with_code(EX_TEMPFAIL.into(), for_now);
        let process = Process::builder(name, std::env::current_exe()?)
            .arg(AS_TOOL)
            .arg(name)
            .arg(folder)
            .stdout_limit(16 * 1024)
            .overflow(Overflow::Kill)
            .build()?;
        let retry = RetryLayer::builder(name, ByClone::idempotent())
            .max_attempts(2)
            .backoff(Backoff::fixed(Duration::from_millis(100)))
            .classify(judge.clone())
            .seed(seed);
        let limit = RateLimitLayer::builder(name).rate(10, Duration::from_secs(1)).burst(4);
        let runs = ServiceBuilder::new()
            .layer(TraceLayer::builder(name).classify(judge.clone()).recorder(recorder).build()?)
            .layer(
                TimeoutLayer::builder(name)
                    .total(patience * 2 + SPARE)
                    .classify(judge.clone())
                    .build()?,
            )
            .layer(retry.build()?)
            .layer(limit.build()?)
            .layer(BreakerLayer::builder(name).classify(judge.clone()).build()?)
            .layer(TimeoutLayer::builder(name).attempt(patience).classify(judge).build()?)
            .service(process);
        Ok(Self { runs: BoxCloneSyncService::new(runs) })
    }

    /// Runs it with this input.
    pub(crate) async fn run(&self, input: &str) -> Result<String, Error> {
        let output = self.runs.clone().oneshot(Invocation::new().stdin(input.to_owned())).await?;
        match output.exit {
            Exit::Code(0) => Ok(output.stdout.text().trim().to_owned()),
            exit => Err(Error::inner(format!("{exit}: {}", output.stderr.text().trim()))),
        }
    }
}

// ===== the tools themselves =====

/// What this program does when it is one of its own tools.
pub(crate) fn main(name: &str, folder: &Path) -> ExitCode {
    let done = match name {
        "logs" => logs(folder),
        "profile" => profile(),
        "replay" => replay(),
        "dump" => dump().map(|never| match never {}),
        _ => Err(io::Error::other(format!("{name} is no tool"))),
    };
    done.unwrap_or_else(|error| {
        eprintln!("{error}");
        ExitCode::FAILURE
    })
}

/// Counts lines; the first time it is asked to come back.
fn logs(folder: &Path) -> io::Result<ExitCode> {
    let rotated = folder.join("rotated");
    if !rotated.exists() {
        fs::write(rotated, "")?;
        eprintln!("the log is being rotated");
        return Ok(ExitCode::from(EX_TEMPFAIL));
    }
    let mut input = String::new();
    io::stdin().read_to_string(&mut input)?;
    println!("1204 carts read whole; {} lines to go by", input.lines().count());
    Ok(ExitCode::SUCCESS)
}

/// Crashes.
fn profile() -> ! {
    eprintln!("profile: the symbols make no sense");
    abort()
}

/// Hangs.
fn replay() -> ! {
    loop {
        std::thread::park();
    }
}

/// Puts out more than anybody can want.
fn dump() -> io::Result<Infallible> {
    let line = [b'.'; 4096];
    loop {
        io::stdout().write_all(&line)?;
    }
}
