//! One run: two upstreams, two clients, one load.

use std::{ops::Range, sync::Arc, time::Duration, time::SystemTime};

use http::uri::Authority;
use portcullis::sqlite::SqliteStore;
use portcullis_core::{BoxError, clock};

use crate::{
    args::Args,
    attempts::Log,
    client::{self, Bare},
    file::{self, TraceFile},
    invariants::{Evidence, judge},
    live::Live,
    load::{self, Course},
    report::Summary,
    serve::Shown,
    stack::{self, Handle, Stacked},
    stop::Stop,
    tally::SideLog,
    traces::Traces,
    upstream::{Place, Upstream},
    watch::StackReport,
    weather::Script,
};

/// Until the first request; both upstreams listen by then.
const LEAD: Duration = Duration::from_millis(100);

/// Both clients, and where their upstreams are.
#[derive(Debug)]
pub(crate) struct Track {
    seconds: u64,
    bare: Bare,
    bare_at: Place,
    stack: Stacked,
    stack_at: Place,
    stack_log: Arc<Log>,
    handle: Handle,
}

/// All that was logged once the weather had gone through, or was broken off.
#[derive(Debug)]
pub(crate) struct Lap {
    pub(crate) course: Course,
    pub(crate) bare: SideLog,
    pub(crate) stack: SideLog,
    pub(crate) report: StackReport,
    /// When it was, for the traces.
    time: Range<SystemTime>,
}

/// Sends the load through both clients at once, each against an upstream of its own, and judges what
/// was logged.
///
/// # Errors
///
/// When an upstream cannot listen, a setting of the stack is refused, or the traces cannot be kept or
/// read.
pub(crate) async fn run(args: &Args) -> Result<Summary, BoxError> {
    let store = file::open(args.traces.as_deref())?;
    let file = TraceFile::of(&store);
    let track = Track::new(args, store, None)?;
    let lap = track.lap(args.seed, &Stop::never()).await?;
    let traces = track.traces(&lap).await?;
    let traced = traces.log();
    let invariants = judge(&Evidence {
        course: &lap.course,
        bare: &lap.bare,
        stack: &lap.stack,
        report: &lap.report,
        traced: &traced,
    });
    track.handle.recorder().shutdown().await;
    Ok(Summary::new(args, &lap, &traced)
        .with_promises(invariants)
        .with_check(track.handle.check())
        .with_story(traces.story(&lap.stack, &lap.course))
        .with_file(file))
}

// ===== impl Track =====

impl Track {
    /// Both clients, fresh; the one with the stack `shown` if it is to be.
    ///
    /// # Errors
    ///
    /// When there is no port for an upstream, or a setting of the stack is refused.
    pub(crate) fn new(
        args: &Args,
        store: SqliteStore,
        shown: Option<&Shown>,
    ) -> Result<Self, BoxError> {
        let (bare_at, stack_at) = (Place::new()?, Place::new()?);
        let under_stack = client::bare();
        let stack_log = under_stack.log().clone();
        let (stack, handle) =
            stack::client(under_stack, &stack_at.addr().to_string(), args.seed, store, shown)?;
        let (seconds, bare) = (args.seconds, client::bare());
        Ok(Self { seconds, bare, bare_at, stack, stack_at, stack_log, handle })
    }

    /// What is known of the stack.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Goes through all weathers once, unless it is told to stop. `seed` decides which requests fail.
    ///
    /// # Errors
    ///
    /// When an upstream cannot listen.
    pub(crate) async fn lap(&self, seed: u64, stop: &Stop) -> Result<Lap, BoxError> {
        let script = Arc::new(Script::new(self.seconds, seed));
        let plan = load::plan(seed, &script);
        let since = clock::wall();
        let course = Course { script: script.clone(), start: clock::now() + LEAD };
        let bare_upstream = Upstream::start(&self.bare_at, script.clone(), course.start)?;
        let stack_upstream = Upstream::start(&self.stack_at, script, course.start)?;

        let (bare_progress, stack_progress) = (Arc::default(), Arc::default());
        let live = Live::start(
            course.clone(),
            Arc::clone(&bare_progress),
            Arc::clone(&stack_progress),
            self.handle.clone(),
        );
        let at = |place: &Place| Authority::try_from(place.addr().to_string());
        let (bare_at, stack_at) = (at(&self.bare_at)?, at(&self.stack_at)?);
        let (bare, stack) = (self.bare.clone(), self.stack.clone());
        let (bare_calls, stack_calls) = tokio::join!(
            load::run(bare, bare_at, &plan, &course, &bare_progress, stop),
            load::run(stack, stack_at, &plan, &course, &stack_progress, stop),
        );
        live.end().await;

        let report = self.handle.report();
        let bare = SideLog {
            calls: bare_calls,
            accesses: bare_upstream.stop().await?,
            attempts: self.bare.log().take(),
        };
        let stack = SideLog {
            calls: stack_calls,
            accesses: stack_upstream.stop().await?,
            attempts: self.stack_log.take(),
        };
        Ok(Lap { course, bare, stack, report, time: since..clock::wall() })
    }

    /// The traces of a lap.
    ///
    /// # Errors
    ///
    /// When the store takes too long, or its own.
    pub(crate) async fn traces(&self, lap: &Lap) -> Result<Traces, BoxError> {
        Traces::of(self.handle.recorder(), lap.time.clone()).await
    }
}
