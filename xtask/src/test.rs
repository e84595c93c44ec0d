//! `cargo xtask test`: everything that can be said about the code by running it.

use std::{
    fs,
    io::{self, Read, Write},
    path::Path,
    process::{Command, ExitCode, Stdio},
};

use crate::{
    counts, house,
    runner::{Outcome, Runner, cargo, ci, root, status},
    setup,
    tally::{Tally, Totals},
};

/// Asks every proof for its long version.
const LONG: &str = "PORTCULLIS_LONG";

pub(crate) fn run(long: bool) -> ExitCode {
    let mut runner = Runner::new();
    let mut totals = Totals::default();

    let mut tests = cargo(["test", "--workspace", "--all-features", "--no-fail-fast"]);
    // In an ordinary run, what is proved takes as long as it ever does, whatever the variable says.
    tests.env(LONG, if long { "1" } else { "0" });
    runner.step("programs of the system", || setup::for_tests(&mut tests));
    runner.step("every test of the workspace", || counted(&mut tests, &mut totals));

    runner.step("every interleaving of what is lock-free", || match interleaved() {
        Ok(packages) => counted(&mut interleavings(&packages, long), &mut totals),
        Err(error) => Outcome::Failed(error.to_string()),
    });

    runner.step("instructions per call", || counts::run(false));

    // It judges itself, and says so by its exit status.
    let gauntlet =
        ["run", "--release", "--quiet", "--package", "gauntlet", "--", "--seconds", "10"];
    runner.step("a gauntlet of 10 s", || match fs::create_dir_all(root().join("target")) {
        Ok(()) => status(cargo(gauntlet).args(["--traces", "target/gauntlet.db"])),
        Err(error) => Outcome::Failed(error.to_string()),
    });

    let passed = runner.summary(ci());
    if totals.ignored > 0 {
        eprintln!("  {} tests are ignored", totals.ignored);
    }
    println!("{} passed, {} failed", totals.passed, totals.failed);
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The packages that have a `tests/loom.rs`.
fn interleaved() -> io::Result<Vec<String>> {
    let members = house::members()?.into_iter();
    let has_models = |folder: &Path| root().join(folder).join("tests/loom.rs").is_file();
    Ok(members.filter(|member| has_models(&member.folder)).map(|member| member.name).collect())
}

/// Runs the models of those packages. They are a build of their own: all atomics are loom's there.
fn interleavings(packages: &[String], long: bool) -> Command {
    let mut command = cargo(["test", "--release", "--no-fail-fast", "--test", "loom"]);
    command.args(["--target-dir", "target/loom"]).env("RUSTFLAGS", "--cfg portcullis_loom");
    for package in packages {
        command.args(["--package", package]);
    }
    // Most races need two threads to be interrupted at the wrong place; each further interruption
    // multiplies the schedules.
    command.env("LOOM_MAX_PREEMPTIONS", if long { "4" } else { "2" });
    command
}

/// Runs tests, passing their output on as it comes, and adds them to the totals.
fn counted(command: &mut Command, totals: &mut Totals) -> Outcome {
    passed_on(command, totals).unwrap_or_else(|error| Outcome::Failed(error.to_string()))
}

fn passed_on(command: &mut Command, totals: &mut Totals) -> io::Result<Outcome> {
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let mut output = child.stdout.take().expect("standard output is piped");
    let mut tally = Tally::default();
    let mut buffer = [0; 8 * 1024];
    loop {
        match output.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => {
                tally.feed(&buffer[..read]);
                // Flushed each time, or the name of a running test would be seen after its end.
                let mut stdout = io::stdout().lock();
                stdout.write_all(&buffer[..read])?;
                stdout.flush()?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let status = child.wait()?;
    let ran = tally.finish();
    *totals += ran;
    Ok(verdict(ran, status.success(), &status.to_string()))
}

/// A run is good if cargo says so, nothing failed and something was run.
fn verdict(totals: Totals, success: bool, status: &str) -> Outcome {
    match totals {
        Totals { failed: 1.., .. } => Outcome::Failed(format!("{} tests failed", totals.failed)),
        // A build that broke, or a test binary that died before it could report.
        _ if !success => Outcome::Failed(status.to_owned()),
        Totals { binaries: 0, .. } => Outcome::Failed("no test binary reported".to_owned()),
        _ => Outcome::Passed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Totals = Totals { passed: 5, failed: 0, ignored: 0, binaries: 2 };

    #[test]
    fn passes_when_cargo_and_the_counts_agree() {
        assert_eq!(verdict(GOOD, true, "exit status: 0"), Outcome::Passed);
    }

    #[test]
    fn fails_on_a_failed_test_a_dead_binary_and_an_empty_run() {
        let failed = |totals, success| matches!(verdict(totals, success, "…"), Outcome::Failed(_));
        assert!(failed(Totals { failed: 1, ..GOOD }, false));
        assert!(failed(Totals { failed: 1, ..GOOD }, true));
        assert!(failed(GOOD, false));
        assert!(failed(Totals::default(), true));
    }
}
