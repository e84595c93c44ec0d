//! A gauntlet that serves until it is interrupted.

use std::process::Command;

use serde_json::Value;

use crate::served::{Served, TOKEN};

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

/// The breaker of the upstream, as the API has it.
fn breaker(answer: &Value) -> &Value {
    let breakers = answer["breakers"].as_array().unwrap();
    breakers.iter().find(|breaker| breaker["name"] == "upstream").unwrap()
}

#[test]
fn its_breaker_is_seen_to_open_and_close_and_can_be_reset() {
    let gauntlet = Served::start(10);
    let mut events = gauntlet.events();
    let mut moves_to = |to: &str| {
        let moved = events.find(|(kind, told)| kind == "breaker" && told["to"] == to);
        let (_, told) = moved.unwrap();
        assert_eq!(told["name"], "upstream");
        assert!(told["why"].as_str().is_some_and(|why| !why.is_empty()), "{told}");
        told
    };
    // The outage comes, and goes.
    let opened = moves_to("open");
    assert_eq!(opened["from"], "closed");
    let key = opened["key"].as_str().unwrap().to_owned();
    let there = gauntlet.json("api/breakers");
    assert_eq!(breaker(&there)["key"], key.as_str());
    assert!(breaker(&there)["generation"].as_u64() >= Some(1), "{there}");
    assert_eq!(moves_to("closed")["from"], "half-open");

    // Whoever has the token may take it in hand.
    let path = |order: &str| format!("api/breakers/upstream/{order}?key={key}");
    for wrong in [None, Some("another-token")] {
        assert_eq!(gauntlet.post(&path("open"), wrong).0, 401);
    }
    let (status, forced) = gauntlet.post(&path("open"), Some(TOKEN));
    assert_eq!((status, &breaker(&forced)["state"]), (200, &"forced-open".into()));
    assert_eq!(moves_to("forced-open")["key"], key.as_str());
    let health = gauntlet.json("health");
    assert_eq!(
        (&health["status"], &health["open"][0]["name"]),
        (&"degraded".into(), &"upstream".into())
    );
    let (status, reset) = gauntlet.post(&path("reset"), Some(TOKEN));
    assert_eq!((status, &breaker(&reset)["mode"]), (200, &"auto".into()));
    moves_to("closed");

    let metrics = gauntlet.text("metrics");
    let forced = r#"portcullis_state_from="forced-open""#;
    assert!(metrics.lines().any(|line| line.contains(forced)), "{metrics}");
    assert_eq!(gauntlet.terminate().0.code(), Some(0));
}

#[test]
fn a_slow_call_is_found_among_its_traces() {
    let gauntlet = Served::start(10);
    // Something happens all the time; whenever it does, it is looked whether a slow call is there.
    let slow = gauntlet.events().find_map(|_| {
        let found = gauntlet.json("api/traces?name=GET%20%2F&min_ms=800&limit=1");
        found["traces"].as_array().unwrap().first().cloned()
    });
    let slow = slow.unwrap();
    assert!(slow["duration_ms"].as_f64() >= Some(800.0), "{slow}");
    let id = slow["id"].as_str().unwrap();
    let records = gauntlet.json(&format!("api/traces/{id}"));
    let record = &records["traces"][0];
    assert_eq!((&record["id"], &record["span"]), (&slow["id"], &slow["span"]));
    let call = &record["calls"][0];
    assert_eq!(call["name"], "upstream");
    let whys = call["events"].as_array().unwrap().iter().map(|event| event["why"].as_str());
    assert!(whys.flatten().any(|why| !why.is_empty()), "{call}");
    let exported = gauntlet.json(&format!("api/traces/{id}/otlp"));
    assert!(exported["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().is_some());
    assert_eq!(gauntlet.terminate().0.code(), Some(0));
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
