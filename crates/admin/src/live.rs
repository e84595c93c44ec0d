//! What is told to whoever listens to events.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::response::sse;
use futures_util::{Stream, stream};
use portcullis_core::{
    Event, LayerKind, Outcome, What, clock,
    sync::atomic::{AtomicU64, Ordering},
};
use portcullis_trace::Status;
use serde::Serialize;
use tokio::{
    sync::{
        OwnedSemaphorePermit, Semaphore,
        broadcast::{self, error::RecvError},
        watch,
    },
    time::{Interval, MissedTickBehavior, interval},
};

use crate::words::{date, millis};

/// Hands events to readers: a ring that the slowest falls out of, so that nobody waits for a reader and
/// memory is bounded whatever they do.
#[derive(Debug)]
pub(crate) struct Live {
    /// When counting began.
    began: Instant,
    sender: broadcast::Sender<Arc<Message>>,
    readers: Arc<Semaphore>,
    over: watch::Sender<bool>,
    /// When a figure changed last, in steps since counting began, from 1.
    changed: AtomicU64,
    /// When the next trace may be told of, in milliseconds since counting began: for those that went
    /// well, and for others, which are not to go unheard among them.
    next_success: AtomicU64,
    next_other: AtomicU64,
}

/// An event as it is sent.
#[derive(Debug)]
pub(crate) struct Message {
    kind: &'static str,
    data: String,
}

/// What a reader has.
struct Reader {
    events: broadcast::Receiver<Arc<Message>>,
    over: watch::Receiver<bool>,
    tick: Interval,
    /// The last change that it knows of.
    seen: u64,
    live: Arc<Live>,
    _place: OwnedSemaphorePermit,
}

/// Readers at once.
pub(crate) const READERS: usize = 64;
/// Events that a reader may be behind before it misses some.
pub(crate) const BEHIND: usize = 256;
/// How often figures are said to have changed, at most.
const NUDGE: Duration = Duration::from_secs(1);
/// How finely changes are told apart: who changes a figure writes to a shared word no more often.
const STEP_MILLIS: u64 = 50;
/// Between two traces of a kind: ten a second, of both kinds.
const SPACING_MILLIS: u64 = 200;

#[derive(Serialize)]
struct Change<'a> {
    name: &'a str,
    key: Option<&'a str>,
    from: &'static str,
    to: &'static str,
    why: String,
    open_for_ms: Option<f64>,
    at: String,
}

#[derive(Serialize)]
struct Ended<'a> {
    id: Option<String>,
    name: &'a str,
    status: &'static str,
    duration_ms: f64,
}

#[derive(Serialize)]
struct Missed {
    count: u64,
}

#[derive(Serialize)]
struct Nudge {
    at: String,
}

// ===== impl Live =====

impl Live {
    pub(crate) fn new(began: Instant) -> Self {
        Self {
            began,
            sender: broadcast::Sender::new(BEHIND),
            readers: Arc::new(Semaphore::new(READERS)),
            over: watch::Sender::new(false),
            changed: AtomicU64::new(0),
            next_success: AtomicU64::new(0),
            next_other: AtomicU64::new(0),
        }
    }

    /// Notes that a figure changed.
    #[inline]
    pub(crate) fn changed(&self, at: Instant) {
        let step = self.step(at);
        // Read first: a line that all calls write to would be fought for.
        if self.changed.load(Ordering::Relaxed) != step {
            self.changed.store(step, Ordering::Relaxed);
        }
    }

    /// Tells of an event, if it is one that readers are told of and there are any.
    #[inline]
    pub(crate) fn on_event(&self, event: &Event<'_>) {
        match (event.layer, event.what) {
            (LayerKind::Breaker, What::StateChanged { from, to, .. }) if from != to => {
                self.tell_of_change(event);
            }
            (LayerKind::Trace, What::Settled { outcome, elapsed, .. })
                if self.sender.receiver_count() > 0 =>
            {
                self.tell_of_call(event, &outcome, elapsed);
            }
            _ => {}
        }
    }

    /// What a new reader is sent; `None` if there are too many, or it is over.
    pub(crate) fn read(
        self: &Arc<Self>,
    ) -> Option<impl Stream<Item = Result<sse::Event, Infallible>> + use<>> {
        let place = self.readers.clone().try_acquire_owned().ok()?;
        let mut tick = interval(NUDGE);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let reader = Reader {
            events: self.sender.subscribe(),
            over: self.over.subscribe(),
            tick,
            seen: 0,
            live: self.clone(),
            _place: place,
        };
        Some(stream::unfold(reader, |mut reader| async {
            let event = reader.next().await?;
            Some((Ok(event), reader))
        }))
    }

    /// Ends what all readers are sent, and takes no other.
    pub(crate) fn end(&self) {
        self.readers.close();
        self.over.send_replace(true);
    }

    #[cold]
    fn tell_of_change(&self, event: &Event<'_>) {
        let What::StateChanged { from, to, reason, open_for } = event.what else { return };
        if self.sender.receiver_count() == 0 {
            return;
        }
        self.send(
            "breaker",
            &Change {
                name: event.name,
                key: event.key,
                from: from.as_str(),
                to: to.as_str(),
                why: reason.to_string(),
                open_for_ms: open_for.map(millis),
                at: date(clock::wall()),
            },
        );
    }

    #[cold]
    fn tell_of_call(&self, event: &Event<'_>, outcome: &Outcome, took: Duration) {
        let next = if outcome.kind().is_none() { &self.next_success } else { &self.next_other };
        let age = event.at.saturating_duration_since(self.began);
        let at = u64::try_from(age.as_millis()).unwrap_or(u64::MAX - SPACING_MILLIS);
        let due = next.load(Ordering::Relaxed);
        let mine = at >= due
            && next
                .compare_exchange(due, at + SPACING_MILLIS, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if mine {
            let ended = Ended {
                id: event.call.trace().map(|context| context.trace_id.to_string()),
                name: event.name,
                status: Status::of(outcome).as_str(),
                duration_ms: millis(took),
            };
            self.send("trace", &ended);
        }
    }

    /// Steps since counting began, from 1.
    #[inline]
    fn step(&self, at: Instant) -> u64 {
        let age = at.saturating_duration_since(self.began);
        let within = u64::from(age.subsec_millis()) / STEP_MILLIS;
        age.as_secs() * (1000 / STEP_MILLIS) + within + 1
    }

    fn send(&self, kind: &'static str, data: &impl Serialize) {
        // An error means that the last reader has just gone.
        let _ = self.sender.send(Arc::new(Message::new(kind, data)));
    }
}

// ===== impl Reader =====

impl Reader {
    async fn next(&mut self) -> Option<sse::Event> {
        loop {
            // First of all: what is chosen from below is chosen by chance, so that nothing is left out.
            if *self.over.borrow() {
                return None;
            }
            let message = tokio::select! {
                // An error means that nobody can tell it any more.
                _ = self.over.wait_for(|over| *over) => return None,
                event = self.events.recv() => match event {
                    Ok(message) => return Some(message.event()),
                    Err(RecvError::Lagged(count)) => Message::new("missed", &Missed { count }),
                    Err(RecvError::Closed) => return None,
                },
                _ = self.tick.tick() => {
                    let changed = self.live.changed.load(Ordering::Relaxed);
                    if changed == self.seen {
                        continue;
                    }
                    // What changes later in the same step is not told apart from this.
                    let is_over = changed < self.live.step(clock::now());
                    self.seen = if is_over { changed } else { changed - 1 };
                    Message::new("figures", &Nudge { at: date(clock::wall()) })
                }
            };
            return Some(message.event());
        }
    }
}

// ===== impl Message =====

impl Message {
    fn new(kind: &'static str, data: &impl Serialize) -> Self {
        // Strings and numbers: writing them does not fail.
        Self { kind, data: serde_json::to_string(data).unwrap_or_default() }
    }

    /// JSON has no line breaks but those it escapes.
    fn event(&self) -> sse::Event {
        sse::Event::default().event(self.kind).data(&self.data)
    }
}
