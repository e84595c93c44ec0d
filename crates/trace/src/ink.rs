//! Colours, durations and lines, as a terminal shows them.

use std::{
    fmt::{self, Write},
    time::Duration,
};

use crate::{
    record::Status,
    text::{printable, width},
};

/// How something is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    Plain,
    Bold,
    Dim,
    Green,
    Yellow,
    Red,
    Magenta,
}

#[derive(Clone, Copy)]
pub(crate) struct Pen {
    pub(crate) colour: bool,
}

/// A duration in at most seven columns: `340ms`, `1.84s`, `2m05s`.
pub(crate) struct Short(pub(crate) Duration);

// ===== impl Style =====

impl Style {
    pub(crate) const fn of(status: Status) -> Self {
        match status {
            Status::Success => Self::Green,
            Status::Error => Self::Red,
            Status::Timeout => Self::Yellow,
            Status::Rejected => Self::Magenta,
            Status::Cancelled => Self::Dim,
        }
    }

    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "0",
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Green => "32",
            Self::Yellow => "33",
            Self::Red => "31",
            Self::Magenta => "35",
        }
    }
}

// ===== impl Pen =====

impl Pen {
    pub(crate) fn write(self, f: &mut fmt::Formatter<'_>, style: Style, text: &str) -> fmt::Result {
        if self.colour && style != Style::Plain && !text.is_empty() {
            write!(f, "\x1b[{}m{text}\x1b[0m", style.code())
        } else {
            f.write_str(text)
        }
    }

    pub(crate) fn line(self, f: &mut fmt::Formatter<'_>, style: Style, text: &str) -> fmt::Result {
        self.write(f, style, text)?;
        f.write_char('\n')
    }
}

// ===== impl Short =====

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs_f64();
        let tidy = |number: f64| (number * 10.0).round() / 10.0;
        match self.0.as_nanos() {
            0 => f.write_str("0"),
            1..1_000 => write!(f, "{}ns", self.0.as_nanos()),
            1_000..1_000_000 => write!(f, "{:.0}µs", seconds * 1e6),
            1_000_000..10_000_000 => write!(f, "{}ms", tidy(seconds * 1e3)),
            10_000_000..1_000_000_000 => write!(f, "{:.0}ms", seconds * 1e3),
            1_000_000_000..60_000_000_000 => write!(f, "{}s", (seconds * 100.0).round() / 100.0),
            _ => {
                let whole = self.0.as_secs();
                match whole / 3600 {
                    0 => write!(f, "{}m{:02}s", whole / 60, whole % 60),
                    hours @ 1..100 => write!(f, "{hours}h{:02}m", whole / 60 % 60),
                    hours => write!(f, "{}d", hours / 24),
                }
            }
        }
    }
}

/// The lines of a text that is at most so wide, broken between words where that is possible.
pub(crate) fn wrap(text: &str, columns: usize) -> impl Iterator<Item = String> {
    let text = printable(text);
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        let mut word = word;
        loop {
            let blank = usize::from(!line.is_empty());
            if width(&line) + blank + width(word) <= columns {
                if blank == 1 {
                    line.push(' ');
                }
                line.push_str(word);
                break;
            }
            if !line.is_empty() {
                lines.push(std::mem::take(&mut line));
                continue;
            }
            // A word wider than a line is broken wherever the line ends.
            let mut end = 0;
            for (at, c) in word.char_indices() {
                let next = at + c.len_utf8();
                if end > 0 && width(&word[..next]) > columns {
                    break;
                }
                end = next;
            }
            lines.push(word[..end].to_owned());
            word = &word[end..];
        }
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines.into_iter()
}
