//! What was measured, as tables for people.

use std::fmt;

use crate::{
    loopback::{Loopback, Ratio, Watched},
    memory::Held,
    report::{Machine, Report, Row},
    table::{Table, number, ratio},
    targets::Target,
};

// ===== impl Report =====

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { cpu, threads, optimized } = &self.machine;
        writeln!(f, "{cpu}, {threads} threads")?;
        if !optimized {
            writeln!(f, "\nBUILT WITHOUT OPTIMIZATION: no figure here means anything.")?;
        }
        let (two, one): (Vec<&Row>, Vec<&Row>) =
            self.rows.iter().partition(|row| row.ours_speedup.is_some());
        if !one.is_empty() {
            writeln!(
                f,
                "\nPer call: nanoseconds, allocations, bytes; ratio is ours by the peer's.\n"
            )?;
            calls(&one).fmt(f)?;
            notes(f, one.iter().map(|row| (&row.name, &row.note)))?;
        }
        if !two.is_empty() {
            writeln!(
                f,
                "\nTwo threads: nanoseconds per call in all; speed-up against one thread.\n"
            )?;
            speedups(&two).fmt(f)?;
        }
        if !self.memory.is_empty() {
            writeln!(f, "\nMemory: bytes each.\n")?;
            memory(&self.memory).fmt(f)?;
            notes(f, self.memory.iter().map(|held| (&held.name, &held.note)))?;
        }
        if let Some(loopback) = &self.loopback {
            writeln!(f)?;
            loopback.fmt(f)?;
        }
        if !self.targets.is_empty() {
            writeln!(f, "\nTargets.\n")?;
            targets(&self.targets).fmt(f)?;
        }
        Ok(())
    }
}

/// What is to be said of some rows, once each.
fn notes<'a>(
    f: &mut fmt::Formatter<'_>,
    rows: impl Iterator<Item = (&'a String, &'a Option<String>)>,
) -> fmt::Result {
    let mut told = Vec::new();
    for (name, note) in rows {
        let Some(note) = note else { continue };
        let line = format!("- {name}: {note}");
        if !told.contains(&line) {
            told.push(line);
        }
    }
    match told.len() {
        0 => Ok(()),
        _ => writeln!(f, "\n{}", told.join("\n")),
    }
}

fn calls(rows: &[&Row]) -> Table {
    let mut table = Table::new(
        &["", "ours ns", "allocs", "bytes", "peer", "ns", "allocs", "bytes", "ratio"],
        &[0, 4],
    );
    let mut before = "";
    for row in rows {
        // Several peers of one row stand beneath each other.
        let first = row.name != before;
        before = &row.name;
        let only_first = |text: String| if first { text } else { String::new() };
        table.row([
            only_first(row.name.clone()),
            only_first(number(row.ours_ns)),
            only_first(number(row.ours_allocs)),
            only_first(number(row.ours_bytes)),
            row.peer.clone().unwrap_or_default(),
            row.peer_ns.map(number).unwrap_or_default(),
            row.peer_allocs.map(number).unwrap_or_default(),
            row.peer_bytes.map(number).unwrap_or_default(),
            row.ratio.map(ratio).unwrap_or_default(),
        ]);
    }
    table
}

fn speedups(rows: &[&Row]) -> Table {
    let mut table =
        Table::new(&["", "ours ns", "speed-up", "peer", "ns", "speed-up", "ratio"], &[0, 3]);
    for row in rows {
        table.row([
            row.name.clone(),
            number(row.ours_ns),
            row.ours_speedup.map(ratio).unwrap_or_default(),
            row.peer.clone().unwrap_or_default(),
            row.peer_ns.map(number).unwrap_or_default(),
            row.peer_speedup.map(ratio).unwrap_or_default(),
            row.ratio.map(ratio).unwrap_or_default(),
        ]);
    }
    table
}

fn memory(held: &[Held]) -> Table {
    let mut table = Table::new(&["", "ours", "peer", "bytes"], &[0, 2]);
    for held in held {
        table.row([
            held.name.clone(),
            number(held.ours_bytes),
            held.peer.unwrap_or_default().to_owned(),
            held.peer_bytes.map(number).unwrap_or_default(),
        ]);
    }
    table
}

fn targets(targets: &[Target]) -> Table {
    let mut table = Table::new(&["target", "at", "reached", ""], &[0, 3]);
    for target in targets {
        let sign = if target.at_least { "≥" } else { "≤" };
        table.row([
            target.name.to_owned(),
            format!("{sign} {}", number(target.goal)),
            number(target.reached),
            if target.met { "met" } else { "missed" }.to_owned(),
        ]);
    }
    table
}

// ===== impl Loopback =====

impl fmt::Display for Loopback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "HTTP over loopback: {} connections, {} pairs of runs of {:.2} s; medians.\n",
            self.connections, self.pairs, self.seconds_per_run
        )?;
        let mut table = Table::new(&["", "requests/s", "p99 µs", "by the bare client's"], &[0, 3]);
        let mut row = |name: &str, requests: f64, p99: f64, by: String| {
            table.row([name.to_owned(), number(requests.round()), number(p99.round()), by]);
        };
        let Self { bare, ours, peer_load, .. } = self;
        row("bare client", bare.requests_per_second, bare.p99_micros, String::new());
        let by = format!("requests/s {}, p99 {}", self.requests_ratio, self.p99_ratio);
        row("the same in the ready-made stack", ours.requests_per_second, ours.p99_micros, by);
        let Watched { load, requests_ratio, p99_ratio, stored, dropped } = self.watched;
        let by = format!(
            "by the stack's without, requests/s {requests_ratio}, p99 {p99_ratio}; {} stored, {} dropped",
            number(stored as f64),
            number(dropped as f64)
        );
        row("with an SQLite store and metrics", load.requests_per_second, load.p99_micros, by);
        let by = format!(
            "requests/s {}, once it has seen {} requests",
            ratio(self.peer_requests_ratio),
            number(self.peer_window as f64)
        );
        row(self.peer, peer_load.requests_per_second, peer_load.p99_micros, by);
        table.fmt(f)
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { median, low, high } = self;
        write!(f, "{median:.3} ({low:.3} to {high:.3})")
    }
}
