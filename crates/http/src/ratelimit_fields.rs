//! What is left of the server's own rate limit, as its responses tell.
//!
//! Only that nothing is left is of use here, and when there is something again: that is a [`Hint`].
//! A malformed field is as if absent.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, header};
use portcullis_core::{Hint, clock};

use crate::hint::{LONGEST, digits, text};

const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RATELIMIT_RESET: HeaderName = HeaderName::from_static("ratelimit-reset");
const X_RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const X_RATELIMIT_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// A reset that is larger than this is a point in time, in seconds since 1970, and not a number of
/// seconds from now: it would be thirty years.
const POINT_IN_TIME: u64 = 1_000_000_000;

/// The IETF's `RateLimit` field (draft-ietf-httpapi-ratelimit-headers-08 to -10:
/// `"default";r=0;t=30`), or the fields `RateLimit-Remaining` and `RateLimit-Reset` of drafts up
/// to -06.
///
/// When a policy has nothing remaining (`r=0`), the hint is its time to the reset (`t`); of several
/// such, the longest. Otherwise there is none.
///
/// ```
/// use http::{HeaderMap, HeaderValue};
/// use portcullis_core::Hint;
/// use std::time::Duration;
///
/// let mut headers = HeaderMap::new();
/// let value = HeaderValue::from_static(r#""burst";r=12;t=1, "daily";r=0;t=3600"#);
/// headers.insert("ratelimit", value);
/// let hint = portcullis_http::hint::rate_limit(&headers);
/// assert_eq!(hint, Hint::After(Duration::from_secs(3600)));
/// ```
#[must_use]
pub fn rate_limit(headers: &HeaderMap) -> Hint {
    if headers.contains_key(&RATELIMIT) {
        return list(headers).map_or(Hint::None, after);
    }
    remaining_and_reset(headers, &RATELIMIT_REMAINING, &RATELIMIT_RESET).map_or(Hint::None, after)
}

/// The common `x-ratelimit-remaining` and `x-ratelimit-reset`, which nobody has specified.
///
/// The reset is taken for seconds from now, or, above 10⁹, for seconds since 1970, relative to the
/// response's own `Date` if it has one.
#[must_use]
pub fn x_rate_limit(headers: &HeaderMap) -> Hint {
    let Some(reset) = remaining_and_reset(headers, &X_RATELIMIT_REMAINING, &X_RATELIMIT_RESET)
    else {
        return Hint::None;
    };
    if reset <= POINT_IN_TIME {
        return after(reset);
    }
    let date = text(headers, &header::DATE).and_then(|date| httpdate::parse_http_date(date).ok());
    let now = date.unwrap_or_else(clock::wall).duration_since(SystemTime::UNIX_EPOCH);
    after(reset.saturating_sub(now.unwrap_or_default().as_secs()))
}

fn after(seconds: u64) -> Hint {
    Hint::After(Duration::from_secs(seconds).min(LONGEST))
}

/// The reset, if nothing is remaining.
fn remaining_and_reset(
    headers: &HeaderMap,
    remaining: &HeaderName,
    reset: &HeaderName,
) -> Option<u64> {
    let nothing_left = digits(text(headers, remaining)?)? == 0;
    let reset = digits(text(headers, reset)?)?;
    nothing_left.then_some(reset)
}

/// The longest reset of the policies with nothing remaining. One malformed member spoils the whole
/// list, as in all structured fields (RFC 9651); only the names and values that are of no use here are
/// not looked into, beyond finding where they end.
fn list(headers: &HeaderMap) -> Option<u64> {
    let mut longest = None;
    for value in headers.get_all(&RATELIMIT) {
        let mut rest = value.to_str().ok()?.trim();
        while !rest.is_empty() {
            let (policy, after) = policy(rest)?;
            if policy.remaining == Some(0) {
                longest = longest.max(policy.reset);
            }
            rest = match after.trim_start().strip_prefix(',') {
                // A comma must be followed by a member.
                Some(more) if !more.trim_start().is_empty() => more.trim_start(),
                None if after.trim_start().is_empty() => "",
                _ => return None,
            };
        }
    }
    longest
}

struct Policy {
    remaining: Option<u64>,
    reset: Option<u64>,
}

/// One member of the list, `name;r=0;t=30`, and what follows it.
fn policy(text: &str) -> Option<(Policy, &str)> {
    let (mut remaining, mut reset) = (None, None);
    let (_name, mut rest) = bare_item(text)?;
    while let Some(more) = rest.strip_prefix(';') {
        let more = more.trim_start();
        let end = more.find(|c: char| !is_key(c)).unwrap_or(more.len());
        let (key, after) = more.split_at(end);
        if key.is_empty() {
            return None;
        }
        let value;
        (value, rest) = match after.strip_prefix('=') {
            Some(after) => bare_item(after)?,
            None => ("", after),
        };
        match key {
            // Of two of one name, the last counts.
            "r" => remaining = Some(value),
            "t" => reset = Some(value),
            _ => {}
        }
    }
    let number = |value: Option<&str>| value.map_or(Some(None), |value| digits(value).map(Some));
    Some((Policy { remaining: number(remaining)?, reset: number(reset)? }, rest))
}

/// A string, a display string, a byte sequence, or anything up to the next delimiter; and what
/// follows it.
fn bare_item(text: &str) -> Option<(&str, &str)> {
    let end = match text.as_bytes().first()? {
        b'"' => {
            let mut escaped = false;
            let quote = text.bytes().skip(1).position(|byte| {
                let ends = byte == b'"' && !escaped;
                escaped = byte == b'\\' && !escaped;
                ends
            });
            quote? + 2
        }
        b'%' => text.strip_prefix("%\"")?.find('"')? + 3,
        b':' => text[1..].find(':')? + 2,
        // A parenthesis begins a list within the list, which is no policy.
        _ => text.find([';', ',', ' ', '\t', '"', '(', ')']).unwrap_or(text.len()),
    };
    (end > 0).then(|| text.split_at(end))
}

fn is_key(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-' | '.' | '*')
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn ietf(value: &str) -> Hint {
        rate_limit(&headers(&[("ratelimit", value)]))
    }

    fn x(remaining: &str, reset: &str) -> Hint {
        let fields = [("x-ratelimit-remaining", remaining), ("x-ratelimit-reset", reset)];
        x_rate_limit(&headers(&fields))
    }

    fn seconds(seconds: u64) -> Hint {
        Hint::After(Duration::from_secs(seconds))
    }

    #[test]
    fn nothing_remaining_is_a_hint_and_something_is_none() {
        assert_eq!(ietf(r#""default";r=0;t=30"#), seconds(30));
        assert_eq!(ietf(r#""default";r=1;t=30"#), Hint::None);
        assert_eq!(ietf(r#""default";r=0"#), Hint::None, "nobody knows until when");
        assert_eq!(ietf(r#""a, \";r=1";t=7;pk=:dGVuYW50:;r=0 , "b";r=0;t=5"#), seconds(7));
        assert_eq!(ietf(r#""default";r=1;t;r=0;t=6"#), seconds(6), "the last of a name counts");
        assert_eq!(ietf(r#""default";n=%"a, %22;r=1%c3%a9";r=0;t=8"#), seconds(8));
        assert_eq!(ietf(r#""default";r=0;t=99999999999999999999"#), Hint::After(LONGEST));
        let two = [("ratelimit", r#""a";r=0;t=2"#), ("ratelimit", r#""b";r=0;t=9"#)];
        assert_eq!(rate_limit(&headers(&two)), seconds(9));
    }

    #[test]
    fn the_older_drafts_are_read() {
        let fields = [("ratelimit-remaining", "0"), ("ratelimit-reset", "12")];
        assert_eq!(rate_limit(&headers(&fields)), seconds(12));
        let fields = [("ratelimit-remaining", "3"), ("ratelimit-reset", "12")];
        assert_eq!(rate_limit(&headers(&fields)), Hint::None);
    }

    #[test]
    fn malformed_ones_are_as_if_absent() {
        for value in [
            "",
            ",",
            r#""open"#,
            r#""a";r=0;t=-1"#,
            r#""a";r=zero;t=1"#,
            r#""a";r=0;t=1,"#,
            r#""a";r=0;t=1 "b""#,
            r#""a";=0;t=1"#,
            r#""a";r=0;t=1;pk=:open"#,
            r#""a";r=0;t=1, "b";r=0;t=-1"#,
            r#""a";r=0;t=1, "b";r=x;t=1"#,
            ";r=0;t=1",
            r#""a";r=0;t=1;pk="#,
            "(a b);r=0;t=1",
            "limit=100, remaining=0, reset=50",
        ] {
            assert_eq!(ietf(value), Hint::None, "{value:?}");
        }
        assert_eq!(x("none", "5"), Hint::None);
        assert_eq!(x("0", "soon"), Hint::None);
    }

    #[test]
    fn an_x_reset_is_a_time_to_come_or_a_point_in_time() {
        assert_eq!(x("0", "42"), seconds(42));
        assert_eq!(x("7", "42"), Hint::None);

        let mut fields = headers(&[("x-ratelimit-remaining", "0")]);
        fields.insert(X_RATELIMIT_RESET, HeaderValue::from_static("1784111807"));
        let date = SystemTime::UNIX_EPOCH + Duration::from_secs(1_784_111_777);
        let date = HeaderValue::from_str(&httpdate::fmt_http_date(date)).unwrap();
        fields.insert(header::DATE, date);
        assert_eq!(x_rate_limit(&fields), seconds(30));
        fields.insert(X_RATELIMIT_RESET, HeaderValue::from_static("1784111000"));
        assert_eq!(x_rate_limit(&fields), seconds(0), "in the past");
    }

    proptest! {
        #[test]
        fn no_field_makes_it_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
            likely in r#"[a-z0-9",;:=*\\ rt]{0,40}"#,
        ) {
            for value in [HeaderValue::from_bytes(&bytes), HeaderValue::from_str(&likely)] {
                let Ok(value) = value else { continue };
                let mut headers = HeaderMap::new();
                for name in [X_RATELIMIT_REMAINING, X_RATELIMIT_RESET, header::DATE, RATELIMIT] {
                    headers.insert(name, value.clone());
                }
                let _ = (rate_limit(&headers), x_rate_limit(&headers));
                headers.remove(RATELIMIT);
                headers.insert(RATELIMIT_REMAINING, value.clone());
                headers.insert(RATELIMIT_RESET, value);
                let _ = rate_limit(&headers);
            }
        }
    }
}
