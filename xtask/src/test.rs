//! `cargo xtask test`: everything that can be said about the code by running it.

use std::{
    io::{self, Read, Write},
    process::{ExitCode, Stdio},
};

use crate::{
    runner::{Outcome, Runner, cargo, ci},
    tally::{Tally, Totals},
};

pub(crate) fn run() -> ExitCode {
    let mut runner = Runner::new();
    let mut totals = Totals::default();

    runner.step("cargo test --workspace --all-features --no-fail-fast", || {
        match workspace_tests(&mut totals) {
            Ok(outcome) => outcome,
            Err(error) => Outcome::Failed(error.to_string()),
        }
    });
    // It judges itself, and says so by its exit status.
    let gauntlet =
        ["run", "--release", "--quiet", "--package", "gauntlet", "--", "--seconds", "10"];
    runner.command(&mut cargo(gauntlet));

    let passed = runner.summary(ci());
    if totals.ignored > 0 {
        eprintln!("  {} tests are ignored", totals.ignored);
    }
    println!("{} passed, {} failed", totals.passed, totals.failed);
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs the tests, doctests included, passing their output on as it comes.
fn workspace_tests(totals: &mut Totals) -> io::Result<Outcome> {
    let mut child = cargo(["test", "--workspace", "--all-features", "--no-fail-fast"])
        .stdout(Stdio::piped())
        .spawn()?;
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
    *totals = tally.finish();
    Ok(verdict(*totals, status.success(), &status.to_string()))
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
