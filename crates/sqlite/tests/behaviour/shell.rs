//! The file as whoever has the `sqlite3` shell sees it.

use portcullis_core::clock;
use portcullis_trace::{Status, TraceStore};
use rusqlite::Connection;

use crate::fakes::{DAY, Folder, aged};

pub(crate) fn shell(folder: &Folder) -> Connection {
    Connection::open(folder.path()).unwrap()
}

/// The tables of days.
pub(crate) fn tables(folder: &Folder) -> Vec<String> {
    let conn = shell(folder);
    let sql =
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name GLOB 'day_*' ORDER BY 1";
    conn.prepare(sql)
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect()
}

fn ask<T: rusqlite::types::FromSql>(conn: &Connection, sql: &str) -> Vec<T> {
    let mut select = conn.prepare(sql).unwrap();
    select.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

#[test]
fn the_views_show_every_span_of_every_day_as_days_come_and_go() {
    let folder = Folder::new();
    let store = folder.store();
    let conn = shell(&folder);
    assert_eq!(ask::<i64>(&conn, "SELECT count(*) FROM spans"), [0]);

    let traces = aged((0..40).map(|n| n % 5 * 86_400));
    let spans = |days: u64| -> i64 {
        let kept = (0..).zip(&traces).filter(|(n, _)| n % 5 < days);
        kept.map(|(_, trace)| 1 + trace.calls.len() as i64).sum()
    };
    store.put(&traces).unwrap();
    assert_eq!(ask::<i64>(&conn, "SELECT count(*) FROM traces"), [40]);
    assert_eq!(ask::<i64>(&conn, "SELECT count(*) FROM spans"), [spans(5)]);
    store.expire(clock::wall() + 5 * DAY).unwrap();
    assert_eq!(ask::<i64>(&conn, "SELECT count(*) FROM spans"), [spans(3)]);
    assert_eq!(ask::<i64>(&conn, "SELECT sum(traces) FROM days"), [24]);
    store.delete_older_than(clock::wall()).unwrap();
    assert_eq!(ask::<i64>(&conn, "SELECT count(*) FROM spans"), [0]);
}

#[test]
fn a_span_stands_there_as_it_was() {
    let folder = Folder::new();
    let store = folder.store();
    let traces = aged((0..50).map(|n| n * 3600));
    store.put(&traces).unwrap();
    let conn = shell(&folder);
    for trace in &traces {
        for call in &trace.calls {
            let sql = "SELECT name, operation, target, status, error, ms, attempts, events, started, \
                       duration, parent, kind FROM spans WHERE trace = ?1 AND span = ?2";
            let row = |row: &rusqlite::Row<'_>| {
                assert_eq!(row.get::<_, String>(0)?, call.name);
                assert_eq!(row.get::<_, Option<String>>(1)?, call.operation);
                assert_eq!(row.get::<_, Option<String>>(2)?, call.target);
                assert_eq!(row.get::<_, String>(3)?, call.status.as_str());
                assert_eq!(row.get::<_, Option<String>>(4)?, call.error);
                let ms: f64 = row.get(5)?;
                assert!((ms - call.duration.as_secs_f64() * 1e3).abs() < 1e-6, "{ms}");
                assert_eq!(row.get::<_, i64>(6)?, call.attempts.len() as i64);
                assert_eq!(row.get::<_, i64>(7)?, call.events.len() as i64);
                let start = trace.started_at + call.started;
                let start = start.duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
                assert_eq!(row.get::<_, i64>(8)? as u128, start);
                assert_eq!(row.get::<_, i64>(9)? as u128, call.duration.as_nanos());
                assert_eq!(row.get::<_, Option<String>>(10)?, call.parent.map(|it| it.to_string()));
                row.get::<_, String>(11)
            };
            let ids = (trace.id.to_string(), call.span.to_string());
            let kind = conn.query_row(sql, ids, row).unwrap();
            assert!(["call", "scope"].contains(&kind.as_str()));
        }
    }
}

#[test]
fn a_call_outside_of_any_scope_is_one_span() {
    let folder = Folder::new();
    let store = folder.store();
    let mut traces = aged(0..30);
    let alone = traces.iter().position(|trace| trace.calls.len() == 1).unwrap();
    let trace = std::sync::Arc::make_mut(&mut traces[alone]);
    trace.calls[0].span = trace.span;
    store.put(&traces[alone..=alone]).unwrap();
    assert_eq!(
        ask::<String>(&shell(&folder), "SELECT span FROM spans"),
        [traces[alone].span.to_string()]
    );
}

#[test]
fn questions_of_people_are_answered() {
    let folder = Folder::new();
    let store = folder.store();
    let traces = aged((0..200).map(|n| n * 900 + 30));
    store.put(&traces).unwrap();
    let conn = shell(&folder);
    let id = traces[7].id;

    let found = ask::<String>(&conn, &format!("SELECT name FROM spans WHERE trace = '{id}'"));
    assert_eq!(found.len(), 1 + traces[7].calls.len());
    let failed = "SELECT id FROM traces WHERE status <> 'success' ORDER BY started DESC LIMIT 5";
    let expected = traces.iter().filter(|trace| trace.status != Status::Success).take(5);
    assert!(
        ask::<String>(&conn, failed).into_iter().eq(expected.map(|trace| trace.id.to_string()))
    );
    let slowest = "SELECT target FROM spans WHERE kind = 'call' AND target IS NOT NULL \
                   GROUP BY target ORDER BY avg(ms) DESC";
    assert_eq!(ask::<String>(&conn, slowest).len(), 3);
    let hour = "SELECT count(*) FROM traces WHERE date >= datetime('now', '-1 hour')";
    assert_eq!(ask::<i64>(&conn, hour), [4]);
}

#[test]
fn a_trace_is_found_through_the_views_without_reading_all_days() {
    let folder = Folder::new();
    let store = folder.store();
    store.put(&aged((0..5).map(|day| day * 86_400))).unwrap();
    let conn = shell(&folder);
    for view in ["traces WHERE id", "spans WHERE trace"] {
        let sql = format!("EXPLAIN QUERY PLAN SELECT * FROM {view} = 'x'");
        let mut plan = conn.prepare(&sql).unwrap();
        let plan: Vec<String> =
            plan.query_map([], |row| row.get(3)).unwrap().map(Result::unwrap).collect();
        let of_days: Vec<_> =
            plan.iter().filter(|step| step.contains("day_") || step.contains(" t")).collect();
        assert!(
            of_days.len() >= 5
                && of_days.iter().all(|step| step.contains("SEARCH") || !step.contains("SCAN day")),
            "{plan:#?}"
        );
        assert!(!plan.iter().any(|step| step.contains("SCAN day")), "{plan:#?}");
    }
}
