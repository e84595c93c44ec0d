//! Text of unknown origin, made short and harmless.

use std::{
    borrow::Cow,
    error::Error,
    fmt::{self, Write},
    iter,
};

use unicode_width::UnicodeWidthChar;

/// Joins what stands on both sides of it into one emoji.
const JOINER: char = '\u{200d}';

/// Causes told of an error.
const MOST_CAUSES: usize = 16;

/// The first `max` characters of `text` and how many were left out. No character is torn from the
/// marks that combine with it, unless there are absurdly many.
pub(crate) fn truncate(text: &str, max: usize) -> (&str, usize) {
    let Some((mut cut, _)) = text.char_indices().nth(max) else {
        return (text, 0);
    };
    let hard = cut;
    for _ in 0..32 {
        let next = text[cut..].chars().next();
        let last = text[..cut].chars().next_back();
        let (Some(next), Some(last)) = (next, last) else { break };
        if !combines(next) && last != JOINER {
            break;
        }
        cut -= last.len_utf8();
    }
    // A base that is not found has none worth keeping.
    if cut == 0 || text[cut..].chars().next().is_some_and(combines) {
        cut = hard;
    }
    (&text[..cut], text[cut..].chars().count())
}

/// The first bytes of `text`, at most `max`, that are whole characters.
pub(crate) fn clip(text: &str, max: usize) -> &str {
    let mut end = max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// What an error says, with its causes: enough for `max` characters, should each take four bytes.
pub(crate) fn of_error(error: &(dyn Error + 'static), max: usize) -> String {
    let mut whole = String::new();
    let mut text = Bounded { text: &mut whole, max: max.saturating_mul(4) };
    // An error of the writer's means that there is enough.
    let _ = write!(text, "{error}");
    for cause in iter::successors(error.source(), |&cause| cause.source()).take(MOST_CAUSES) {
        let mut sentence = String::new();
        let _ = write!(Bounded { text: &mut sentence, max: text.max }, "{cause}");
        // Many an error's own text tells its cause already.
        if !text.text.ends_with(&sentence) && write!(text, ": {sentence}").is_err() {
            break;
        }
    }
    whole
}

/// `text` as a terminal may show it: no control characters, so that no text of a peer's moves the
/// cursor, changes colours or starts a line; nothing that turns the direction of writing.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    let harmless = |c: char| c == ' ' || !(c.is_control() || turns(c) || c == '\u{feff}');
    if text.chars().all(harmless) {
        return Cow::Borrowed(text);
    }
    let shown = text.chars().filter_map(|c| match c {
        '\n' | '\r' | '\t' | '\u{2028}' | '\u{2029}' | '\u{85}' => Some(' '),
        c if c.is_control() => Some('\u{fffd}'),
        c if !harmless(c) => None,
        c => Some(c),
    });
    Cow::Owned(shown.collect())
}

/// Cells of a terminal that `text` takes. `text` is printable.
pub(crate) fn width(text: &str) -> usize {
    text.chars().map(cells).sum()
}

/// As much of `text` as fits into `cells`, padded with blanks to just that; an ellipsis says that
/// something is missing.
pub(crate) fn fit(text: &str, max: usize) -> String {
    let text = printable(text);
    let mut fitted = String::with_capacity(text.len().min(4 * max) + 4);
    let mut used = 0;
    if width(&text) <= max {
        used = width(&text);
        fitted.push_str(&text);
    } else if max > 0 {
        for c in text.chars() {
            if used + cells(c) > max - 1 {
                break;
            }
            used += cells(c);
            fitted.push(c);
        }
        fitted.push('…');
        used += 1;
    }
    fitted.extend(std::iter::repeat_n(' ', max - used));
    fitted
}

/// A writer that keeps the first bytes only.
struct Bounded<'a> {
    text: &'a mut String,
    max: usize,
}

// ===== impl Bounded =====

impl fmt::Write for Bounded<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.max.saturating_sub(self.text.len());
        self.text.push_str(clip(text, room));
        // Whoever writes on and on is stopped.
        if text.len() > room { Err(fmt::Error) } else { Ok(()) }
    }
}

fn cells(c: char) -> usize {
    c.width().unwrap_or(0)
}

fn combines(c: char) -> bool {
    c.width() == Some(0) || ('\u{1f3fb}'..='\u{1f3ff}').contains(&c)
}

/// Marks that turn the direction of writing, or separate lines.
fn turns(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_is_cut_within_a_character_or_from_its_marks() {
        assert_eq!(truncate("plain", 5), ("plain", 0));
        assert_eq!(truncate("plain", 3), ("pla", 2));
        assert_eq!(truncate("añb", 2), ("añ", 1));
        // An n and a combining tilde.
        assert_eq!(truncate("an\u{303}b", 2), ("a", 3));
        // A family is one character to whoever reads it.
        let family = "a👩\u{200d}👩\u{200d}👧";
        for max in 2..6 {
            assert_eq!(truncate(family, max).0, "a", "{max}");
        }
        assert_eq!(truncate(family, 6), (family, 0));
        assert_eq!(truncate("a👍🏽", 2).0, "a");
        // Not a text but an attack: it is cut where it has to be.
        let marks = format!("a{}", "\u{303}".repeat(1000));
        assert_eq!(truncate(&marks, 500).0.chars().count(), 500);
        assert_eq!(truncate("", 0), ("", 0));
        assert_eq!(truncate("a", 0), ("", 1));
    }

    #[test]
    fn what_a_terminal_would_obey_is_taken_out() {
        let hostile = "a\u{1b}[31mred\u{7}\nb\u{202e}c\u{9b}2J\0";
        let shown = printable(hostile);
        assert!(!shown.chars().any(|c| c.is_control() || turns(c)), "{shown:?}");
        assert_eq!(fit("日本語", 5), "日本…");
        assert_eq!(fit("日本語", 4), "日… ");
        assert_eq!(fit("abc", 5), "abc  ");
        assert_eq!(fit("abc", 0), "");
    }

    proptest! {
        #[test]
        fn a_fitted_text_has_its_width(text in any::<String>(), max in 0_usize..40) {
            prop_assert_eq!(width(&fit(&text, max)), max);
        }

        #[test]
        fn a_truncated_text_is_a_beginning(text in "\\PC{0,20}", max in 0_usize..25) {
            let (kept, left_out) = truncate(&text, max);
            prop_assert!(text.starts_with(kept));
            prop_assert!(kept.chars().count() <= max);
            prop_assert_eq!(kept.chars().count() + left_out, text.chars().count());
        }
    }
}
