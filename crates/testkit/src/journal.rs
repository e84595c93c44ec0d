use std::{fmt, sync::Arc};

use tokio::time::Instant;

use crate::sync::Mutex;

/// What a [`ScriptedService`](crate::ScriptedService) and its clones have seen. Clones read the
/// same journal.
///
/// A call is *in flight* from `call` until its future answers or is dropped; a future dropped
/// before it answered was *cancelled*. Instants are tokio's, so a paused clock gives exact ones.
///
/// # Example
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// use portcullis_testkit::{Script, ScriptedService, Step, TestError, call, poll_k};
/// use std::time::Duration;
///
/// let script = Script::respond_with(|request: u32, _| match request {
///     0 => Step::Hang,
///     n => Step::<u32, TestError>::Ok(n).after(Duration::from_millis(30)),
/// });
/// let mut service = ScriptedService::new(script).recording();
/// let journal = service.journal();
///
/// call(&mut service, 7).await.unwrap();
/// poll_k(call(&mut service, 0), 3).await;
///
/// assert_eq!(journal.calls(), 2);
/// assert_eq!(journal.requests(), [7, 0]);
/// assert_eq!((journal.completed(), journal.cancelled()), (1, 1));
/// assert_eq!((journal.in_flight(), journal.peak_in_flight()), (0, 1));
/// assert_eq!(journal.ended_at()[0] - journal.called_at()[0], Duration::from_millis(30));
/// # }
/// ```
pub struct Journal<Req> {
    entries: Arc<Mutex<Entries<Req>>>,
}

struct Entries<Req> {
    requests: Vec<Req>,
    /// Clones a request into the journal. A function, so that only a recording service needs
    /// `Req: Clone`.
    record: Option<fn(&Req) -> Req>,
    called_at: Vec<Instant>,
    ended_at: Vec<Instant>,
    in_flight: usize,
    peak_in_flight: usize,
    completed: u64,
    cancelled: u64,
    ready_polls: u64,
    instances: usize,
}

impl<Req> Journal<Req> {
    pub(crate) fn new() -> Self {
        Self {
            entries: Arc::new(Mutex::new(Entries {
                requests: Vec::new(),
                record: None,
                called_at: Vec::new(),
                ended_at: Vec::new(),
                in_flight: 0,
                peak_in_flight: 0,
                completed: 0,
                cancelled: 0,
                ready_polls: 0,
                instances: 0,
            })),
        }
    }

    /// How many calls were made.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.entries.lock().called_at.len() as u64
    }

    /// How many calls are neither answered nor dropped.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.entries.lock().in_flight
    }

    /// The most calls that were in flight at one time.
    #[must_use]
    pub fn peak_in_flight(&self) -> usize {
        self.entries.lock().peak_in_flight
    }

    /// How many calls were answered, with a response or an error.
    #[must_use]
    pub fn completed(&self) -> u64 {
        self.entries.lock().completed
    }

    /// How many futures were dropped before they answered. One that panicked counts here.
    #[must_use]
    pub fn cancelled(&self) -> u64 {
        self.entries.lock().cancelled
    }

    /// How often `poll_ready` was called, whatever it answered.
    #[must_use]
    pub fn ready_polls(&self) -> u64 {
        self.entries.lock().ready_polls
    }

    /// How many instances of the service are alive: the first one and its clones.
    #[must_use]
    pub fn instances(&self) -> usize {
        self.entries.lock().instances
    }

    /// When each call was made, in the order of the calls.
    #[must_use]
    pub fn called_at(&self) -> Vec<Instant> {
        self.entries.lock().called_at.clone()
    }

    /// When each call that is over was answered or dropped, in the order of the ends.
    #[must_use]
    pub fn ended_at(&self) -> Vec<Instant> {
        self.entries.lock().ended_at.clone()
    }

    /// The requests, in the order of the calls.
    ///
    /// # Panics
    ///
    /// If the service was not built with [`recording`](crate::ScriptedService::recording).
    #[must_use]
    pub fn requests(&self) -> Vec<Req>
    where
        Req: Clone,
    {
        let entries = self.entries.lock();
        assert!(
            entries.record.is_some(),
            "requests are kept by a service built with `ScriptedService::recording`"
        );
        entries.requests.clone()
    }

    pub(crate) fn record_requests(&self)
    where
        Req: Clone,
    {
        self.entries.lock().record = Some(Req::clone);
    }

    pub(crate) fn record(&self, request: &Req) {
        // Cloned outside the lock: a request's `Clone` is the test's code and may read the journal.
        let record = self.entries.lock().record;
        if let Some(clone) = record {
            let request = clone(request);
            self.entries.lock().requests.push(request);
        }
    }

    pub(crate) fn ready_polled(&self) {
        self.entries.lock().ready_polls += 1;
    }

    pub(crate) fn instance_made(&self) {
        self.entries.lock().instances += 1;
    }

    pub(crate) fn instance_dropped(&self) {
        self.entries.lock().instances -= 1;
    }

    /// Opens a call. The flight closes it: as completed when told, else as cancelled when dropped.
    pub(crate) fn call(&self) -> Flight<Req> {
        let mut entries = self.entries.lock();
        entries.called_at.push(Instant::now());
        entries.in_flight += 1;
        entries.peak_in_flight = entries.peak_in_flight.max(entries.in_flight);
        drop(entries);
        Flight { journal: self.clone(), landed: false }
    }
}

impl<Req> Clone for Journal<Req> {
    fn clone(&self) -> Self {
        Self { entries: Arc::clone(&self.entries) }
    }
}

impl<Req> fmt::Debug for Journal<Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = self.entries.lock();
        f.debug_struct("Journal")
            .field("calls", &entries.called_at.len())
            .field("in_flight", &entries.in_flight)
            .field("peak_in_flight", &entries.peak_in_flight)
            .field("completed", &entries.completed)
            .field("cancelled", &entries.cancelled)
            .field("ready_polls", &entries.ready_polls)
            .field("instances", &entries.instances)
            .finish_non_exhaustive()
    }
}

/// One call in flight.
pub(crate) struct Flight<Req> {
    journal: Journal<Req>,
    landed: bool,
}

impl<Req> Flight<Req> {
    pub(crate) fn land(&mut self) {
        self.landed = true;
        let mut entries = self.journal.entries.lock();
        entries.in_flight -= 1;
        entries.completed += 1;
        entries.ended_at.push(Instant::now());
    }
}

impl<Req> Drop for Flight<Req> {
    fn drop(&mut self) {
        if !self.landed {
            let mut entries = self.journal.entries.lock();
            entries.in_flight -= 1;
            entries.cancelled += 1;
            entries.ended_at.push(Instant::now());
        }
    }
}
