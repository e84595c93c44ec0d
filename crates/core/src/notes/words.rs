//! Names and keys, each held once.

/// Names and keys, each held once, in one string that is used again.
#[derive(Debug)]
pub(super) struct Words {
    text: String,
    ends: Vec<u32>,
}

/// A name or key that is held by [`Notes`](super::Notes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word(u16);

/// Bytes of names and keys that one call may bring.
const MOST_TEXT: usize = 4096;
/// What it is made with, so that a usual call makes it grow no more.
const USUAL_TEXT: usize = 256;
const USUAL_WORDS: usize = 16;

// ===== impl Words =====

impl Words {
    pub(super) fn new() -> Self {
        Self { text: String::with_capacity(USUAL_TEXT), ends: Vec::with_capacity(USUAL_WORDS) }
    }

    pub(super) fn clear(&mut self) {
        self.text.clear();
        self.ends.clear();
    }

    /// Keeps the first `max` bytes of a word; `None` if there is no room for more words.
    #[inline]
    pub(super) fn keep(&mut self, word: &str, max: usize) -> Option<Word> {
        let word = clip(word, max);
        let mut start = 0;
        for (index, &end) in self.ends.iter().enumerate() {
            // Few are there, and most of what comes came before.
            if self.text.as_bytes().get(start..end as usize) == Some(word.as_bytes()) {
                return u16::try_from(index).ok().map(Word);
            }
            start = end as usize;
        }
        self.add(word)
    }

    fn add(&mut self, word: &str) -> Option<Word> {
        let index = u16::try_from(self.ends.len()).ok()?;
        if self.text.len() + word.len() > MOST_TEXT {
            return None;
        }
        self.text.push_str(word);
        self.ends.push(u32::try_from(self.text.len()).ok()?);
        Some(Word(index))
    }

    pub(super) fn get(&self, word: Word) -> &str {
        let index = usize::from(word.0);
        let end = self.ends.get(index).map_or(0, |&end| end as usize);
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        self.text.get(start..end).unwrap_or_default()
    }

    /// Bytes on the heap.
    pub(super) fn bytes(&self) -> usize {
        self.text.capacity() + self.ends.capacity() * size_of::<u32>()
    }
}

/// The first bytes of `text`, at most `max`, that are whole characters.
#[inline]
fn clip(text: &str, max: usize) -> &str {
    let mut end = max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_held_once_and_all_of_them_are_bounded() {
        let mut words = Words::new();
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
}
