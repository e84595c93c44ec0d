//! The log of a run: a line for everything that happened, in the order it did.

use std::{
    fmt::{self, Write},
    hash::{DefaultHasher, Hasher},
    sync::Arc,
    time::Instant,
};

use portcullis_core::sync::Mutex;

/// The log of a run. Clones write into the same one.
///
/// Times are told from the start of the run, to the nanosecond, and nothing in it depends on the
/// machine or the day: two runs of one seed must write the same bytes.
#[derive(Clone)]
pub(crate) struct Journal {
    start: Instant,
    text: Arc<Mutex<String>>,
}

// ===== impl Journal =====

impl Journal {
    pub(crate) fn new(start: Instant) -> Self {
        Self { start, text: Arc::default() }
    }

    /// When the run began.
    pub(crate) const fn start(&self) -> Instant {
        self.start
    }

    /// Writes a line.
    pub(crate) fn note(&self, at: Instant, line: fmt::Arguments<'_>) {
        let offset = at.saturating_duration_since(self.start);
        // Writing to a string does not fail.
        let _ = writeln!(self.text.lock(), "{:>14} {line}", offset.as_nanos());
    }

    /// Hands out what was written.
    pub(crate) fn take(&self) -> String {
        std::mem::take(&mut self.text.lock())
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("bytes", &self.text.lock().len()).finish_non_exhaustive()
    }
}

/// A log in 64 bits, to be compared at a glance. Its keys are fixed, so it is the same on every machine
/// that the same compiler built for.
pub(crate) fn digest(log: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(log.as_bytes());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use portcullis_core::clock;

    use super::*;

    #[test]
    fn lines_carry_the_time_since_the_start_and_one_byte_changes_the_digest() {
        let journal = Journal::new(clock::now());
        journal.note(journal.start() + Duration::from_micros(5), format_args!("call {} begins", 7));
        let text = journal.take();
        assert_eq!(text.trim_start(), "5000 call 7 begins\n");
        assert_ne!(digest(&text), digest(&text.replace('7', "8")));
        assert_eq!(digest(&text), digest(&text.clone()));
    }
}
