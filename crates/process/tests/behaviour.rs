//! Real processes. The clock is the real one: a process does not know of a paused one.
#![cfg(unix)]

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use portcullis_breaker::{BreakerLayer, Open};
use portcullis_core::{
    ByClone, Call, Elapsed, FaultKind, Outcome, ProcessFault, RemoteTrace, Replay, SpanId,
    TraceContext, TraceId,
};
use portcullis_process::{
    Exit, Invocation, Output, Overflow, Process, ProcessBuilder, ProcessClassifier, ProcessConfig,
    ProcessError,
};
use portcullis_retry::{Backoff, RetryLayer};
use portcullis_timeout::TimeoutLayer;
use tower::{Layer, ServiceExt};

const SECOND: Duration = Duration::from_secs(1);
/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(600);

fn sh(script: &str) -> ProcessBuilder {
    Process::builder("tool", "sh").arg("-c").arg(script).arg("tool")
}

async fn run(script: &str) -> Output {
    sh(script).build().unwrap().oneshot(Invocation::new()).await.unwrap()
}

/// A folder of a test's own, removed with it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("portcullis-process-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Waits until `done`, looking again and again; a test that waits in vain fails.
async fn until(what: &str, done: impl Fn() -> bool) {
    let looking = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let looked = tokio::time::timeout(20 * SECOND, looking).await;
    assert!(looked.is_ok(), "{what}: not within 20 s");
}

/// The number a script wrote into a file, once it is there.
async fn number(file: &Path) -> i32 {
    let read = || fs::read_to_string(file).ok()?.trim().parse().ok();
    until("a number in the file", || read().is_some()).await;
    read().unwrap()
}

fn is_running(process: i32) -> bool {
    let pid = rustix::process::Pid::from_raw(process).unwrap();
    // One that has ended and is not reaped can still be signalled; its state says so.
    let state = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let ended = state.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'));
    rustix::process::test_kill_process(pid).is_ok() && !ended
}

// ===== what it answers =====

#[tokio::test]
async fn answers_with_what_was_put_out_and_how_it_exited() {
    let output = run("echo found; echo careful >&2").await;
    assert_eq!((output.exit, output.value), (Exit::Code(0), None));
    assert_eq!(output.stdout.text(), "found\n");
    assert_eq!(output.stderr.text(), "careful\n");
    assert!(!output.stdout.is_truncated());
    assert_eq!(output.stdout.written(), 6);
}

#[tokio::test]
async fn a_failure_of_its_own_is_an_answer() {
    assert_eq!(run("exit 3").await.exit, Exit::Code(3));
    assert_eq!(run("kill -9 $$").await.exit, Exit::Signal(9));
}

#[tokio::test]
async fn arguments_and_environment_are_as_they_were_given() {
    let folder = Folder::new();
    let script = r#"printf '%s|' "$@"; printf '%s %s' "$A" "$B"; pwd"#;
    let tool = sh(script).arg("of all").env("A", "1").env("B", "1").dir(&folder.0);
    let invocation = Invocation::new().args(["; rm -rf x", "$HOME"]).arg("*").env("B", "2 3");
    let output = tool.build().unwrap().oneshot(invocation).await.unwrap();
    let folder = folder.0.canonicalize().unwrap();
    let expected = format!("of all|; rm -rf x|$HOME|*|1 2 3{}\n", folder.display());
    assert_eq!(output.stdout.text(), expected);
}

#[tokio::test]
async fn an_environment_can_be_kept_from_it() {
    let tool = Process::builder("tool", "/bin/sh").arg("-c").arg("echo $CARGO_MANIFEST_DIR-$A");
    let output = tool.clear_env().env("A", "1").build().unwrap().oneshot(Invocation::new()).await;
    assert_eq!(output.unwrap().stdout.text(), "-1\n");
}

#[tokio::test]
async fn input_and_output_larger_than_any_pipe_pass() {
    let input = vec![b'x'; 3 << 20];
    let cat = Process::builder("cat", "cat").stdout_limit(4 << 20).build().unwrap();
    let output = cat.oneshot(Invocation::new().stdin(input.clone())).await.unwrap();
    assert_eq!(output.stdout.bytes(), &input);
}

#[tokio::test]
async fn input_need_not_be_read() {
    let tool = sh("exec 0<&-; echo enough").build().unwrap();
    let output = tool.oneshot(Invocation::new().stdin(vec![0; 3 << 20])).await.unwrap();
    assert_eq!((output.exit, &*output.stdout.text()), (Exit::Code(0), "enough\n"));
}

#[tokio::test]
async fn what_is_put_out_is_understood() {
    let tool =
        || sh(r#"echo "$1"; exit $2"#).parse(|output| output.stdout.text().trim().parse::<u8>());
    let ask = |text: &str, code: &str| {
        tool().build().unwrap().oneshot(Invocation::new().args([text, code]))
    };
    assert_eq!(ask("7", "0").await.unwrap().value, Some(7));
    // What a process says that failed is not looked at.
    assert_eq!(ask("seven", "1").await.unwrap().value, None);

    let error = ask("seven", "0").await.unwrap_err();
    assert_eq!(error.fault(), ProcessFault::Parse);
    assert_eq!(error.output().unwrap().stdout.text(), "seven\n");
    assert_eq!(
        error.to_string(),
        "tool: put out what could not be understood: invalid digit found in string"
    );
}

// ===== what it puts out is bounded =====

#[tokio::test]
async fn a_flood_is_cut_and_counted() {
    let tool = sh("head -c 5000000 /dev/zero; head -c 100000 /dev/zero >&2; exit 4");
    let tool = tool.stdout_limit(1000).stderr_limit(0).build().unwrap();
    let output = tool.oneshot(Invocation::new()).await.unwrap();
    assert_eq!(output.exit, Exit::Code(4));
    assert_eq!((output.stdout.bytes().len(), output.stdout.written()), (1000, 5_000_000));
    assert_eq!((output.stderr.bytes().len(), output.stderr.written()), (0, 100_000));
    assert!(output.stdout.is_truncated() && output.stderr.is_truncated());
}

#[tokio::test]
async fn an_endless_flood_can_be_ended() {
    let tool = sh("yes >&2").overflow(Overflow::Kill).stderr_limit(100_000).build().unwrap();
    let error = tool.oneshot(Invocation::new()).await.unwrap_err();
    assert_eq!(error.fault(), ProcessFault::Stderr);
    assert!(error.to_string().ends_with("more than 100000 bytes, and was killed"), "{error}");

    // What fills it to the brim is no flood.
    let tool = sh("head -c 1000 /dev/zero").overflow(Overflow::Kill).stdout_limit(1000);
    let output = tool.build().unwrap().oneshot(Invocation::new()).await.unwrap();
    assert!(!output.stdout.is_truncated());
}

// ===== it ends with the call =====

#[tokio::test]
async fn a_dropped_call_ends_the_process_and_what_it_started() {
    let folder = Folder::new();
    let (own, other) = (folder.path("own"), folder.path("other"));
    let tool = sh(r#"echo $$ >"$1"; sh -c 'echo $$ >"$1"; sleep 600' sub "$2"; true"#).build();
    let invocation = Invocation::new().arg(own.clone()).arg(other.clone());
    let call = tokio::spawn(tool.unwrap().oneshot(invocation));
    let processes = [number(&own).await, number(&other).await];
    assert!(processes.into_iter().all(is_running));

    call.abort();
    until("both ended", || !processes.into_iter().any(is_running)).await;
}

#[tokio::test]
async fn a_call_that_is_never_polled_starts_nothing() {
    let folder = Folder::new();
    let file = folder.path("started");
    let mut tool = sh(r#"touch "$1""#).build().unwrap();
    drop(tower::Service::call(&mut tool, Invocation::new().arg(file.clone())));
    // One that is run comes after it.
    tool.clone().oneshot(Invocation::new().arg(folder.path("other"))).await.unwrap();
    assert!(!file.exists());
}

#[tokio::test]
async fn a_process_may_be_asked_to_end_before_it_is_killed() {
    let folder = Folder::new();
    let (ready, asked) = (folder.path("ready"), folder.path("asked"));
    let tool =
        sh(r#"trap 'echo 1 >"$2"; exit 0' TERM; echo $$ >"$1"; while :; do sleep 0.01; done"#);
    let tool = tool.grace(LONG).build().unwrap();
    let call = tool.oneshot(Invocation::new().arg(ready.clone()).arg(asked.clone()));
    let call = tokio::spawn(call);
    let process = number(&ready).await;
    call.abort();
    assert_eq!(number(&asked).await, 1);
    until("ended", || !is_running(process)).await;
}

#[tokio::test]
async fn a_process_that_does_not_end_when_asked_is_killed() {
    let folder = Folder::new();
    let ready = folder.path("ready");
    let tool = sh(r#"trap '' TERM; echo $$ >"$1"; while :; do sleep 0.01; done"#);
    let tool = tool.grace(Duration::from_millis(50)).build().unwrap();
    let call = tokio::spawn(tool.oneshot(Invocation::new().arg(ready.clone())));
    let process = number(&ready).await;
    call.abort();
    until("killed", || !is_running(process)).await;
}

#[tokio::test]
async fn what_a_process_leaves_behind_does_not_hold_its_call() {
    let folder = Folder::new();
    let left = folder.path("left");
    let mut config = ProcessConfig::default();
    config.linger = Duration::from_millis(50);
    let tool = sh(r#"sh -c 'echo $$ >"$1"; exec sleep 600' sub "$1" & echo done"#).config(config);
    let output = tool.build().unwrap().oneshot(Invocation::new().arg(left.clone())).await.unwrap();
    assert_eq!((output.exit, &*output.stdout.text()), (Exit::Code(0), "done\n"));
    assert!(output.elapsed < 60 * SECOND);

    let left = rustix::process::Pid::from_raw(number(&left).await).unwrap();
    let _ = rustix::process::kill_process(left, rustix::process::Signal::KILL);
}

#[tokio::test]
async fn a_time_limit_ends_it() {
    let folder = Folder::new();
    let file = folder.path("process");
    let limit = TimeoutLayer::builder("tool")
        .classify(ProcessClassifier::new())
        .total(SECOND)
        .build()
        .unwrap();
    let tool = limit.layer(sh(r#"echo $$ >"$1"; sleep 600"#).build().unwrap());
    let error = tool.oneshot(Invocation::new().arg(file.clone())).await.unwrap_err();
    assert!(error.is::<Elapsed>());
    let process = number(&file).await;
    until("ended", || !is_running(process)).await;
}

// ===== its verdicts =====

fn verdict(result: Result<Output, ProcessError>, judge: &ProcessClassifier) -> Outcome {
    use portcullis_core::{Classify, Error};
    judge.at_head(result.map_err(Error::inner).as_ref()).outcome()
}

#[tokio::test]
async fn it_is_judged_by_how_it_exited() {
    let judge = ProcessClassifier::new()
        .with_code(1, Outcome::failure(FaultKind::Other, Replay::Safe))
        .with_code(1, Outcome::Success);
    let of = async |script: &str| verdict(Ok(run(script).await), &judge);
    assert_eq!(of("true").await, Outcome::Success);
    assert_eq!(of("exit 1").await, Outcome::Success, "as it was said last");
    assert_eq!(of("exit 2").await, Outcome::failure(FaultKind::Exit(2), Replay::IfIdempotent));
    let killed = Outcome::failure(FaultKind::Signal(15), Replay::IfIdempotent);
    assert_eq!(of("kill $$").await, killed);
    assert_eq!(killed.to_string(), "failure (signal 15)");
}

#[tokio::test]
async fn a_program_that_is_not_there_is_not_tried_again() {
    let tool = Process::builder("tool", "no-such-program").build().unwrap();
    let error = tool.oneshot(Invocation::new()).await.unwrap_err();
    assert!(error.to_string().starts_with("tool: could not be started: "), "{error}");
    let source = std::error::Error::source(&error).unwrap().downcast_ref::<io::Error>().unwrap();
    assert_eq!(source.kind(), io::ErrorKind::NotFound);
    let start = FaultKind::Process(ProcessFault::Start);
    let verdict = verdict(Err(error), &ProcessClassifier::new());
    assert_eq!(verdict, Outcome::failure(start, Replay::Forbidden));
    assert_eq!(verdict.to_string(), "failure (process start)");
}

#[tokio::test]
async fn a_tool_that_fails_for_now_is_tried_again() {
    let folder = Folder::new();
    let judge = ProcessClassifier::new();
    let retry = RetryLayer::builder("tool", ByClone::not_idempotent())
        .backoff(Backoff::fixed(Duration::from_millis(1)))
        .classify(judge.with_code(75, Outcome::failure(FaultKind::Exit(75), Replay::Safe)))
        .build()
        .unwrap();
    let tool = sh(r#"echo . >>"$1"; test $(wc -l <"$1") -ge 3 || exit 75"#).build().unwrap();
    let tried = folder.path("tried");
    let output = retry.layer(tool).oneshot(Invocation::new().arg(tried.clone())).await.unwrap();
    assert_eq!(output.exit, Exit::Code(0));
    assert_eq!(fs::read_to_string(tried).unwrap().lines().count(), 3);
}

#[tokio::test]
async fn a_tool_that_keeps_failing_is_left_alone() {
    let breaker = BreakerLayer::builder("tool")
        .consecutive_failures(2)
        .classify(ProcessClassifier::new())
        .build()
        .unwrap();
    let tool = breaker.layer(sh("exit 1").build().unwrap());
    for _ in 0..2 {
        assert_eq!(tool.clone().oneshot(Invocation::new()).await.unwrap().exit, Exit::Code(1));
    }
    assert!(tool.oneshot(Invocation::new()).await.unwrap_err().is::<Open>());
}

// ===== what it learns =====

#[tokio::test]
async fn it_learns_the_trace_its_call_belongs_to() {
    let context = TraceContext {
        trace_id: TraceId::new(7).unwrap(),
        span_id: SpanId::new(8).unwrap(),
        sampled: true,
    };
    let tool = sh("echo $TRACEPARENT $TRACESTATE").build().unwrap();
    let state = Some("rojo=1".into());
    let call = Call::new().with_trace(RemoteTrace { context, state });
    let output = call.in_scope(tool.oneshot(Invocation::new())).await.unwrap();
    let span = context.span_id.of_attempt(0);
    let expected = format!("00-00000000000000000000000000000007-{span}-01 rojo=1\n");
    assert_eq!(output.stdout.text(), expected);

    let mut config = ProcessConfig::default();
    config.propagate = false;
    let tool = sh("echo $TRACEPARENT").config(config).build().unwrap();
    let call = Call::new().with_trace(context);
    let output = call.in_scope(tool.oneshot(Invocation::new())).await.unwrap();
    assert_eq!(output.stdout.text(), "\n");
}

// ===== settings =====

#[test]
fn settings_out_of_range_are_named() {
    type Set = fn(&mut ProcessConfig);
    let cases: [(&str, Set); 4] = [
        ("stdout_limit", |c| c.stdout_limit = usize::MAX),
        ("stderr_limit", |c| c.stderr_limit = (1 << 30) + 1),
        ("grace", |c| c.grace = Duration::MAX),
        ("linger", |c| c.linger = 3601 * SECOND),
    ];
    for (field, set) in cases {
        let mut config = ProcessConfig::default();
        set(&mut config);
        let invalid = sh("true").config(config).build().unwrap_err();
        assert_eq!(invalid.field(), field);
    }
    assert_eq!(Process::builder("tool", "").build().unwrap_err().field(), "program");
}

#[cfg(feature = "serde")]
#[test]
fn settings_come_from_files() {
    let text = r#"{"stdout_limit": 10, "overflow": "kill", "grace": "2s"}"#;
    let config: ProcessConfig = serde_json::from_str(text).unwrap();
    assert_eq!((config.stdout_limit, config.overflow), (10, Overflow::Kill));
    assert_eq!((config.grace, config.linger), (2 * SECOND, SECOND));
    let back = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<ProcessConfig>(&back).unwrap(), config);
    assert!(serde_json::from_str::<ProcessConfig>(r#"{"stdout": 1}"#).is_err());
}

#[test]
fn types_are_what_a_stack_needs() {
    fn go_anywhere<T: Send + Sync + Clone + std::fmt::Debug>() {}
    struct Bare;
    go_anywhere::<Process<Bare>>();
    go_anywhere::<ProcessClassifier>();
    // What is given to a tool may be secret.
    let invocation = Invocation::new().arg("a").env("TOKEN", "secret").stdin("secret");
    assert!(!format!("{invocation:?}").contains("secret"));
}
