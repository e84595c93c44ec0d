//! The writer's thread: makes texts of notes, and puts traces into the store.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use portcullis_core::{BoxError, clock, sync::atomic::Ordering};

use crate::{hub::Hub, record::Trace, render, room::Load};

/// Traces stored at once, and the bytes of them at which a batch is large enough.
pub(crate) const BATCH: Load = Load { traces: 64, bytes: 4 << 20 };
/// How often the store is asked to forget what is old.
const EXPIRY: Duration = Duration::from_secs(3600);
/// How old the pair of clock readings may be that dates are reckoned from.
const ANCHOR: Duration = Duration::from_secs(60);

/// One moment by both clocks. Dates are reckoned from it, so that no call reads the wall clock; it is
/// taken anew from time to time, because the wall clock may be set and a machine may sleep.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Anchor {
    at: Instant,
    date: SystemTime,
    /// By the thread's own clock, which is not paused in tests.
    taken: Option<Instant>,
}

/// Runs until the hub is stopped and nothing waits or will.
pub(crate) fn run(hub: &Hub, mut anchor: Anchor) {
    let mut next_expiry = clock::now();
    loop {
        // Before the queue is emptied: whatever they wait for is in it by now.
        let flushes = hub.take_flushes();
        anchor.refresh();
        // No more than waits by now: while calls keep coming there would be no end to it, and whoever
        // flushes, and what is to expire, would wait for ever.
        let mut backlog = hub.backlog();
        while store_batch(hub, &anchor, &mut backlog) {}
        let now = clock::now();
        if now >= next_expiry {
            let date = clock::wall();
            guarded(hub, || hub.store.expire(date).map(drop));
            next_expiry = clock::after(now, EXPIRY);
        }
        for told in flushes {
            // Whoever waited may have given up.
            let _ = told.send(());
        }
        if hub.is_over() {
            hub.end();
            return;
        }
        hub.sleep(next_expiry.saturating_duration_since(now).max(Duration::from_millis(1)));
        hub.gather();
    }
}

/// Stores what waits, up to a batch; `false` if nothing did.
fn store_batch(hub: &Hub, anchor: &Anchor, backlog: &mut [usize; 2]) -> bool {
    let mut batch: Vec<Arc<Trace>> = Vec::new();
    let mut bytes = 0;
    while (batch.len() as u64) < BATCH.traces
        && bytes < BATCH.bytes
        && let Some(finished) = hub.next(backlog)
    {
        bytes += finished.bytes;
        let date = anchor.date_of(finished.root.head.started);
        // A record that cannot be made into text is lost, and no other for it.
        let rendered = || render::trace(&finished, date, &hub.config, &hub.sampler);
        match catch_unwind(AssertUnwindSafe(rendered)) {
            Ok(trace) => batch.push(Arc::new(trace)),
            Err(_) => _ = hub.tally.lost.fetch_add(1, Ordering::Relaxed),
        }
        hub.recycle(finished.root);
    }
    if batch.is_empty() {
        return bytes > 0;
    }
    let count =
        if guarded(hub, || hub.store.put(&batch)) { &hub.tally.stored } else { &hub.tally.lost };
    count.fetch_add(batch.len() as u64, Ordering::Relaxed);
    true
}

/// Whether the store did what it was asked for. One that panics has failed, and is asked again for
/// the next batch.
fn guarded(hub: &Hub, ask: impl FnOnce() -> Result<(), BoxError>) -> bool {
    let done = matches!(catch_unwind(AssertUnwindSafe(ask)), Ok(Ok(())));
    if !done {
        hub.tally.store_errors.fetch_add(1, Ordering::Relaxed);
    }
    done
}

// ===== impl Anchor =====

impl Anchor {
    pub(crate) fn new(at: Instant, date: SystemTime) -> Self {
        Self { at, date, taken: None }
    }

    fn refresh(&mut self) {
        let now = clock::now();
        match self.taken {
            // That the first was taken elsewhere is what a paused clock needs.
            None => self.taken = Some(now),
            Some(taken) if now.saturating_duration_since(taken) >= ANCHOR => {
                *self = Self { at: now, date: clock::wall(), taken: Some(now) };
            }
            Some(_) => {}
        }
    }

    fn date_of(&self, at: Instant) -> SystemTime {
        let date = match at.checked_duration_since(self.at) {
            Some(since) => self.date.checked_add(since),
            None => self.date.checked_sub(self.at.saturating_duration_since(at)),
        };
        date.unwrap_or(self.date)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_follow_the_monotonic_clock_from_the_anchor_and_a_new_anchor_follows_the_wall() {
        let (at, date) = (clock::now(), SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000));
        let anchor = Anchor::new(at, date);
        let minute = Duration::from_secs(60);
        assert_eq!(anchor.date_of(at + minute), date + minute);
        assert_eq!(anchor.date_of(at - minute), date - minute);

        // The wall clock was set an hour ahead: what comes later is dated by it, what a trace lasted
        // is not.
        let set = Anchor::new(at + minute, date + minute * 61);
        assert_eq!(set.date_of(at + minute * 2), date + minute * 62);
    }
}
