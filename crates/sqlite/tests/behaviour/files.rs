//! Files that are not as they should be.

use std::{fs, path::Path};

use portcullis_core::{BoxError, clock};
use portcullis_sqlite::{ErrorKind, OpenError, SqliteStore, StoreError};
use portcullis_testkit::Seed;
use portcullis_trace::{Query, TraceStore};
use rusqlite::Connection;

use crate::{
    fakes::{Folder, aged},
    shell::{shell, tables},
};

fn refused(path: &Path) -> StoreError {
    match SqliteStore::builder(path).build() {
        Err(OpenError::Store(error)) => {
            assert!(error.to_string().starts_with(&path.display().to_string()), "{error}");
            assert!(
                std::error::Error::source(&error).is_some_and(|why| !why.to_string().is_empty())
            );
            error
        }
        other => panic!("{}: {other:?}", path.display()),
    }
}

fn kind<T: std::fmt::Debug>(done: Result<T, BoxError>) -> ErrorKind {
    let error = done.unwrap_err();
    error.downcast_ref::<StoreError>().expect("a store's error").kind()
}

#[test]
fn a_file_that_is_opened_again_has_all_that_was_stored() {
    let folder = Folder::new();
    let traces = aged((0..50).map(|n| n * 10_000));
    folder.store().put(&traces).unwrap();
    let store = folder.store();
    assert_eq!(store.query(&Query::new()).unwrap().traces, traces);
    assert_eq!(store.counts().unwrap().traces, 50);
    assert_eq!(store.path(), folder.path());
    let beside = fs::read_dir(folder.path().parent().unwrap()).unwrap().count();
    drop(store);
    assert_eq!(beside, 3, "the file, its log and its index");
    let beside = fs::read_dir(folder.path().parent().unwrap()).unwrap().count();
    assert_eq!(beside, 1, "one file is left once it is closed");
}

#[test]
fn a_file_of_something_else_is_refused_and_left_as_it_is() {
    let folder = Folder::new();
    let path = folder.path();
    for content in [&b"xy"[..], b"to be, or not to be", &[0xff; 5000], &[b'{'; 100]] {
        fs::write(&path, content).unwrap();
        assert_eq!(refused(&path).kind(), ErrorKind::Foreign);
        assert_eq!(fs::read(&path).unwrap(), content);
    }
    for sql in [
        "CREATE TABLE mine (x)",
        "CREATE TABLE days (day, name, traces)",
        "PRAGMA application_id = 42",
        "PRAGMA user_version = 1",
        "PRAGMA journal_mode = WAL; CREATE TABLE mine (x)",
        // Our mark, and nothing that was ever ours.
        "PRAGMA application_id = 1346598002; CREATE TABLE mine (x)",
    ] {
        fs::remove_file(&path).unwrap();
        Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        let before = fs::read(&path).unwrap();
        let error = refused(&path);
        assert_eq!(error.kind(), ErrorKind::Foreign, "{sql}");
        assert!(error.to_string().contains("left as it is"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), before, "{sql}");
    }
}

#[test]
fn an_empty_file_is_begun() {
    let folder = Folder::new();
    fs::write(folder.path(), b"").unwrap();
    folder.store().put(&aged([1])).unwrap();
    assert_eq!(folder.store().counts().unwrap().traces, 1);
}

#[test]
fn a_newer_file_is_refused_and_left_as_it_is() {
    let folder = Folder::new();
    let store = folder.store();
    store.put(&aged([1])).unwrap();
    shell(&folder).pragma_update(None, "user_version", 99).unwrap();

    // By one that has it open too: another process may have brought it to a newer form.
    assert_eq!(kind(store.put(&aged([2]))), ErrorKind::Newer);
    assert_eq!(kind(store.query(&Query::new())), ErrorKind::Newer);
    assert_eq!(kind(store.expire(clock::wall())), ErrorKind::Newer);
    drop(store);
    let before = fs::read(folder.path()).unwrap();
    let error = refused(&folder.path());
    assert_eq!(error.kind(), ErrorKind::Newer);
    let why = std::error::Error::source(&error).unwrap().to_string();
    assert!(why.contains("version 99"), "{why}");
    assert_eq!(fs::read(folder.path()).unwrap(), before);
}

#[test]
fn a_file_cut_short_is_refused_and_left_as_it_is() {
    let folder = Folder::new();
    folder.store().put(&aged(0..100)).unwrap();
    let whole = fs::read(folder.path()).unwrap();
    for share in [1, 10, 50, 90] {
        let cut = &whole[..whole.len() * share / 100];
        fs::write(folder.path(), cut).unwrap();
        let error = refused(&folder.path());
        assert!(matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Foreign), "{error:?}");
        assert_eq!(fs::read(folder.path()).unwrap(), cut);
    }
}

#[test]
fn a_damaged_file_gives_errors_and_no_panics_and_never_a_wrong_trace() {
    let folder = Folder::new();
    let traces = aged((0..60).map(|n| n * 3000));
    folder.store().put(&traces).unwrap();
    let whole = fs::read(folder.path()).unwrap();
    let mut seed = Seed::new(11);
    let (mut noticed, mut unreadable) = (0, 0);
    for _ in 0..60 {
        let mut bytes = whole.clone();
        for _ in 0..8 {
            let at = seed.within(0..bytes.len() as u64) as usize;
            bytes[at] ^= 1 << seed.within(0..8);
        }
        fs::write(folder.path(), &bytes).unwrap();
        let _ = fs::remove_file(folder.path().with_extension("db-wal"));
        let store = match folder.builder().build() {
            Ok(store) => store,
            Err(OpenError::Store(error)) => {
                noticed += 1;
                assert_eq!(fs::read(folder.path()).unwrap(), bytes, "left as it is: {error:?}");
                continue;
            }
            Err(other) => panic!("{other:?}"),
        };
        let mut sound = store.check().is_ok();
        sound &= store.query(&Query::new().limit(1000)).is_ok();
        for trace in &traces {
            sound &= store.get(trace.id).is_ok();
        }
        sound &= store.put(&aged([1])).is_ok();
        sound &= store.expire(clock::wall()).is_ok();
        sound &= store.delete_older_than(clock::wall()).is_ok();
        noticed += usize::from(!sound);
        unreadable += store.unreadable();
    }
    assert!(noticed > 10, "{noticed}");
    assert!(unreadable > 0);
}

#[test]
fn a_record_that_cannot_be_read_is_left_out_and_counted() {
    let folder = Folder::new();
    let store = folder.store();
    let traces = aged([1, 2, 3]);
    store.put(&traces).unwrap();
    let day = &tables(&folder)[tables(&folder).len() - 1];
    let spoil = format!("UPDATE {day} SET record = substr(record, 1, 100) WHERE id = ?1");
    assert_eq!(shell(&folder).execute(&spoil, [traces[0].id.to_string()]).unwrap(), 1);
    assert_eq!(store.query(&Query::new()).unwrap().traces, traces[1..]);
    assert!(store.get(traces[0].id).unwrap().is_empty());
    assert_eq!(store.unreadable(), 2);
}

#[test]
fn where_nothing_can_be_made_the_error_says_where_and_what_to_do() {
    let folder = Folder::new();
    let missing = folder.path().parent().unwrap().join("missing/traces.db");
    let error = refused(&missing);
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert!(error.to_string().contains("folder"), "{error}");

    let is_folder = folder.path();
    fs::create_dir(&is_folder).unwrap();
    assert_eq!(refused(&is_folder).kind(), ErrorKind::Unreachable);

    // Nobody, not even root, makes files here.
    #[cfg(target_os = "linux")]
    assert_eq!(refused(Path::new("/sys/traces.db")).kind(), ErrorKind::Unreachable);
}

#[test]
fn reading_waits_for_no_writer_and_a_writer_says_whom_it_waited_for() {
    let folder = Folder::new();
    let store =
        folder.builder().busy_timeout(std::time::Duration::from_millis(20)).build().unwrap();
    let traces = aged([1]);
    store.put(&traces).unwrap();
    let mut other = shell(&folder);
    let tx = other.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).unwrap();
    tx.execute_batch("CREATE TABLE held (x)").unwrap();
    assert_eq!(kind(store.put(&aged([2]))), ErrorKind::Busy);
    assert_eq!(store.query(&Query::new()).unwrap().traces, traces);
    assert_eq!(store.get(traces[0].id).unwrap(), traces);
    assert_eq!(store.counts().unwrap().traces, 1);
    drop(tx);
    store.put(&aged([3, 4])).unwrap();
}
