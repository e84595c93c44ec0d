//! The gauntlet: the same load through a bare hyper client and through a Portcullis stack, side by
//! side, while the upstream behind each goes through all weathers. `--help` lists the options.

mod args;
mod attempts;
mod client;
mod errands;
mod file;
mod invariants;
mod live;
mod load;
mod report;
mod run;
mod serve;
mod stack;
mod stop;
mod story;
mod tally;
mod traces;
mod upstream;
mod watch;
mod weather;

use std::{
    io::{Write, stdout},
    process::ExitCode,
};

use self::args::{Args, Asked};

/// Descriptors the run wants: while the upstream hangs, every call of the bare client holds two.
const DESCRIPTORS: u64 = 4_096;

fn main() -> ExitCode {
    let args = match Args::parse(std::env::args_os().skip(1)) {
        Ok(Asked::Run(args)) => args,
        Ok(Asked::Help) => {
            println!("{}", args::HELP);
            return ExitCode::SUCCESS;
        }
        Err(misused) => {
            eprintln!("gauntlet: {misused}");
            return ExitCode::from(2);
        }
    };
    // Where more cannot be had, those there are mostly do.
    let _ = rlimit::increase_nofile_limit(DESCRIPTORS);
    let summary = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(Into::into)
        .and_then(|runtime| {
            runtime.block_on(async {
                match args.serve {
                    Some(addr) => serve::serve(&args, addr).await,
                    None => run::run(&args).await,
                }
            })
        });
    let summary = match summary {
        Ok(summary) => summary,
        Err(error) => {
            eprintln!("gauntlet: {error}");
            return ExitCode::FAILURE;
        }
    };
    let text = match args.json {
        true => summary.json(),
        false => summary.table(report::Paint::of_stdout()),
    };
    // Whoever closed the pipe does not want it; the exit status still tells.
    let _ = writeln!(stdout(), "{text}");
    match summary.held() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
