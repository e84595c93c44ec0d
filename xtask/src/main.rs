//! The commands of this repository.

mod api;
mod compare;
mod counts;
mod features;
mod house;
mod lint;
mod manifest;
mod runner;
mod setup;
mod tally;
mod test;

use std::{env, ffi::OsString, process::ExitCode};

use lexopt::Arg;

use self::runner::{Outcome, Runner, cargo, ci, status};

const USAGE: &str = "\
usage: cargo xtask <command>

commands:
  lint   formatting, clippy, docs, the rules of the house, what each library offers, each library
         alone and with each of its features, licenses and sources
  test   every test of the workspace, its doctests included; every interleaving of what is
         lock-free, a short gauntlet. On Debian, chromium, chromium-driver, prometheus and
         valgrind are installed if they are not there and this is root, or sudo asks for no password
         --long: the proofs in their long versions
  counts instructions per call of each hot path, held against benches/counts.txt; part of test
         --record: writes them down there
  api    what each library offers, held against its api.txt; part of lint
         --record: writes it down there
  compare  time, allocations and memory beside those of peers, in a minute; --help lists its options
  screenshots  the pictures of the page in docs/images; takes chromium and chromedriver

With CI=true, what cannot be run is a failure, but for tests that need a program of the system
which cannot be installed; and a missing cargo-deny is installed into target/tools.";

#[derive(Clone, Debug, PartialEq, Eq)]
enum Command {
    Lint,
    Test {
        long: bool,
    },
    Counts {
        record: bool,
    },
    Api {
        record: bool,
    },
    /// With what it reads itself.
    Compare(Vec<OsString>),
    Screenshots,
    Help,
}

fn main() -> ExitCode {
    match parse(env::args_os().skip(1)) {
        Ok(Command::Lint) => lint::run(),
        Ok(Command::Test { long }) => test::run(long),
        Ok(Command::Counts { record }) => alone("instructions per call", || counts::run(record)),
        Ok(Command::Api { record }) => alone("the public API of each library", || api::run(record)),
        Ok(Command::Compare(args)) => compare::run(&args),
        Ok(Command::Screenshots) => alone("pictures of the page", screenshots),
        Ok(Command::Help) => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn screenshots() -> Outcome {
    let program = ["run", "--quiet", "--package", "browser", "--bin", "screenshots", "--"];
    status(cargo(program).arg("docs/images"))
}

/// Runs a command of one step.
fn alone(name: &str, work: impl FnOnce() -> Outcome) -> ExitCode {
    let mut runner = Runner::new();
    runner.step(name, work);
    if runner.summary(ci()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn parse(
    args: impl IntoIterator<Item = OsString, IntoIter: 'static>,
) -> Result<Command, lexopt::Error> {
    let mut parser = lexopt::Parser::from_args(args);
    let mut command = None;
    while let Some(arg) = parser.next()? {
        command = match arg {
            Arg::Short('h') | Arg::Long("help") => return Ok(Command::Help),
            Arg::Value(word) if command.is_none() && word == "lint" => Some(Command::Lint),
            Arg::Value(word) if command.is_none() && word == "test" => {
                Some(Command::Test { long: false })
            }
            Arg::Long("long") if matches!(command, Some(Command::Test { .. })) => {
                Some(Command::Test { long: true })
            }
            Arg::Value(word) if command.is_none() && word == "counts" => {
                Some(Command::Counts { record: false })
            }
            Arg::Value(word) if command.is_none() && word == "api" => {
                Some(Command::Api { record: false })
            }
            Arg::Value(word) if command.is_none() && word == "compare" => {
                return Ok(Command::Compare(parser.raw_args()?.collect()));
            }
            Arg::Value(word) if command.is_none() && word == "screenshots" => {
                Some(Command::Screenshots)
            }
            Arg::Long("record") if matches!(command, Some(Command::Counts { .. })) => {
                Some(Command::Counts { record: true })
            }
            Arg::Long("record") if matches!(command, Some(Command::Api { .. })) => {
                Some(Command::Api { record: true })
            }
            other => return Err(other.unexpected()),
        };
    }
    command.ok_or_else(|| lexopt::Error::from("no command given"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&'static str]) -> Result<Command, String> {
        parse(words.iter().map(OsString::from).collect::<Vec<_>>())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn knows_its_commands() {
        assert_eq!(parsed(&["lint"]), Ok(Command::Lint));
        assert_eq!(parsed(&["test"]), Ok(Command::Test { long: false }));
        assert_eq!(parsed(&["test", "--long"]), Ok(Command::Test { long: true }));
        assert_eq!(parsed(&["counts"]), Ok(Command::Counts { record: false }));
        assert_eq!(parsed(&["counts", "--record"]), Ok(Command::Counts { record: true }));
        assert_eq!(parsed(&["api"]), Ok(Command::Api { record: false }));
        assert_eq!(parsed(&["api", "--record"]), Ok(Command::Api { record: true }));
        assert_eq!(parsed(&["compare"]), Ok(Command::Compare(Vec::new())));
        let options = ["--rows", "breaker"].map(OsString::from).to_vec();
        assert_eq!(parsed(&["compare", "--rows", "breaker"]), Ok(Command::Compare(options)));
        assert_eq!(parsed(&["screenshots"]), Ok(Command::Screenshots));
        assert_eq!(parsed(&["--help"]), Ok(Command::Help));
        assert_eq!(parsed(&["test", "-h"]), Ok(Command::Help));
    }

    #[test]
    fn refuses_every_other_word() {
        assert_eq!(parsed(&[]), Err("no command given".to_owned()));
        assert!(parsed(&["tset"]).unwrap_err().contains("tset"));
        assert!(parsed(&["lint", "test"]).unwrap_err().contains("test"));
        assert!(parsed(&["lint", "--long"]).unwrap_err().contains("--long"));
        assert!(parsed(&["lint", "--record"]).unwrap_err().contains("--record"));
        assert!(parsed(&["lint", "--fix"]).unwrap_err().contains("--fix"));
    }
}
