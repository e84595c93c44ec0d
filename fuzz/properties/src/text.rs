//! Headers out of lines of text, so that the corpus can be read and written by hand.

use http::{HeaderMap, HeaderName, HeaderValue};

/// A header map with `fields`, one value for each line that can be a header's value.
///
/// A line `~` stands for a header that is not there. The last field takes all the lines that are left.
pub(crate) fn headers(data: &[u8], fields: &[HeaderName]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (at, line) in data.split(|byte| *byte == b'\n').enumerate() {
        let field = fields.get(at).or(fields.last());
        if line != b"~"
            && let Some(field) = field
            && let Ok(value) = HeaderValue::from_bytes(line)
        {
            headers.append(field, value);
        }
    }
    headers
}

/// A value as text without its surrounding blanks; `None` where it is no printable ASCII.
pub(crate) fn plain(value: Option<&HeaderValue>) -> Option<&str> {
    let bytes = value?.as_bytes();
    let printable = bytes.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~'));
    printable.then(|| std::str::from_utf8(bytes).expect("it is ASCII").trim_matches([' ', '\t']))
}

/// A number of nothing but digits, the slow way; as large as can be where it is larger.
pub(crate) fn number(text: &str) -> Option<u64> {
    let mut number = 0_u64;
    for letter in text.chars() {
        let digit = ('0'..='9').position(|digit| digit == letter)? as u64;
        number = number.saturating_mul(10).saturating_add(digit);
    }
    (!text.is_empty()).then_some(number)
}

/// A value as text, with whatever blanks it has; `None` where it is no printable ASCII.
pub(crate) fn whole(value: &HeaderValue) -> Option<&str> {
    plain(Some(value))?;
    std::str::from_utf8(value.as_bytes()).ok()
}
