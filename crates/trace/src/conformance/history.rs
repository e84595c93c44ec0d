//! A store beside the one in memory, over one history.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use fastrand::Rng;
use portcullis_core::clock;

use super::sample::sample;
use crate::{
    MemoryStore, TraceStore,
    record::{Status, Trace},
    store::Query,
};

/// Does the same to an empty store and to one in memory, and sees that both answer alike: batches of
/// traces over nine days, some of them again; questions of every kind, by page; deletions and expiry.
/// What is done follows from the seed. Both keep traces for seven days.
///
/// # Panics
///
/// At the first difference, and if the store fails.
pub fn history(store: &dyn TraceStore, seed: u64, steps: usize) {
    let mut rng = Rng::with_seed(seed);
    let reference = MemoryStore::new().with_max_bytes(usize::MAX);
    let now = clock::wall();
    let mut known: Vec<Arc<Trace>> = Vec::new();
    for step in 0..steps {
        let place = format!("seed {seed}, step {step}");
        match rng.u32(0..12) {
            0..4 => {
                let batch: Vec<_> =
                    (0..rng.usize(0..12)).map(|_| next(&mut rng, now, &known)).collect();
                store.put(&batch).expect(&place);
                reference.put(&batch).expect("memory");
                known.extend(batch);
            }
            4..7 => {
                let stranger = Arc::new(sample(rng.u64(..), now));
                let id = rng.choice(&known).unwrap_or(&stranger).id;
                assert_eq!(
                    store.get(id).expect(&place),
                    reference.get(id).expect("memory"),
                    "{place}"
                );
            }
            7..10 => ask(store, &reference, question(&mut rng, now, &known), &place),
            10 => {
                let date = date(&mut rng, now);
                let forgotten = store.delete_older_than(date).expect(&place);
                assert_eq!(
                    forgotten,
                    reference.delete_older_than(date).expect("memory"),
                    "{place}"
                );
            }
            _ => {
                let forgotten = store.expire(now).expect(&place);
                assert_eq!(forgotten, reference.expire(now).expect("memory"), "{place}");
            }
        }
        let counts = store.counts().expect(&place).traces;
        assert_eq!(counts, reference.counts().expect("memory").traces, "{place}");
    }
    ask(store, &reference, Query::new().limit(1000), &format!("seed {seed}, at the end"));
}

/// The same question to both, page by page.
fn ask(store: &dyn TraceStore, reference: &MemoryStore, mut query: Query, place: &str) {
    loop {
        let ours = store.query(&query).expect(place);
        let theirs = reference.query(&query).expect("memory");
        assert_eq!(ours.traces, theirs.traces, "{place}: {query:?}");
        assert_eq!(ours.next, theirs.next, "{place}: {query:?}");
        if ours.next.is_none() {
            return;
        }
        query = query.after(ours.next);
    }
}

/// A new trace, or one that was there before; some of these with another start.
fn next(rng: &mut Rng, now: SystemTime, known: &[Arc<Trace>]) -> Arc<Trace> {
    let mut trace = match rng.choice(known) {
        Some(known) if rng.u8(0..5) == 0 => Trace::clone(known),
        Some(known) if rng.u8(0..5) == 0 => {
            // Another record of the same trace.
            let mut other = sample(rng.u64(..), date(rng, now));
            other.id = known.id;
            other
        }
        _ => sample(rng.u64(..), date(rng, now)),
    };
    if rng.u8(0..8) == 0 {
        trace.started_at = date(rng, now);
    }
    Arc::new(trace)
}

/// Within the last nine days and the next; never near the end of the retention, which two stores do
/// not look at in the same instant.
fn date(rng: &mut Rng, now: SystemTime) -> SystemTime {
    const DAY: u64 = 86_400;
    let ago = loop {
        let ago = match rng.u8(0..4) {
            // Whole seconds of few: equals occur.
            0 => rng.u64(0..20) * 1_000_000_000,
            _ => rng.u64(0..10 * DAY * 1_000_000_000),
        };
        if (ago / 1_000_000_000).abs_diff(8 * DAY) > 600 {
            break ago;
        }
    };
    now + Duration::from_secs(DAY) - Duration::from_nanos(ago)
}

fn question(rng: &mut Rng, now: SystemTime, known: &[Arc<Trace>]) -> Query {
    let mut query = Query::new().limit(rng.usize(1..30));
    if rng.u8(0..3) == 0 {
        query = query.since(date(rng, now));
    }
    if rng.u8(0..3) == 0 {
        query = query.until(date(rng, now));
    }
    if let Some(trace) = rng.choice(known)
        && rng.u8(0..4) == 0
    {
        query = query.since(trace.started_at);
    }
    match rng.u8(0..8) {
        0 => query = query.status(Status::Success),
        1 => query = query.status(Status::Timeout),
        2 => query = query.name("plan"),
        3 => query = query.target("a%b_c\\d"),
        4 => query = query.min_duration(Duration::from_nanos(rng.u64(0..4_000_000_000))),
        5 => query = query.text("REFUSED by"),
        6 => query = query.text("went 'wrong'\n").status(Status::Error),
        _ => {}
    }
    query
}
