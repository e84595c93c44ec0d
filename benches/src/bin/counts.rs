//! Makes calls of one scenario, for whoever counts the instructions.
//!
//! `counts` lists the scenarios; `counts NAME CALLS` makes so many calls of one. Only what
//! [`measured`] does is meant to be counted.

use std::{env, process::ExitCode};

use benches::scenario;

/// Calls made beforehand: what is made once is made in these.
const WARM_UP: u32 = 200;

fn main() -> ExitCode {
    let scenarios = scenario::all();
    let args: Vec<String> = env::args().skip(1).collect();
    let (name, calls) = match args.as_slice() {
        [] => {
            for scenario in scenarios {
                println!("{}", scenario.name);
            }
            return ExitCode::SUCCESS;
        }
        [name, calls] => (name, calls),
        _ => return usage("a scenario's name and a number of calls are wanted, or nothing"),
    };
    let Some(scenario) = scenarios.iter().find(|scenario| scenario.name == name) else {
        return usage(&format!("no scenario is called {name:?}"));
    };
    let Ok(calls) = calls.parse() else {
        return usage(&format!("{calls:?} is not a number of calls"));
    };

    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let _entered = runtime.as_ref().expect("a runtime").enter();
    let mut work = scenario.set_up();
    for _ in 0..WARM_UP {
        work();
    }
    measured(&mut work, calls);
    ExitCode::SUCCESS
}

/// Known by its name to the tool that counts.
#[inline(never)]
fn measured(work: &mut dyn FnMut(), calls: u32) {
    for _ in 0..calls {
        work();
    }
}

fn usage(what: &str) -> ExitCode {
    eprintln!("error: {what}\nusage: counts [NAME CALLS]");
    ExitCode::from(2)
}
