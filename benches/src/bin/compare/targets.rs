//! What is to be reached, and how far it is.

use serde::Serialize;

use crate::{
    report::{Report, Row},
    rows::NO_STACK,
};

/// One figure that is to be reached.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) goal: f64,
    pub(crate) reached: f64,
    /// Whether it is to be the goal or more, rather than the goal or less.
    pub(crate) at_least: bool,
    pub(crate) met: bool,
}

/// Those for which all that is needed was measured.
pub(crate) fn of(report: &Report) -> Vec<Target> {
    let rows = &report.rows;
    let ours = |name: &str| rows.iter().find(|row| row.name == name);
    let ns = |name| ours(name).map(|row| row.ours_ns);
    let beside = |name: &str, peer: &str| {
        rows.iter().find(|row| row.name == name && row.peer.as_deref() == Some(peer))
    };
    let by = |name, peer| beside(name, peer).and_then(|row| row.ratio);
    let (bare, clock) = (ns("bare service"), ns("clock, read once"));
    // A call reads the clock at its start and at its end.
    let beyond_clock = |name| Some(ns(name)? - bare? - 2.0 * clock?);
    let beyond_bare = |name| Some(ns(name)? - bare?);
    let speedup = |name| ours(name).and_then(|row| row.ours_speedup);
    let http = beside("request to the end of the body", NO_STACK);
    let traced = "stack with traces, not kept";
    let four = "tower-resilience, four layers";

    let at_most = |name, goal, reached: Option<f64>| {
        reached.map(|reached| Target { name, goal, reached, at_least: false, met: reached <= goal })
    };
    let at_least = |name, goal, reached: Option<f64>| {
        reached.map(|reached| Target { name, goal, reached, at_least: true, met: reached >= goal })
    };
    let found = [
        at_most("breaker, time window: ns beyond bare call and clock", 40.0, {
            beyond_clock("breaker, time window of 10 s, busy")
        }),
        at_most("breaker, count window: ns beyond bare call and clock", 40.0, {
            beyond_clock("breaker, count window")
        }),
        at_most("breaker, dearest window by cheapest, long in use", 1.25, spread(rows)),
        at_most("retry: ns beyond bare call", 15.0, beyond_bare("retry")),
        at_most("limit, direct: ns, clock included", 30.0, ns("direct")),
        at_most("limit, one of 1 000 keys: ns, clock included", 45.0, ns("keyed, 1 000 keys")),
        at_most("timeout by tower's", 1.0, by("timeout", "tower")),
        at_most("timeout by tower's, pending once", 1.0, by("timeout, pending once", "tower")),
        at_most("allocations of any layer alone", 0.0, allocations(rows)),
        at_most("stack with traces: ns", 300.0, ns(traced)),
        at_most("stack with traces: allocations", 1.0, ours(traced).map(|row| row.ours_allocs)),
        at_most("stack with traces by tower-resilience's four layers", 0.25, by(traced, four)),
        at_most("HTTP request: ns beyond the client's own", 900.0, {
            http.and_then(|row| Some(row.ours_ns - row.peer_ns?))
        }),
        at_most("HTTP request: allocations beyond the client's own", 8.0, {
            http.and_then(|row| Some(row.ours_allocs - row.peer_allocs?))
        }),
        at_least("breaker, time window, two threads by one", 1.6, {
            speedup("breaker, time window, on two threads")
        }),
        at_least("breaker, count window, two threads by one", 1.6, {
            speedup("breaker, count window, on two threads")
        }),
        at_least("limits of distinct keys, two threads by one", 1.6, {
            speedup("limits of distinct keys, on two threads")
        }),
        at_least("HTTP over loopback: requests/s by the bare client's", 0.97, {
            report.loopback.as_ref().map(|loopback| loopback.requests_ratio.median)
        }),
    ];
    found.into_iter().flatten().collect()
}

/// How much dearer the dearest window is than the cheapest of the same kind.
fn spread(rows: &[Row]) -> Option<f64> {
    let ns = |name: &str| {
        let name = format!("breaker, {name}, long in use");
        rows.iter().find(|row| row.name == name).map(|row| row.ours_ns)
    };
    let by_time = ns("10 min")? / ns("10 s")?;
    let by_count = ns("100 000 calls")? / ns("100 calls")?;
    Some([by_time, 1.0 / by_time, by_count, 1.0 / by_count].into_iter().fold(1.0, f64::max))
}

/// The most that a layer alone allocates for a call that succeeds.
fn allocations(rows: &[Row]) -> Option<f64> {
    let layers = rows.iter().filter(|row| row.group == "layers");
    layers.map(|row| row.ours_allocs).reduce(f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Cost;

    fn row(name: &str, ns: f64) -> Row {
        Row::new("layers", name, Cost { ns, allocs: 0.0, bytes: 0.0 })
    }

    #[test]
    fn a_target_is_held_against_what_was_measured() {
        let report = Report {
            rows: vec![
                row("bare service", 2.0),
                row("clock, read once", 20.0),
                row("breaker, count window", 85.0),
                row("retry", 12.0),
            ],
            ..Report::default()
        };
        let targets = of(&report);
        let find = |name: &str| targets.iter().find(|target| target.name.starts_with(name));
        let breaker = find("breaker, count window").expect("measured");
        assert_eq!((breaker.reached, breaker.met), (43.0, false));
        assert_eq!(find("retry").map(|target| (target.reached, target.met)), Some((10.0, true)));
        assert_eq!(find("allocations").map(|target| target.met), Some(true));
        assert!(find("HTTP").is_none(), "it was not measured");
    }

    #[test]
    fn windows_are_compared_with_those_of_their_kind() {
        let rows = [
            row("breaker, 10 s, long in use", 100.0),
            row("breaker, 10 min, long in use", 125.0),
            row("breaker, 100 calls, long in use", 60.0),
            row("breaker, 100 000 calls, long in use", 40.0),
        ];
        assert_eq!(spread(&rows), Some(1.5));
        assert_eq!(spread(&rows[1..]), None);
    }
}
