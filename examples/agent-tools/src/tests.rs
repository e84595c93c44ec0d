//! The shape of the story.

use portcullis::trace::record::{Call, Kind, Status, Trace};

use crate::turn;

fn call<'a>(story: &'a Trace, name: &str, scope: &str) -> &'a Call {
    let scope = story.calls.iter().find(|call| call.kind == Kind::Scope && call.name == scope);
    let scope = scope.unwrap();
    let of_scope = |call: &&Call| call.name == name && call.parent == Some(scope.span);
    story.calls.iter().find(of_scope).unwrap()
}

fn attempts(call: &Call) -> Vec<String> {
    let ends = call.attempts.iter().map(|attempt| attempt.outcome);
    ends.map(|end| end.kind().map_or(end.as_str().to_owned(), |kind| kind.to_string())).collect()
}

#[tokio::test]
async fn a_turn_is_one_story_of_three_steps_and_five_calls() {
    let (answer, story, tools) = turn().await.unwrap();
    assert_eq!(story.status, Status::Success);
    assert_eq!(story.name, "answer: why is checkout slow?");
    assert_eq!(story.output.as_ref().map(|output| &*output.text), Some(&*answer));

    let is_scope = |call: &&Call| call.kind == Kind::Scope;
    let steps: Vec<_> = story.calls.iter().filter(is_scope).map(|call| &*call.name).collect();
    assert_eq!(steps, ["plan", "gather", "conclude"]);
    assert_eq!(story.calls.len(), 3 + 5);

    for (tool, step, status, expected) in [
        ("model", "plan", Status::Success, ["status 429", "success"].as_slice()),
        ("search", "gather", Status::Success, &["status 503", "success"]),
        ("metrics", "gather", Status::Timeout, &["timeout", "timeout"]),
        ("people", "gather", Status::Error, &["connect", "connect", "connect"]),
        ("model", "conclude", Status::Success, &["success"]),
    ] {
        let call = call(&story, tool, step);
        assert_eq!(call.status, status, "{tool} in {step}: {story}");
        assert_eq!(attempts(call), expected, "{tool} in {step}: {story}");
        assert_eq!(call.target.as_deref(), Some(&*format!("{tool}.example")));
    }

    // The server asked for a second, and had it.
    let hinted = call(&story, "model", "plan").attempts[1].started;
    assert!(hinted.as_secs_f64() >= 1.0, "{hinted:?}");
    // The tools were used at the same time.
    let [search, metrics] = ["search", "metrics"].map(|tool| call(&story, tool, "gather"));
    assert!(metrics.started < search.started + search.duration);

    assert!(story.calls.iter().all(|call| call.kind == Kind::Scope || call.output.is_none()));
    for tool in tools.all() {
        let report = tool.check();
        assert_eq!(report.warnings().count(), 0, "{report}");
    }
}
