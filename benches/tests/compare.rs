//! The comparison runs, and says all it should. How quick anything is, is not judged here.

use std::process::{Command, Output};

use serde_json::Value;

/// What there is to compare, with how many peers.
const ROWS: [(&str, usize); 37] = [
    ("clock, read once", 1),
    ("bare service", 2),
    ("timeout", 2),
    ("retry", 2),
    ("rate limit", 2),
    ("rate limit by key", 0),
    ("breaker, count window", 1),
    ("breaker, time window of 10 s, busy", 1),
    ("breaker by key", 0),
    ("stack without traces", 1),
    ("stack with traces, not kept", 1),
    ("stack with traces, all kept", 0),
    ("stack with traces, and metrics", 0),
    ("stack with traces, all kept, and metrics", 0),
    ("breaker, 10 s, new", 2),
    ("breaker, 10 s, long in use", 2),
    ("breaker, 10 min, new", 2),
    ("breaker, 10 min, long in use", 2),
    ("breaker, 100 calls, new", 2),
    ("breaker, 100 calls, long in use", 2),
    ("breaker, 100 000 calls, new", 2),
    ("breaker, 100 000 calls, long in use", 2),
    ("direct", 2),
    ("direct, told the time", 0),
    ("keyed, 1 key", 1),
    ("keyed, 1 000 keys", 1),
    ("keyed, 100 000 keys", 1),
    ("timeout, pending once", 2),
    ("stack without traces, pending once", 2),
    ("stack with traces, pending once", 2),
    ("open breaker", 3),
    ("limit, asked without a service", 1),
    ("limit, as a layer", 1),
    ("trace layer, not kept", 2),
    ("trace layer, kept", 1),
    ("request to the end of the body", 2),
    ("breaker, time window, on two threads", 1),
];

/// The rest of those on two threads.
const ON_TWO_THREADS: [(&str, usize); 4] = [
    ("breaker, count window, on two threads", 2),
    ("one limit, on two threads", 1),
    ("limits of distinct keys, on two threads", 1),
    ("stack with traces, on two threads", 1),
];

fn compare(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_compare")).args(args).output().expect("it was built")
}

/// All numbers in it, however deep, with where they are.
fn numbers(at: &str, value: &Value, found: &mut Vec<(String, f64)>) {
    match value {
        Value::Number(number) => found.push((at.to_owned(), number.as_f64().unwrap_or(f64::NAN))),
        Value::Array(values) => {
            for (nth, value) in values.iter().enumerate() {
                numbers(&format!("{at}[{nth}]"), value, found);
            }
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                numbers(&format!("{at}.{name}"), value, found);
            }
        }
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

#[test]
fn a_short_run_has_every_row_and_every_figure() {
    let output = compare(&["--json", "--seconds", "1"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");

    let rows = report["rows"].as_array().expect("rows");
    for (name, peers) in ROWS.into_iter().chain(ON_TWO_THREADS) {
        let found = rows.iter().filter(|row| row["name"] == name).collect::<Vec<_>>();
        assert_eq!(found.len(), peers.max(1), "{name}");
        assert!(found.iter().all(|row| row["peer"].is_null() == (peers == 0)), "{name}");
    }
    let expected: usize = ROWS.into_iter().chain(ON_TWO_THREADS).map(|(_, n)| n.max(1)).sum();
    assert_eq!(rows.len(), expected);

    for row in rows {
        for field in ["ours_ns", "ours_allocs", "ours_bytes"] {
            assert!(row[field].is_number(), "{field} of {row}");
        }
        for field in ["peer_ns", "peer_allocs", "peer_bytes", "ratio"] {
            assert_eq!(row[field].is_number(), row["peer"].is_string(), "{field} of {row}");
        }
    }
    assert!(report["memory"].as_array().is_some_and(|held| held.len() > 15));
    assert!(report["loopback"]["requests_ratio"]["median"].is_number());
    assert!(report["loopback"]["watched"]["p99_ratio"]["median"].is_number());
    assert!(report["targets"].as_array().is_some_and(|targets| targets.len() == 18));

    // A NaN or an infinity would be null, and is found above; what takes time takes some.
    let mut figures = Vec::new();
    numbers("", &report, &mut figures);
    for (at, figure) in figures.iter().filter(|(at, _)| !at.starts_with(".targets")) {
        let may_be_none =
            ["allocs", "bytes", "stored", "dropped"].iter().any(|it| at.ends_with(it));
        assert!(*figure > 0.0 || may_be_none && *figure == 0.0, "{at} is {figure}");
    }
}

#[test]
fn a_pattern_leaves_the_rest_out() {
    let output = compare(&["--json", "--seconds", "1", "--rows", "refusals"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    let rows = report["rows"].as_array().expect("rows");
    assert!(rows.len() == 5 && rows.iter().all(|row| row["group"] == "refusals"), "{rows:?}");
    assert!(report["loopback"].is_null());

    let table = compare(&["--seconds", "1", "--rows", "asked without"]);
    let table = String::from_utf8(table.stdout).expect("text");
    assert!(table.contains("| limit, asked without a service |"), "{table}");
}

#[test]
fn what_fits_nothing_is_an_error_that_says_what_there_is() {
    let output = compare(&["--rows", "no such row"]);
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        told.contains("no such row") && told.contains("layers, stacks, observed, windows"),
        "{told}"
    );
}
