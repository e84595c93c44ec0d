//! Traces in an SQLite file.
//!
//! [`SqliteStore`] keeps what a [`Recorder`] hands over: a table for each day (UTC), a row for each
//! trace. What is too old goes by the day, in milliseconds. Several threads and processes may use one
//! file at once, and whoever has the `sqlite3` shell may ask it.
//!
//! # Example
//!
//! ```
//! use portcullis_sqlite::SqliteStore;
//! use portcullis_trace::{Query, Recorder, TraceScope, TraceStore};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), portcullis_core::BoxError> {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("traces.db");
//! let store = SqliteStore::builder(path).max_bytes(256 << 20).build()?;
//! let recorder = Recorder::builder().sample_rate(1.0).store(store.clone()).build()?;
//!
//! TraceScope::start("answer question").recorder(&recorder).run(async {}).await;
//!
//! recorder.flush().await;
//! let page = store.query(&Query::new().name("answer question"))?;
//! assert_eq!(page.traces.len(), 1);
//! recorder.shutdown().await; // before the program ends
//! # Ok(())
//! # }
//! ```
//!
//! [`Recorder`]: portcullis_trace::Recorder
//!
//! # Features
//!
//! - `serde`: [`SqliteConfig`] reads from files.

mod config;
mod connection;
mod day;
mod error;
mod read;
mod schema;
mod store;
mod write;

pub use self::{
    config::{SqliteConfig, Synchronous},
    error::{ErrorKind, OpenError, StoreError},
    store::{SqliteBuilder, SqliteStore},
};
