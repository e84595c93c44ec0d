//! A disk that is really full: a file system of two megabytes, in a namespace of the test's own.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use portcullis_sqlite::{ErrorKind, SqliteStore, StoreError};
use portcullis_trace::{Query, Recorder, TraceScope, TraceStore};

use crate::fakes::{Folder, aged};

const DISK: &str = "PORTCULLIS_SQLITE_DISK";
const TEST: &str = "disk::a_disk_that_fills_up_costs_what_finds_no_room_until_there_is_some";

/// Runs the test again with a small disk at this folder; `None` where one may not be made.
fn with_a_small_disk(at: &Path) -> Option<bool> {
    let mounted =
        "mount -t tmpfs -o size=2m none \"$1\" || exit 64; exec \"$2\" --exact \"$3\" --nocapture";
    let status = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", mounted, "sh"])
        .arg(at)
        .arg(env::current_exe().unwrap())
        .arg(TEST)
        .env(DISK, at)
        .status();
    // 1: no namespace, 64: no file system; of the test itself a failure is 101.
    let code = status.ok()?.code();
    (!matches!(code, Some(1 | 64))).then_some(code == Some(0))
}

#[test]
fn a_disk_that_fills_up_costs_what_finds_no_room_until_there_is_some() {
    if let Some(disk) = env::var_os(DISK) {
        return fill(&PathBuf::from(disk));
    }
    let folder = Folder::new();
    match with_a_small_disk(folder.path().parent().unwrap()) {
        Some(passed) => assert!(passed, "see above"),
        None => eprintln!("SKIPPED: a file system of one's own may not be mounted here"),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn fill(disk: &Path) {
    let ballast = disk.join("ballast");
    fs::write(&ballast, vec![1; 1 << 20]).unwrap();
    let store = SqliteStore::builder(disk.join("traces.db")).build().unwrap();
    let recorder = Recorder::builder().sample_rate(1.0).store(store.clone()).build().unwrap();
    let call = async |name: &str| {
        let scope = TraceScope::start(name).attribute("ballast", "x".repeat(500));
        scope.recorder(&recorder).run(async { 7 }).await
    };
    let mut calls = 0;
    while recorder.counts().lost == 0 {
        calls += 1;
        assert!(calls < 10_000, "two megabytes hold no such number");
        assert_eq!(call("filling").await, 7, "a call does not notice");
        recorder.flush().await;
    }
    let large = aged(0..200);
    let error = store.put(&large).unwrap_err();
    let error = error.downcast_ref::<StoreError>().unwrap();
    assert_eq!(error.kind(), ErrorKind::Full, "{error}");
    let counts = recorder.counts();
    assert_eq!(counts.stored + counts.lost, calls);
    assert_eq!(store.counts().unwrap().traces, counts.stored, "a batch is there or not");
    store.check().unwrap();

    fs::remove_file(ballast).unwrap();
    call("after").await;
    recorder.flush().await;
    assert_eq!(store.query(&Query::new().name("after")).unwrap().traces.len(), 1);
    store.check().unwrap();
    drop(store);
    let again = SqliteStore::builder(disk.join("traces.db")).build().unwrap();
    assert_eq!(again.counts().unwrap().traces, counts.stored + 1, "and the file is sound");
}
