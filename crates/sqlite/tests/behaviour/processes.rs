//! Several threads and processes at one file, and processes that are killed.
//!
//! A test that needs another process starts this binary again, for itself alone; a variable tells it
//! what to do then.

use std::{
    collections::BTreeSet,
    env,
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use portcullis_core::{TraceId, clock};
use portcullis_sqlite::{SqliteBuilder, SqliteStore};
use portcullis_testkit::Seed;
use portcullis_trace::{Query, Recorder, TraceScope, TraceStore};

use crate::{
    fakes::{DAY, Folder, aged},
    shell::tables,
};

const FILE: &str = "PORTCULLIS_SQLITE_FILE";
const FIRST: &str = "PORTCULLIS_SQLITE_FIRST";
/// Begins a line that says up to which number traces are stored.
const STORED: &str = "stored ";
const PATIENT: Duration = Duration::from_secs(60);

/// This binary once more, for one test.
fn start(test: &str, folder: &Folder, first: u64) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", &format!("processes::{test}"), "--nocapture", "--test-threads=1"])
        .env(FILE, folder.path())
        .env(FIRST, first.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The file, for a process that was started by a test; and the number of its first trace.
fn started() -> Option<(PathBuf, u64)> {
    let first = env::var(FIRST).ok()?.parse().unwrap();
    Some((env::var_os(FILE)?.into(), first))
}

/// Says that all up to this number are stored.
fn say(upto: u64) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{STORED}{upto}").unwrap();
    out.flush().unwrap();
}

fn said(line: &str) -> Option<u64> {
    line.strip_prefix(STORED)?.parse().ok()
}

fn patient(path: PathBuf) -> SqliteBuilder {
    SqliteStore::builder(path).busy_timeout(PATIENT)
}

/// Traces with numbers for names, through a recorder, as long as it is let; others that come and go
/// with their days meanwhile.
fn write_until_killed(path: PathBuf, first: u64) {
    let store = patient(path).build().unwrap();
    let comes_and_goes = store.clone();
    thread::spawn(move || {
        loop {
            comes_and_goes.put(&aged((2..6).map(|day| day * 86_400))).unwrap();
            comes_and_goes.delete_older_than(clock::wall() - DAY).unwrap();
        }
    });
    let recorder = Recorder::builder().sample_rate(1.0).store(store).build().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        for round in 0.. {
            let numbers = first + round * 20..first + (round + 1) * 20;
            for number in numbers.clone() {
                let scope = TraceScope::start(format!("n {number}"));
                scope
                    .attribute("ballast", "x".repeat(3000))
                    .recorder(&recorder)
                    .run(async {})
                    .await;
            }
            recorder.flush().await;
            assert_eq!(recorder.counts().lost, 0);
            say(numbers.end);
        }
    });
}

#[test]
fn a_kill_at_any_moment_costs_nothing_that_was_stored() {
    if let Some((path, first)) = started() {
        return write_until_killed(path, first);
    }
    let folder = Folder::new();
    let mut seed = Seed::new(23);
    let mut stored: Vec<(u64, u64)> = Vec::new();
    for kill in 0..12_u64 {
        let first = kill << 32;
        let mut child = start("a_kill_at_any_moment_costs_nothing_that_was_stored", &folder, first);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let rounds = seed.within(0..12);
        let mut upto = first;
        for line in lines.by_ref() {
            upto = said(&line.unwrap()).unwrap_or(upto);
            if upto >= first + 20 * rounds {
                break;
            }
        }
        // Some moment within the next round.
        for _ in 0..seed.within(0..3000) {
            thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it said before, unheard.
        for line in lines.map_while(Result::ok) {
            upto = said(&line).unwrap_or(upto);
        }
        stored.push((first, upto));

        let store = patient(folder.path()).build().unwrap();
        store.check().unwrap();
        let mut names = BTreeSet::new();
        let mut query = Query::new().limit(1000);
        loop {
            let page = store.query(&query).unwrap();
            names.extend(page.traces.iter().map(|trace| trace.name.clone()));
            if page.next.is_none() {
                break;
            }
            query = query.after(page.next);
        }
        assert_eq!(store.unreadable(), 0, "no half trace");
        for &(first, upto) in &stored {
            for number in first..upto {
                assert!(names.contains(&format!("n {number}")), "{number} was stored");
            }
        }
        let rows: i64 = tables(&folder)
            .iter()
            .map(|day| -> i64 {
                let sql = format!("SELECT count(*) FROM {day}");
                crate::shell::shell(&folder).query_row(&sql, [], |row| row.get(0)).unwrap()
            })
            .sum();
        assert_eq!(store.counts().unwrap().traces as i64, rows, "the counts are those of the rows");
    }
    assert!(stored.iter().map(|(first, upto)| upto - first).sum::<u64>() > 200, "{stored:?}");
}

#[test]
fn processes_share_a_file_while_days_begin_and_end() {
    const EACH: u64 = 300;

    /// Traces of five days, in small batches; those of four days ago are forgotten on and on.
    fn write(store: &SqliteStore, first: u64) {
        for number in first..first + EACH {
            let mut traces = aged([number % 3 * 86_400, 4 * 86_400 + number % 2 * 86_400]);
            for (n, trace) in (0..).zip(&mut traces) {
                let id = TraceId::new(u128::from(number + 1) << 8 | n);
                Arc::make_mut(trace).id = id.unwrap();
            }
            store.put(&traces).unwrap();
            if number % 3 == 0 {
                store.delete_older_than(clock::wall() - 4 * DAY + DAY / 24).unwrap();
                store.expire(clock::wall()).unwrap();
            }
        }
    }

    if let Some((path, first)) = started() {
        let store = patient(path).build().unwrap();
        write(&store, first);
        return say(first + EACH);
    }
    let folder = Folder::new();
    let test = "processes_share_a_file_while_days_begin_and_end";
    let children = [EACH, 2 * EACH].map(|first| (first, start(test, &folder, first)));
    let store = patient(folder.path()).build().unwrap();
    write(&store, 0);
    for (first, child) in children {
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}");
        assert!(text.lines().filter_map(said).eq([first + EACH]), "{text}");
    }
    store.check().unwrap();
    store.delete_older_than(clock::wall() - 4 * DAY + DAY / 24).unwrap();
    assert_eq!(store.counts().unwrap().traces, 3 * EACH);
    for number in 0..3 * EACH {
        let id = TraceId::new(u128::from(number + 1) << 8).unwrap();
        assert_eq!(store.get(id).unwrap().len(), 1, "{number}");
    }
}

#[test]
fn a_file_is_begun_once_however_many_open_it() {
    for _ in 0..10 {
        let folder = Folder::new();
        thread::scope(|threads| {
            for n in 0..8 {
                let path = folder.path();
                threads.spawn(move || {
                    let store = patient(path).build().unwrap();
                    let mut trace = aged([n]).remove(0);
                    Arc::make_mut(&mut trace).id = TraceId::new(u128::from(n) + 1).unwrap();
                    store.put(&[trace]).unwrap();
                });
            }
        });
        assert_eq!(folder.store().counts().unwrap().traces, 8);
    }
}

#[test]
fn many_threads_read_while_one_writes() {
    let folder = Folder::new();
    let store = folder.store();
    let traces = aged((0..400).map(|n| n * 1000));
    thread::scope(|threads| {
        let readers: Vec<_> = (0..6)
            .map(|_| {
                threads.spawn(|| {
                    let mut seen = 0;
                    while seen < traces.len() {
                        let page = store.query(&Query::new().limit(1000)).unwrap();
                        assert!(page.traces.len() >= seen, "nothing vanishes");
                        assert_eq!(page.traces.len() % 20, 0, "a batch is there or not");
                        seen = page.traces.len();
                        for trace in page.traces.iter().take(5) {
                            assert_eq!(store.get(trace.id).unwrap(), std::slice::from_ref(trace));
                        }
                    }
                })
            })
            .collect();
        for batch in traces.chunks(20) {
            store.put(batch).unwrap();
        }
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

#[tokio::test]
async fn shutdown_leaves_nothing_behind_that_was_handed_over() {
    let folder = Folder::new();
    let recorder = Recorder::builder().sample_rate(1.0).store(folder.store()).build().unwrap();
    for n in 0..500 {
        TraceScope::start(format!("n {n}")).recorder(&recorder).run(async {}).await;
    }
    recorder.shutdown().await;
    assert_eq!(recorder.counts().stored, 500);
    assert_eq!(folder.store().counts().unwrap().traces, 500);
}
