//! A folder with a store in it.

use std::{path::PathBuf, sync::Arc, time::Duration};

use portcullis_core::clock;
use portcullis_sqlite::{SqliteBuilder, SqliteStore};
use portcullis_trace::{Trace, conformance};
use tempfile::TempDir;

pub(crate) const DAY: Duration = Duration::from_secs(86_400);

/// A folder of its own, gone with it.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().join("traces.db")
    }

    pub(crate) fn builder(&self) -> SqliteBuilder {
        SqliteStore::builder(self.path())
    }

    pub(crate) fn store(&self) -> SqliteStore {
        self.builder().build().expect("a store")
    }
}

/// Samples that started so many seconds ago.
pub(crate) fn aged(ages: impl IntoIterator<Item = u64>) -> Vec<Arc<Trace>> {
    let now = clock::wall();
    let sample = |(n, age)| conformance::sample(n, now - Duration::from_secs(age));
    (1..).zip(ages).map(sample).map(Arc::new).collect()
}
