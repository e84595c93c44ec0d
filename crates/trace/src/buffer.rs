//! What a call leaves behind while it runs: fixed-size notes in a buffer that is used again.

use std::time::Instant;

use portcullis_core::{End, Name, Notes, NotesLimits, Outcome, SpanId, TraceContext, Word};

use crate::{
    TraceConfig,
    desk::Origin,
    engine::Summary,
    place::Place,
    record::{Kind, Output, Status},
    text::{clip, truncate},
};

/// What is noted of one call or scope. Filled on the call path, read by the writer.
#[derive(Debug)]
pub(crate) struct Buffer {
    pub(crate) head: Head,
    /// Whose it is while it is written by the future that runs the call.
    pub(crate) origin: Origin,
    /// What the layers told.
    pub(crate) notes: Notes,
    pub(crate) end: Option<Finish>,
    pub(crate) name: Option<Name>,
    pub(crate) operation: Option<Word>,
    pub(crate) target: Option<Word>,
    pub(crate) key: Option<Word>,
    /// Empty where there is none.
    pub(crate) error: String,
    pub(crate) attributes: Vec<(String, String)>,
    pub(crate) omitted_attributes: u32,
    pub(crate) output: Option<Output>,
    /// Of the root of a trace only.
    pub(crate) family: Family,
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

/// Several of them, boxed, for they move by pointer: in, out, and back to the pool.
pub(crate) type Buffers = Vec<Box<Buffer>>;

/// What is known of a root's children.
#[derive(Debug, Default)]
pub(crate) struct Family {
    /// Those that are over.
    pub(crate) children: Buffers,
    /// Children that have begun, and those of them that are not over.
    pub(crate) begun: u32,
    pub(crate) open: u32,
    /// Calls that there was no room for, and whether one of them failed.
    pub(crate) omitted: u32,
    pub(crate) omitted_failed: bool,
    /// Whether the root is a scope that is over and waits for its children only.
    pub(crate) closed: bool,
}

/// What becomes of a child that wants to begin.
pub(crate) enum Admitted {
    /// It is the child of this number.
    As(u32),
    NoRoom,
    /// The trace was handed over before.
    TooLate,
}

// ===== impl Buffer =====

impl Buffer {
    pub(crate) fn new(head: Head, limits: NotesLimits) -> Self {
        Self {
            head,
            origin: Origin::Nobody,
            notes: Notes::new(limits),
            end: None,
            name: None,
            operation: None,
            target: None,
            key: None,
            error: String::new(),
            attributes: Vec::new(),
            omitted_attributes: 0,
            output: None,
            family: Family::default(),
        }
    }

    /// Makes it as good as new, if it was [emptied](Self::empty). What it has room for stays.
    #[inline]
    pub(crate) fn begin(&mut self, head: Head, limits: NotesLimits) {
        self.head = head;
        self.notes.clear(limits);
        self.end = None;
        (self.name, self.operation, self.target, self.key) = (None, None, None, None);
        self.error.clear();
        self.omitted_attributes = 0;
        self.family.clear();
    }

    /// Lets go of what may be large and has to be made anew for each call.
    #[inline]
    pub(crate) fn empty(&mut self) {
        self.attributes.clear();
        self.output = None;
    }

    /// Takes over what was noted of the same call elsewhere, and leaves nothing of it there.
    #[cold]
    pub(crate) fn absorb(&mut self, other: &mut Self, limits: &TraceConfig) {
        // What was said elsewhere is a failure on the way; the call's own end is known here.
        self.end = self.end.or(other.end);
        self.notes.absorb(&mut other.notes);
        for (key, value) in std::mem::take(&mut other.attributes) {
            self.attribute(&key, &value, limits);
        }
        self.omitted_attributes = self.omitted_attributes.saturating_add(other.omitted_attributes);
        self.output = other.output.take().or(self.output.take());
        if !other.error.is_empty() {
            self.error = std::mem::take(&mut other.error);
        }
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
        let value = truncate(value, limits.max_text).0;
        if let Some((_, old)) = self.attributes.iter_mut().find(|(old, _)| old == key) {
            value.clone_into(old);
        } else if self.attributes.len() < limits.max_attributes {
            self.attributes.push((key.to_owned(), value.to_owned()));
        } else {
            self.omitted_attributes = self.omitted_attributes.saturating_add(1);
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
        summary.failed = self.family.omitted_failed;
        let children = self.family.children.iter().map(|child| &**child);
        for buffer in std::iter::once(self).chain(children) {
            summary.failed |= buffer.status() != Status::Success;
            summary.retried |= buffer.notes.retried();
            summary.slow |= buffer.notes.slow();
        }
        summary
    }

    /// A name as it was told, cut to what is kept of one.
    pub(crate) fn name(&self, name: Option<Name>) -> Option<String> {
        name.map(|name| self.notes.name(name))
    }

    pub(crate) fn word(&self, word: Option<Word>) -> Option<&str> {
        word.map(|word| self.notes.word(word))
    }

    /// Whether it is worth keeping for another call: it did not grow for an unusual one.
    #[inline]
    pub(crate) fn is_usual(&self) -> bool {
        self.notes.is_usual()
            && self.attributes.capacity() <= 32
            && self.error.capacity() <= 4096
            && self.family.children.capacity() <= 512
    }

    /// Bytes that the buffer takes by itself, about.
    pub(crate) fn bytes(&self) -> usize {
        let pair = |(key, value): &(String, String)| {
            2 * size_of::<String>() + key.capacity() + value.capacity()
        };
        size_of::<Self>()
            + self.notes.bytes()
            + self.error.capacity()
            + self.attributes.iter().map(pair).sum::<usize>()
            + self.output.as_ref().map_or(0, |output| output.text.capacity())
    }

    /// Bytes that the whole trace takes, about, of which this is the root.
    pub(crate) fn bytes_of_all(&self) -> usize {
        let children = self.family.children.iter().map(|child| child.bytes());
        self.bytes()
            + self.family.children.capacity() * size_of::<usize>()
            + children.sum::<usize>()
    }
}

// ===== impl Head =====

impl Head {
    #[inline]
    pub(crate) fn new(kind: Kind, place: &Place, started: Instant) -> Self {
        let &Place { context, parent, number, .. } = place;
        Self { kind, context, parent, started, number }
    }
}

// ===== impl TraceConfig =====

impl TraceConfig {
    /// What there is room for in a call's notes.
    #[inline]
    pub(crate) fn notes(&self) -> NotesLimits {
        NotesLimits { events: self.max_events, name: self.max_name }
    }
}

// ===== impl Family =====

impl Family {
    /// Whether the trace is complete: nothing is added any more.
    fn is_over(&self) -> bool {
        self.closed && self.open == 0
    }

    /// Makes room for another child, unless there are `most` already or the trace is complete; says
    /// which child it is.
    pub(crate) fn admit(&mut self, most: usize) -> Admitted {
        if self.is_over() {
            return Admitted::TooLate;
        }
        if self.children.len() + self.open as usize >= most {
            self.omitted = self.omitted.saturating_add(1);
            return Admitted::NoRoom;
        }
        self.open += 1;
        self.begun += 1;
        Admitted::As(self.begun)
    }

    /// The children, if the trace is complete; it stays over.
    pub(crate) fn complete(&mut self) -> Option<Self> {
        self.is_over().then(|| std::mem::replace(self, Self { closed: true, ..Self::default() }))
    }

    /// As good as new. What it has room for stays.
    fn clear(&mut self) {
        self.children.clear();
        (self.begun, self.open, self.closed) = (0, 0, false);
        (self.omitted, self.omitted_failed) = (0, false);
    }
}

#[cfg(all(test, not(portcullis_loom)))]
mod tests {
    use portcullis_core::clock;

    use super::*;

    fn buffer() -> Box<Buffer> {
        let head = Head::new(Kind::Call, &Place::begin(|_| true), clock::now());
        Box::new(Buffer::new(head, TraceConfig::default().notes()))
    }

    /// Whether what it grew by is what was put in, with some room to grow.
    fn is_about(grown: usize, held: usize) -> bool {
        (held..held + held / 4).contains(&grown)
    }

    #[test]
    fn a_trace_is_as_large_as_all_it_holds() {
        let config = TraceConfig { max_text: 100_000, ..TraceConfig::default() };
        let text = |length| "x".repeat(length);
        let (mut root, empty) = (buffer(), buffer().bytes());
        assert!(empty > size_of::<Buffer>());
        assert_eq!(root.bytes_of_all(), empty);

        for key in ["a", "b", "c"] {
            root.attribute(key, &text(10_000), &config);
        }
        assert!(is_about(root.bytes() - empty, 30_000), "{}", root.bytes());
        root.error = text(20_000);
        assert!(is_about(root.bytes() - empty, 50_000), "{}", root.bytes());
        root.output = Some(Output { text: text(10_000), omitted: 0 });
        let alone = root.bytes();
        assert!(is_about(alone - empty, 60_000), "{alone}");

        for _ in 0..2 {
            let mut child = buffer();
            child.error = text(30_000);
            root.family.children.push(child);
        }
        let (all, children) = (root.bytes_of_all(), 2 * (empty + 30_000));
        assert!(is_about(all - alone, children), "{all}");
        root.family.children.reserve_exact(10_000);
        assert!(is_about(root.bytes_of_all() - all, 79_000));
    }

    #[test]
    fn a_buffer_that_is_used_again_knows_nothing_of_its_last_family() {
        let mut root = buffer();
        assert!(matches!(root.family.admit(1), Admitted::As(1)));
        assert!(matches!(root.family.admit(1), Admitted::NoRoom));
        root.family.omitted_failed = true;
        root.family.children.push(buffer());
        (root.family.open, root.family.closed) = (0, true);
        assert!(matches!(root.family.admit(9), Admitted::TooLate));

        let (head, limits) = (root.head, TraceConfig::default().notes());
        root.begin(head, limits);
        assert!(root.family.children.is_empty());
        assert_eq!((root.family.omitted, root.family.omitted_failed), (0, false));
        assert!(matches!(root.family.admit(1), Admitted::As(1)));
    }
}
