//! The shape of the story, and that what is printed tells it. The program is run as its users run it.
#![cfg(unix)]

use std::{process::Command, sync::LazyLock};

use portcullis::trace::record::{Call, Kind, Status, Trace};

/// The record of one turn.
static STORY: LazyLock<Trace> = LazyLock::new(|| serde_json::from_str(&run(&["--json"])).unwrap());

fn run(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_agent-tools")).args(args).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// The scopes of this name, outermost first, each in the one before; then the call in the last.
fn scope<'a>(story: &'a Trace, names: &[&str]) -> &'a Call {
    let mut found: Option<&Call> = None;
    for name in names {
        let parent = found.map_or(story.span, |scope| scope.span);
        let is_it = |call: &&Call| {
            call.kind == Kind::Scope && call.name == *name && call.parent == Some(parent)
        };
        found = story.calls.iter().find(is_it);
        assert!(found.is_some(), "no {name} of {names:?} in {story}");
    }
    found.unwrap()
}

fn calls<'a>(story: &'a Trace, parent: &Call) -> Vec<&'a Call> {
    let is_in = |call: &&Call| call.kind == Kind::Call && call.parent == Some(parent.span);
    story.calls.iter().filter(is_in).collect()
}

fn attempts(call: &Call) -> Vec<String> {
    let ends = call.attempts.iter().map(|attempt| attempt.outcome);
    ends.map(|end| end.kind().map_or(end.as_str().to_owned(), |kind| kind.to_string())).collect()
}

/// What was told of a call's processes.
fn fates(call: &Call) -> Vec<&str> {
    let events = call.events.iter().filter(|event| event.layer == "process");
    events.map(|event| &*event.what).collect()
}

#[test]
fn a_turn_is_one_story_of_five_steps_and_all_they_used() {
    let story = &*STORY;
    assert_eq!(story.status, Status::Success);
    assert_eq!(story.name, "answer: why is checkout slow?");
    let answer = story.output.as_ref().unwrap();
    assert!(answer.text.starts_with("Deploy 418 reads whole carts."), "{}", answer.text);

    let is_step = |call: &&Call| call.parent == Some(story.span);
    let steps: Vec<_> = story.calls.iter().filter(is_step).map(|call| &*call.name).collect();
    assert_eq!(steps, ["plan", "gather", "investigate", "try out", "conclude"]);

    for (step, tool, status, ended) in [
        ("plan", "model", Status::Success, ["status 429", "success"].as_slice()),
        ("gather", "search", Status::Success, &["status 503", "success"]),
        ("gather", "metrics", Status::Timeout, &["timeout", "timeout"]),
        ("gather", "people", Status::Error, &["connect", "connect", "connect"]),
        ("investigate", "logs", Status::Success, &["exit code 75", "success"]),
        ("investigate", "profile", Status::Error, &["signal 6", "signal 6"]),
        ("investigate", "replay", Status::Timeout, &["timeout", "timeout"]),
        ("investigate", "dump", Status::Error, &["process stdout", "process stdout"]),
        ("conclude", "model", Status::Success, &["success"]),
    ] {
        let inside = match tool {
            "model" => scope(story, &[step]),
            _ => scope(story, &[step, tool]),
        };
        let [call] = calls(story, inside)[..] else { panic!("{tool} in {step}: {story}") };
        assert_eq!((&*call.name, call.status), (tool, status), "{tool} in {step}: {story}");
        assert_eq!(attempts(call), ended, "{tool} in {step}: {story}");
        let fate = match tool {
            "logs" => "exited",
            "profile" => "signalled",
            "replay" => "killed",
            "dump" => "broken",
            _ => {
                assert_eq!(call.target.as_deref(), Some(&*format!("{tool}.example")));
                continue;
            }
        };
        assert_eq!(fates(call), ["started", fate, "started", fate], "{story}");
    }

    // The server asked for a second, and had it.
    let model = calls(story, scope(story, &["plan"]))[0];
    let hinted = model.attempts[1].started;
    assert!(hinted.as_secs_f64() >= 1.0, "{hinted:?}");
    // The tools were used at the same time.
    let [search, metrics] = ["search", "metrics"].map(|tool| scope(story, &["gather", tool]));
    assert!(metrics.started < search.started + search.duration);
    // Of a tool's use it is noted which it is.
    let noted = |key: &str| search.attributes.iter().find(|(known, _)| known == key);
    assert_eq!(noted("gen_ai.tool.call.id").map(|(_, id)| &**id), Some("call_1"));
    assert!(story.calls.iter().all(|call| call.kind == Kind::Scope || call.output.is_none()));
}

#[test]
fn the_job_is_asked_about_until_it_is_done() {
    let story = &*STORY;
    let tool = scope(story, &["try out", "bench"]);
    let [job] = calls(story, tool)[..] else { panic!("{story}") };
    assert_eq!((&*job.name, job.status), ("bench job", Status::Success));
    let waits: Vec<_> = job
        .events
        .iter()
        .filter(|event| event.what == "polled")
        .map(|event| event.wait.map(|wait| wait.as_millis()))
        .collect();
    // As the server asked, then by the backoff; the last one ends it.
    assert_eq!(waits, [Some(1000), Some(300), Some(300), None]);

    let requests = calls(story, job);
    let operations: Vec<_> =
        requests.iter().map(|call| call.operation.as_deref().unwrap_or_default()).collect();
    assert_eq!(operations, ["POST", "GET", "GET", "GET"]);
    // That a poll failed was mended beneath.
    assert_eq!(attempts(requests[2]), ["status 503", "success"]);
    assert!(requests[1].started - requests[0].started >= std::time::Duration::from_secs(1));
}

#[test]
fn what_is_printed_says_what_happened_and_why() {
    let printed = run(&[]);
    // Lines are broken where a terminal ends.
    let text = printed.split_whitespace().collect::<Vec<_>>().join(" ");
    for said in [
        "Answered: Deploy 418 reads whole carts.",
        "throttled (status 429); next in 1.1s: asked to come back in 1s",
        "timed out after ",
        "failure (connect); no other: all 3 attempts are used",
        "exited with code 75 after ",
        "failure (exit code 75); next in ",
        "ended by signal 6 (SIGABRT) after ",
        "killed, for its time was up after ",
        "killed, for its stdout failed after ",
        "it put out more than 16384 bytes, and was killed",
        "asked about in 1.0s: asked to come back in 1s",
        "next in 300.0ms: backoff before poll 3",
        "poll 3: success after ",
        "gen_ai.tool.call.id=call_8",
    ] {
        assert!(text.contains(said), "{said} is not in\n{printed}");
    }
    let row = printed.lines().find(|line| line.starts_with("    bench job ")).unwrap();
    assert!(row.contains("█░░") && row.contains("success"), "the waits are hatched: {row}");
    let checks = text.split("known before any call:").nth(1).unwrap();
    let bounded = ["model: at most 6s", "search: at most 3s", "bench: at most 3s"];
    assert!(bounded.iter().all(|it| checks.contains(it)), "{checks}");
    // No stack has a setting that does not fit the others.
    assert_eq!(checks.matches("no warnings").count(), 6, "{checks}");
}
