//! What a person, or a program, is told of the runs.

use std::fmt::{self, Write};

use portcullis_core::{LayerKind, State, What};
use serde::Serialize;

use crate::{
    invariants::{Invariant, judge},
    journal::digest,
    watch::Deed,
    world::Run,
};

/// One run in numbers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) calls: u32,
    /// The simulated time, in seconds.
    seconds: f64,
    /// The share of the calls that succeeded, 0 to 1.
    success_rate: f64,
    /// The most calls under way at one moment.
    most_at_once: usize,
    /// Requests that reached an upstream, and the most in flight at one moment.
    upstream_requests: usize,
    most_in_flight: usize,
    retries: usize,
    /// Refusals of breakers and limits.
    refusals: usize,
    /// How often a breaker opened.
    openings: usize,
    /// Lines of the log, and what it comes to: the same for the same seed and number of calls.
    lines: usize,
    pub(crate) digest: String,
    pub(crate) invariants: Vec<Invariant>,
}

/// All runs.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Reports<'a> {
    pub(crate) held: bool,
    pub(crate) runs: &'a [Report],
}

// ===== impl Report =====

impl Report {
    /// Judges a run and sums it up.
    pub(crate) fn of(seed: u64, calls: u32, run: &Run) -> Self {
        let count = |wanted: fn(&Deed, LayerKind) -> bool| {
            run.told.iter().filter(|told| wanted(&told.what, told.by)).count()
        };
        let succeeded = run.called.iter().filter(|called| called.succeeded()).count();
        Self {
            seed,
            calls,
            seconds: run.forecast.length().as_secs_f64(),
            success_rate: succeeded as f64 / run.called.len() as f64,
            most_at_once: run.most_at_once(),
            upstream_requests: run.accesses.len(),
            most_in_flight: run.most_in_flight,
            retries: count(|deed, _| {
                matches!(deed, Deed::Other(What::Attempting { attempt: 2.. }))
            }),
            refusals: count(|deed, by| {
                let limits = matches!(by, LayerKind::Breaker | LayerKind::RateLimit);
                limits && matches!(deed, Deed::Rejected(_))
            }),
            openings: count(|deed, _| {
                matches!(deed, Deed::Other(What::StateChanged { to: State::Open, .. }))
            }),
            lines: run.log.lines().count(),
            digest: format!("{:016x}", digest(&run.log)),
            invariants: judge(run),
        }
    }

    /// Whether every promise was kept.
    pub(crate) fn held(&self) -> bool {
        self.invariants.iter().all(|invariant| invariant.held)
    }

    /// What was not kept, and how to see it again; nothing if all was.
    pub(crate) fn complaint(&self) -> Option<String> {
        let broken: Vec<_> = self.invariants.iter().filter(|it| !it.held).collect();
        if broken.is_empty() {
            return None;
        }
        let Self { seed, calls, .. } = self;
        let mut text = format!("seed {seed}:\n");
        for Invariant { name, detail, .. } in broken {
            // Writing to a string does not fail.
            let _ = writeln!(text, "  ✗ {name}\n      {detail}");
        }
        let _ = write!(
            text,
            "  again: cargo run --release -p simulator -- --seed {seed} --calls {calls} --log"
        );
        Some(text)
    }
}

// ===== impl Reports =====

impl<'a> Reports<'a> {
    pub(crate) fn of(runs: &'a [Report]) -> Self {
        Self { held: runs.iter().all(Report::held), runs }
    }
}

impl fmt::Display for Reports<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:>6} {:>7} {:>6} {:>7} {:>8} {:>8} {:>8} {:>8} {:>8}  {:16}",
            "seed",
            "calls",
            "s",
            "success",
            "at once",
            "requests",
            "retries",
            "refusals",
            "openings",
            "digest"
        )?;
        for run in self.runs {
            writeln!(
                f,
                "{:>6} {:>7} {:>6.1} {:>6.1}% {:>8} {:>8} {:>8} {:>8} {:>8}  {:16}",
                run.seed,
                run.calls,
                run.seconds,
                100.0 * run.success_rate,
                run.most_at_once,
                run.upstream_requests,
                run.retries,
                run.refusals,
                run.openings,
                run.digest
            )?;
        }
        writeln!(f)?;
        if let [run] = self.runs {
            for Invariant { name, held, detail } in &run.invariants {
                let mark = if *held { '✓' } else { '✗' };
                writeln!(f, "{mark} {name}\n    {detail}")?;
            }
            writeln!(f)?;
        }
        for complaint in self.runs.iter().filter_map(Report::complaint) {
            writeln!(f, "{complaint}")?;
        }
        let promises = self.runs.first().map_or(0, |run| run.invariants.len());
        let kept = self.runs.iter().filter(|run| run.held()).count();
        write!(f, "all {promises} promises kept in {kept} of {} runs", self.runs.len())
    }
}
