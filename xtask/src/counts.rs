//! Instructions per call, held against those on record.
//!
//! Nanoseconds depend on the machine and on what else it does; instructions of the same binary do
//! not. `benches/counts.txt` holds what each scenario of `benches` took when it was recorded, and by
//! which compiler; more than [`TOLERANCE`] above it is a regression.

use std::{collections::BTreeMap, fmt::Write as _, fs, io, path::PathBuf, process::Command};

use crate::{
    runner::{Outcome, cargo, root, status},
    setup,
};

/// What a count may differ by, in hundredths, before it is another: the C library chooses its memory
/// copies by the processor, seeds of hash maps differ from run to run, and so does whether the traces'
/// writer must be woken.
const TOLERANCE: u64 = 10;

/// Calls that a scenario is counted over.
const CALLS: u64 = 1000;

/// Counts every scenario; `record` writes them down in place of comparing.
pub(crate) fn run(record: bool) -> Outcome {
    if let Err(why) = setup::COUNTS.provide() {
        return Outcome::Skipped(why);
    }
    count(record).unwrap_or_else(|error| Outcome::Failed(error.to_string()))
}

fn count(record: bool) -> io::Result<Outcome> {
    let compiler = text(Command::new("rustc").arg("--version"))?.trim().to_owned();
    let file = root().join("benches/counts.txt");
    let on_record = Counts::parse(&fs::read_to_string(&file).unwrap_or_default());
    if !record && on_record.compiler != compiler {
        return Ok(Outcome::NotRun(format!(
            "counts on record are of {}, this is {compiler}; `cargo xtask counts --record` records \
             them anew",
            on_record.compiler
        )));
    }

    let mut build = cargo(["build", "--release", "--quiet", "--package", "benches"]);
    // Where the binary is looked for below, wherever other builds go.
    if let Outcome::Failed(why) = status(build.args(["--bin", "counts", "--target-dir", "target"]))
    {
        return Ok(Outcome::Failed(why));
    }
    let binary =
        root().join("target/release/counts").with_extension(std::env::consts::EXE_EXTENSION);
    let mut counts = Counts { compiler, of: BTreeMap::new() };
    for scenario in text(&mut Command::new(&binary))?.lines() {
        counts.of.insert(scenario.to_owned(), instructions(&binary, scenario)?);
    }
    print!("{}", counts.beside(&on_record));
    if record {
        fs::write(file, counts.to_string())?;
        return Ok(Outcome::Passed);
    }
    Ok(match counts.regressions(&on_record).as_slice() {
        [] => Outcome::Passed,
        found => Outcome::Failed(found.join("; ")),
    })
}

/// The instructions of one call.
fn instructions(binary: &PathBuf, scenario: &str) -> io::Result<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg("--toggle-collect=*counts::measured*")
        .arg(binary)
        .args([scenario, &CALLS.to_string()])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said.lines().find_map(|line| line.split_once("Collected : "));
    match collected.and_then(|(_, count)| count.trim().parse::<u64>().ok()) {
        // A count of next to nothing is of a function that was not found by its name.
        Some(count) if output.status.success() && count >= CALLS => Ok(count / CALLS),
        _ => Err(io::Error::other(format!("{scenario}: {said}"))),
    }
}

fn text(command: &mut Command) -> io::Result<String> {
    let output = command.output()?;
    if !output.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Instructions per call by scenario.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    compiler: String,
    of: BTreeMap<String, u64>,
}

// ===== impl Counts =====

impl Counts {
    /// Reads `count name` lines after one that names the compiler.
    fn parse(text: &str) -> Self {
        let mut lines = text.lines();
        let compiler = lines.next().unwrap_or_default().to_owned();
        let of = lines.filter_map(|line| {
            let (count, name) = line.trim().split_once(' ')?;
            Some((name.to_owned(), count.parse().ok()?))
        });
        Self { compiler, of: of.collect() }
    }

    /// A sentence for each scenario that takes more than it did, and for each on neither side.
    fn regressions(&self, on_record: &Self) -> Vec<String> {
        let mut found = Vec::new();
        for (name, &count) in &self.of {
            match on_record.of.get(name) {
                None => found.push(format!("{name} is not on record")),
                Some(&was) if count > was + was * TOLERANCE / 100 => {
                    found.push(format!("{name} takes {count} instructions, {was} on record"));
                }
                Some(_) => {}
            }
        }
        let gone = on_record.of.keys().filter(|name| !self.of.contains_key(*name));
        found.extend(gone.map(|name| format!("{name} is on record and not counted")));
        found
    }

    /// A table of now and then.
    fn beside(&self, on_record: &Self) -> String {
        let mut table = format!("{:>8} {:>9}  instructions per call\n", "now", "on record");
        for (name, count) in &self.of {
            let was = on_record.of.get(name).map_or_else(|| "-".to_owned(), ToString::to_string);
            _ = writeln!(table, "{count:>8} {was:>9}  {name}");
        }
        table
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}", self.compiler)?;
        self.of.iter().try_for_each(|(name, count)| writeln!(f, "{count} {name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(of: &[(&str, u64)]) -> Counts {
        let of = of.iter().map(|&(name, count)| (name.to_owned(), count)).collect();
        Counts { compiler: "rustc 1.0.0".to_owned(), of }
    }

    #[test]
    fn what_is_written_is_read() {
        let counts = counts(&[("a stack, of four", 3499), ("bare", 11)]);
        assert_eq!(Counts::parse(&counts.to_string()), counts);
    }

    #[test]
    fn more_than_the_tolerance_is_a_regression_and_less_is_none() {
        let on_record = counts(&[("retry", 1000)]);
        assert_eq!(counts(&[("retry", 1100)]).regressions(&on_record), [""; 0]);
        assert_eq!(counts(&[("retry", 400)]).regressions(&on_record), [""; 0]);
        assert_eq!(
            counts(&[("retry", 1101)]).regressions(&on_record),
            ["retry takes 1101 instructions, 1000 on record"]
        );
    }

    #[test]
    fn the_record_and_the_scenarios_must_be_the_same() {
        assert_eq!(
            counts(&[("new", 1)]).regressions(&counts(&[("old", 1)])),
            ["new is not on record", "old is on record and not counted"]
        );
    }
}
