//! The words on the command line.

use std::{ffi::OsString, fmt, ops::RangeInclusive};

use lexopt::{Arg, Parser};

/// What `--help` prints.
pub(crate) const HELP: &str = "\
Thousands of calls through the whole stack, against upstreams that go through every weather, in
simulated time and from a seed; then judges what the stack promises. The same seed and number of
calls give the same run, to the byte.

Usage: simulator [OPTIONS]

Options:
      --seed N       the run's seed, 0 to 18446744073709551615 [default: 1]
      --seeds A..B   a run for each seed from A to before B, in place of one
      --calls N      calls in a run, 500 to 1000000 [default: 10000]
      --log          print what happened, a line each, before the table
      --json         print one JSON object instead of the table
  -h, --help         print this

Exit status: 0 when every promise was kept, 1 when one was not or a run failed, 2 when the
options are wrong.";

/// Fewer calls than this do not notice the weather.
const CALLS: RangeInclusive<u64> = 500..=1_000_000;

/// How the simulator is to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Args {
    /// A run for each.
    pub(crate) seeds: RangeInclusive<u64>,
    /// Calls in a run.
    pub(crate) calls: u32,
    /// Whether to print what happened.
    pub(crate) log: bool,
    /// Whether to print JSON instead of the table.
    pub(crate) json: bool,
}

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// To run.
    Run(Args),
    /// For help.
    Help,
}

/// A word on the command line that means nothing, or a value out of its range.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Misused(String);

// ===== impl Args =====

impl Args {
    /// Reads the words after the program's name.
    ///
    /// # Errors
    ///
    /// Names the option, the value it was given and what is allowed.
    pub(crate) fn parse<I>(words: I) -> Result<Asked, Misused>
    where
        I: IntoIterator,
        I::Item: Into<OsString>,
    {
        let mut args = Self { seeds: 1..=1, calls: 10_000, log: false, json: false };
        let mut parser = Parser::from_args(words);
        while let Some(word) = parser.next().map_err(|error| misused(&error))? {
            match word {
                Arg::Long("seed") => {
                    let allowed = "a whole number from 0 to 18446744073709551615";
                    let seed: u64 = value(&mut parser, "seed", allowed, |text| text.parse().ok())?;
                    args.seeds = seed..=seed;
                }
                Arg::Long("seeds") => {
                    args.seeds = value(&mut parser, "seeds", "A..B with A below B", range)?;
                }
                Arg::Long("calls") => {
                    let allowed = "a whole number from 500 to 1000000";
                    let in_range = |text: &str| text.parse().ok().filter(|n| CALLS.contains(n));
                    args.calls = value(&mut parser, "calls", allowed, in_range)? as u32;
                }
                Arg::Long("log") => args.log = true,
                Arg::Long("json") => args.json = true,
                Arg::Long("help") | Arg::Short('h') => return Ok(Asked::Help),
                other => return Err(misused(&other.unexpected())),
            }
        }
        Ok(Asked::Run(args))
    }
}

// ===== impl Misused =====

impl fmt::Display for Misused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; `--help` lists the options", self.0)
    }
}

fn value<T>(
    parser: &mut Parser,
    option: &str,
    allowed: &str,
    read: impl FnOnce(&str) -> Option<T>,
) -> Result<T, Misused> {
    let Ok(value) = parser.value() else {
        return Err(Misused(format!("option `--{option}` needs {allowed}")));
    };
    let value = value.to_string_lossy();
    read(&value)
        .ok_or_else(|| Misused(format!("option `--{option}` is `{value}`, but must be {allowed}")))
}

fn range(text: &str) -> Option<RangeInclusive<u64>> {
    let (from, to) = text.split_once("..")?;
    let (from, to) = (from.parse().ok()?, to.parse::<u64>().ok()?);
    (from < to).then(|| from..=to - 1)
}

fn misused(error: &lexopt::Error) -> Misused {
    Misused(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Result<Asked, String> {
        Args::parse(words.split_whitespace()).map_err(|misused| misused.to_string())
    }

    fn run(seeds: RangeInclusive<u64>, calls: u32) -> Result<Asked, String> {
        Ok(Asked::Run(Args { seeds, calls, log: false, json: false }))
    }

    #[test]
    fn options_are_read_in_any_order() {
        assert_eq!(parse(""), run(1..=1, 10_000));
        assert_eq!(parse("--calls 500 --seed 7"), run(7..=7, 500));
        assert_eq!(parse("--seeds=3..9"), run(3..=8, 10_000));
        assert_eq!(parse("--seed 3 -h"), Ok(Asked::Help));
        let all = Args { seeds: 0..=0, calls: 10_000, log: true, json: true };
        assert_eq!(parse("--json --seed 0 --log"), Ok(Asked::Run(all)));
    }

    #[test]
    fn wrong_words_are_refused_by_name_value_and_range() {
        let told = |words: &str| parse(words).unwrap_err();
        for words in ["--calls 499", "--calls ten", "--seed -1", "--seeds 3..3", "--seeds 4"] {
            let (option, value) = words.split_once(' ').unwrap();
            assert!(told(words).contains(&format!("`{option}` is `{value}`, but must be")));
        }
        assert!(told("--seeds").contains("needs A..B"));
        assert!(told("--calls 499").contains("from 500 to 1000000"));
        assert!(told("20").contains("20"));
    }
}
