//! The simulator: thousands of calls through the whole stack in simulated time, from a seed. `--help`
//! lists the options.

mod args;
mod calls;
mod forecast;
mod invariants;
mod journal;
mod report;
mod script;
mod settings;
#[cfg(test)]
mod tests;
mod traces;
mod upstream;
mod watch;
mod world;

use std::{
    io::{Write, stdout},
    process::ExitCode,
};

use self::{
    args::{Args, Asked},
    report::{Report, Reports},
};

fn main() -> ExitCode {
    let args = match Args::parse(std::env::args_os().skip(1)) {
        Ok(Asked::Run(args)) => args,
        Ok(Asked::Help) => {
            println!("{}", args::HELP);
            return ExitCode::SUCCESS;
        }
        Err(misused) => {
            eprintln!("simulator: {misused}");
            return ExitCode::from(2);
        }
    };
    let mut runs = Vec::new();
    for seed in args.seeds {
        match world::run(seed, args.calls) {
            Ok(run) => {
                if args.log {
                    // Whoever closed the pipe does not want it; the exit status still tells.
                    let _ = stdout().write_all(run.log.as_bytes());
                }
                runs.push(Report::of(seed, args.calls, &run));
            }
            Err(error) => {
                eprintln!("simulator: seed {seed}: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    let reports = Reports::of(&runs);
    let text = match args.json {
        true => serde_json::to_string_pretty(&reports).unwrap_or_default(),
        false => reports.to_string(),
    };
    let _ = writeln!(stdout(), "{text}");
    match reports.held {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
