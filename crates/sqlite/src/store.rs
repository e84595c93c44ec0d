//! The store.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use portcullis_core::{
    BoxError, Invalid, TraceId, clock,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};
use portcullis_trace::{Page, Query, StoreCounts, Trace, TraceStore};
use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::{
    OpenError, SqliteConfig, StoreError, Synchronous, connection, day,
    error::Trouble,
    read::{self, Found},
    schema, write,
};

/// Connections kept for readers who are not there.
const IDLE: usize = 4;

/// Keeps traces in an SQLite file.
///
/// Reading never waits for writing, nor writing for reading. All methods block: in async code, read
/// through `spawn_blocking`. They may be called by any number of threads, and several processes may
/// have a store on one file.
///
/// Beyond the trait: what is older than the retention is not shown; [`expire`](TraceStore::expire)
/// drops the days that are wholly older, and gives up what is beyond
/// [`max_bytes`](SqliteConfig::max_bytes). [`counts`](TraceStore::counts) are those of the file,
/// whichever process stored or evicted, since it was made. The methods fail with a [`StoreError`].
///
/// # Clone
///
/// Clones are the same store. The file is closed when the last is gone.
///
/// ```
/// use portcullis_sqlite::SqliteStore;
/// use std::time::Duration;
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("traces.db");
/// let store = SqliteStore::builder(path)
///     .retention(Duration::from_secs(30 * 86_400))
///     .max_bytes(4 << 30)
///     .build()?;
/// # drop(store);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct SqliteStore(Arc<Shared>);

/// A [`SqliteStore`] in the making: see [`SqliteStore::builder`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct SqliteBuilder {
    config: SqliteConfig,
}

struct Shared {
    config: SqliteConfig,
    unreadable: AtomicU64,
    readers: Mutex<Vec<Connection>>,
    /// Dropped last: closing the last connection brings the log into the file, which one that only
    /// reads may not.
    writer: Mutex<Connection>,
}

// ===== impl SqliteStore =====

impl SqliteStore {
    /// Begins a store in this file, with the default settings.
    pub fn builder(path: impl Into<PathBuf>) -> SqliteBuilder {
        SqliteBuilder { config: SqliteConfig::new(path) }
    }

    /// The file. Absolute, whatever the settings said.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.config.path
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &SqliteConfig {
        &self.0.config
    }

    /// How often a record was found that could not be read, by this store. Such a one is left out of
    /// what is shown. Above 0 something has changed the file.
    #[must_use]
    pub fn unreadable(&self) -> u64 {
        self.0.unreadable.load(Ordering::Relaxed)
    }

    /// Reads the whole file and sees whether it is sound. Takes as long as that takes.
    ///
    /// # Errors
    ///
    /// [`Damaged`](crate::ErrorKind::Damaged) if it is not; others if it could not be read.
    pub fn check(&self) -> Result<(), StoreError> {
        self.read(|tx| schema::check(tx))
    }

    /// The place before which everything is too old.
    fn horizon(&self, now: SystemTime) -> i64 {
        let horizon = now.checked_sub(self.0.config.retention);
        day::bound(horizon.unwrap_or(SystemTime::UNIX_EPOCH))
    }

    fn max_bytes(&self) -> u64 {
        self.0.config.max_bytes.unwrap_or(u64::MAX)
    }

    /// Runs what reads, on a connection of its own.
    fn read<T>(
        &self,
        ask: impl FnOnce(&Transaction<'_>) -> Result<T, Trouble>,
    ) -> Result<T, StoreError> {
        let idle = self.0.readers.lock().pop();
        let asked = || -> Result<(Connection, T), Trouble> {
            let mut conn = match idle {
                Some(conn) => conn,
                None => connection::reader(&self.0.config)?,
            };
            let tx = conn.transaction_with_behavior(TransactionBehavior::Deferred)?;
            schema::still_current(&tx)?;
            let answer = ask(&tx)?;
            tx.commit()?;
            Ok((conn, answer))
        };
        let (conn, answer) = asked().map_err(|trouble| self.error(trouble))?;
        let mut readers = self.0.readers.lock();
        if readers.len() < IDLE {
            readers.push(conn);
        }
        Ok(answer)
    }

    fn write<T>(
        &self,
        act: impl FnOnce(&mut Connection) -> Result<T, Trouble>,
    ) -> Result<T, StoreError> {
        act(&mut self.0.writer.lock()).map_err(|trouble| self.error(trouble))
    }

    fn found<T>(&self, found: Found<T>) -> T {
        self.0.unreadable.fetch_add(found.unreadable, Ordering::Relaxed);
        found.value
    }

    fn error(&self, trouble: Trouble) -> StoreError {
        StoreError::new(&self.0.config.path, trouble)
    }
}

impl TraceStore for SqliteStore {
    fn put(&self, batch: &[Arc<Trace>]) -> Result<(), BoxError> {
        let horizon = self.horizon(clock::wall());
        // Before the file is locked.
        let rows = write::rows(batch).map_err(|trouble| self.error(trouble))?;
        if !rows.is_empty() {
            self.write(|conn| write::put(conn, &rows, horizon, self.max_bytes()))?;
        }
        Ok(())
    }

    fn get(&self, id: TraceId) -> Result<Vec<Arc<Trace>>, BoxError> {
        let horizon = self.horizon(clock::wall());
        Ok(self.found(self.read(|tx| read::get(tx, id, horizon))?))
    }

    fn query(&self, query: &Query) -> Result<Page, BoxError> {
        let horizon = self.horizon(clock::wall());
        Ok(self.found(self.read(|tx| read::query(tx, query, horizon))?))
    }

    fn delete_older_than(&self, date: SystemTime) -> Result<u64, BoxError> {
        let bound = day::bound(date);
        Ok(self.write(|conn| {
            let forgotten = write::forget(conn, bound, true)?;
            write::give_back(conn)?;
            Ok(forgotten)
        })?)
    }

    fn expire(&self, now: SystemTime) -> Result<u64, BoxError> {
        let horizon = self.horizon(now);
        Ok(self.write(|conn| {
            let forgotten = write::forget(conn, horizon, false)?;
            write::shrink(conn, self.max_bytes())?;
            write::give_back(conn)?;
            Ok(forgotten)
        })?)
    }

    fn counts(&self) -> Result<StoreCounts, BoxError> {
        Ok(self.read(|tx| {
            let mut counts = StoreCounts::default();
            counts.traces = schema::days(tx)?.iter().map(|entry| entry.traces).sum();
            counts.bytes = schema::used(tx)?;
            counts.evicted = schema::evicted(tx)?;
            Ok(counts)
        })?)
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore")
            .field("config", &self.0.config)
            .field("unreadable", &self.unreadable())
            .finish_non_exhaustive()
    }
}

// ===== impl SqliteBuilder =====

impl SqliteBuilder {
    /// All settings at once, in place of those made so far, the path among them.
    pub fn config(mut self, config: SqliteConfig) -> Self {
        self.config = config;
        self
    }

    /// How long traces are kept. From 1 s; 7 days unless set.
    pub fn retention(mut self, retention: Duration) -> Self {
        self.config.retention = retention;
        self
    }

    /// The bytes that the traces may take in the file, about; `None` for as many as there are. From
    /// 1 MiB; 1 GiB unless set.
    pub fn max_bytes(mut self, bytes: impl Into<Option<u64>>) -> Self {
        self.config.max_bytes = bytes.into();
        self
    }

    /// What a power cut may cost. [`Synchronous::Normal`] unless set.
    pub fn synchronous(mut self, synchronous: Synchronous) -> Self {
        self.config.synchronous = synchronous;
        self
    }

    /// How long it waits for others who write to the file. From 0 to 60 s; 5 s unless set.
    pub fn busy_timeout(mut self, timeout: Duration) -> Self {
        self.config.busy_timeout = timeout;
        self
    }

    /// The store. Its file is opened, and made if it is not there.
    ///
    /// # Errors
    ///
    /// The first setting that is out of its range; or what is wrong with the file. A file that is not
    /// ours, is damaged, or is of a newer version is left as it is.
    pub fn build(self) -> Result<SqliteStore, OpenError> {
        let Self { mut config } = self;
        config.validate()?;
        // The connections of readers are opened later, when the working folder may be another.
        config.path = std::path::absolute(&config.path)
            .map_err(|error| Invalid::new("path", error, "the name of a file"))?;
        let writer = connection::writer(&config)
            .map_err(|trouble| StoreError::new(&config.path, trouble))?;
        Ok(SqliteStore(Arc::new(Shared {
            config,
            unreadable: AtomicU64::new(0),
            readers: Mutex::default(),
            writer: Mutex::new(writer),
        })))
    }
}

#[cfg(test)]
mod tests {
    use portcullis_trace::{Recorder, TraceScope, conformance};

    use super::*;
    use crate::ErrorKind;

    /// How the disk is for the connection that writes.
    fn limit(store: &SqliteStore, pages: i64) {
        let writer = store.0.writer.lock();
        let sql = format!("PRAGMA max_page_count = {pages}");
        writer.query_row(&sql, [], |_| Ok(())).unwrap();
    }

    #[tokio::test]
    async fn a_full_disk_costs_traces_that_are_counted_and_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::builder(folder.path().join("t.db")).build().unwrap();
        let recorder = Recorder::builder().sample_rate(1.0).store(store.clone()).build().unwrap();
        let call = async |name: &str| {
            let scope = TraceScope::start(name).attribute("ballast", "x".repeat(500));
            scope.recorder(&recorder).run(async {}).await;
            recorder.flush().await;
        };
        call("before").await;
        let pages = store.read(|tx| Ok(schema::pragma::<i64>(tx, "page_count")?)).unwrap();
        limit(&store, pages + 2);

        let large: Vec<_> =
            (0..100).map(|n| Arc::new(conformance::sample(n, clock::wall()))).collect();
        let error = store.put(&large).unwrap_err();
        let error = error.downcast_ref::<StoreError>().unwrap();
        assert_eq!(error.kind(), ErrorKind::Full);
        assert!(error.to_string().contains("t.db: no room left"), "{error}");
        for _ in 0..40 {
            call("while full").await;
        }
        let counts = recorder.counts();
        assert!(counts.lost > 0 && counts.store_errors > 0, "{counts:?}");
        assert_eq!(counts.stored + counts.lost, 41);
        assert_eq!(store.counts().unwrap().traces, counts.stored, "a batch is there or not");
        assert_eq!(store.query(&Query::new().name("before")).unwrap().traces.len(), 1);

        limit(&store, 1 << 30);
        call("after").await;
        assert_eq!(store.query(&Query::new().name("after")).unwrap().traces.len(), 1);
        store.put(&large).unwrap();
        store.check().unwrap();
    }

    #[test]
    fn it_writes_ahead_and_waits_for_the_disk_as_it_was_told() {
        let folder = tempfile::tempdir().unwrap();
        for (synchronous, level) in [(Synchronous::Normal, 1), (Synchronous::Full, 2)] {
            let builder = SqliteStore::builder(folder.path().join("t.db"));
            let store = builder.synchronous(synchronous).build().unwrap();
            let writer = store.0.writer.lock();
            assert_eq!(schema::pragma::<String>(&writer, "journal_mode").unwrap(), "wal");
            assert_eq!(schema::pragma::<i64>(&writer, "synchronous").unwrap(), level);
            assert_eq!(schema::pragma::<i64>(&writer, "auto_vacuum").unwrap(), 2, "incremental");
        }
    }
}
