//! Settings: plain data, validated once when a store is opened.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use portcullis_core::Invalid;

/// The settings of a [`SqliteStore`](crate::SqliteStore).
///
/// With the feature `serde` it reads from a file; durations are written as `250ms` or `7d`, unknown
/// fields are errors, and missing ones take their defaults.
///
/// ```
/// use portcullis_sqlite::SqliteConfig;
/// use std::time::Duration;
///
/// let mut config = SqliteConfig::default();
/// config.path = "/var/lib/agent/traces.db".into();
/// config.retention = Duration::from_secs(30 * 86_400);
/// assert!(config.validate().is_ok());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields, default)
)]
#[non_exhaustive]
pub struct SqliteConfig {
    /// The file; SQLite keeps two more beside it, `…-wal` and `…-shm`. Not empty; `traces.db` in the
    /// working folder by default. The folder must be there, and on a disk of this machine.
    pub path: PathBuf,
    /// How long traces are kept. From 1 s; 7 days by default. What is older is not shown; it leaves
    /// the file by the day, when the last of a day is too old.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub retention: Duration,
    /// The bytes that the traces may take in the file, about. From 1 MiB, or none; 1 GiB by default.
    /// Beyond it the oldest day goes, and of a day that is alone its oldest traces. `None` is `"off"`
    /// in a file.
    #[cfg_attr(feature = "serde", serde(with = "portcullis_core::off"))]
    pub max_bytes: Option<u64>,
    /// What a power cut may cost.
    pub synchronous: Synchronous,
    /// How long it waits for others who write to the file. From 0 to 60 s; 5 s by default.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub busy_timeout: Duration,
}

/// When the disk is waited for. Neither choice can damage the file, and with neither the death of the
/// process costs anything that was stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum Synchronous {
    /// Once every few megabytes. A power cut or a crash of the operating system may cost the traces
    /// stored since: the last of them, never one in between. The default.
    #[default]
    Normal,
    /// At each batch. Nothing that was stored is lost, and a batch takes as long as the disk does.
    Full,
}

// ===== impl SqliteConfig =====

impl SqliteConfig {
    /// The default settings, for this file.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), ..Self::default() }
    }

    /// Checks every field.
    ///
    /// # Errors
    ///
    /// The first field that is out of its range.
    pub fn validate(&self) -> Result<(), Invalid> {
        const LEAST_BYTES: u64 = 1 << 20;
        const LONGEST_WAIT: Duration = Duration::from_secs(60);

        if self.path.as_os_str().is_empty() || self.path.file_name().is_none() {
            return Err(Invalid::new("path", &self.path, "the name of a file"));
        }
        if self.path.as_os_str().as_encoded_bytes().contains(&0) {
            return Err(Invalid::new("path", &self.path, "without a NUL"));
        }
        if self.retention < Duration::from_secs(1) {
            return Err(Invalid::new("retention", self.retention, "from 1 s"));
        }
        if self.max_bytes.is_some_and(|bytes| bytes < LEAST_BYTES) {
            return Err(Invalid::new("max_bytes", self.max_bytes, "from 1 MiB, or none"));
        }
        if self.busy_timeout > LONGEST_WAIT {
            return Err(Invalid::new("busy_timeout", self.busy_timeout, "from 0 to 60 s"));
        }
        Ok(())
    }
}

impl Default for SqliteConfig {
    fn default() -> Self {
        Self {
            path: Path::new("traces.db").into(),
            retention: Duration::from_secs(7 * 86_400),
            max_bytes: Some(1 << 30),
            synchronous: Synchronous::default(),
            busy_timeout: Duration::from_secs(5),
        }
    }
}
