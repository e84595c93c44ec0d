//! The words on the command line.

use std::{ffi::OsString, fmt, net::SocketAddr, ops::RangeInclusive, path::PathBuf};

use lexopt::{Arg, Parser};

/// What `--help` prints.
pub(crate) const HELP: &str = "\
The same load through a bare client and through a Portcullis stack, side by side, while the
upstream behind each goes through all weathers. Prints a table, judges the stack's promises
and tells what happened to one call, and why.

With --serve it does so lap after lap until it is interrupted, and shows itself meanwhile: a
page, its API, and metrics for Prometheus. Promises are not judged then, since whoever is at
the page may reset a breaker at any time; the table is of the last whole lap.

Usage: gauntlet [OPTIONS]

Options:
      --seconds N  how long the load lasts, or a lap of it, 5 to 600 [default: 20; 60 a lap]
      --seed N     decides which requests fail and how, 0 to 18446744073709551615 [default: 1]
      --json       print one JSON object instead of the table
      --traces PATH
                   keep the traces in this SQLite file, which may have others already
                   [default: a new one, in a folder of its own among the temporary ones]
      --serve ADDR go on until interrupted (ctrl-c, SIGTERM), and serve the page at this address,
                   such as 127.0.0.1:9800; port 0 takes one that is free
      --token WORD what changes something by the API has to show [default: a random one]
  -h, --help       print this

Exit status: 0 when every promise was kept, or serving was interrupted; 1 when a promise was
not kept or the run failed; 2 when the options are wrong.";

const SECONDS: RangeInclusive<u64> = 5..=600;

/// How long a lap lasts unless it is said: long enough to be seen in metrics.
const LAP: u64 = 60;

/// How the gauntlet is to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Args {
    /// How long the load lasts, or each lap of it, in seconds, 5 to 600.
    pub(crate) seconds: u64,
    /// Decides which requests fail and how.
    pub(crate) seed: u64,
    /// Whether to print JSON instead of the table.
    pub(crate) json: bool,
    /// Where to keep the traces, if it was said.
    pub(crate) traces: Option<PathBuf>,
    /// Where to serve until interrupted, if at all.
    pub(crate) serve: Option<SocketAddr>,
    /// What whoever changes something there has to show, if it was said.
    pub(crate) token: Option<String>,
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
        let mut args = Self::default();
        let mut seconds = None;
        let mut parser = Parser::from_args(words);
        while let Some(word) = parser.next().map_err(misused)? {
            match word {
                Arg::Long("seconds") => {
                    seconds = Some(number(&mut parser, "seconds", SECONDS)?);
                }
                Arg::Long("seed") => args.seed = number(&mut parser, "seed", 0..=u64::MAX)?,
                Arg::Long("json") => args.json = true,
                Arg::Long("traces") => args.traces = Some(path(&mut parser, "traces")?),
                Arg::Long("serve") => args.serve = Some(address(&mut parser, "serve")?),
                Arg::Long("token") => args.token = Some(token(&mut parser, "token")?),
                Arg::Long("help") | Arg::Short('h') => return Ok(Asked::Help),
                other => return Err(misused(other.unexpected())),
            }
        }
        if args.token.is_some() && args.serve.is_none() {
            return Err(Misused("option `--token` means nothing without `--serve`".to_owned()));
        }
        let usual = if args.serve.is_some() { LAP } else { args.seconds };
        args.seconds = seconds.unwrap_or(usual);
        Ok(Asked::Run(args))
    }
}

impl Default for Args {
    fn default() -> Self {
        Self { seconds: 20, seed: 1, json: false, traces: None, serve: None, token: None }
    }
}

// ===== impl Misused =====

impl fmt::Display for Misused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; `--help` lists the options", self.0)
    }
}

fn number(parser: &mut Parser, option: &str, allowed: RangeInclusive<u64>) -> Result<u64, Misused> {
    let (least, most) = (allowed.start(), allowed.end());
    let Ok(value) = parser.value() else {
        return Err(Misused(format!(
            "option `--{option}` needs a whole number from {least} to {most}"
        )));
    };
    let value = value.to_string_lossy();
    match value.parse() {
        Ok(number) if allowed.contains(&number) => Ok(number),
        _ => Err(Misused(format!(
            "option `--{option}` is `{value}`, but must be a whole number from {least} to {most}"
        ))),
    }
}

fn path(parser: &mut Parser, option: &str) -> Result<PathBuf, Misused> {
    match parser.value() {
        Ok(path) if !path.is_empty() => Ok(path.into()),
        _ => Err(Misused(format!("option `--{option}` needs the path of a file"))),
    }
}

fn address(parser: &mut Parser, option: &str) -> Result<SocketAddr, Misused> {
    let wanted = "an address and a port, such as 127.0.0.1:9800";
    let Ok(value) = parser.value() else {
        return Err(Misused(format!("option `--{option}` needs {wanted}")));
    };
    let value = value.to_string_lossy();
    value
        .parse()
        .map_err(|_| Misused(format!("option `--{option}` is `{value}`, but must be {wanted}")))
}

fn token(parser: &mut Parser, option: &str) -> Result<String, Misused> {
    // What can stand in a header, and needs no quotes in a shell.
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-._~+/=".contains(c);
    let value = parser.value().ok().and_then(|value| value.into_string().ok());
    let value = value.filter(|value| !value.is_empty() && value.chars().all(allowed));
    value.ok_or_else(|| {
        Misused(format!("option `--{option}` needs a word of letters, digits and any of -._~+/="))
    })
}

fn misused(error: lexopt::Error) -> Misused {
    Misused(match error {
        lexopt::Error::UnexpectedOption(option) => format!("there is no option `{option}`"),
        lexopt::Error::UnexpectedValue { option, value } => {
            format!("option `{option}` takes no value, but was given `{}`", value.to_string_lossy())
        }
        lexopt::Error::UnexpectedArgument(word) => {
            format!("`{}` is not an option", word.to_string_lossy())
        }
        other => other.to_string(),
    })
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
        let traces = Some("here.db".into());
        let asked = Args { seconds: 600, seed: u64::MAX, json: true, traces, ..Args::default() };
        assert_eq!(
            parse("--json --seed=18446744073709551615 --traces here.db --seconds 600"),
            Ok(Asked::Run(asked))
        );
        assert_eq!(parse("--seed 3 -h"), Ok(Asked::Help));
    }

    #[test]
    fn a_lap_is_longer_than_a_run_unless_it_is_said() {
        let told = |words: &str| match parse(words) {
            Ok(Asked::Run(args)) => (args.serve.map(|addr| addr.port()), args.seconds, args.token),
            other => panic!("{other:?}"),
        };
        assert_eq!(told(""), (None, 20, None));
        assert_eq!(told("--serve 127.0.0.1:9800"), (Some(9800), 60, None));
        let token = Some("a-word".to_owned());
        assert_eq!(told("--seconds 20 --token a-word --serve [::1]:0"), (Some(0), 20, token));
    }

    #[test]
    fn wrong_words_are_refused_by_name_value_and_range() {
        let told = |words: &str| parse(words).unwrap_err();
        for seconds in ["4", "601", "-5", "1.5", "ten"] {
            assert_eq!(
                parse(&format!("--seconds={seconds}")).unwrap_err(),
                format!(
                    "option `--seconds` is `{seconds}`, but must be a whole number from 5 to 600; \
                     `--help` lists the options"
                )
            );
        }
        assert!(told("--seed 18446744073709551616").contains("`18446744073709551616`"));
        assert!(told("--seconds").contains("`--seconds` needs a whole number from 5 to 600"));
        assert!(told("--traces").contains("`--traces` needs the path of a file"));
        assert!(told("--traces=").contains("`--traces` needs the path of a file"));
        assert!(
            told("--serve 9800").contains("`--serve` is `9800`, but must be an address and a port")
        );
        assert!(told("--serve").contains("`--serve` needs an address and a port"));
        assert!(told("--token x").contains("`--token` means nothing without `--serve`"));
        assert!(told("--serve [::1]:0 --token=").contains("`--token` needs a word"));
        assert!(told("--serve [::1]:0 --token=ä").contains("`--token` needs a word"));
        assert!(told("--secs 3").contains("no option `--secs`"));
        assert!(told("--json=yes").contains("`--json` takes no value, but was given `yes`"));
        assert!(told("20").contains("`20` is not an option"));
        assert!(told("-x").contains("no option `-x`"));
    }
}
