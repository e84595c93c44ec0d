//! What a call costs, beside its peers on the same inner service, in one run.

mod args;
mod loopback;
mod measure;
mod memory;
mod peers;
mod report;
mod rows;
mod show;
mod stats;
mod table;
mod targets;
mod threads;

use std::{env, fs, process::ExitCode, thread};

use self::{
    args::{Args, Asked, HELP, Misused},
    measure::Effort,
    report::{Machine, Report, Row},
};

fn main() -> ExitCode {
    match Args::parse(env::args_os().skip(1)) {
        Ok(Asked::Help) => println!("{HELP}"),
        Ok(Asked::Run(args)) => match compare(&args) {
            Ok(report) if args.json => {
                println!("{}", serde_json::to_string(&report).expect("plain data"));
            }
            Ok(report) => print!("{report}"),
            Err(misused) => return refused(&misused),
        },
        Err(misused) => return refused(&misused),
    }
    ExitCode::SUCCESS
}

fn refused(misused: &Misused) -> ExitCode {
    eprintln!("error: {misused}");
    ExitCode::from(2)
}

fn compare(args: &Args) -> Result<Report, Misused> {
    // Timers need a runtime to be entered. None runs: the calls are polled by hand.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.expect("a runtime");
    let _entered = runtime.enter();

    let effort = Effort::of(args.seconds);
    let mut report = Report { machine: machine(), ..Report::default() };
    let mut groups = Vec::new();
    for plan in rows::all() {
        groups.push(plan.group);
        if !args.wants(plan.group, &plan.name) {
            continue;
        }
        tell(&plan.name);
        let mut contest = (plan.make)(effort);
        let (ours, peers) = contest.measure(effort);
        let row = Row { note: contest.note, ..Row::new(plan.group, &plan.name, ours) };
        if peers.is_empty() {
            report.rows.push(row.clone());
        }
        let peers = contest.peers.iter().zip(peers);
        report.rows.extend(peers.map(|(peer, cost)| row.beside(&peer.name, cost)));
    }
    groups.push(threads::GROUP);
    for plan in threads::plans() {
        if args.wants(threads::GROUP, plan.name) {
            tell(plan.name);
            report.rows.extend(on_two_threads(&plan, effort));
        }
    }
    groups.extend([memory::GROUP, loopback::GROUP]);
    if args.wants(memory::GROUP, "") {
        tell(memory::GROUP);
        report.memory = memory::measure(effort);
    }
    if args.wants(loopback::GROUP, "") {
        tell(loopback::GROUP);
        report.loopback = Some(loopback::measure(args.seconds));
    }
    if report.rows.is_empty() && report.memory.is_empty() && report.loopback.is_none() {
        groups.dedup();
        return Err(Misused::no_row(&args.pattern, &groups));
    }
    report.targets = targets::of(&report);
    Ok(report)
}

fn on_two_threads(plan: &threads::Plan, effort: Effort) -> Vec<Row> {
    let mut outcomes = plan.measure(effort).into_iter();
    let Some(ours) = outcomes.next() else { return Vec::new() };
    let row = Row::new(threads::GROUP, plan.name, ours.cost);
    let row = Row { ours_speedup: Some(ours.speedup), ..row };
    outcomes
        .map(|peer| Row { peer_speedup: Some(peer.speedup), ..row.beside(peer.name, peer.cost) })
        .collect()
}

/// Says how far it is to whoever waits.
fn tell(what: &str) {
    eprintln!("measuring: {what}");
}

fn machine() -> Machine {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.and_then(|line| line.split_once(": ")).map(|(_, model)| model.trim());
    Machine {
        cpu: model.unwrap_or("unknown processor").to_owned(),
        threads: thread::available_parallelism().map_or(1, Into::into),
        optimized: !cfg!(debug_assertions),
    }
}
