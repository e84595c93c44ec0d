//! Runs steps one after another, all of them, and sums up at the end.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Passed,
    Failed(String),
    /// The machine lacks something. The text says what to install.
    NotRun(String),
    /// A part was left out for want of something that cannot be had here. The text says which.
    Skipped(String),
}

/// The steps of one command.
#[derive(Debug, Default)]
pub(crate) struct Runner {
    steps: Vec<(String, Outcome, Duration)>,
}

impl Runner {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Runs `command` as a step, its output passed on as it comes.
    pub(crate) fn command(&mut self, command: &mut Command) {
        let name = shown(command);
        self.step(name, || status(command));
    }

    /// Runs `work` as a step.
    pub(crate) fn step(&mut self, name: impl Into<String>, work: impl FnOnce() -> Outcome) {
        let name = name.into();
        eprintln!("== {name}");
        let start = now();
        let outcome = work();
        self.steps.push((name, outcome, start.elapsed()));
    }

    /// Prints what was run and how it ended; true if nothing failed. With `ci`, what was not run is
    /// a failure; what was skipped is none.
    pub(crate) fn summary(&self, ci: bool) -> bool {
        eprintln!("\n== summary");
        for (name, outcome, took) in &self.steps {
            let took = took.as_secs_f64();
            match outcome {
                Outcome::Passed => eprintln!("  ok       {took:6.1} s  {name}"),
                Outcome::Failed(why) => eprintln!("  FAILED   {took:6.1} s  {name}: {why}"),
                Outcome::NotRun(why) => eprintln!("  NOT RUN  {took:6.1} s  {name}: {why}"),
                Outcome::Skipped(why) => eprintln!("  SKIPPED  {took:6.1} s  {name}: {why}"),
            }
        }
        self.passed(ci)
    }

    fn passed(&self, ci: bool) -> bool {
        self.steps.iter().all(|(_, outcome, _)| match outcome {
            Outcome::Passed | Outcome::Skipped(_) => true,
            Outcome::Failed(_) => false,
            Outcome::NotRun(_) => !ci,
        })
    }
}

/// Runs a command to its end.
pub(crate) fn status(command: &mut Command) -> Outcome {
    match command.status() {
        Ok(status) if status.success() => Outcome::Passed,
        Ok(status) => Outcome::Failed(status.to_string()),
        Err(error) => Outcome::Failed(error.to_string()),
    }
}

/// The cargo that runs this program, in the root of the repository.
pub(crate) fn cargo<'a>(args: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root());
    command
}

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    // Cargo sets the variable for `cargo run`; the one of the build may be of another checkout.
    let xtask =
        env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let xtask = PathBuf::from(xtask);
    xtask.parent().map_or(xtask.clone(), Path::to_path_buf)
}

/// Whether this is a run of the continuous integration.
pub(crate) fn ci() -> bool {
    env::var("CI").is_ok_and(|value| value == "true" || value == "1")
}

/// A command as one would type it.
fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let mut text = String::new();
    for (key, value) in command.get_envs() {
        if let Some(value) = value {
            text += &format!("{}={:?} ", key.to_string_lossy(), value.to_string_lossy());
        }
    }
    text += &program.file_stem().unwrap_or_default().to_string_lossy();
    for arg in command.get_args() {
        text.push(' ');
        text += &arg.to_string_lossy();
    }
    text
}

#[expect(clippy::disallowed_methods, reason = "a program for developers, on no call path")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ran(outcomes: &[Outcome]) -> Runner {
        let mut runner = Runner::new();
        for outcome in outcomes {
            runner.step("a step", || outcome.clone());
        }
        runner
    }

    #[test]
    fn one_failure_fails_the_whole() {
        let failed = Outcome::Failed("exit status: 1".to_owned());
        assert!(ran(&[Outcome::Passed, Outcome::Passed]).passed(true));
        assert!(!ran(&[failed, Outcome::Passed]).passed(false));
    }

    #[test]
    fn what_was_not_run_fails_only_the_ci() {
        let not_run = Outcome::NotRun("not installed".to_owned());
        assert!(ran(std::slice::from_ref(&not_run)).passed(false));
        assert!(!ran(&[not_run]).passed(true));
    }

    #[test]
    fn what_was_skipped_fails_nobody() {
        assert!(ran(&[Outcome::Skipped("out of reach".to_owned())]).passed(true));
    }

    #[test]
    fn a_command_is_shown_as_typed() {
        let mut command = Command::new("some/where/cargo");
        command.args(["doc", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings");
        assert_eq!(shown(&command), r#"RUSTDOCFLAGS="-D warnings" cargo doc --no-deps"#);
    }
}
