//! A gauntlet that serves until it is interrupted.

use std::process::Command;

use crate::served::Served;

#[test]
fn it_serves_metrics_and_api_until_it_is_terminated() {
    let gauntlet = Served::start(5);
    let mut metrics = gauntlet.get("metrics");
    let kind = metrics.headers()["content-type"].to_str().unwrap();
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    let text = metrics.body_mut().read_to_string().unwrap();
    assert!(text.contains(r#"portcullis_breaker_state{portcullis_state="closed""#), "{text}");
    assert_eq!(gauntlet.json("api/about")["title"], "gauntlet");

    let (status, summary) = gauntlet.terminate();
    assert_eq!(status.code(), Some(0));
    assert_eq!(summary["served"]["laps"], 0);
    assert_eq!(summary["served"]["requests"], summary["with_stack"]["requests"]);
    assert_eq!(summary["invariants"], serde_json::json!([]));
}

#[test]
fn an_address_that_is_taken_is_refused_by_name() {
    let gauntlet = Served::start(5);
    let taken = gauntlet.url.trim_start_matches("http://").trim_end_matches('/');
    let second =
        Command::new(env!("CARGO_BIN_EXE_gauntlet")).args(["--serve", taken]).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let told = String::from_utf8(second.stderr).unwrap();
    assert!(told.contains(&format!("{taken} cannot be served")), "{told}");
}
