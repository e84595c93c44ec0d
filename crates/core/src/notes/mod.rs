//! What layers told of one call, noted while the call runs.

mod words;

use std::time::{Duration, Instant};

pub use self::words::Word;
use self::words::Words;
use crate::{Event, Label, LayerKind, Outcome, Reason, Rejection, RejectionKind, What};

/// What was told of one call, in the order in which it was told: so many notes of fixed size, and the
/// names and keys in them.
///
/// It is a part of every [`Sheet`](crate::Sheet), and no matter of who keeps the record, so that what a
/// layer tells is written where it is to lie: made first and handed over, each event would be moved
/// twice, in wide words right after it was written in narrow ones, and a processor waits for that.
#[derive(Debug)]
pub struct Notes {
    list: Vec<Note>,
    words: Words,
    limits: NotesLimits,
    omitted: u32,
    attempts: u32,
    retried: bool,
    slow: bool,
    rejection: Option<RejectionKind>,
}

/// What there is room for in [`Notes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotesLimits {
    /// Notes; what comes then is counted only.
    pub events: usize,
    /// Bytes of a name or a key; what is longer is cut.
    pub name: usize,
}

/// An event without its texts.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Note {
    /// When.
    pub at: Instant,
    /// What kind of layer told it.
    pub layer: LayerKind,
    /// The layer's name; `None` if there was no room for it.
    pub name: Option<Name>,
    /// The key it was told of.
    pub key: Option<Word>,
    /// Which attempt it was about, from 1; 0 for the call as a whole.
    pub attempt: u32,
    what: Kept,
}

/// A layer's name: most are short.
#[derive(Clone, Copy, Debug)]
pub enum Name {
    /// Held in place.
    Label(Label),
    /// Held by the [`Notes`].
    Word(Word),
}

/// What a note says.
#[derive(Clone, Copy, Debug)]
pub enum Noted {
    /// What was told.
    Told(What<'static>),
    /// What is kept of a refusal.
    Refused(Refusal),
}

/// What is kept of a refusal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Refusal {
    /// What kind of refusal it was.
    pub kind: RejectionKind,
    /// What it rested on.
    pub reason: Reason,
    /// After how long another try makes sense, if that is known.
    pub retry_after: Option<Duration>,
}

/// What a note says, as it is written.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kept {
    Told(What<'static>),
    /// Differences of times are dear, and for who reads them only.
    Settled {
        outcome: Outcome,
        started: Instant,
        head: Option<Instant>,
    },
    Refused(Refusal),
}

/// Who tells something.
#[derive(Clone, Copy)]
pub(crate) struct Teller<'a> {
    pub(crate) layer: LayerKind,
    pub(crate) name: &'a str,
    /// The name once more, unless it is too long, or not at hand.
    pub(crate) label: Option<Label>,
}

/// What there is room for from the start, so that a usual call makes it grow no more.
const USUAL: usize = 16;

// ===== impl Notes =====

impl Notes {
    /// None yet, and room for those of a usual call.
    #[must_use]
    pub fn new(limits: NotesLimits) -> Self {
        Self {
            list: Vec::with_capacity(USUAL),
            words: Words::new(),
            limits,
            omitted: 0,
            attempts: 0,
            retried: false,
            slow: false,
            rejection: None,
        }
    }

    /// As good as new. What it has room for stays.
    #[inline]
    pub fn clear(&mut self, limits: NotesLimits) {
        self.list.clear();
        self.words.clear();
        self.limits = limits;
        (self.omitted, self.attempts) = (0, 0);
        (self.retried, self.slow) = (false, false);
        self.rejection = None;
    }

    /// Changes what there is room for from now on.
    pub fn set_limits(&mut self, limits: NotesLimits) {
        self.limits = limits;
    }

    /// The notes there was room for.
    #[must_use]
    pub fn as_slice(&self) -> &[Note] {
        &self.list
    }

    /// Events there was no room for.
    #[must_use]
    pub fn omitted(&self) -> u32 {
        self.omitted
    }

    /// The highest number of an attempt that was told of, whether or not its events were kept.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Whether an attempt was repeated.
    #[must_use]
    pub fn retried(&self) -> bool {
        self.retried
    }

    /// Whether a layer told that the call is slow.
    #[must_use]
    pub fn slow(&self) -> bool {
        self.slow
    }

    /// What kind the last refusal was of.
    #[must_use]
    pub fn rejection(&self) -> Option<RejectionKind> {
        self.rejection
    }

    /// Notes an event of which a layer told its observers. `refusal` is what is kept of it if it is a
    /// refusal: without, that is only counted.
    ///
    /// What the layer tells that keeps records is the record itself, and not noted.
    pub fn note(&mut self, event: &Event<'_>, refusal: Option<Refusal>) {
        let teller = Teller { layer: event.layer, name: event.name, label: None };
        self.event(teller, event, refusal);
    }

    pub(crate) fn event(
        &mut self,
        teller: Teller<'_>,
        event: &Event<'_>,
        refusal: Option<Refusal>,
    ) {
        let what = match (event.what.detach(), refusal) {
            (Ok(what), _) => Kept::Told(what),
            (Err(_), Some(refusal)) => {
                self.rejection = Some(refusal.kind);
                Kept::Refused(refusal)
            }
            (Err(_), None) => {
                self.attempts = self.attempts.max(event.call.attempt());
                self.omitted = self.omitted.saturating_add(1);
                return;
            }
        };
        self.told(teller, event.key, event.call.attempt(), event.at, what);
    }

    // Inlined where a layer tells it, what is told is known there and written part by part.
    #[inline(always)]
    pub(crate) fn told(
        &mut self,
        teller: Teller<'_>,
        key: Option<&str>,
        attempt: u32,
        at: Instant,
        what: Kept,
    ) {
        let Teller { layer, name, label } = teller;
        if layer == LayerKind::Trace {
            return;
        }
        match what {
            Kept::Told(What::Retrying { .. } | What::Resending { .. }) => self.retried = true,
            Kept::Told(What::Slow { .. }) => self.slow = true,
            _ => {}
        }
        self.attempts = self.attempts.max(attempt);
        if self.list.len() >= self.limits.events {
            self.omitted = self.omitted.saturating_add(1);
            return;
        }
        let name = match label {
            Some(label) if name.len() <= self.limits.name => Some(Name::Label(label)),
            _ => self.keep(name).map(Name::Word),
        };
        let key = match key {
            Some(key) => self.keep(key),
            None => None,
        };
        self.list.push(Note { at, layer, name, key, attempt, what });
    }

    /// Keeps a name or a key, cut to what is kept of one; `None` if there is no room for more.
    pub fn keep(&mut self, word: &str) -> Option<Word> {
        self.words.keep(word, self.limits.name)
    }

    /// A name or key that was [kept](Self::keep).
    #[must_use]
    pub fn word(&self, word: Word) -> &str {
        self.words.get(word)
    }

    /// A layer's name.
    #[must_use]
    pub fn name(&self, name: Name) -> String {
        match name {
            Name::Label(label) => label.to_string(),
            Name::Word(word) => self.word(word).to_owned(),
        }
    }

    /// Takes over what was noted of the same call elsewhere, and leaves no notes there.
    #[cold]
    pub fn absorb(&mut self, other: &mut Self) {
        self.rejection = other.rejection.or(self.rejection);
        self.attempts = self.attempts.max(other.attempts);
        self.retried |= other.retried;
        self.slow |= other.slow;
        for mut note in other.list.drain(..) {
            if self.list.len() >= self.limits.events {
                self.omitted = self.omitted.saturating_add(1);
                continue;
            }
            let mut keep = |word| self.words.keep(other.words.get(word), self.limits.name);
            note.key = note.key.and_then(&mut keep);
            if let Some(Name::Word(word)) = note.name {
                note.name = keep(word).map(Name::Word);
            }
            self.list.push(note);
        }
        self.omitted = self.omitted.saturating_add(other.omitted);
    }

    /// Whether it is worth using again: it did not grow for an unusual call.
    #[must_use]
    #[inline]
    pub fn is_usual(&self) -> bool {
        self.list.capacity() <= 4 * USUAL
    }

    /// Bytes on the heap.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.list.capacity() * size_of::<Note>() + self.words.bytes()
    }
}

// ===== impl Note =====

impl Note {
    /// What it says.
    #[must_use]
    pub fn what(&self) -> Noted {
        match self.what {
            Kept::Told(what) => Noted::Told(what),
            Kept::Refused(refusal) => Noted::Refused(refusal),
            Kept::Settled { outcome, started, head } => Noted::Told(What::Settled {
                outcome,
                head_after: head.map(|head| head.saturating_duration_since(started)),
                elapsed: self.at.saturating_duration_since(started),
            }),
        }
    }
}

// ===== impl Refusal =====

impl Refusal {
    /// What is kept of `rejection`. That may be of the user's own making, and panic.
    #[must_use]
    pub fn of(rejection: &dyn Rejection) -> Self {
        Self {
            kind: rejection.kind(),
            reason: rejection.reason(),
            retry_after: rejection.retry_after(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_small() {
        assert!(size_of::<Note>() <= 192, "{}", size_of::<Note>());
    }
}
