//! Taking traces, and forgetting them.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use portcullis_core::{SpanId, TraceId, clock};
use portcullis_trace::Trace;
use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::{
    day::{self, Day},
    error::Trouble,
    schema::{self, Entry},
};

/// Pages given back to the system at once. Others can write in between.
const PAGES: i64 = 1_024;
/// How long pages are given back before whoever waits for the store has its turn. The more are free the
/// longer each takes.
const STINT: Duration = Duration::from_secs(1);
/// Traces forgotten at once, of a day that alone takes too much; at the least.
const FORGOTTEN: usize = 64;

/// A trace as it goes into the file.
pub(crate) struct Row {
    id: TraceId,
    span: SpanId,
    place: i64,
    duration: i64,
    status: &'static str,
    name: String,
    record: String,
}

/// Makes rows of traces, in the order of their starts.
pub(crate) fn rows(batch: &[Arc<Trace>]) -> Result<Vec<Row>, Trouble> {
    let mut seen = HashSet::with_capacity(batch.len());
    let mut rows = Vec::with_capacity(batch.len());
    // From the end: of a trace that comes twice the later one counts.
    for trace in batch.iter().rev() {
        let row = Row::of(trace)?;
        if seen.insert((row.id, row.span)) {
            rows.push(row);
        }
    }
    rows.reverse();
    rows.sort_by_key(|row| row.place);
    Ok(rows)
}

/// Stores rows, all or none, but for those before the horizon; and gives up the oldest traces beyond
/// `max_bytes`.
pub(crate) fn put(
    conn: &mut Connection,
    rows: &[Row],
    horizon: i64,
    max_bytes: u64,
) -> Result<(), Trouble> {
    let tx = begin(conn)?;
    let mut days = schema::days(&tx)?;
    forget_same(&tx, &mut days, rows)?;
    let rows = &rows[rows.partition_point(|row| row.place < horizon)..];
    for of_day in rows.chunk_by(|a, b| Day::of(a.place) == Day::of(b.place)) {
        let day = Day::of(of_day[0].place);
        if !days.iter().any(|entry| entry.day == day) {
            schema::create(&tx, &mut days, day)?;
        }
        let mut insert =
            tx.prepare_cached(&format!("INSERT INTO {} VALUES (?,?,?,?,?,?,?)", day.table()))?;
        for row in of_day {
            let (id, span) = (row.id.to_string(), row.span.to_string());
            insert.execute((
                id,
                span,
                row.place,
                row.duration,
                row.status,
                &row.name,
                &row.record,
            ))?;
        }
        for entry in days.iter_mut().filter(|entry| entry.day == day) {
            entry.traces += of_day.len() as u64;
            schema::note(&tx, entry)?;
        }
    }
    make_room(&tx, &mut days, max_bytes, (2 * rows.len()).max(FORGOTTEN))?;
    Ok(tx.commit()?)
}

/// Forgets what stands before `bound`, and says how many: whole days with their tables, and of the day
/// that is cut, if it is to be cut, the rows.
pub(crate) fn forget(conn: &mut Connection, bound: i64, cut: bool) -> Result<u64, Trouble> {
    let tx = begin(conn)?;
    let mut days = schema::days(&tx)?;
    let mut forgotten = 0;
    for entry in days
        .iter_mut()
        .filter(|entry| cut && (entry.day.start() + 1..entry.day.end()).contains(&bound))
    {
        let delete = format!("DELETE FROM {} WHERE started < ?1", entry.day.table());
        let deleted = tx.execute(&delete, [bound])? as u64;
        entry.traces = entry.traces.saturating_sub(deleted);
        schema::note(&tx, entry)?;
        forgotten += deleted;
    }
    let is_over = |entry: &Entry| entry.day.end() <= bound || (cut && entry.traces == 0);
    if days.iter().any(is_over) {
        forgotten += schema::drop_days(&tx, &mut days, is_over)?;
    }
    tx.commit()?;
    Ok(forgotten)
}

/// Gives up the oldest traces until no more than `max_bytes` are in use.
pub(crate) fn shrink(conn: &mut Connection, max_bytes: u64) -> Result<(), Trouble> {
    while schema::used(conn)? > max_bytes {
        let tx = begin(conn)?;
        let mut days = schema::days(&tx)?;
        let given_up = make_room(&tx, &mut days, max_bytes, FORGOTTEN)?;
        tx.commit()?;
        if given_up == 0 {
            break;
        }
    }
    Ok(())
}

/// Gives free pages back to the system if they are many: more than a quarter of the file. Fewer are
/// soon used again, and to move what is behind them would cost more than it saves. What is not done in
/// one stint is left for the next time.
pub(crate) fn give_back(conn: &Connection) -> Result<(), Trouble> {
    let mut free: i64 = schema::pragma(conn, "freelist_count")?;
    if free * 4 <= schema::pragma::<i64>(conn, "page_count")? {
        return Ok(());
    }
    let begun = clock::now();
    while free > 0 && clock::now().saturating_duration_since(begun) < STINT {
        // Each step frees one page; a statement that is not stepped to its end has done almost nothing.
        let mut vacuum = conn.prepare(&format!("PRAGMA incremental_vacuum({PAGES})"))?;
        let mut steps = vacuum.query([])?;
        while steps.next()?.is_some() {}
        drop(steps);
        let left = schema::pragma(conn, "freelist_count")?;
        // A file that was begun by something else cannot give back.
        if left >= free {
            break;
        }
        free = left;
    }
    // The file itself becomes smaller when the log is brought into it. If somebody reads just now, it
    // is the next time that does it.
    conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
    Ok(())
}

/// A transaction that writes. Waits for those of others, and sees all that they did.
fn begin(conn: &mut Connection) -> Result<Transaction<'_>, Trouble> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    schema::still_current(&tx)?;
    Ok(tx)
}

/// Forgets the records that are to be replaced, whichever day they are on.
fn forget_same(tx: &Transaction<'_>, days: &mut [Entry], rows: &[Row]) -> rusqlite::Result<()> {
    for entry in days {
        let table = entry.day.table();
        let mut delete =
            tx.prepare_cached(&format!("DELETE FROM {table} WHERE id = ?1 AND span = ?2"))?;
        let mut deleted = 0;
        for row in rows {
            deleted += delete.execute((row.id.to_string(), row.span.to_string()))?;
        }
        if deleted > 0 {
            entry.traces = entry.traces.saturating_sub(deleted as u64);
            schema::note(tx, entry)?;
        }
    }
    Ok(())
}

/// Gives up the oldest days as long as too much is in use, and of a day that is alone up to so many of
/// its oldest traces. Says how many were given up.
fn make_room(
    tx: &Transaction<'_>,
    days: &mut Vec<Entry>,
    max_bytes: u64,
    at_most: usize,
) -> rusqlite::Result<u64> {
    let mut given_up = 0;
    while schema::used(tx)? > max_bytes
        && days.len() > 1
        && let Some(oldest) = days.last().map(|entry| entry.day)
    {
        given_up += schema::drop_days(tx, days, |entry| entry.day == oldest)?;
    }
    if schema::used(tx)? > max_bytes
        && let [entry] = &mut days[..]
    {
        let table = entry.day.table();
        let mut delete = tx.prepare_cached(&format!(
            "DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} \
             INDEXED BY {table}_order ORDER BY started, span LIMIT ?1)"
        ))?;
        let deleted = delete.execute([at_most as i64])? as u64;
        entry.traces = entry.traces.saturating_sub(deleted);
        schema::note(tx, entry)?;
        given_up += deleted;
    }
    if given_up > 0 {
        tx.execute("UPDATE totals SET evicted = evicted + ?1", [given_up as i64])?;
    }
    Ok(given_up)
}

// ===== impl Row =====

impl Row {
    fn of(trace: &Trace) -> Result<Self, Trouble> {
        // The clock of a machine without a battery begins at 1970, and may be set before it. Such a
        // date cannot be written.
        let record = if trace.started_at < SystemTime::UNIX_EPOCH {
            let mut trace = trace.clone();
            trace.started_at = SystemTime::UNIX_EPOCH;
            serde_json::to_string(&trace)?
        } else {
            serde_json::to_string(trace)?
        };
        Ok(Self {
            id: trace.id,
            span: trace.span,
            place: day::place(trace.started_at),
            duration: i64::try_from(trace.duration.as_nanos()).unwrap_or(i64::MAX),
            status: trace.status.as_str(),
            name: trace.name.clone(),
            record,
        })
    }
}
