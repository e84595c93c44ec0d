//! `cargo xtask lint`: everything that can be said about the code without running it.

use std::process::{Command, ExitCode, Stdio};

use crate::{
    api, features,
    house::{self, Member},
    runner::{Outcome, Runner, cargo, ci, root, status},
};

pub(crate) fn run() -> ExitCode {
    let mut runner = Runner::new();
    runner.command(&mut cargo(["fmt", "--all", "--check"]));
    runner.command(&mut cargo([
        "clippy",
        "--workspace",
        "--all-targets",
        "--all-features",
        "--",
        "-D",
        "warnings",
    ]));
    runner.command(
        cargo(["doc", "--workspace", "--no-deps", "--all-features"])
            .env("RUSTDOCFLAGS", "-D warnings"),
    );

    let mut libraries = Vec::new();
    runner.step("the rules of the house", || match house::members() {
        Ok(members) => {
            let found = house::violations(&members);
            for violation in &found {
                eprintln!("house: {violation}");
            }
            libraries.extend(members.into_iter().filter(Member::is_library));
            match found.len() {
                0 => Outcome::Passed,
                n => Outcome::Failed(format!("{n} broken")),
            }
        }
        Err(error) => Outcome::Failed(error.to_string()),
    });

    runner.step("the public API of each library", || api::run(false));

    for library in &libraries {
        runner.step(format!("{} alone, with each of its features", library.name), || {
            features::alone(library)
        });
    }

    runner.step("cargo deny --offline check bans licenses sources", deny);

    if runner.summary(ci()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Licenses, bans and sources. The tool takes minutes to build, so only the CI installs it unasked.
fn deny() -> Outcome {
    let tools = root().join("target/tools");
    let installed_here =
        tools.join("bin/cargo-deny").with_extension(std::env::consts::EXE_EXTENSION);
    let in_path = || {
        let mut probe = cargo(["deny", "--version"]);
        probe.stdout(Stdio::null()).stderr(Stdio::null());
        status(&mut probe) == Outcome::Passed
    };

    let mut check = if installed_here.is_file() {
        Command::new(&installed_here)
    } else if in_path() {
        cargo(["deny"])
    } else if ci() {
        let mut install = cargo(["install", "cargo-deny", "--locked", "--root"]);
        if let Outcome::Failed(why) = status(install.arg(&tools)) {
            return Outcome::Failed(format!("cargo-deny could not be installed: {why}"));
        }
        Command::new(&installed_here)
    } else {
        return Outcome::NotRun(
            "cargo-deny is not installed; `cargo install cargo-deny --locked` installs it"
                .to_owned(),
        );
    };

    // It looks at the dependencies of every platform, of which a build fetched only its own.
    if let Outcome::Failed(why) = status(&mut cargo(["fetch", "--quiet"])) {
        return Outcome::Failed(format!("cargo fetch: {why}"));
    }
    status(check.args(["--offline", "check", "bans", "licenses", "sources"]).current_dir(root()))
}
