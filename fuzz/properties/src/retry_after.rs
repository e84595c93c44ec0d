//! `Retry-After`, and the `Date` that it is relative to.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};
use portcullis_core::{Hint, clock};
use portcullis_http::hint::{self, LONGEST};

use crate::text;

/// Line 1 is `Retry-After`, line 2 the `Date`; and once more, the bytes are taken for two points in
/// time.
pub fn retry_after(data: &[u8]) {
    as_text(data);
    as_dates(data);
}

fn as_text(data: &[u8]) {
    let headers = text::headers(data, &[header::RETRY_AFTER, header::DATE]);
    let before = clock::wall();
    let hint = hint::retry_after(&headers);
    let after = clock::wall();

    let Some(value) = text::plain(headers.get(header::RETRY_AFTER)) else {
        return assert_eq!(hint, Hint::None);
    };
    if let Some(seconds) = text::number(value) {
        return assert_eq!(hint, Hint::After(Duration::from_secs(seconds).min(LONGEST)));
    }
    let date = |text| httpdate::parse_http_date(text).ok();
    let Some(at) = date(value) else { return assert_eq!(hint, Hint::None) };
    let wait = |now| Hint::After(at.duration_since(now).unwrap_or_default().min(LONGEST));
    match text::plain(headers.get(header::DATE)).and_then(date) {
        Some(own) => assert_eq!(hint, wait(own)),
        None => {
            let (Hint::After(hint), Hint::After(most), Hint::After(least)) =
                (hint, wait(before), wait(after))
            else {
                panic!("{hint:?} for a date")
            };
            assert!((least..=most).contains(&hint), "{hint:?}");
        }
    }
}

/// The wait between two points in time, written as dates of any of the three forms, is what is read.
fn as_dates(data: &[u8]) {
    let Some((&[form, a, b, c, d, e, f], _)) = data.split_first_chunk() else { return };
    // Within 1970 to 2038, so that a year of two digits is read as it was meant.
    let own = u64::from(u32::from_be_bytes([a & 0x7f, b, c, d]));
    let wait = u64::from(u16::from_be_bytes([e, f]));
    let forms = [imf_fixdate, rfc850, asctime];
    let mut headers = HeaderMap::new();
    let mut insert = |name, text: String| {
        headers.insert(name, HeaderValue::try_from(text).expect("a date is plain text"));
    };
    insert(header::DATE, forms[usize::from(form) % 3](own));
    insert(header::RETRY_AFTER, forms[usize::from(form / 3) % 3](own + wait));
    assert_eq!(hint::retry_after(&headers), Hint::After(Duration::from_secs(wait)), "{headers:?}");
}

/// The forms of RFC 9110, section 5.6.7, spelt out.
fn imf_fixdate(seconds: u64) -> String {
    let (weekday, [year, month, day], time) = civil(seconds);
    format!("{}, {day:02} {} {year:04} {time} GMT", &WEEKDAYS[weekday][..3], MONTHS[month])
}

fn rfc850(seconds: u64) -> String {
    let (weekday, [year, month, day], time) = civil(seconds);
    format!("{}, {day:02}-{}-{:02} {time} GMT", WEEKDAYS[weekday], MONTHS[month], year % 100)
}

fn asctime(seconds: u64) -> String {
    let (weekday, [year, month, day], time) = civil(seconds);
    format!("{} {} {day:2} {time} {year:04}", &WEEKDAYS[weekday][..3], MONTHS[month])
}

const WEEKDAYS: [&str; 7] =
    ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// The weekday, the date and the time of day, by counting the years and months off.
fn civil(seconds: u64) -> (usize, [usize; 3], String) {
    let (mut days, time) = ((seconds / 86_400) as usize, seconds % 86_400);
    let time = format!("{:02}:{:02}:{:02}", time / 3_600, time / 60 % 60, time % 60);
    let weekday = days % 7;
    // No century is within.
    let leap = |year: usize| year.is_multiple_of(4);
    let mut year = 1970;
    while days >= 365 + usize::from(leap(year)) {
        days -= 365 + usize::from(leap(year));
        year += 1;
    }
    let february = 28 + usize::from(leap(year));
    let mut month = 0;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (weekday, [year, month, days + 1], time)
}
