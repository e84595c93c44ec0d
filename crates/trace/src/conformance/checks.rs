//! The checks, each against a store of its own.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use portcullis_core::{SpanId, TraceId, clock};

use super::sample::{hostile_texts, sample};
use crate::{
    TraceStore,
    record::{Status, Trace},
    store::{Cursor, Page, Query},
};

const NANO: Duration = Duration::from_nanos(1);
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

type Check = fn(&dyn TraceStore);

pub(super) const ALL: [Check; 13] = [
    an_empty_store_finds_nothing,
    what_was_put_comes_back_as_it_was,
    traces_are_found_by_what_they_were,
    the_newest_come_first_and_spans_decide_between_equals,
    ranges_hold_to_the_nanosecond_and_across_days,
    pages_show_each_trace_once_while_others_arrive,
    a_limit_is_brought_into_its_range,
    records_of_one_trace_stand_in_the_order_of_their_starts,
    a_trace_that_comes_again_replaces_itself,
    hostile_texts_are_kept_and_found,
    what_is_older_than_a_date_is_forgotten_to_the_nanosecond,
    what_is_older_than_the_retention_is_not_shown,
    impossible_dates_do_no_harm,
];

// ===== the checks =====

fn an_empty_store_finds_nothing(store: &dyn TraceStore) {
    put(store, &[]);
    assert!(get(store, 1).is_empty());
    assert!(found(store, &Query::new().status(Status::Error).text("x")).is_empty());
    assert_eq!(store.counts().expect("counts").traces, 0);
    assert_eq!(store.counts().expect("counts").evicted, 0);
    assert_eq!(store.delete_older_than(clock::wall()).expect("deletes"), 0);
    assert_eq!(store.expire(clock::wall()).expect("expires"), 0);
}

fn what_was_put_comes_back_as_it_was(store: &dyn TraceStore) {
    let start = clock::wall();
    let traces: Vec<_> = (0..100).map(|n| sample(n, start - SECOND * n as u32)).collect();
    put(store, &traces);
    for trace in &traces {
        assert_same(
            &get(store, trace.id.get()),
            std::slice::from_ref(trace),
            "what was put comes back as it was",
        );
    }
    assert_same(
        &found(store, &Query::new().limit(1000)),
        &traces,
        "what was put comes back as it was",
    );
    assert_eq!(store.counts().expect("counts").traces, 100);
    assert!(store.counts().expect("counts").bytes > 0);
}

fn traces_are_found_by_what_they_were(store: &dyn TraceStore) {
    let start = clock::wall();
    let traces: Vec<_> = (0..300).map(|n| sample(n, start - SECOND * 60 * n as u32)).collect();
    put(store, &traces);
    for status in [Status::Success, Status::Timeout, Status::Rejected, Status::Cancelled] {
        assert_matches(store, &traces, &Query::new().status(status));
        assert_matches(store, &traces, &Query::new().status(status).min_duration(2 * SECOND));
    }
    for name in ["plan", "search", "it's", "<b>&amp;\"'", "naïve 😀", "naïve", "SEARCH", "", "pla"]
    {
        assert_matches(store, &traces, &Query::new().name(name));
        assert_matches(store, &traces, &Query::new().name(name).status(Status::Error));
    }
    for target in ["db", "web", "a%b_c\\d", "a%b_c", "a.b.c.d", "we", ""] {
        assert_matches(store, &traces, &Query::new().target(target));
    }
    for text in
        ["refused", "connection REFUSED", "100 % of _", "100 % OF x", "'wrong'\n\0", "é", "É"]
    {
        assert_matches(store, &traces, &Query::new().text(text));
        assert_matches(store, &traces, &Query::new().text(text).status(Status::Success));
    }
    assert_matches(store, &traces, &Query::new().text(""));
    assert_matches(store, &traces, &Query::new().min_duration(4 * SECOND));
    for trace in &traces[..20] {
        let exactly = Query::new().min_duration(trace.duration);
        assert_matches(store, &traces, &exactly);
        assert_matches(store, &traces, &exactly.min_duration(trace.duration + NANO));
    }
}

fn the_newest_come_first_and_spans_decide_between_equals(store: &dyn TraceStore) {
    let start = clock::wall();
    let spans = [1, 2, i64::MAX as u64, 1 << 63, u64::MAX - 1, u64::MAX];
    let mut traces: Vec<_> = spans.iter().map(|span| with(sample(*span, start), *span)).collect();
    // In no order.
    traces.swap(0, 3);
    traces.swap(1, 5);
    put(store, &traces);
    let shown = found(store, &Query::new());
    let shown: Vec<u64> = shown.iter().map(|trace| trace.span.get()).collect();
    assert!(shown.iter().rev().eq(&spans), "{shown:x?}");

    let after_half = Query::new().after(Cursor::at(start, span(1 << 63)));
    let shown = found(store, &after_half);
    let shown: Vec<u64> = shown.iter().map(|trace| trace.span.get()).collect();
    assert_eq!(shown, [i64::MAX as u64, 2, 1]);
}

fn ranges_hold_to_the_nanosecond_and_across_days(store: &dyn TraceStore) {
    let midnight = midnight();
    let dates: Vec<_> = [midnight, midnight - DAY, midnight - 3 * DAY]
        .into_iter()
        .flat_map(|date| [date + NANO, date, date - NANO])
        .collect();
    let traces: Vec<_> = (0..).zip(&dates).map(|(n, date)| sample(n, *date)).collect();
    put(store, &traces);
    for since in &dates {
        assert_matches(store, &traces, &Query::new().since(*since));
        assert_matches(store, &traces, &Query::new().until(*since));
        for until in &dates {
            assert_matches(store, &traces, &Query::new().since(*since).until(*until));
            let cursor = Cursor::at(*until, span(1));
            let page = found(store, &Query::new().since(*since).after(cursor));
            let within = |date: SystemTime| date >= *since && date < *until;
            assert_eq!(page.len(), dates.iter().filter(|date| within(**date)).count());
        }
    }
}

fn pages_show_each_trace_once_while_others_arrive(store: &dyn TraceStore) {
    let start = clock::wall();
    // Some in the same second, over three days.
    let date = |n: u64| start - SECOND * ((n * 7919) % 250_000 / 100 * 100) as u32;
    let traces: Vec<_> = (0..300).map(|n| sample(n, date(n))).collect();
    let (first, late) = traces.split_at(200);
    put(store, first);

    let mut late = late.chunks(3);
    let mut seen: Vec<(SystemTime, SpanId)> = Vec::new();
    let mut cursor = None;
    loop {
        let page = query(store, &Query::new().limit(7).after(cursor));
        assert!(page.traces.len() <= 7);
        assert!(page.next.is_none() || page.traces.len() == 7, "a page is full but for the last");
        seen.extend(page.traces.iter().map(|trace| (trace.started_at, trace.span)));
        // As it goes to a client and comes back.
        cursor = page.next.map(|next| next.to_string().parse::<Cursor>().expect("a cursor"));
        if cursor.is_none() {
            break;
        }
        put(store, late.next().unwrap_or_default());
    }
    assert!(seen.windows(2).all(|two| two[0] > two[1]), "newest first, none twice");
    let missing = first.iter().filter(|t| !seen.contains(&(t.started_at, t.span))).count();
    assert_eq!(missing, 0, "what was there from the start is shown");
}

fn a_limit_is_brought_into_its_range(store: &dyn TraceStore) {
    let start = clock::wall();
    let traces: Vec<_> = (0..1010).map(|n| small(n, start - SECOND * n as u32)).collect();
    put(store, &traces);
    assert_eq!(query(store, &Query::new()).traces.len(), 50);
    assert_eq!(query(store, &Query::new().limit(0)).traces.len(), 1);
    let page = query(store, &Query::new().limit(usize::MAX));
    assert_eq!(page.traces.len(), 1000);
    let rest = query(store, &Query::new().limit(10).after(page.next));
    assert_eq!((rest.traces.len(), rest.next), (10, None), "nothing comes after the last");
}

fn records_of_one_trace_stand_in_the_order_of_their_starts(store: &dyn TraceStore) {
    let midnight = midnight();
    let part = |n: u64, date: SystemTime| {
        let mut trace = sample(n, date);
        trace.id = id(42);
        trace
    };
    let (late, early, other) =
        (part(1, midnight + NANO), part(2, midnight - NANO), sample(3, midnight));
    put(store, &[late.clone(), other]);
    put(store, std::slice::from_ref(&early));
    assert_same(
        &get(store, 42),
        &[early, late],
        "records of one trace stand in the order of their starts",
    );
}

fn a_trace_that_comes_again_replaces_itself(store: &dyn TraceStore) {
    let midnight = midnight();
    let first = sample(1, midnight);
    put(store, std::slice::from_ref(&first));
    let held = store.counts().expect("counts");
    put(store, std::slice::from_ref(&first));
    assert_eq!(store.counts().expect("counts"), held);

    // With another start it is still the same: on the same day, on another, and within one batch.
    let mut again = first.clone();
    for dates in [[SECOND, 2 * SECOND], [DAY, SECOND], [Duration::ZERO, 2 * DAY]] {
        let batch = dates.map(|back| {
            again.started_at = midnight - back;
            "again".clone_into(&mut again.name);
            again.clone()
        });
        put(store, &batch);
        assert_same(
            &get(store, first.id.get()),
            std::slice::from_ref(&again),
            "a trace that comes again replaces itself",
        );
        assert_same(
            &found(store, &Query::new()),
            std::slice::from_ref(&again),
            "a trace that comes again replaces itself",
        );
        assert_eq!(store.counts().expect("counts").traces, 1);
    }

    // The same span in another trace, and the same trace with another span, are others.
    let mut other = first.clone();
    other.id = id(7);
    put(store, &[with(first.clone(), 7), other]);
    assert_eq!(get(store, first.id.get()).len(), 2);
    assert_eq!(get(store, 7).len(), 1);
}

fn hostile_texts_are_kept_and_found(store: &dyn TraceStore) {
    let start = clock::wall();
    let texts = hostile_texts();
    let mut samples = (0..).map(|seed| sample(seed, start));
    let of_two_calls = samples.find(|trace| trace.calls.len() == 2).expect("endless");
    let mut traces = Vec::new();
    for (n, text) in (0..).zip(&texts) {
        let mut trace = of_two_calls.clone();
        trace.id = id(u128::from(n) + 1);
        trace = with(trace, n + 1);
        trace.name.clone_from(text);
        trace.error = Some(text.clone());
        trace.attributes = vec![(text.clone(), text.clone())];
        trace.calls[1].target = Some(text.clone());
        trace.calls[1].name.clone_from(text);
        trace.calls[0].error = Some(format!("before {text} behind"));
        traces.push(trace);
    }
    put(store, &traces);
    for (n, text) in (1..).zip(&texts) {
        assert_same(
            &get(store, n),
            &traces[n as usize - 1..n as usize],
            "hostile texts are kept and found",
        );
        assert_matches(store, &traces, &Query::new().name(text));
        assert_matches(store, &traces, &Query::new().target(text));
        assert_matches(store, &traces, &Query::new().text(text));
        assert_matches(store, &traces, &Query::new().text(text.to_ascii_uppercase()));
        assert_matches(store, &traces, &Query::new().text(text.to_uppercase()));
        assert_matches(store, &traces, &Query::new().text(format!("e {text} b")));
        assert_matches(store, &traces, &Query::new().text(format!("{text}{text}!")));
    }
    for text in ["%", "_", "\\", "\"", "n", "\n", "\\n", "u0000", "\u{0}"] {
        assert_matches(store, &traces, &Query::new().text(text));
    }
}

fn what_is_older_than_a_date_is_forgotten_to_the_nanosecond(store: &dyn TraceStore) {
    let midnight = midnight();
    let dates = [
        midnight + NANO,
        midnight,
        midnight - NANO,
        midnight - SECOND,
        midnight - DAY,
        midnight - DAY - NANO,
        midnight - 4 * DAY,
        midnight - 5 * DAY,
    ];
    let mut traces: Vec<_> = (0..).zip(&dates).map(|(n, date)| sample(n, *date)).collect();
    put(store, &traces);
    for date in [
        SystemTime::UNIX_EPOCH,
        midnight - 5 * DAY,
        midnight - 4 * DAY + NANO,
        midnight - DAY,
        midnight - SECOND + NANO,
        midnight,
        midnight + NANO,
        midnight + 2 * DAY,
    ] {
        let left: Vec<_> = traces.iter().filter(|t| t.started_at >= date).cloned().collect();
        let forgotten = traces.len() - left.len();
        assert_eq!(store.delete_older_than(date).expect("deletes"), forgotten as u64);
        assert_same(
            &found(store, &Query::new()),
            &left,
            "what is older than a date is forgotten to the nanosecond",
        );
        assert_eq!(store.counts().expect("counts").traces, left.len() as u64);
        traces = left;
    }
    assert!(traces.is_empty());
    assert_eq!(store.counts().expect("counts").evicted, 0, "that was no want of room");

    let again = sample(1, midnight);
    put(store, std::slice::from_ref(&again));
    assert_same(
        &found(store, &Query::new()),
        &[again],
        "what is older than a date is forgotten to the nanosecond",
    );
}

fn what_is_older_than_the_retention_is_not_shown(store: &dyn TraceStore) {
    let now = clock::wall();
    let minute = 60 * SECOND;
    let young = sample(1, now - 7 * DAY + minute);
    let old = sample(2, now - 7 * DAY - minute);
    let older = sample(3, now - 30 * DAY);
    put(store, &[young.clone(), old.clone(), older.clone()]);
    for _ in 0..2 {
        assert_same(
            &found(store, &Query::new()),
            std::slice::from_ref(&young),
            "what is older than the retention is not shown",
        );
        assert_same(
            &found(store, &Query::new().until(now - 7 * DAY)),
            &[],
            "what is older than the retention is not shown",
        );
        assert!(get(store, old.id.get()).is_empty() && get(store, older.id.get()).is_empty());
        assert_same(
            &get(store, young.id.get()),
            std::slice::from_ref(&young),
            "what is older than the retention is not shown",
        );
        store.expire(now).expect("expires");
    }
    // A store may forget by the day.
    assert_eq!(store.expire(now + 2 * DAY).expect("expires"), 1);
    assert_eq!(store.counts().expect("counts").traces, 0);
}

fn impossible_dates_do_no_harm(store: &dyn TraceStore) {
    let far = |years: u64| SystemTime::UNIX_EPOCH + DAY * 365 * years as u32;
    let past = SystemTime::UNIX_EPOCH - DAY;
    let future: Vec<_> =
        (0..).zip([100, 290, 300, 9_000]).map(|(n, y)| sample(n, far(y))).collect();
    let now = sample(9, clock::wall());
    put(store, &[sample(8, past)]);
    put(store, &future);
    put(store, std::slice::from_ref(&now));
    for trace in &future {
        assert_same(
            &get(store, trace.id.get()),
            std::slice::from_ref(trace),
            "impossible dates do no harm",
        );
    }
    let shown = found(store, &Query::new());
    assert_eq!((shown.len(), shown.last()), (5, Some(&now)));
    assert_same(
        &found(store, &Query::new().until(far(80)).since(past)),
        &[now],
        "impossible dates do no harm",
    );
    assert_same(&found(store, &Query::new().until(past)), &[], "impossible dates do no harm");
    assert_same(
        &found(store, &Query::new().since(far(20_000))),
        &[],
        "impossible dates do no harm",
    );
    assert_eq!(store.delete_older_than(past).expect("deletes"), 0);
    assert_eq!(store.expire(past).expect("expires"), 0);
    assert_eq!(store.delete_older_than(far(99)).expect("deletes"), 1);
    assert_eq!(store.counts().expect("counts").traces, 4);
}

// ===== asking =====

fn put(store: &dyn TraceStore, traces: &[Trace]) {
    let batch: Vec<_> = traces.iter().cloned().map(Arc::new).collect();
    store.put(&batch).expect("takes traces");
}

fn get(store: &dyn TraceStore, number: u128) -> Vec<Trace> {
    plain(store.get(id(number)).expect("finds by id"))
}

fn query(store: &dyn TraceStore, query: &Query) -> Page {
    store.query(query).expect("answers")
}

fn found(store: &dyn TraceStore, asked: &Query) -> Vec<Trace> {
    plain(query(store, asked).traces)
}

fn plain(traces: Vec<Arc<Trace>>) -> Vec<Trace> {
    traces.into_iter().map(|trace| Trace::clone(&trace)).collect()
}

/// That a query finds of those stored just what it should, in the order it should.
fn assert_matches(store: &dyn TraceStore, stored: &[Trace], asked: &Query) {
    let mut expected: Vec<_> = stored.iter().filter(|it| asked.matches(it)).cloned().collect();
    expected.sort_by_key(|trace| std::cmp::Reverse((trace.started_at, trace.span)));
    let shown = found(store, &asked.clone().limit(1000));
    assert_same(&shown, &expected, asked);
}

fn assert_same(shown: &[Trace], expected: &[Trace], what: impl std::fmt::Debug) {
    let places = |traces: &[Trace]| -> Vec<_> {
        traces.iter().map(|t| (t.id, t.span, t.started_at, t.name.chars().count())).collect()
    };
    let what = format!("{what:.300?}");
    assert_eq!(places(shown), places(expected), "{what}");
    assert!(shown == expected, "{what}: a record is not as it was");
}

fn midnight() -> SystemTime {
    let since = clock::wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs() / 86_400 * 86_400)
}

fn with(mut trace: Trace, number: u64) -> Trace {
    trace.span = span(number);
    trace
}

/// A sample that takes little.
fn small(seed: u64, date: SystemTime) -> Trace {
    let mut trace = sample(seed, date);
    trace.calls.clear();
    trace
}

fn span(number: u64) -> SpanId {
    SpanId::new(number).expect("above 0")
}

fn id(number: u128) -> TraceId {
    TraceId::new(number).expect("above 0")
}
