//! Days, and places in time as the file has them.

use std::time::{Duration, SystemTime};

/// Nanoseconds of a day.
const LENGTH: i64 = 86_400 * 1_000_000_000;

/// The last place that a trace can have.
const LAST: i64 = i64::MAX - 1;

/// A day by UTC, as the number of days since 1970. It has a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Day(pub(crate) i64);

/// Where a trace of this date stands: nanoseconds since 1970. A trace of before 1970 stands at its
/// beginning, one of after 2262 at its end.
pub(crate) fn place(date: SystemTime) -> i64 {
    bound(date).min(LAST)
}

/// The same for the place that a cursor names.
pub(crate) fn place_at(nanos: u64) -> i64 {
    i64::try_from(nanos).unwrap_or(LAST).min(LAST)
}

/// The same of a date that traces are compared with: one after 2262 is beyond all of them.
pub(crate) fn bound(date: SystemTime) -> i64 {
    let since = date.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

// ===== impl Day =====

impl Day {
    /// The one that a place is in.
    pub(crate) fn of(place: i64) -> Self {
        Self(place.div_euclid(LENGTH))
    }

    /// Its first place.
    pub(crate) fn start(self) -> i64 {
        self.0.saturating_mul(LENGTH)
    }

    /// The place after its last.
    pub(crate) fn end(self) -> i64 {
        self.start().saturating_add(LENGTH)
    }

    /// The name of its table: `day_20261123`.
    pub(crate) fn table(self) -> String {
        // The file may say what it likes; the calendar ends with the year 9999.
        let days = u64::try_from(self.0).unwrap_or_default().min(2_932_896);
        let date = SystemTime::UNIX_EPOCH + Duration::from_secs(days * 86_400);
        let date = humantime::format_rfc3339_seconds(date).to_string();
        format!("day_{}{}{}", &date[..4], &date[5..7], &date[8..10])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_the_name_of_its_day() {
        assert_eq!(Day::of(0).table(), "day_19700101");
        assert_eq!(Day::of(LENGTH - 1), Day(0));
        assert_eq!(Day::of(1_795_404_913_132_017_462).table(), "day_20261123");
        assert_eq!(Day::of(951_782_400_000_000_000).table(), "day_20000229");
        assert_eq!(Day::of(i64::MAX).table(), "day_22620411");
    }

    #[test]
    fn days_of_a_file_that_lies_do_not_overflow() {
        for day in [i64::MIN, -1, i64::MAX / 2, i64::MAX] {
            let day = Day(day);
            assert!(day.start() <= day.end());
            assert_eq!(day.table().len(), "day_20261123".len());
        }
    }
}
