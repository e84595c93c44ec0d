//! The words on the command line.

use std::{ffi::OsString, fmt, ops::RangeInclusive};

use lexopt::{Arg, Parser};

/// What `--help` prints.
pub(crate) const HELP: &str = "\
What a call costs through each layer and each stack, beside its peers on the same inner service, in
one run: time, allocations and bytes per call; memory; a real client over loopback. Compare what
stands in one table, and ratios rather than nanoseconds.

Usage: compare [OPTIONS]

Options:
      --seconds N     about how long it takes, 1 to 3600 [default: 60]
      --rows PATTERN  only what has this in its group or name, in any case
      --json          print one JSON object instead of the tables
  -h, --help          print this

Exit status: 0, or 2 when the options are wrong.";

const SECONDS: RangeInclusive<u32> = 1..=3600;

/// What is to be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Args {
    /// About how long it takes, in seconds, 1 to 3600.
    pub(crate) seconds: u32,
    /// What a group or name has to contain, in lower case; empty is all.
    pub(crate) pattern: String,
    /// Whether to print JSON instead of tables.
    pub(crate) json: bool,
}

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Run(Args),
    Help,
}

/// A word on the command line that means nothing, or a value out of its range.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Misused(String);

// ===== impl Args =====

impl Args {
    /// Reads the words after the program's name.
    pub(crate) fn parse<I>(words: I) -> Result<Asked, Misused>
    where
        I: IntoIterator,
        I::Item: Into<OsString>,
    {
        let mut args = Self::default();
        let mut parser = Parser::from_args(words);
        while let Some(word) = parser.next().map_err(|error| Misused(error.to_string()))? {
            match word {
                Arg::Long("seconds") => args.seconds = seconds(&mut parser)?,
                Arg::Long("rows") => args.pattern = pattern(&mut parser)?,
                Arg::Long("json") => args.json = true,
                Arg::Long("help") | Arg::Short('h') => return Ok(Asked::Help),
                other => return Err(Misused(other.unexpected().to_string())),
            }
        }
        Ok(Asked::Run(args))
    }

    /// Whether something of this group and name is asked for.
    pub(crate) fn wants(&self, group: &str, name: &str) -> bool {
        [group, name].iter().any(|text| text.to_lowercase().contains(&self.pattern))
    }
}

impl Default for Args {
    fn default() -> Self {
        Self { seconds: 60, pattern: String::new(), json: false }
    }
}

fn seconds(parser: &mut Parser) -> Result<u32, Misused> {
    let (least, most) = (SECONDS.start(), SECONDS.end());
    let Ok(value) = parser.value() else {
        return Err(Misused(format!("--seconds needs a whole number from {least} to {most}")));
    };
    let value = value.to_string_lossy();
    match value.parse() {
        Ok(number) if SECONDS.contains(&number) => Ok(number),
        _ => Err(Misused(format!(
            "--seconds is {value:?}, but must be a whole number from {least} to {most}"
        ))),
    }
}

fn pattern(parser: &mut Parser) -> Result<String, Misused> {
    match parser.value() {
        Ok(value) if !value.is_empty() => Ok(value.to_string_lossy().to_lowercase()),
        _ => Err(Misused("--rows needs a part of a group or name, such as `breaker`".to_owned())),
    }
}

// ===== impl Misused =====

impl Misused {
    /// Nothing fits the pattern.
    pub(crate) fn no_row(pattern: &str, groups: &[&str]) -> Self {
        Self(format!("--rows {pattern:?} fits nothing; the groups are: {}", groups.join(", ")))
    }
}

impl fmt::Display for Misused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; --help lists the options", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Result<Asked, String> {
        Args::parse(words.split_whitespace()).map_err(|misused| misused.to_string())
    }

    #[test]
    fn options_are_read_in_any_order() {
        assert_eq!(parse(""), Ok(Asked::Run(Args::default())));
        let asked = Args { seconds: 3600, pattern: "breaker".to_owned(), json: true };
        assert_eq!(parse("--rows=Breaker --json --seconds 3600"), Ok(Asked::Run(asked)));
        assert_eq!(parse("--seconds 3 -h"), Ok(Asked::Help));
    }

    #[test]
    fn wrong_words_are_refused_by_name_value_and_range() {
        for seconds in ["0", "3601", "-5", "1.5", "ten"] {
            assert_eq!(
                parse(&format!("--seconds={seconds}")).unwrap_err(),
                format!(
                    "--seconds is {seconds:?}, but must be a whole number from 1 to 3600; \
                     --help lists the options"
                )
            );
        }
        assert!(parse("--seconds").unwrap_err().contains("needs a whole number"));
        assert!(parse("--rows").unwrap_err().contains("needs a part"));
        assert!(parse("--rows=").unwrap_err().contains("needs a part"));
        assert!(parse("--secs 3").unwrap_err().contains("--secs"));
        assert!(parse("20").unwrap_err().contains("20"));
    }

    #[test]
    fn a_pattern_fits_groups_and_names_in_any_case() {
        let Ok(Asked::Run(args)) = parse("--rows LIMIT") else { panic!() };
        assert!(args.wants("layers", "rate limit"));
        assert!(args.wants("Limits", "direct"));
        assert!(!args.wants("layers", "breaker"));
        assert!(Args::default().wants("layers", "breaker"));
    }
}
