//! What is in the file.
//!
//! `days` says which days there are; each has a table, `day_20261123`, with a row for each trace. The
//! views `traces` and `spans` are for people: nothing here reads them.

use std::fmt::Write;

use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::{day::Day, error::Trouble};

/// Marks the file as one of ours: `PCtr` in its header.
pub(crate) const APPLICATION: i64 = 0x5043_7472;

/// What brings the file from each version to the next; a new one begins at 0. Their number is the
/// version, which stands in the header too.
pub(crate) const STEPS: &[&str] = &[V1];

const V1: &str = "
CREATE TABLE days (
    day    INTEGER PRIMARY KEY, -- since 1970, by UTC
    name   TEXT NOT NULL,       -- of its table
    traces INTEGER NOT NULL     -- how many rows that has
) STRICT;
CREATE TABLE totals (
    evicted INTEGER NOT NULL    -- traces given up for want of room
) STRICT;
INSERT INTO totals VALUES (0);
CREATE VIEW spans AS
SELECT t.id AS trace, t.span AS span, t.record ->> '$.parent' AS parent, 'trace' AS kind,
       t.name AS name, NULL AS operation, NULL AS target, t.date AS date, t.ms AS ms,
       t.status AS status, NULL AS error_kind, t.record ->> '$.error' AS error, NULL AS attempts,
       coalesce(json_array_length(t.record, '$.events'), 0) AS events,
       t.started AS started, t.duration AS duration
  FROM traces t
 -- A call outside of any scope is its trace's only span, and listed below.
 WHERE t.record ->> '$.calls[0].span' IS NOT t.span
UNION ALL
SELECT t.id, c.value ->> '$.span', c.value ->> '$.parent', c.value ->> '$.kind',
       c.value ->> '$.name', c.value ->> '$.operation', c.value ->> '$.target',
       strftime('%Y-%m-%d %H:%M:%f', (t.started + (c.value ->> '$.started.secs') * 1000000000
                + (c.value ->> '$.started.nanos')) / 1e9, 'unixepoch'),
       (c.value ->> '$.duration.secs') * 1e3 + (c.value ->> '$.duration.nanos') / 1e6,
       c.value ->> '$.status', c.value ->> '$.error_kind', c.value ->> '$.error',
       coalesce(json_array_length(c.value, '$.attempts'), 0),
       coalesce(json_array_length(c.value, '$.events'), 0),
       t.started + (c.value ->> '$.started.secs') * 1000000000 + (c.value ->> '$.started.nanos'),
       (c.value ->> '$.duration.secs') * 1000000000 + (c.value ->> '$.duration.nanos')
  FROM traces t, json_each(t.record, '$.calls') c;
";

/// Days that the view `traces` shows, from the newest: SQLite joins 500 tables at most.
const SHOWN: usize = 400;

/// A day that is there, and how many traces it has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) day: Day,
    pub(crate) traces: u64,
}

/// What the header says the file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    /// Nothing yet.
    Blank,
    /// Ours, in the form that is known here.
    Current,
    /// Ours, in an older form.
    Older,
}

// ===== the file as a whole =====

/// Whether the file is ours, as far as these steps know.
pub(crate) fn identify(conn: &Connection, steps: &[&str]) -> Result<Identity, Trouble> {
    let application: i64 = pragma(conn, "application_id")?;
    let version: i64 = pragma(conn, "user_version")?;
    let known = steps.len() as i64;
    if application == APPLICATION {
        return match version {
            1.. if version > known => Err(Trouble::Newer { found: version, known }),
            1.. if version == known => Ok(Identity::Current),
            1.. => Ok(Identity::Older),
            _ => Err(Trouble::Foreign("its header has our mark and no version")),
        };
    }
    let tables: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if application == 0 && version == 0 && tables == 0 {
        return Ok(Identity::Blank);
    }
    Err(Trouble::Foreign("it is an SQLite file of some other program"))
}

/// Brings a file that is blank or older to the form that the steps end in. Others may be at it too.
pub(crate) fn migrate(conn: &mut Connection, steps: &[&str]) -> Result<(), Trouble> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Once more, now that nobody else can change it.
    let done = match identify(&tx, steps)? {
        Identity::Current => return Ok(()),
        Identity::Blank => 0,
        Identity::Older => usize::try_from(pragma::<i64>(&tx, "user_version")?).unwrap_or(0),
    };
    for step in &steps[done..] {
        tx.execute_batch(step)?;
    }
    show(&tx, &days(&tx)?)?;
    tx.pragma_update(None, "application_id", APPLICATION)?;
    tx.pragma_update(None, "user_version", steps.len() as i64)?;
    Ok(tx.commit()?)
}

/// Fails if another process has brought the file to a newer form meanwhile.
pub(crate) fn still_current(conn: &Connection) -> Result<(), Trouble> {
    let (found, known) = (pragma::<i64>(conn, "user_version")?, STEPS.len() as i64);
    if found > known { Err(Trouble::Newer { found, known }) } else { Ok(()) }
}

/// Bytes in use. What is free in the file is used again before the file grows.
pub(crate) fn used(conn: &Connection) -> rusqlite::Result<u64> {
    let pages: i64 = pragma(conn, "page_count")?;
    let free: i64 = pragma(conn, "freelist_count")?;
    let size: i64 = pragma(conn, "page_size")?;
    Ok((pages - free).max(0) as u64 * size.max(0) as u64)
}

pub(crate) fn pragma<T: rusqlite::types::FromSql>(
    conn: &Connection,
    name: &str,
) -> rusqlite::Result<T> {
    conn.prepare_cached(&format!("PRAGMA {name}"))?.query_row([], |row| row.get(0))
}

// ===== days =====

/// The days that are there, the newest first.
pub(crate) fn days(conn: &Connection) -> rusqlite::Result<Vec<Entry>> {
    let mut days = conn.prepare_cached("SELECT day, traces FROM days ORDER BY day DESC")?;
    let entry = |row: &rusqlite::Row<'_>| {
        let traces: i64 = row.get(1)?;
        Ok(Entry { day: Day(row.get(0)?), traces: traces.max(0) as u64 })
    };
    days.query_map([], entry)?.collect()
}

/// Makes the table of a day, and its place among the others.
pub(crate) fn create(
    tx: &Transaction<'_>,
    days: &mut Vec<Entry>,
    day: Day,
) -> rusqlite::Result<()> {
    let table = day.table();
    tx.execute_batch(&format!(
        "CREATE TABLE {table} (
             id       TEXT NOT NULL,
             span     TEXT NOT NULL,
             started  INTEGER NOT NULL, -- nanoseconds since 1970
             duration INTEGER NOT NULL, -- nanoseconds
             status   TEXT NOT NULL,
             name     TEXT NOT NULL,
             record   TEXT NOT NULL
         ) STRICT;
         CREATE UNIQUE INDEX {table}_id ON {table} (id, span);
         -- With the duration, so that short traces are passed over without being read.
         CREATE INDEX {table}_order ON {table} (started, span, duration);
         CREATE INDEX {table}_failed ON {table} (started, span) WHERE status <> 'success';"
    ))?;
    tx.execute("INSERT INTO days VALUES (?1, ?2, 0)", (day.0, &table))?;
    let place = days.partition_point(|entry| entry.day > day);
    days.insert(place, Entry { day, traces: 0 });
    show(tx, days)
}

/// Drops the tables of days, and says how many traces they had.
pub(crate) fn drop_days(
    tx: &Transaction<'_>,
    days: &mut Vec<Entry>,
    gone: impl Fn(&Entry) -> bool,
) -> rusqlite::Result<u64> {
    let mut traces = 0;
    for entry in days.extract_if(.., |entry| gone(entry)) {
        tx.execute_batch(&format!("DROP TABLE {}", entry.day.table()))?;
        tx.execute("DELETE FROM days WHERE day = ?1", [entry.day.0])?;
        traces += entry.traces;
    }
    show(tx, days)?;
    Ok(traces)
}

/// Notes how many traces a day has.
pub(crate) fn note(tx: &Transaction<'_>, entry: &Entry) -> rusqlite::Result<()> {
    tx.prepare_cached("UPDATE days SET traces = ?2 WHERE day = ?1")?
        .execute((entry.day.0, i64::try_from(entry.traces).unwrap_or(i64::MAX)))?;
    Ok(())
}

/// Has the view `traces` show these days.
fn show(tx: &Transaction<'_>, days: &[Entry]) -> rusqlite::Result<()> {
    let mut view = "DROP VIEW IF EXISTS traces; CREATE VIEW traces AS ".to_owned();
    for (n, entry) in days.iter().take(SHOWN).enumerate() {
        let _ = write!(
            view,
            "{} SELECT id, span, name, status, strftime('%Y-%m-%d %H:%M:%f', started / 1e9, \
             'unixepoch') AS date, duration / 1e6 AS ms, started, duration, record FROM {}",
            if n == 0 { "" } else { " UNION ALL" },
            entry.day.table(),
        );
    }
    if days.is_empty() {
        view.push_str(
            "SELECT '' AS id, '' AS span, '' AS name, '' AS status, '' AS date, 0.0 AS ms, \
             0 AS started, 0 AS duration, '' AS record WHERE 0",
        );
    }
    tx.execute_batch(&view)
}

/// Traces given up for want of room, ever.
pub(crate) fn evicted(conn: &Connection) -> rusqlite::Result<u64> {
    let mut select = conn.prepare_cached("SELECT evicted FROM totals")?;
    select.query_row([], |row| row.get::<_, i64>(0)).map(|evicted| evicted.max(0) as u64)
}

/// Reads all there is, and says whether it is sound.
pub(crate) fn check(conn: &Connection) -> Result<(), Trouble> {
    let found: String = conn.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if found == "ok" { Ok(()) } else { Err(Trouble::Damaged(found)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &str = "ALTER TABLE totals ADD COLUMN lost INTEGER NOT NULL DEFAULT 0;";

    fn version(conn: &Connection) -> i64 {
        pragma(conn, "user_version").unwrap()
    }

    #[test]
    fn an_older_file_is_brought_up_to_date_and_keeps_what_it_has() {
        let mut conn = Connection::open_in_memory().unwrap();
        migrate(&mut conn, &[V1]).unwrap();
        let tx = conn.transaction().unwrap();
        create(&tx, &mut days(&tx).unwrap(), Day(20_000)).unwrap();
        tx.execute("UPDATE totals SET evicted = 7", []).unwrap();
        tx.commit().unwrap();

        assert_eq!(identify(&conn, &[V1, V2]).unwrap(), Identity::Older);
        migrate(&mut conn, &[V1, V2]).unwrap();
        assert_eq!(identify(&conn, &[V1, V2]).unwrap(), Identity::Current);
        assert_eq!(version(&conn), 2);
        let lost = "SELECT evicted, lost FROM totals";
        let totals: (i64, i64) =
            conn.query_row(lost, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        assert_eq!(totals, (7, 0));
        assert_eq!(days(&conn).unwrap().len(), 1);

        // Whoever knows the first form only has nothing to do with it any more.
        let newer = identify(&conn, &[V1]);
        assert!(matches!(newer, Err(Trouble::Newer { found: 2, known: 1 })), "{newer:?}");
        assert!(migrate(&mut conn, &[V1]).is_err());
    }

    #[test]
    fn a_step_that_fails_leaves_the_file_as_it_was() {
        let mut conn = Connection::open_in_memory().unwrap();
        migrate(&mut conn, &[V1]).unwrap();
        assert!(migrate(&mut conn, &[V1, "CREATE TABLE more (x); SELECT nonsense"]).is_err());
        assert_eq!(version(&conn), 1);
        let more = "SELECT count(*) FROM sqlite_schema WHERE name = 'more'";
        assert_eq!(conn.query_row(more, [], |row| row.get::<_, i64>(0)).unwrap(), 0);
        migrate(&mut conn, &[V1]).unwrap();
    }

    #[test]
    fn the_view_shows_as_many_days_as_sqlite_can_join() {
        let mut conn = Connection::open_in_memory().unwrap();
        migrate(&mut conn, STEPS).unwrap();
        let tx = conn.transaction().unwrap();
        let all: Vec<_> = (0..510).rev().map(|day| Entry { day: Day(day), traces: 1 }).collect();
        for entry in &all {
            let table = entry.day.table();
            let columns = "id, span, started, duration, status, name, record";
            tx.execute_batch(&format!(
                "CREATE TABLE {table} ({columns});
                 INSERT INTO {table} VALUES ('', '', 0, 0, '', '', '{{}}')"
            ))
            .unwrap();
        }
        show(&tx, &all).unwrap();
        let count = "SELECT count(*) FROM spans";
        assert_eq!(tx.query_row(count, [], |row| row.get(0)), Ok(SHOWN as i64));
    }
}
