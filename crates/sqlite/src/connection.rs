//! Opening the file.

use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use crate::{
    SqliteConfig, Synchronous,
    error::{ErrorKind, Trouble},
    schema::{self, Identity},
};

/// Pages of the write-ahead log after which it is brought into the file.
const CHECKPOINT: i64 = 4_000;
/// Bytes that the log is cut to when it was larger.
const LOG: i64 = 32 << 20;
/// Memory for pages, in KiB, of the connection that writes.
const CACHE: i64 = 16 << 10;
/// Prepared statements kept: those of some dozen days.
const STATEMENTS: usize = 128;
/// How often it is tried to have a write-ahead log while others are opening the file too.
const TRIES: u32 = 100;

/// The connection that writes; the file is made or brought up to date. What is not ours is refused,
/// and not touched.
pub(crate) fn writer(config: &SqliteConfig) -> Result<Connection, Trouble> {
    let create = OpenFlags::SQLITE_OPEN_CREATE;
    let mut conn = open(config, create)?;
    // All of it at one moment: another may be about to begin the file.
    let identity = schema::identify(&*conn.transaction()?, schema::STEPS)?;
    if conn.is_readonly("main")? {
        return Err(Trouble::Journal("read-only".to_owned()));
    }
    if identity == Identity::Blank {
        // So that the file can become smaller again. Does nothing if another was faster to begin it.
        conn.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    }
    if identity != Identity::Current {
        schema::migrate(&mut conn, schema::STEPS)?;
    }
    write_ahead(&mut conn)?;
    let synchronous = match config.synchronous {
        Synchronous::Normal => "NORMAL",
        Synchronous::Full => "FULL",
    };
    conn.pragma_update(None, "synchronous", synchronous)?;
    conn.pragma_update(None, "wal_autocheckpoint", CHECKPOINT)?;
    conn.pragma_update(None, "journal_size_limit", LOG)?;
    conn.pragma_update(None, "cache_size", -CACHE)?;
    Ok(conn)
}

/// A connection that only reads. It never waits for the one that writes, nor that for it.
pub(crate) fn reader(config: &SqliteConfig) -> Result<Connection, Trouble> {
    let conn = open(config, OpenFlags::empty())?;
    conn.pragma_update(None, "query_only", true)?;
    Ok(conn)
}

fn open(config: &SqliteConfig, more: OpenFlags) -> Result<Connection, Trouble> {
    // Each connection is used by one thread at a time.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | more;
    let conn = Connection::open_with_flags(&config.path, flags)?;
    conn.busy_timeout(config.busy_timeout)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    // The file may come from anywhere: no functions with effects in its views, and its pages are
    // looked at before they are believed.
    conn.pragma_update(None, "trusted_schema", false)?;
    conn.pragma_update(None, "cell_size_check", true)?;
    Ok(conn)
}

/// From now on, and for good, the file has a write-ahead log. SQLite does not wait for others while it
/// changes that, so this does.
fn write_ahead(conn: &mut Connection) -> Result<(), Trouble> {
    let ask = |conn: &Connection| -> Result<String, Trouble> {
        Ok(conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?)
    };
    for _ in 0..TRIES {
        match ask(conn) {
            Err(trouble) if trouble.kind() == ErrorKind::Busy => {
                conn.busy_timeout(Duration::from_millis(20))?;
            }
            Ok(mode) if mode != "wal" => return Err(Trouble::Journal(mode)),
            other => return other.map(drop),
        }
    }
    ask(conn).map(drop)
}
