//! One run: two upstreams, two clients, one load.

use std::{sync::Arc, time::Duration};

use http::uri::Authority;
use portcullis_core::{BoxError, clock};

use crate::{
    args::Args,
    client,
    file::{self, TraceFile},
    invariants::{Evidence, judge},
    live::Live,
    load::{self, Course},
    report::Summary,
    stack,
    tally::SideLog,
    traces::Traces,
    upstream::Upstream,
    weather::Script,
};

/// Until the first request; both upstreams listen by then.
const LEAD: Duration = Duration::from_millis(100);

/// Sends the load through both clients at once, each against an upstream of its own, and judges what
/// was logged.
///
/// # Errors
///
/// When an upstream cannot listen, a setting of the stack is refused, or the traces cannot be kept or
/// read.
pub(crate) async fn run(args: &Args) -> Result<Summary, BoxError> {
    let script = Arc::new(Script::new(args.seconds, args.seed));
    let plan = load::plan(args.seed, &script);
    let store = file::open(args.traces.as_deref())?;
    let file = TraceFile::of(&store);
    let since = clock::wall();
    let course = Course { script: script.clone(), start: clock::now() + LEAD };
    let bare_upstream = Upstream::start(script.clone(), course.start)?;
    let stack_upstream = Upstream::start(script, course.start)?;
    let (bare, under_stack) = (client::bare(), client::bare());
    let (bare_log, stack_log) = (bare.log().clone(), under_stack.log().clone());
    let (stack, handle) =
        stack::client(under_stack, &stack_upstream.addr().to_string(), args.seed, store)?;

    let (bare_progress, stack_progress) = (Arc::default(), Arc::default());
    let live = Live::start(
        course.clone(),
        Arc::clone(&bare_progress),
        Arc::clone(&stack_progress),
        handle.clone(),
    );
    let at = |upstream: &Upstream| Authority::try_from(upstream.addr().to_string());
    let (bare_at, stack_at) = (at(&bare_upstream)?, at(&stack_upstream)?);
    let (bare_calls, stack_calls) = tokio::join!(
        load::run(bare, bare_at, &plan, &course, &bare_progress),
        load::run(stack, stack_at, &plan, &course, &stack_progress),
    );
    live.end().await;

    let report = handle.report();
    let bare = SideLog {
        calls: bare_calls,
        accesses: bare_upstream.stop().await?,
        attempts: bare_log.take(),
    };
    let stack = SideLog {
        calls: stack_calls,
        accesses: stack_upstream.stop().await?,
        attempts: stack_log.take(),
    };
    let traces = Traces::of(handle.recorder(), since).await?;
    let traced = traces.log();
    let invariants = judge(&Evidence {
        course: &course,
        bare: &bare,
        stack: &stack,
        report: &report,
        traced: &traced,
    });
    let story = traces.story(&stack, &course);
    Ok(Summary::new(args, &course, &bare, &stack, &report, &traced, invariants)
        .with_check(handle.check())
        .with_story(story)
        .with_file(file))
}
