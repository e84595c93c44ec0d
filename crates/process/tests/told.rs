//! What is told of processes, and what a trace says of them. Real processes, and the real clock.
#![cfg(unix)]

use std::{sync::Arc, time::Duration};

use portcullis_core::{
    Event, LayerKind, Observer, Outcome, ProcessFault, ProcessStage, What, sync::Mutex,
};
use portcullis_process::{
    Invocation, Overflow, Process, ProcessBuilder, ProcessClassifier, ProcessConfig,
};
use portcullis_timeout::TimeoutLayer;
use portcullis_trace::{Query, Recorder, TraceLayer};
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process};
use tower::{Layer, ServiceExt};

const SECOND: Duration = Duration::from_secs(1);

/// Notes what became of processes, with the bytes they had put out.
#[derive(Clone, Default)]
struct Ear(Arc<Mutex<Vec<(ProcessStage, u64, u64)>>>);

impl Ear {
    fn heard(&self) -> Vec<(ProcessStage, u64, u64)> {
        std::mem::take(&mut *self.0.lock())
    }
}

impl Observer for Ear {
    fn on_event(&self, event: &Event<'_>) {
        assert_eq!((event.layer, event.name), (LayerKind::Process, "tool"));
        let What::Process { stage, stdout, stderr, .. } = event.what else {
            panic!("{event}");
        };
        self.0.lock().push((stage, stdout, stderr));
    }
}

fn sh(script: &str, ear: &Ear) -> ProcessBuilder {
    Process::builder("tool", "sh").arg("-c").arg(script).arg("tool").observe(ear.clone())
}

const STARTED: (ProcessStage, u64, u64) = (ProcessStage::Started, 0, 0);

#[tokio::test]
async fn each_start_and_end_is_told_with_what_was_put_out() {
    use ProcessStage::{Exited, Signalled};
    let ear = Ear::default();
    for (script, told) in [
        ("printf hello", (Exited(0), 5, 0)),
        ("printf hello; printf oh >&2; exit 3", (Exited(3), 5, 2)),
        ("printf x >&2; kill -SEGV $$", (Signalled(11), 0, 1)),
    ] {
        sh(script, &ear).build().unwrap().oneshot(Invocation::new()).await.unwrap();
        assert_eq!(ear.heard(), [STARTED, told], "{script}");
    }
}

#[tokio::test]
async fn a_program_that_is_not_there_is_told_as_not_started() {
    let ear = Ear::default();
    let missing = Process::builder("tool", "/nowhere/portcullis").observe(ear.clone());
    missing.build().unwrap().oneshot(Invocation::new()).await.unwrap_err();
    assert_eq!(ear.heard(), [(ProcessStage::NotStarted, 0, 0)]);
    assert_eq!(ProcessStage::NotStarted.fault(), Some(ProcessFault::Start));
}

#[tokio::test]
async fn one_that_floods_and_one_that_babbles_are_told_for_what_they_did() {
    let ear = Ear::default();
    let flood = sh("yes", &ear).stdout_limit(1000).overflow(Overflow::Kill).build().unwrap();
    flood.oneshot(Invocation::new()).await.unwrap_err();
    let [started, (broken, stdout, 0)] = ear.heard()[..] else { panic!("two are told") };
    assert_eq!((started, broken), (STARTED, ProcessStage::Broken(ProcessFault::Stdout)));
    assert!(stdout > 1000);

    let babble = sh("printf seven", &ear).parse(|output| output.stdout.text().parse::<u32>());
    babble.build().unwrap().oneshot(Invocation::new()).await.unwrap_err();
    let told = [STARTED, (ProcessStage::Exited(0), 5, 0), (ProcessStage::NotUnderstood, 5, 0)];
    assert_eq!(ear.heard(), told);
}

#[tokio::test]
async fn what_is_killed_with_its_call_is_told_with_who_ended_it() {
    let ear = Ear::default();
    let hangs = sh("printf first; exec sleep 600", &ear).build().unwrap();
    let timeout = TimeoutLayer::builder("tool").total(SECOND).build().unwrap();
    timeout.layer(hangs.clone()).oneshot(Invocation::new()).await.unwrap_err();
    let told = (ProcessStage::Killed(Outcome::timeout()), 5, 0);
    assert_eq!(ear.heard(), [STARTED, told]);

    let given_up = tokio::time::timeout(SECOND / 2, hangs.oneshot(Invocation::new()));
    assert!(given_up.await.is_err());
    assert_eq!(ear.heard()[1].0, ProcessStage::Killed(Outcome::Cancelled));
}

#[tokio::test]
async fn a_trace_says_how_a_process_exited_and_what_it_put_out() {
    let recorder = Recorder::builder().sample_rate(1.0).build().unwrap();
    let trace = TraceLayer::builder("tool").classify(ProcessClassifier::new()).recorder(&recorder);
    let trace = trace.build().unwrap();
    let timeout = TimeoutLayer::builder("tool").total(SECOND).build().unwrap();
    let run = async |script: &str| {
        let ear = Ear::default();
        let tool = trace.layer(timeout.layer(sh(script, &ear).build().unwrap()));
        let _ = tool.oneshot(Invocation::new()).await;
        recorder.flush().await;
        let page = recorder.store().query(&Query::new()).unwrap();
        let call = page.traces[0].calls[0].clone();
        let events = call.events.into_iter().filter(|event| event.layer == "process");
        (call.error_kind, events.map(|event| event.why).collect::<Vec<_>>())
    };
    let (kind, whys) = run("printf hello; exit 3").await;
    assert_eq!((kind.as_deref(), &*whys[0]), (Some("exit code 3"), "started"));
    assert!(whys[1].starts_with("exited with code 3 after "), "{whys:?}");
    assert!(whys[1].ends_with(", having put out 5 bytes and 0 of errors"), "{whys:?}");
    let (kind, whys) = run("kill -9 $$").await;
    assert_eq!(kind.as_deref(), Some("signal 9"));
    assert!(whys[1].starts_with("ended by signal 9 (SIGKILL) after "), "{whys:?}");
    let (kind, whys) = run("exec sleep 600").await;
    assert_eq!(kind.as_deref(), Some("timeout"));
    assert!(whys[1].starts_with("killed, for its time was up after 1"), "{whys:?}");
}

#[tokio::test]
async fn one_that_has_exited_was_not_killed_though_its_call_is_dropped_while_its_pipes_are_held() {
    let (ear, folder) = (Ear::default(), tempdir());
    let number = folder.join("number");
    let mut config = ProcessConfig::default();
    config.linger = SECOND * 600;
    // What it leaves behind holds its pipes, and is in its process group.
    let tool = sh(r#"sleep 600 & echo $$ >"$1.new"; mv "$1.new" "$1"; exit 3"#, &ear);
    let tool = tool.config(config).build().unwrap();
    let call = tokio::spawn(tool.oneshot(Invocation::new().arg(number.clone())));

    let group = async {
        loop {
            let text = std::fs::read_to_string(&number).unwrap_or_default();
            if let Some(group) = text.trim().parse().ok().and_then(Pid::from_raw) {
                // Once nobody has the number any more, its exit was seen.
                if test_kill_process(group).is_err() {
                    return group;
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let group = tokio::time::timeout(SECOND * 20, group).await.unwrap();
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    kill_process_group(group, Signal::KILL).unwrap();
    std::fs::remove_dir_all(folder).unwrap();
    assert_eq!(ear.heard(), [STARTED, (ProcessStage::Exited(3), 0, 0)]);
}

/// A folder of a test's own.
fn tempdir() -> std::path::PathBuf {
    let name = format!("portcullis-process-told-{}", std::process::id());
    let folder = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}
