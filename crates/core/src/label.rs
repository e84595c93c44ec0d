//! Short names, held where they are.

use std::fmt;

/// A short name, held in place: three words to be copied, where an `Arc<str>` is a count of references
/// that threads share.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Label([u64; WORDS]);

const WORDS: usize = 3;
/// The last byte says how many there are.
const MOST: usize = WORDS * 8 - 1;

// ===== impl Label =====

impl Label {
    /// The label of this name, if it is at most 23 bytes long.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        let mut bytes = [0; WORDS * 8];
        bytes.get_mut(..MOST)?.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
        bytes[MOST] = u8::try_from(name.len()).ok()?;
        let (words, _) = bytes.as_chunks();
        let mut label = [0; WORDS];
        for (word, bytes) in label.iter_mut().zip(words) {
            *word = u64::from_le_bytes(*bytes);
        }
        Some(Self(label))
    }

    /// Hands the name to `f`.
    pub fn with<R>(&self, f: impl FnOnce(&str) -> R) -> R {
        let mut bytes = [0; WORDS * 8];
        let (words, _) = bytes.as_chunks_mut();
        for (bytes, word) in words.iter_mut().zip(self.0) {
            *bytes = word.to_le_bytes();
        }
        let name = bytes.get(..usize::from(bytes[MOST])).unwrap_or_default();
        f(std::str::from_utf8(name).unwrap_or_default())
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with(|name| f.write_str(name))
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with(|name| fmt::Debug::fmt(name, f))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_reads_as_its_name_and_what_is_too_long_for_it_has_none() {
        for name in ["", "search", "日本語", "exactly 23 bytes long, "] {
            assert_eq!(Label::new(name).unwrap().to_string(), name);
        }
        assert_eq!(Label::new("24 bytes, and so too long"), None);
        assert_eq!(Label::new(&"x".repeat(24)), None);
    }
}
