//! Sums the `test result:` lines of test binaries as they stream by.

use std::ops::AddAssign;

/// What the test binaries have reported so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) ignored: u64,
    /// How many binaries reported.
    pub(crate) binaries: u64,
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
        self.binaries += other.binaries;
    }
}

/// Cuts a stream into lines and reads the results in them.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    totals: Totals,
    line: Vec<u8>,
}

impl Tally {
    /// Takes the next bytes of the stream, wherever they end.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte == b'\n' {
                self.end_line();
            } else {
                self.line.push(byte);
            }
        }
    }

    /// The sums, once the stream has ended.
    pub(crate) fn finish(mut self) -> Totals {
        self.end_line();
        self.totals
    }

    fn end_line(&mut self) {
        if let Some([passed, failed, ignored]) = result(&String::from_utf8_lossy(&self.line)) {
            self.totals.passed += passed;
            self.totals.failed += failed;
            self.totals.ignored += ignored;
            self.totals.binaries += 1;
        }
        self.line.clear();
    }
}

/// Passed, failed and ignored of `test result: ok. 3 passed; 0 failed; 1 ignored; …`.
fn result(line: &str) -> Option<[u64; 3]> {
    let (_, counts) = line.trim().strip_prefix("test result: ")?.split_once(". ")?;
    let count = |what| {
        counts.split(';').find_map(|part| match part.trim().split_once(' ')? {
            (number, word) if word == what => number.parse().ok(),
            _ => None,
        })
    };
    Some([count("passed")?, count("failed")?, count("ignored")?])
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = "
running 3 tests
test opens ... ok
test closes ... FAILED

test result: FAILED. 2 passed; 1 failed; 4 ignored; 0 measured; 0 filtered out; finished in 0.00s

   Doc-tests portcullis
test result: ok. 17 passed; 0 failed; 0 ignored; 0 measured; 1 filtered out; finished in 0.80s
";

    const TOTALS: Totals = Totals { passed: 19, failed: 1, ignored: 4, binaries: 2 };

    #[test]
    fn sums_over_the_test_binaries() {
        let mut tally = Tally::default();
        tally.feed(STREAM.as_bytes());
        assert_eq!(tally.finish(), TOTALS);
    }

    #[test]
    fn does_not_care_where_the_stream_is_cut() {
        for size in 1..STREAM.len() {
            let mut tally = Tally::default();
            STREAM.as_bytes().chunks(size).for_each(|chunk| tally.feed(chunk));
            assert_eq!(tally.finish(), TOTALS, "cut every {size} bytes");
        }
    }

    #[test]
    fn a_last_line_without_an_end_counts() {
        let mut tally = Tally::default();
        tally.feed(b"test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured");
        assert_eq!(tally.finish(), Totals { passed: 1, binaries: 1, ..Totals::default() });
    }

    #[test]
    fn lines_that_only_look_like_results_do_not_count() {
        let mut tally = Tally::default();
        tally.feed(b"test result: unknown\ntest result: ok. many passed; 0 failed; 0 ignored\n");
        tally.feed(b"the test result: ok. 1 passed; 0 failed; 0 ignored\n\xff\xfe\r\n");
        assert_eq!(tally.finish(), Totals::default());
    }
}
