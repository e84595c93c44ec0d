//! What can go wrong with the file, and what to do about it.

use std::{
    error::Error,
    fmt,
    path::{Path, PathBuf},
};

use portcullis_core::{BoxError, Invalid};
use rusqlite::ffi;

/// Why a store could not be opened.
#[derive(Debug)]
#[non_exhaustive]
pub enum OpenError {
    /// A setting is out of its range.
    Invalid(Invalid),
    /// The file will not do.
    Store(StoreError),
}

/// What is wrong with the file. Displays the file's path and what to do.
///
/// It is what the methods of a [`SqliteStore`](crate::SqliteStore) fail with:
///
/// ```
/// use portcullis_sqlite::{ErrorKind, StoreError};
///
/// fn is_full(error: &portcullis_core::BoxError) -> bool {
///     error.downcast_ref::<StoreError>().is_some_and(|error| error.kind() == ErrorKind::Full)
/// }
/// # assert!(!is_full(&"something else".into()));
/// ```
#[derive(Debug)]
pub struct StoreError {
    path: PathBuf,
    kind: ErrorKind,
    source: BoxError,
}

/// What kind of trouble it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The file is something else. It is left as it is.
    Foreign,
    /// A newer version of this crate wrote the file. It is left as it is.
    Newer,
    /// The file is damaged. It is left as it is.
    Damaged,
    /// The file, its folder or the disk cannot be written.
    ReadOnly,
    /// The file cannot be opened or made: its folder is missing or closed to this process.
    Unreachable,
    /// There is no room left on the disk.
    Full,
    /// Others wrote to the file for longer than it waits.
    Busy,
    /// The disk failed.
    Io,
    /// Anything else.
    Other,
}

/// Why something could not be done, before it is known to which file.
#[derive(Debug)]
pub(crate) enum Trouble {
    Sqlite(rusqlite::Error),
    Json(serde_json::Error),
    Foreign(&'static str),
    Damaged(String),
    Newer {
        found: i64,
        known: i64,
    },
    /// No write-ahead log could be had; the journal is of this mode instead.
    Journal(String),
}

// ===== impl StoreError =====

impl StoreError {
    pub(crate) fn new(path: &Path, trouble: impl Into<Trouble>) -> Self {
        let trouble = trouble.into();
        let kind = trouble.kind();
        Self { path: path.to_owned(), kind, source: trouble.into_source() }
    }

    /// What kind of trouble it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.kind.advice())
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.source)
    }
}

// ===== impl ErrorKind =====

impl ErrorKind {
    fn advice(self) -> &'static str {
        match self {
            Self::Foreign => {
                "not a file of traces; it is left as it is: name another, or move it away"
            }
            Self::Newer => {
                "written by a newer version; it is left as it is: update this program, or name \
                 another file"
            }
            Self::Damaged => {
                "the file is damaged; move it away together with its -wal and -shm to begin a new \
                 one; `sqlite3 FILE .recover` may save what was in it"
            }
            Self::ReadOnly => {
                "cannot be written; make the file and its folder writable for this process, which \
                 keeps a -wal and a -shm beside it"
            }
            Self::Unreachable => {
                "cannot be opened; see that its folder is there and writable for this process"
            }
            Self::Full => "no room left on the disk; make some, or keep less: see `max_bytes`",
            Self::Busy => {
                "another process writes to it, for longer than `busy_timeout`; see what holds it, \
                 an open transaction in a shell perhaps"
            }
            Self::Io => "the disk failed to read or write it; see the system's log",
            Self::Other => "the file could not be used",
        }
    }

    fn of(error: &rusqlite::Error) -> Self {
        use rusqlite::ErrorCode;

        let rusqlite::Error::SqliteFailure(error, _) = error else { return Self::Other };
        match (error.code, error.extended_code) {
            (ErrorCode::NotADatabase, _) => Self::Foreign,
            (ErrorCode::DatabaseCorrupt, _) => Self::Damaged,
            // A file that ends too early.
            (_, ffi::SQLITE_IOERR_SHORT_READ) => Self::Damaged,
            (ErrorCode::ReadOnly | ErrorCode::PermissionDenied, _) => Self::ReadOnly,
            (ErrorCode::CannotOpen, _) => Self::Unreachable,
            (ErrorCode::DiskFull, _) => Self::Full,
            (ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked, _) => Self::Busy,
            (ErrorCode::SystemIoFailure, _) => Self::Io,
            _ => Self::Other,
        }
    }
}

// ===== impl Trouble =====

impl Trouble {
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Sqlite(error) => ErrorKind::of(error),
            Self::Json(_) => ErrorKind::Other,
            Self::Foreign(_) => ErrorKind::Foreign,
            Self::Damaged(_) => ErrorKind::Damaged,
            Self::Newer { .. } => ErrorKind::Newer,
            Self::Journal(_) => ErrorKind::ReadOnly,
        }
    }

    fn into_source(self) -> BoxError {
        match self {
            Self::Sqlite(error) => error.into(),
            Self::Json(error) => error.into(),
            Self::Foreign(why) => why.into(),
            Self::Damaged(why) => why.into(),
            Self::Newer { found, known } => {
                format!("its form is of version {found}, this program knows up to {known}").into()
            }
            Self::Journal(mode) => {
                format!("a write-ahead log cannot be kept here, the journal is `{mode}`").into()
            }
        }
    }
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<serde_json::Error> for Trouble {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(error)
    }
}

// ===== impl OpenError =====

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl Error for OpenError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Invalid(error) => error.source(),
            Self::Store(error) => error.source(),
        }
    }
}

impl From<Invalid> for OpenError {
    fn from(error: Invalid) -> Self {
        Self::Invalid(error)
    }
}

impl From<StoreError> for OpenError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}
