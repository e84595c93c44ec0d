//! What a call leaves behind while it runs: fixed-size notes in a buffer that is used again.

use std::{
    fmt::Write,
    time::{Duration, Instant},
};

use portcullis_core::{
    End, Event, LayerKind, Outcome, Reason, RejectionKind, SpanId, TraceContext, What,
};

use crate::{
    TraceConfig,
    engine::Summary,
    record::{Kind, Output, Status},
    text::{Bounded, clip},
};

/// What is noted of one call or scope. Filled on the call path, read by the writer.
#[derive(Debug)]
pub(crate) struct Buffer {
    pub(crate) head: Head,
    pub(crate) end: Option<Finish>,
    pub(crate) name: Option<Word>,
    pub(crate) operation: Option<Word>,
    pub(crate) target: Option<Word>,
    pub(crate) key: Option<Word>,
    /// Empty where there is none.
    pub(crate) error: String,
    pub(crate) rejection: Option<RejectionKind>,
    pub(crate) events: Vec<Note>,
    pub(crate) omitted_events: u32,
    /// The highest number of an attempt that was told of, whether or not its events were kept.
    pub(crate) attempts: u32,
    pub(crate) words: Words,
    pub(crate) attributes: Vec<(String, String)>,
    pub(crate) omitted_attributes: u32,
    pub(crate) output: Option<Output>,
    pub(crate) retried: bool,
    pub(crate) slow: bool,

    // Of the root of a trace only.
    #[expect(clippy::vec_box, reason = "they move by pointer: in, out, and back to the pool")]
    pub(crate) children: Vec<Box<Buffer>>,
    pub(crate) omitted_calls: u32,
    /// Whether a call that there was no room for failed.
    pub(crate) omitted_failed: bool,
    /// Children that have begun, and those of them that are not over.
    pub(crate) begun: u32,
    pub(crate) open: u32,
    /// Whether a scope is over and waits for its children only.
    pub(crate) closed: bool,
}

/// What is known when it begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub(crate) kind: Kind,
    pub(crate) context: TraceContext,
    pub(crate) parent: Option<SpanId>,
    pub(crate) started: Instant,
    /// Which of its root's children it is: several may start at one moment.
    pub(crate) number: u32,
}

/// How it ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Finish {
    pub(crate) outcome: Outcome,
    pub(crate) head: Option<Instant>,
    pub(crate) ended: Instant,
}

/// An event without its texts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Note {
    pub(crate) at: Instant,
    pub(crate) layer: LayerKind,
    pub(crate) name: Option<Word>,
    pub(crate) key: Option<Word>,
    pub(crate) attempt: u32,
    pub(crate) what: Noted,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Noted {
    Told(What<'static>),
    Rejected { kind: RejectionKind, reason: Reason, retry_after: Option<Duration> },
}

/// Names and keys, each held once, in one string that is used again.
#[derive(Debug, Default)]
pub(crate) struct Words {
    text: String,
    ends: Vec<u32>,
}

/// One of the [`Words`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Word(u16);

/// Bytes of names and keys that one call may bring.
const MOST_TEXT: usize = 4096;
/// What a buffer is made with, so that a usual call makes it grow no more.
const USUAL_EVENTS: usize = 16;
const USUAL_TEXT: usize = 256;

// ===== impl Buffer =====

impl Buffer {
    pub(crate) fn new(head: Head) -> Self {
        Self {
            head,
            end: None,
            name: None,
            operation: None,
            target: None,
            key: None,
            error: String::new(),
            rejection: None,
            events: Vec::with_capacity(USUAL_EVENTS),
            omitted_events: 0,
            attempts: 0,
            words: Words {
                text: String::with_capacity(USUAL_TEXT),
                ends: Vec::with_capacity(USUAL_EVENTS),
            },
            attributes: Vec::new(),
            omitted_attributes: 0,
            output: None,
            retried: false,
            slow: false,
            children: Vec::new(),
            omitted_calls: 0,
            omitted_failed: false,
            begun: 0,
            open: 0,
            closed: false,
        }
    }

    /// Makes it as good as new. What it has room for stays.
    pub(crate) fn begin(&mut self, head: Head) {
        self.head = head;
        self.end = None;
        (self.name, self.operation, self.target, self.key) = (None, None, None, None);
        self.error.clear();
        self.rejection = None;
        self.events.clear();
        self.omitted_events = 0;
        self.attempts = 0;
        self.words.text.clear();
        self.words.ends.clear();
        self.attributes.clear();
        self.omitted_attributes = 0;
        self.output = None;
        (self.retried, self.slow) = (false, false);
        self.children.clear();
        (self.omitted_calls, self.omitted_failed) = (0, false);
        (self.begun, self.open, self.closed) = (0, 0, false);
    }

    /// Notes an event.
    #[inline]
    pub(crate) fn note(&mut self, event: &Event<'_>, limits: &TraceConfig) {
        match event.what {
            What::Retrying { .. } => self.retried = true,
            What::Slow { .. } => self.slow = true,
            What::Rejected { rejection } => self.rejection = Some(rejection.kind()),
            _ => {}
        }
        self.attempts = self.attempts.max(event.call.attempt());
        if self.events.len() >= limits.max_events {
            self.omitted_events = self.omitted_events.saturating_add(1);
            return;
        }
        let name = self.words.keep(event.name, limits.max_name);
        let key = event.key.and_then(|key| self.words.keep(key, limits.max_name));
        self.events.push(Note {
            at: event.at,
            layer: event.layer,
            name,
            key,
            attempt: event.call.attempt(),
            what: match event.what.detach() {
                Ok(what) => Noted::Told(what),
                Err(rejection) => Noted::Rejected {
                    kind: rejection.kind(),
                    reason: rejection.reason(),
                    retry_after: rejection.retry_after(),
                },
            },
        });
    }

    /// Notes the end of a call.
    #[inline]
    pub(crate) fn finish(&mut self, end: &End<'_>) {
        let End { outcome, head, ended, .. } = *end;
        self.end = Some(Finish { outcome, head, ended });
    }

    /// Notes an attribute, in place of one with the same key.
    pub(crate) fn attribute(&mut self, key: &str, value: &str, limits: &TraceConfig) {
        let key = clip(key, limits.max_name);
        let value = crate::text::truncate(value, limits.max_text).0;
        if let Some((_, old)) = self.attributes.iter_mut().find(|(old, _)| old == key) {
            value.clone_into(old);
        } else if self.attributes.len() < limits.max_attributes {
            self.attributes.push((key.to_owned(), value.to_owned()));
        } else {
            self.omitted_attributes = self.omitted_attributes.saturating_add(1);
        }
    }

    /// Notes an error's text, with its causes.
    #[cold]
    pub(crate) fn error(
        &mut self,
        error: &(dyn std::error::Error + 'static),
        limits: &TraceConfig,
    ) {
        self.error.clear();
        // Enough for the characters to be kept, should each take four bytes.
        let mut text = Bounded { text: &mut self.error, max: limits.max_text.saturating_mul(4) };
        // An error of the writer's means that there is enough.
        let _ = write!(text, "{error}");
        let causes = std::iter::successors(error.source(), |cause| cause.source());
        for cause in causes.take(16) {
            let mut sentence = String::new();
            let _ = write!(Bounded { text: &mut sentence, max: text.max }, "{cause}");
            // Many an error's own text tells its cause already.
            if !text.text.ends_with(&sentence) && write!(text, ": {sentence}").is_err() {
                break;
            }
        }
    }

    pub(crate) fn status(&self) -> Status {
        // A call that nobody saw the end of: a panic, or a scope that was forgotten.
        self.end.as_ref().map_or(Status::Cancelled, |end| Status::of(&end.outcome))
    }

    /// What the whole trace was like, of which this is the root.
    pub(crate) fn summary(&self) -> Summary {
        let ended = self.end.map_or(self.head.started, |end| end.ended);
        let duration = ended.saturating_duration_since(self.head.started);
        let mut summary = Summary::new(self.head.context.trace_id, duration);
        summary.failed = self.omitted_failed;
        for buffer in std::iter::once(self).chain(self.children.iter().map(|child| &**child)) {
            summary.failed |= buffer.status() != Status::Success;
            summary.retried |= buffer.retried;
            summary.slow |= buffer.slow;
        }
        summary
    }

    pub(crate) fn word(&self, word: Option<Word>) -> Option<&str> {
        word.map(|word| self.words.get(word))
    }
}

// ===== impl Words =====

impl Words {
    /// Keeps the first `max` bytes of a word; `None` if there is no room for more words.
    #[inline]
    pub(crate) fn keep(&mut self, word: &str, max: usize) -> Option<Word> {
        let word = clip(word, max);
        let mut start = 0;
        for (index, &end) in self.ends.iter().enumerate() {
            // Few are there, and most of what comes came before.
            if self.text.as_bytes().get(start..end as usize) == Some(word.as_bytes()) {
                return u16::try_from(index).ok().map(Word);
            }
            start = end as usize;
        }
        let index = u16::try_from(self.ends.len()).ok()?;
        if self.text.len() + word.len() > MOST_TEXT {
            return None;
        }
        self.text.push_str(word);
        self.ends.push(u32::try_from(self.text.len()).ok()?);
        Some(Word(index))
    }

    pub(crate) fn get(&self, word: Word) -> &str {
        let index = usize::from(word.0);
        let end = self.ends.get(index).map_or(0, |&end| end as usize);
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        self.text.get(start..end).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_held_once_and_all_of_them_are_bounded() {
        let mut words = Words::default();
        let search = words.keep("search", 128);
        let empty = words.keep("", 128);
        let long = words.keep("日本語", 7);
        assert_eq!(words.keep("search", 128), search);
        assert_eq!(words.get(search.unwrap()), "search");
        assert_eq!(words.get(empty.unwrap()), "");
        assert_eq!(words.get(long.unwrap()), "日本");

        let many = (0..10_000).filter_map(|n| words.keep(&format!("key {n}"), 128)).count();
        assert!(many < 1000);
        assert!(words.text.len() <= MOST_TEXT);
    }

    #[test]
    fn a_note_is_small() {
        assert!(size_of::<Note>() <= 160, "{}", size_of::<Note>());
    }
}
