//! Numbers and dates as the API writes them.

use std::time::{Duration, SystemTime};

/// The last date that four digits of a year can tell.
const LAST: Duration = Duration::from_secs(253_402_300_799);

/// Milliseconds, to the microsecond.
pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

/// A date by RFC 3339, in UTC, to the millisecond. One that it cannot tell is the nearest it can.
pub(crate) fn date(at: SystemTime) -> String {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().min(LAST);
    humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH + since).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_date_and_any_duration_can_be_written() {
        let epoch = SystemTime::UNIX_EPOCH;
        assert_eq!(date(epoch + Duration::from_millis(1_500)), "1970-01-01T00:00:01.500Z");
        assert_eq!(date(epoch - Duration::from_secs(9)), "1970-01-01T00:00:00.000Z");
        assert_eq!(date(epoch + LAST * 3), "9999-12-31T23:59:59.000Z");
        assert_eq!(millis(Duration::from_nanos(12_345_678)), 12.345);
        assert!(millis(Duration::MAX).is_finite());
    }
}
