//! `cargo xtask compare`: what a call costs, beside peers.

use std::{ffi::OsString, process::ExitCode};

use crate::runner::cargo;

/// Builds the comparison and runs it. It reads the arguments, says what is wrong with them, and its
/// exit status is ours.
pub(crate) fn run(args: &[OsString]) -> ExitCode {
    let compare = ["run", "--release", "--quiet", "--package", "benches", "--bin", "compare", "--"];
    match cargo(compare).args(args).status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(status) => {
            ExitCode::from(status.code().and_then(|code| code.try_into().ok()).unwrap_or(1))
        }
        Err(error) => {
            eprintln!("error: cargo: {error}");
            ExitCode::FAILURE
        }
    }
}
