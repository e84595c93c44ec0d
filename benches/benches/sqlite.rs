//! What the SQLite store takes: traces in batches, one found among seven days, a day forgotten.
//!
//! `cargo bench -p benches --bench sqlite`; a number after `--` is that of the traces of a day. Beside
//! the time stands what of it the processor was at work for, where the system tells: on a busy machine
//! that says more.

use std::{
    fs,
    sync::Arc,
    time::{Duration, SystemTime},
};

use portcullis_core::{BoxError, SpanId, TraceId, clock};
use portcullis_sqlite::SqliteStore;
use portcullis_trace::{Query, Status, Trace, TraceStore, conformance};

const DAY: Duration = Duration::from_secs(86_400);
const DAYS: u32 = 7;
/// Calls of a trace; with the trace itself, eleven spans.
const CALLS: u64 = 10;
/// What the recorder hands over at once.
const BATCH: usize = 64;

/// How long things took, and what of it the processor.
#[derive(Default)]
struct Times {
    passed: Vec<Duration>,
    worked: Duration,
}

fn main() -> Result<(), BoxError> {
    let a_day = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(5_000_u32);
    let folder = tempfile::tempdir()?;
    let store = SqliteStore::builder(folder.path().join("traces.db")).max_bytes(None).build()?;
    let now = clock::wall();

    let mut ids = Vec::new();
    let mut taking = Times::default();
    for day in (0..DAYS).rev() {
        let begin = now - DAY * day - DAY / 2;
        let number = |n: u32| trace(u64::from(day * a_day + n), begin + DAY / 2 / a_day * n);
        for first in (0..a_day).step_by(BATCH) {
            let numbers = first..a_day.min(first + BATCH as u32);
            let batch: Vec<_> = numbers.map(number).map(Arc::new).collect();
            ids.extend(batch.iter().map(|trace| trace.id));
            taking.measure(|| store.put(&batch))?;
        }
    }
    let counts = store.counts()?;
    let spans = counts.traces * (CALLS + 1);
    let rate = |time: Duration| spans as f64 / time.as_secs_f64();
    println!("{} traces, {spans} spans, {} MB", counts.traces, counts.bytes >> 20);
    println!(
        "taken: {:.0} spans/s, {:.0} a second of the processor; a batch of {BATCH}: {taking}",
        rate(taking.passed.iter().sum()),
        rate(taking.worked),
    );

    let mut finding = Times::default();
    for n in 0..5_000 {
        let id = ids[n * 7_919 % ids.len()];
        let found = finding.measure(|| store.get(id))?;
        assert_eq!(found.len(), 1);
    }
    println!("one trace found by its id: {finding}");

    let ago = Query::new().until(now - 2 * DAY);
    for (what, query, times) in [
        ("the newest 50", Query::new(), 200),
        ("the newest 50 that timed out", Query::new().status(Status::Timeout), 200),
        ("the newest 50 of two days ago", ago, 200),
        ("the newest 50 with a target", Query::new().target("db"), 200),
        ("a text that nobody said, through all", Query::new().text("nobody says this"), 3),
    ] {
        let mut asking = Times::default();
        for _ in 0..times {
            asking.measure(|| store.query(&query))?;
        }
        println!("{what}: {asking}");
    }

    let mut forgetting = Times::default();
    let forgotten = forgetting.measure(|| store.expire(now + DAY))?;
    println!("a day forgotten, {forgotten} traces: {forgetting}");
    let mut giving_back = Times::default();
    let forgotten = giving_back.measure(|| store.delete_older_than(now - DAY))?;
    println!("the rest but a day, {forgotten} traces, given back to the system: {giving_back}");
    Ok(())
}

/// A trace of some kilobytes.
fn trace(number: u64, date: SystemTime) -> Trace {
    let mut trace = conformance::sample(number, date);
    let samples = (number << 8..).map(|seed| conformance::sample(seed, date));
    let call = samples.filter_map(|mut sample| sample.calls.pop()).next();
    let mut call = call.expect("an endless number of samples");
    call.attempts.truncate(1);
    // Spread as ids are, and no two the same.
    let spread = |n: u64| (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    trace.id = TraceId::new(u128::from(spread(number)) << 64 | 1).expect("not zero");
    trace.calls = (0..CALLS)
        .map(|n| {
            call.span = SpanId::new(spread(number * CALLS + n)).expect("not zero");
            call.clone()
        })
        .collect();
    trace
}

// ===== impl Times =====

impl Times {
    fn measure<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let (start, worked) = (clock::now(), worked());
        let done = work();
        self.passed.push(clock::now() - start);
        self.worked += self::worked().saturating_sub(worked);
        done
    }
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut passed = self.passed.clone();
        passed.sort_unstable();
        let at = |share: f64| passed[((passed.len() - 1) as f64 * share) as usize];
        write!(f, "p50 {:.1?}, p99 {:.1?}", at(0.5), at(0.99))?;
        write!(f, ", processor {:.1?} on average", self.worked / passed.len() as u32)
    }
}

/// For how long the processor has been at work on this thread; nothing where the system does not tell.
fn worked() -> Duration {
    let told = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = told.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.unwrap_or_default())
}
