//! What a server says about when to come back, read in one place for every layer.
//!
//! A malformed header is as if absent, and never an error for the caller. A legal but absurd value
//! is clamped.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use portcullis_core::{Hint, clock};

pub use crate::ratelimit_fields::{rate_limit, x_rate_limit};

/// gRPC's advice on when to retry, in milliseconds; negative means never (gRFC A6).
pub const GRPC_RETRY_PUSHBACK_MS: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// The longest wait that is believed: one day. What exceeds it is cut down to it.
pub const LONGEST: Duration = Duration::from_secs(86_400);

/// The largest pushback there is: a signed number of 32 bits.
const LARGEST_PUSHBACK: u64 = i32::MAX as u64;

/// `Retry-After`, as seconds or as a date (RFC 9110, section 10.2.3).
///
/// A date is taken relative to the response's own `Date`, so that a server whose clock is off is
/// still understood; without one, relative to the local clock. A date in the past means now.
///
/// ```
/// use http::{HeaderMap, HeaderValue, header};
/// use portcullis_core::Hint;
/// use std::time::Duration;
///
/// let mut headers = HeaderMap::new();
/// headers.insert(header::RETRY_AFTER, HeaderValue::from_static("120"));
/// assert_eq!(portcullis_http::hint::retry_after(&headers), Hint::After(Duration::from_secs(120)));
/// ```
#[must_use]
pub fn retry_after(headers: &HeaderMap) -> Hint {
    let Some(value) = text(headers, &header::RETRY_AFTER) else {
        return Hint::None;
    };
    if let Some(seconds) = digits(value) {
        return Hint::After(Duration::from_secs(seconds).min(LONGEST));
    }
    let Ok(at) = httpdate::parse_http_date(value) else {
        return Hint::None;
    };
    let date = text(headers, &header::DATE).and_then(|date| httpdate::parse_http_date(date).ok());
    let wait = at.duration_since(date.unwrap_or_else(clock::wall)).unwrap_or_default();
    Hint::After(wait.min(LONGEST))
}

/// `grpc-retry-pushback-ms` (gRFC A6): the wait is exact. Negative, or no number that 32 bits with a sign
/// can hold, means never.
#[must_use]
pub fn grpc_pushback(headers: &HeaderMap) -> Hint {
    let Some(value) = headers.get(&GRPC_RETRY_PUSHBACK_MS) else {
        return Hint::None;
    };
    match value.to_str().ok().and_then(digits).filter(|&millis| millis <= LARGEST_PUSHBACK) {
        Some(millis) => Hint::Exactly(Duration::from_millis(millis).min(LONGEST)),
        None => Hint::Never,
    }
}

/// A duration as a `Retry-After` value: whole seconds, rounded up, at least 1.
pub(crate) fn to_retry_after(wait: Duration) -> HeaderValue {
    HeaderValue::from(whole(wait, Duration::from_secs(1)).max(1))
}

/// A duration as a `grpc-retry-pushback-ms` value: whole milliseconds, rounded up, at most 24 days.
pub(crate) fn to_pushback(wait: Duration) -> HeaderValue {
    HeaderValue::from(whole(wait, Duration::from_millis(1)).min(LARGEST_PUSHBACK))
}

/// How many of a unit cover a wait.
fn whole(wait: Duration, unit: Duration) -> u64 {
    u64::try_from(wait.as_nanos().div_ceil(unit.as_nanos())).unwrap_or(u64::MAX)
}

pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

/// A number of nothing but digits; one too large for its type is as large as can be.
pub(crate) fn digits(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use proptest::prelude::*;

    use super::*;

    fn after(value: &str) -> Hint {
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, HeaderValue::from_str(value).unwrap());
        retry_after(&headers)
    }

    fn pushback(value: &str) -> Hint {
        let mut headers = HeaderMap::new();
        headers.insert(GRPC_RETRY_PUSHBACK_MS, HeaderValue::from_str(value).unwrap());
        grpc_pushback(&headers)
    }

    #[test]
    fn seconds_are_read_and_absurd_ones_clamped() {
        assert_eq!(after("0"), Hint::After(Duration::ZERO));
        assert_eq!(after(" 7 "), Hint::After(Duration::from_secs(7)));
        assert_eq!(after("99999999999999999999999"), Hint::After(LONGEST));
    }

    #[test]
    fn malformed_ones_are_as_if_absent() {
        for value in ["", "soon", "-1", "+1", "1.5", "1 2", "0x10", "Sun, 99 Nov 1994 08:49:37 GMT"]
        {
            assert_eq!(after(value), Hint::None, "{value:?}");
        }
    }

    #[test]
    fn a_date_is_relative_to_the_responses_own() {
        let mut headers = HeaderMap::new();
        let date = |text| HeaderValue::from_static(text);
        headers.insert(header::RETRY_AFTER, date("Sun, 06 Nov 1994 08:50:07 GMT"));
        headers.insert(header::DATE, date("Sun, 06 Nov 1994 08:49:37 GMT"));
        assert_eq!(retry_after(&headers), Hint::After(Duration::from_secs(30)));

        headers.insert(header::DATE, date("Sun, 06 Nov 1994 09:49:37 GMT"));
        assert_eq!(retry_after(&headers), Hint::After(Duration::ZERO), "in the past");
    }

    #[test]
    fn a_date_alone_is_relative_to_the_local_clock() {
        let at = clock::wall() + Duration::from_secs(90);
        let Hint::After(wait) = after(&httpdate::fmt_http_date(at)) else { panic!("no hint") };
        assert!(wait > Duration::from_secs(60) && wait <= Duration::from_secs(91), "{wait:?}");
        assert!(at > SystemTime::UNIX_EPOCH);
    }

    #[test]
    fn a_pushback_that_is_negative_or_unparsable_means_never() {
        assert_eq!(pushback("250"), Hint::Exactly(Duration::from_millis(250)));
        assert_eq!(pushback("2147483647"), Hint::Exactly(LONGEST));
        assert_eq!(pushback("2147483648"), Hint::Never);
        assert_eq!(pushback("-1"), Hint::Never);
        assert_eq!(pushback("soon"), Hint::Never);
        assert_eq!(grpc_pushback(&HeaderMap::new()), Hint::None);
    }

    #[test]
    fn a_wait_is_written_in_whole_seconds_rounded_up() {
        assert_eq!(to_retry_after(Duration::ZERO), "1");
        assert_eq!(to_retry_after(Duration::from_millis(1_001)), "2");
        assert_eq!(to_retry_after(Duration::from_secs(2)), "2");
        assert_eq!(
            to_retry_after(Duration::MAX),
            u64::MAX.to_string().as_str(),
            "as long as can be"
        );
    }

    #[test]
    fn a_pushback_is_written_in_whole_milliseconds_rounded_up() {
        assert_eq!(to_pushback(Duration::ZERO), "0");
        assert_eq!(to_pushback(Duration::from_millis(7)), "7");
        assert_eq!(to_pushback(Duration::from_nanos(7_000_001)), "8");
        assert_eq!(to_pushback(Duration::MAX), "2147483647");
    }

    proptest! {
        #[test]
        fn no_header_makes_it_panic(value in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                let mut headers = HeaderMap::new();
                headers.insert(header::RETRY_AFTER, value.clone());
                headers.insert(header::DATE, value.clone());
                headers.insert(GRPC_RETRY_PUSHBACK_MS, value);
                let _ = (retry_after(&headers), grpc_pushback(&headers));
            }
        }
    }
}
