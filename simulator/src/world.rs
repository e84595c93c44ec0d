//! One run: from a seed to everything that is known of it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use portcullis::{ratelimit, trace::Recorder};
use portcullis_core::{BoxError, State, clock};
use portcullis_testkit::Seed;
use tokio::{task::JoinSet, time::sleep};
use tower::Layer;

use crate::{
    calls::{Called, Planned},
    forecast::Forecast,
    journal::Journal,
    settings::Settings,
    traces::Traces,
    upstream::{Access, Upstream},
    watch::{Told, Watch},
};

/// How many upstreams there are.
const HOSTS: usize = 3;

/// What became of a run.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) settings: Settings,
    pub(crate) forecast: Arc<Forecast>,
    pub(crate) start: Instant,
    /// The calls that were made, in the order of their beginnings.
    pub(crate) planned: Arc<[Planned]>,
    /// What became of each of them.
    pub(crate) called: Vec<Called>,
    /// What the upstreams saw.
    pub(crate) accesses: Vec<Access>,
    /// The most requests that were in flight at one moment.
    pub(crate) most_in_flight: usize,
    /// What the layers told.
    pub(crate) told: Vec<Told>,
    pub(crate) traces: Traces,
    pub(crate) at_end: AtEnd,
    /// A line for everything that happened.
    pub(crate) log: String,
}

/// What was held at the end.
#[derive(Clone, Debug)]
pub(crate) struct AtEnd {
    /// Requests in flight once the last call was over.
    pub(crate) in_flight: usize,
    /// Retries that held a token then.
    pub(crate) tokens: u32,
    /// The state of each upstream's breaker then, and the probes it had out.
    pub(crate) breakers: Vec<(State, u32)>,
    /// Each upstream's limit after the time in which it forgets everything.
    pub(crate) limits: Vec<ratelimit::Snapshot>,
}

/// Runs so many calls from a seed, in simulated time and on this thread alone.
///
/// # Errors
///
/// When the runtime or the recorder cannot start, a drawn setting is refused, or the traces cannot be
/// read.
pub(crate) fn run(seed: u64, calls: u32) -> Result<Run, BoxError> {
    let mut seed = Seed::new(seed);
    // The ids of traces and spans come from this thread's own generator. The layers' own are seeded
    // with their settings.
    fastrand::seed(seed.next_u64());
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    runtime.block_on(simulate(seed, calls))
}

async fn simulate(mut seed: Seed, calls: u32) -> Result<Run, BoxError> {
    let journal = Journal::new(clock::now());
    let start = journal.start();
    let forecast = Arc::new(Forecast::new(&mut seed, HOSTS));
    let steady = f64::from(calls) * (1.0 - Planned::IN_BURSTS) / HOSTS as f64;
    let usual = steady / forecast.length().as_secs_f64();
    let settings = Settings::draw(&mut seed, usual);
    journal.note(start, format_args!("{settings:?}"));
    let planned: Arc<[_]> = Planned::all(&mut seed, calls, &forecast).into();

    let watch = Watch::new(journal.clone());
    let recorder = settings.recorder(calls)?;
    let stack = settings.stack(&recorder, watch.clone())?;
    let upstream = Upstream::new(forecast.clone(), journal.clone(), &mut seed);
    let service = stack.layer(upstream.clone());
    let mut making = JoinSet::new();
    for place in 0..planned.len() {
        let (planned, service, journal) = (planned.clone(), service.clone(), journal.clone());
        making.spawn(async move { (place, planned[place].make(service, &journal).await) });
    }
    drop(service);
    let mut called = Vec::with_capacity(planned.len());
    while let Some(made) = making.join_next().await {
        called.push(made?);
    }
    called.sort_unstable_by_key(|(place, _)| *place);
    let called: Vec<_> = called.into_iter().map(|(_, called)| called).collect();

    let breaker = |host| {
        let breaker = stack.breaker().handles().get_or_create(&Upstream::host(host));
        (breaker.state(), breaker.snapshot().probes)
    };
    let tokens = stack.retry().budget().map_or(0, portcullis::retry::Budget::waiting);
    let breakers = (0..HOSTS).map(breaker).collect();
    let in_flight = upstream.in_flight();
    sleep(settings.draining()).await;
    let limits = stack.limit().limiters();
    let limit = |host| limits.limiter(&Upstream::host(host)).snapshot();
    let limits = (0..HOSTS).map(limit).collect();
    let at_end = AtEnd { in_flight, tokens, breakers, limits };
    journal.note(clock::now(), format_args!("{at_end:?}"));

    let told = watch.take();
    let traces = read(&recorder, &told, &journal).await?;
    Ok(Run {
        settings,
        forecast,
        start,
        planned,
        called,
        accesses: upstream.accesses(),
        most_in_flight: upstream.most_in_flight(),
        told,
        traces,
        at_end,
        log: journal.take(),
    })
}

/// Reads the traces. It is the one wait for something real, the recorder's thread: no timer is left
/// that the paused clock could go on to meanwhile.
async fn read(recorder: &Recorder, told: &[Told], journal: &Journal) -> Result<Traces, BoxError> {
    recorder.flush().await;
    let traces = Traces::of(recorder, told)?;
    for traced in &traces.kept {
        journal.note(clock::now(), format_args!("{traced:?}"));
    }
    Ok(traces)
}

// ===== impl Run =====

impl Run {
    /// The most calls that were under way at one moment.
    pub(crate) fn most_at_once(&self) -> usize {
        let begins = self.called.iter().map(|called| (called.started, 1));
        let ends = self.called.iter().map(|called| (called.ended, -1));
        let mut steps: Vec<(Instant, isize)> = begins.chain(ends).collect();
        // Whoever begins as another ends is not beside it.
        steps.sort_unstable();
        let mut now = 0;
        let most = steps.iter().map(|(_, step)| {
            now += step;
            now
        });
        most.max().unwrap_or(0).unsigned_abs()
    }

    /// How long after the start something was.
    pub(crate) fn since_start(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.start)
    }
}
