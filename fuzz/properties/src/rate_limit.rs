//! The rate limit fields: the IETF's, of its present draft and of its older ones, and the common ones.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, header};
use portcullis_core::{Hint, clock};
use portcullis_http::hint::{self, LONGEST};
use sfv::{BareItem, List, ListEntry, Parser};

use crate::text;

const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");
const LIST: HeaderName = HeaderName::from_static("ratelimit");
const X_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const X_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// Lines 1 and 2 are the fields of the older drafts; those after them are `RateLimit`s.
pub fn rate_limit(data: &[u8]) {
    let headers = text::headers(data, &[REMAINING, RESET, LIST]);
    let hint = hint::rate_limit(&headers);
    if !headers.contains_key(LIST) {
        return assert_eq!(hint, after(pair(&headers, &REMAINING, &RESET)));
    }
    match list(&headers) {
        Some(policies) => assert_eq!(hint, after(longest(&policies)), "{headers:?}"),
        // What is of no use here is not looked into, so some that are no structured fields are read.
        None => match hint {
            Hint::After(wait) => assert!(wait <= LONGEST),
            hint => assert_eq!(hint, Hint::None),
        },
    }
}

/// Line 1 is what remains, line 2 the reset, line 3 the `Date`.
pub fn x_rate_limit(data: &[u8]) {
    let headers = text::headers(data, &[X_REMAINING, X_RESET, header::DATE]);
    let before = since_1970(clock::wall());
    let hint = hint::x_rate_limit(&headers);
    let later = since_1970(clock::wall());
    let Some(reset) = pair(&headers, &X_REMAINING, &X_RESET) else {
        return assert_eq!(hint, Hint::None);
    };
    if reset <= 1_000_000_000 {
        return assert_eq!(hint, after(Some(reset)));
    }
    let date = text::plain(headers.get(header::DATE));
    let date = date.and_then(|date| httpdate::parse_http_date(date).ok()).map(since_1970);
    let wait = |now| after(Some(reset.saturating_sub(now)));
    match date {
        Some(date) => assert_eq!(hint, wait(date)),
        None => assert!([wait(before), wait(later)].contains(&hint), "{hint:?}"),
    }
}

fn after(seconds: Option<u64>) -> Hint {
    seconds.map_or(Hint::None, |seconds| Hint::After(Duration::from_secs(seconds).min(LONGEST)))
}

fn since_1970(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn pair(headers: &HeaderMap, remaining: &HeaderName, reset: &HeaderName) -> Option<u64> {
    let number = |name| text::plain(headers.get(name)).and_then(text::number);
    let (remaining, reset) = (number(remaining)?, number(reset)?);
    (remaining == 0).then_some(reset)
}

/// What remains of each policy and when it is reset, as a parser of structured fields that is not ours
/// reads them; `None` if they are none.
fn list(headers: &HeaderMap) -> Option<Vec<Params>> {
    let mut policies = Vec::new();
    for value in headers.get_all(LIST) {
        // A zero with a sign is a number there, and none here.
        if value.as_bytes().windows(2).any(|pair| pair == b"-0") {
            return None;
        }
        for member in Parser::new(value.as_bytes()).parse::<List>().ok()? {
            policies.push(match member {
                ListEntry::Item(item) => {
                    [item.params.get("r").cloned(), item.params.get("t").cloned()]
                }
                // Not a policy, though a structured field.
                ListEntry::InnerList(_) => [Some(BareItem::Boolean(false)), None],
            });
        }
    }
    Some(policies)
}

/// The parameters `r` and `t`.
type Params = [Option<BareItem>; 2];

/// The longest reset among the policies with nothing remaining, if all are policies.
fn longest(policies: &[Params]) -> Option<u64> {
    let number = |item: &Option<BareItem>| match item {
        None => Some(None),
        Some(BareItem::Integer(number)) => u64::try_from(*number).ok().map(Some),
        Some(_) => None,
    };
    let mut longest = None;
    for [remaining, reset] in policies {
        let (remaining, reset) = (number(remaining)?, number(reset)?);
        if remaining == Some(0) {
            longest = longest.max(reset);
        }
    }
    longest
}
