//! Lap after lap, with a page, an API and metrics beside it, until somebody interrupts it.

use std::{
    fmt,
    io::{self, Write, stdout},
    net::SocketAddr,
    time::{Duration, Instant},
};

use portcullis::{admin::Admin, otel::Telemetry, sqlite::SqliteStore};
use portcullis_core::{BoxError, Invalid, clock};
use serde::Serialize;
use tokio::net::TcpListener;

use crate::{
    args::Args,
    errands,
    file::{self, TraceFile},
    report::Summary,
    run::{Lap, Track},
    stop::{Stop, Stopper},
};

/// Hosts that are labels of metrics; there is one.
const KEYS: usize = 8;

/// What the stack is shown by.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) telemetry: Telemetry,
    pub(crate) admin: Admin,
}

/// What all laps came to. It serializes as a part of the object that `--json` prints.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Served {
    pub(crate) seconds: f64,
    /// Those that were gone through to their end.
    pub(crate) laps: usize,
    /// Calls of each side.
    pub(crate) requests: usize,
    pub(crate) bare_succeeded: usize,
    pub(crate) stack_succeeded: usize,
}

/// Serves at `addr` and goes through the weathers, lap after lap, until it is interrupted.
///
/// # Errors
///
/// When the address cannot be had, and where a run fails.
pub(crate) async fn serve(args: &Args, addr: SocketAddr) -> Result<Summary, BoxError> {
    let listener = TcpListener::bind(addr).await;
    let listener = listener.map_err(|error| format!("{addr} cannot be served: {error}"))?;
    let store = file::open(args.traces.as_deref())?;
    let file = TraceFile::of(&store);
    let token = args.token.clone().map_or_else(random_token, Ok)?;
    let shown = Shown::new(&store, &token)?;
    let track = Track::new(args, store, Some(&shown))?;
    let stop = interrupted()?;
    announce(listener.local_addr()?, &token, &file);
    let server = axum::serve(listener, shown.admin.router());
    let server = tokio::spawn(server.into_future());

    let errands = errands::run(&shown, track.handle(), args.seed, stop.clone())?;
    let errands = tokio::spawn(errands);

    let start = clock::now();
    let mut served = Served::default();
    let mut last = None;
    for seed in (0..).map(|lap| args.seed.wrapping_add(lap)) {
        let lap = track.lap(seed, &stop).await?;
        let whole = !stop.is_told();
        served.add(&lap, whole, start);
        // Of a lap that was broken off there is something to show only if it was the first.
        if whole || last.is_none() {
            last = Some(lap);
        }
        if !whole {
            break;
        }
    }
    // Events are streamed to readers who would stay for ever: nothing is waited for.
    server.abort();
    errands.await?;
    let Some(lap) = last else { return Err("there was no lap".into()) };
    let traced = track.traces(&lap).await?.log();
    track.handle().recorder().shutdown().await;
    shown.telemetry.shutdown();
    Ok(Summary::new(args, &lap, &traced)
        .with_check(track.handle().check())
        .with_file(file)
        .with_served(served))
}

/// The word to stop falls when this process is asked to end; asked again, it ends at once.
fn interrupted() -> io::Result<Stop> {
    let (stopper, stop) = Stop::new();
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tokio::spawn(twice(stopper, async move || {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        }));
    }
    #[cfg(not(unix))]
    tokio::spawn(twice(stopper, async || {
        // Without a handler the system ends the process by itself.
        let _ = tokio::signal::ctrl_c().await;
    }));
    Ok(stop)
}

async fn twice(stopper: Stopper, mut asked: impl AsyncFnMut()) {
    asked().await;
    stopper.tell();
    asked().await;
    std::process::exit(1);
}

/// Where everything is, for whoever is at the terminal, or for a program that reads it.
fn announce(addr: SocketAddr, token: &str, file: &TraceFile) {
    let traces = file.path.display();
    // Whoever closed the pipe does not want to know.
    let _ = writeln!(
        stdout(),
        "page     http://{addr}/\n\
         metrics  http://{addr}/metrics\n\
         token    {token}\n\
         traces   {traces}"
    );
}

fn random_token() -> Result<String, BoxError> {
    let mut token = [0; 16];
    getrandom::fill(&mut token)?;
    Ok(token.iter().map(|byte| format!("{byte:02x}")).collect())
}

// ===== impl Shown =====

impl Shown {
    fn new(store: &SqliteStore, token: &str) -> Result<Self, Invalid> {
        let telemetry = Telemetry::builder("gauntlet").prometheus().keys(KEYS).build()?;
        let text = telemetry.clone();
        let admin = Admin::builder()
            .title("gauntlet")
            .registry(telemetry.registry())
            .store(store.clone())
            .token(token)
            .prometheus(move || text.prometheus())
            .build()?;
        Ok(Self { telemetry, admin })
    }
}

// ===== impl Served =====

impl Served {
    fn add(&mut self, lap: &Lap, whole: bool, start: Instant) {
        let succeeded =
            |calls: &[crate::load::Called]| calls.iter().filter(|call| call.result.is_ok()).count();
        self.seconds = clock::now().saturating_duration_since(start).as_secs_f64();
        self.laps += usize::from(whole);
        self.requests += lap.stack.calls.len();
        self.bare_succeeded += succeeded(&lap.bare.calls);
        self.stack_succeeded += succeeded(&lap.stack.calls);
    }
}

impl fmt::Display for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seconds, laps, requests, bare_succeeded, stack_succeeded } = *self;
        let share = |of: usize| 100.0 * of as f64 / requests.max(1) as f64;
        let seconds = Duration::from_secs(seconds as u64);
        write!(
            f,
            "served for {seconds:?}, whole laps: {laps}; of {requests} requests {:.1} % succeeded bare, \
             {:.1} % with the stack",
            share(bare_succeeded),
            share(stack_succeeded)
        )
    }
}
