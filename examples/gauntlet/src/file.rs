//! The file that the traces are kept in, and how to ask it.

use std::{
    io,
    path::{Path, PathBuf},
};

use portcullis::sqlite::SqliteStore;
use portcullis_core::BoxError;
use serde::Serialize;

/// What the traces of the longest run fit in; the file takes what it needs.
const MOST_BYTES: u64 = 1 << 30;

/// What most people ask first.
const QUESTION: &str = "its slowest calls";
const QUERY: &str = "\
SELECT date, operation, round(ms) AS ms, status, attempts, error FROM spans
    WHERE kind = 'call' ORDER BY spans.ms DESC LIMIT 5";

/// Where the traces are, for a person. It serializes as what `--json` prints.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct TraceFile {
    pub(crate) path: PathBuf,
    /// What `command` answers.
    pub(crate) question: &'static str,
    /// A line for a shell.
    pub(crate) command: String,
}

/// Opens the file at `path`, or a new one in a folder of its own among the temporary ones, where it
/// stays after the run.
///
/// # Errors
///
/// When there can be no folder, or the file cannot be one of traces.
pub(crate) fn open(path: Option<&Path>) -> Result<SqliteStore, BoxError> {
    let path = path.map_or_else(new_path, |path| Ok(path.to_owned()))?;
    Ok(SqliteStore::builder(path).max_bytes(MOST_BYTES).build()?)
}

fn new_path() -> io::Result<PathBuf> {
    let folder = tempfile::Builder::new().prefix("portcullis-gauntlet-").tempdir()?;
    Ok(folder.keep().join("traces.db"))
}

// ===== impl TraceFile =====

impl TraceFile {
    /// The file of this store.
    pub(crate) fn of(store: &SqliteStore) -> Self {
        let path = store.path().to_owned();
        let quoted = quoted(&path.display().to_string());
        let command = format!("sqlite3 -readonly -box {quoted} \\\n  \"{QUERY}\"");
        Self { path, question: QUESTION, command }
    }
}

/// One word for a shell, whatever is in it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_to_a_shell() {
        assert_eq!(quoted("/tmp/a-1/traces.db"), "/tmp/a-1/traces.db");
        assert_eq!(quoted("/tmp/it's here"), r"'/tmp/it'\''s here'");
        assert_eq!(quoted("$HOME"), "'$HOME'");
    }

    #[test]
    fn a_file_that_nobody_named_is_new_and_stays() {
        let (one, other) = (open(None).unwrap(), open(None).unwrap());
        assert_ne!(one.path(), other.path());
        for store in [one, other] {
            let path = store.path().to_owned();
            drop(store);
            assert!(path.is_file(), "{}", path.display());
            // Here nobody wants it any more.
            std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
        }
    }

    #[test]
    fn a_file_of_something_else_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.txt");
        std::fs::write(&path, "not a database, however long it is read").unwrap();
        let refused = open(Some(&path)).unwrap_err().to_string();
        assert!(refused.contains("notes.txt"), "{refused}");
        assert_eq!(std::fs::read(&path).unwrap(), b"not a database, however long it is read");
    }
}
