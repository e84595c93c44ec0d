//! Traces in memory.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    ops::Bound,
    sync::Arc,
    time::{Duration, SystemTime},
};

use portcullis_core::{BoxError, TraceId, clock, sync::Mutex};

use crate::{
    record::Trace,
    store::{Cursor, Page, Query, StoreCounts, TraceStore},
};

/// Keeps traces in memory: for tests and small tools. Bounded by bytes, the oldest go first; what is
/// older than the retention is not shown any more and soon gone.
///
/// # Clone
///
/// Clones are the same store.
///
/// ```
/// use portcullis_trace::{MemoryStore, Recorder};
/// use std::time::Duration;
///
/// let store = MemoryStore::new()
///     .with_max_bytes(8 << 20)
///     .with_retention(Duration::from_secs(24 * 3600));
/// let recorder = Recorder::builder().store(store.clone()).build()?;
/// # let _ = recorder;
/// # Ok::<_, portcullis_core::Invalid>(())
/// ```
#[derive(Clone)]
pub struct MemoryStore {
    max_bytes: usize,
    retention: Duration,
    contents: Arc<Mutex<Contents>>,
}

#[derive(Default)]
struct Contents {
    /// By [`Cursor`], which is the order they are shown in, from the end.
    traces: BTreeMap<Cursor, Entry>,
    by_id: HashMap<TraceId, Vec<Cursor>>,
    bytes: usize,
    evicted: u64,
}

struct Entry {
    trace: Arc<Trace>,
    bytes: usize,
}

/// What an entry takes beside its trace, about.
const ENTRY: usize = 128;

// ===== impl MemoryStore =====

impl MemoryStore {
    /// What it holds unless set: 64 MiB.
    pub const MAX_BYTES: usize = 64 << 20;
    /// How long it holds it unless set: 7 days.
    pub const RETENTION: Duration = Duration::from_secs(7 * 86_400);

    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self { max_bytes: Self::MAX_BYTES, retention: Self::RETENTION, contents: Arc::default() }
    }

    /// The same store, holding at most about so many bytes. A trace that is larger by itself is not
    /// kept, and counted as evicted.
    #[must_use]
    pub fn with_max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// The same store, forgetting traces that started longer ago.
    #[must_use]
    pub fn with_retention(mut self, retention: Duration) -> Self {
        self.retention = retention;
        self
    }

    /// The place before which everything is too old.
    fn horizon(&self, now: SystemTime) -> Cursor {
        Cursor::before(now.checked_sub(self.retention).unwrap_or(SystemTime::UNIX_EPOCH))
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl TraceStore for MemoryStore {
    fn put(&self, batch: &[Arc<Trace>]) -> Result<(), BoxError> {
        let horizon = self.horizon(clock::wall());
        let mut contents = self.contents.lock();
        for trace in batch {
            contents.insert(trace.clone());
            while contents.bytes > self.max_bytes && contents.forget_oldest() {
                contents.evicted += 1;
            }
        }
        contents.forget_before(horizon);
        Ok(())
    }

    fn get(&self, id: TraceId) -> Result<Vec<Arc<Trace>>, BoxError> {
        let horizon = self.horizon(clock::wall());
        let contents = self.contents.lock();
        let mut places = contents.by_id.get(&id).cloned().unwrap_or_default();
        places.sort_unstable();
        let found = places.iter().filter(|place| **place >= horizon);
        Ok(found.filter_map(|place| Some(contents.traces.get(place)?.trace.clone())).collect())
    }

    fn query(&self, query: &Query) -> Result<Page, BoxError> {
        let horizon = self.horizon(clock::wall());
        let oldest = query.since.map_or(horizon, |since| Cursor::before(since).max(horizon));
        let newest = [query.cursor, query.until.map(Cursor::before)].into_iter().flatten().min();
        let newest = newest.map_or(Bound::Unbounded, Bound::Excluded);
        if let Bound::Excluded(newest) = newest
            && newest <= oldest
        {
            return Ok(Page::default());
        }

        let contents = self.contents.lock();
        let range = contents.traces.range((Bound::Included(oldest), newest)).rev();
        let mut matching =
            range.map(|(_, entry)| &entry.trace).filter(|trace| query.matches(trace));
        let traces: Vec<_> = matching.by_ref().take(query.page_size()).cloned().collect();
        let next = match (traces.last(), matching.next()) {
            (Some(last), Some(_)) => Some(Cursor::after(last)),
            _ => None,
        };
        Ok(Page { traces, next })
    }

    fn delete_older_than(&self, date: SystemTime) -> Result<u64, BoxError> {
        Ok(self.contents.lock().forget_before(Cursor::before(date)))
    }

    fn expire(&self, now: SystemTime) -> Result<u64, BoxError> {
        Ok(self.contents.lock().forget_before(self.horizon(now)))
    }

    fn counts(&self) -> Result<StoreCounts, BoxError> {
        let contents = self.contents.lock();
        Ok(StoreCounts {
            traces: contents.traces.len() as u64,
            bytes: contents.bytes as u64,
            evicted: contents.evicted,
        })
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let contents = self.contents.lock();
        f.debug_struct("MemoryStore")
            .field("traces", &contents.traces.len())
            .field("bytes", &contents.bytes)
            .field("max_bytes", &self.max_bytes)
            .field("retention", &self.retention)
            .finish()
    }
}

// ===== impl Contents =====

impl Contents {
    fn insert(&mut self, trace: Arc<Trace>) {
        let place = Cursor::after(&trace);
        let bytes = trace.size() + ENTRY;
        let id = trace.id;
        // Where it stands, and where it stood if it comes again with another start.
        self.forget(place);
        let known = self.by_id.get(&id).into_iter().flatten();
        if let Some(before) = known.copied().find(|known| known.span() == place.span()) {
            self.forget(before);
        }
        self.bytes += bytes;
        self.by_id.entry(id).or_default().push(place);
        self.traces.insert(place, Entry { trace, bytes });
    }

    fn forget(&mut self, place: Cursor) {
        let Some(entry) = self.traces.remove(&place) else { return };
        self.bytes -= entry.bytes;
        if let Some(places) = self.by_id.get_mut(&entry.trace.id) {
            places.retain(|other| *other != place);
            if places.is_empty() {
                self.by_id.remove(&entry.trace.id);
            }
        }
    }

    fn forget_oldest(&mut self) -> bool {
        let oldest = self.traces.keys().next().copied();
        oldest.map(|place| self.forget(place)).is_some()
    }

    fn forget_before(&mut self, horizon: Cursor) -> u64 {
        let mut forgotten = 0;
        while let Some(&oldest) = self.traces.keys().next()
            && oldest < horizon
        {
            self.forget(oldest);
            forgotten += 1;
        }
        forgotten
    }
}
