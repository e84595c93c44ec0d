//! How much is kept, and how long.

use std::{fs, time::Duration};

use portcullis_core::clock;
use portcullis_sqlite::{OpenError, SqliteConfig, SqliteStore};
use portcullis_trace::{Query, TraceStore};

use crate::{
    fakes::{DAY, Folder, aged},
    shell::tables,
};

const SECONDS: u64 = 86_400;

#[test]
fn a_day_that_is_too_old_goes_with_its_tables() {
    let folder = Folder::new();
    let store = folder.store();
    let traces = aged((0..6).map(|day| day * SECONDS));
    store.put(&traces).unwrap();
    assert_eq!(tables(&folder).len(), 6);

    assert_eq!(store.expire(clock::wall()).unwrap(), 0);
    // The days of those that started five and four days ago are over for seven days.
    assert_eq!(store.expire(clock::wall() + 4 * DAY).unwrap(), 2);
    assert_eq!(tables(&folder).len(), 4);
    assert_eq!(store.query(&Query::new()).unwrap().traces, traces[..4]);
    assert!(store.get(traces[5].id).unwrap().is_empty());
    assert_eq!(store.counts().unwrap().evicted, 0);

    let short = SqliteStore::builder(folder.path()).retention(2 * DAY).build().unwrap();
    assert_eq!(short.query(&Query::new()).unwrap().traces, traces[..2], "not shown at once");
    assert_eq!(short.counts().unwrap().traces, 4, "gone by the day");
}

#[test]
fn beyond_its_size_the_oldest_days_go_and_are_counted() {
    let folder = Folder::new();
    let store = folder.builder().max_bytes(2 << 20).build().unwrap();
    let a_day = 300;
    for day in (0..6).rev() {
        for part in 0..10 {
            let ages = (0..a_day / 10).map(|n| day * SECONDS + 600 - part * 30 - n);
            let mut traces = aged(ages);
            for (n, trace) in traces.iter_mut().enumerate() {
                let trace = std::sync::Arc::make_mut(trace);
                let unique = u128::from(day + 1) << 64 | u128::from(part) << 32 | n as u128;
                trace.id = portcullis_core::TraceId::new(unique).unwrap();
            }
            store.put(&traces).unwrap();
            let counts = store.counts().unwrap();
            assert!(counts.bytes <= (2 << 20), "{counts:?}");
        }
    }
    let counts = store.counts().unwrap();
    assert!(counts.evicted >= a_day, "{counts:?}");
    assert_eq!(counts.traces + counts.evicted, 6 * a_day);
    let newest = &store.query(&Query::new()).unwrap().traces[0];
    assert!(clock::wall().duration_since(newest.started_at).unwrap() < 2 * DAY / 2);
    assert_eq!(tables(&folder).len() as u64, (counts.traces).div_ceil(a_day));
    store.check().unwrap();
}

#[test]
fn of_a_day_that_alone_is_too_large_the_oldest_traces_go() {
    let folder = Folder::new();
    let store = folder.builder().max_bytes(1 << 20).build().unwrap();
    let traces = aged((0..3000).map(|n| 2 + n / 100));
    for batch in traces.chunks(64).rev() {
        store.put(batch).unwrap();
    }
    let counts = store.counts().unwrap();
    assert!(counts.evicted > 1000 && counts.traces > 100, "{counts:?}");
    assert_eq!(counts.traces + counts.evicted, 3000);
    assert!(counts.bytes < 2 << 20, "{counts:?}");
    store.expire(clock::wall()).unwrap();
    assert!(store.counts().unwrap().bytes <= 1 << 20);
    let left = store.query(&Query::new().limit(50)).unwrap().traces;
    let mut newest = traces;
    newest.sort_by_key(|trace| std::cmp::Reverse((trace.started_at, trace.span)));
    assert_eq!(left, newest[..50]);
    assert_eq!(
        store.query(&Query::new().limit(1000)).unwrap().traces.len() as u64,
        store.counts().unwrap().traces.min(1000)
    );
    store.check().unwrap();
}

#[test]
fn a_smaller_bound_holds_for_what_is_there_already_and_counts_stay_with_the_file() {
    let folder = Folder::new();
    let store = folder.store();
    for batch in aged((0..2000).map(|n| n % 4 * SECONDS)).chunks(100) {
        store.put(batch).unwrap();
    }
    assert!(store.counts().unwrap().bytes > 3 << 20);
    drop(store);

    let store = folder.builder().max_bytes(1 << 20).build().unwrap();
    assert_eq!(store.counts().unwrap().evicted, 0);
    store.expire(clock::wall()).unwrap();
    let counts = store.counts().unwrap();
    assert!(counts.bytes <= 1 << 20 && counts.traces > 0, "{counts:?}");
    assert_eq!(counts.traces + counts.evicted, 2000);
    drop(store);
    assert_eq!(folder.store().counts().unwrap().evicted, counts.evicted);
}

#[test]
fn the_file_becomes_smaller_when_most_of_it_is_free() {
    let folder = Folder::new();
    let store = folder.store();
    for batch in aged([1].into_iter().chain((0..1000).map(|n| 2 * SECONDS + n))).chunks(100) {
        store.put(batch).unwrap();
    }
    assert_eq!(store.delete_older_than(clock::wall() - DAY).unwrap(), 1000);
    // On a slow machine it is not done at once.
    for _ in 0..50 {
        store.expire(clock::wall()).unwrap();
    }
    drop(store);
    let size = fs::metadata(folder.path()).unwrap().len();
    assert!(size < 200 << 10, "{size}");
    let store = folder.store();
    store.check().unwrap();
    assert_eq!(store.counts().unwrap().traces, 1);
}

#[test]
fn bad_settings_are_named() {
    let refused = |change: fn(&mut SqliteConfig)| {
        let folder = Folder::new();
        let mut config = SqliteConfig::new(folder.path());
        change(&mut config);
        match SqliteStore::builder("other").config(config).build() {
            Err(OpenError::Invalid(invalid)) => invalid.field(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refused(|c| c.path = "".into()), "path");
    assert_eq!(refused(|c| c.path = "..".into()), "path");
    assert_eq!(refused(|c| c.path = "a\0b".into()), "path");
    assert_eq!(refused(|c| c.retention = Duration::from_millis(999)), "retention");
    assert_eq!(refused(|c| c.max_bytes = Some((1 << 20) - 1)), "max_bytes");
    assert_eq!(refused(|c| c.busy_timeout = Duration::from_secs(61)), "busy_timeout");
    let folder = Folder::new();
    let far = folder.builder().retention(Duration::MAX).max_bytes(None).build().unwrap();
    far.put(&aged([0, 8 * SECONDS, 3000 * SECONDS])).unwrap();
    assert_eq!(far.query(&Query::new()).unwrap().traces.len(), 3, "for ever");
    assert_eq!(far.expire(clock::wall()).unwrap(), 0);
}

#[cfg(feature = "serde")]
#[test]
fn settings_read_from_files() {
    let config: SqliteConfig = serde_json::from_str(
        r#"{"path": "/x/t.db", "retention": "30d", "max_bytes": "off", "synchronous": "full"}"#,
    )
    .unwrap();
    assert_eq!((config.retention, config.max_bytes), (30 * DAY, None));
    assert_eq!(config.synchronous, portcullis_sqlite::Synchronous::Full);
    let text = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<SqliteConfig>(&text).unwrap(), config);
    assert_eq!(serde_json::from_str::<SqliteConfig>("{}").unwrap(), SqliteConfig::default());
    assert!(serde_json::from_str::<SqliteConfig>(r#"{"retain": "1d"}"#).is_err());
}
