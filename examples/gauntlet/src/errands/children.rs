//! Child processes, of which some exit badly, and some take too long.

use std::time::Duration;

use portcullis::{
    process::{Invocation, Output, Process, ProcessClassifier},
    timeout::TimeoutLayer,
    trace::TraceLayer,
};
use portcullis_core::{Error, Invalid};
use portcullis_testkit::Seed;
use tower::{Service, ServiceBuilder};

use crate::{serve::Shown, stack::Handle};

/// Nobody waits any longer for one.
const LIMIT: Duration = Duration::from_secs(1);

/// Writes as many kibibytes as it is told, and ends as it is told.
const SCRIPT: &str = r#"
head -c "${1}k" /dev/zero
case $2 in
    hang) exec sleep 60 ;;
    crash) kill -KILL $$ ;;
    0) exit ;;
    *) echo "convert: unknown format" >&2; exit "$2" ;;
esac
"#;

/// The program that is run, with a limit on its time.
pub(super) fn client(
    shown: &Shown,
    handle: &Handle,
) -> Result<
    impl Service<Invocation, Response = Output, Error = Error, Future: Send> + Clone + Send + use<>,
    Invalid,
> {
    let (metrics, page) = (shown.telemetry.metrics(), shown.admin.observer());
    let judge = ProcessClassifier::new();
    let trace = TraceLayer::builder("convert").recorder(handle.recorder()).classify(judge);
    let process = Process::builder("convert", "sh").arg("-c").arg(SCRIPT).arg("convert");
    let timeout = TimeoutLayer::builder("convert").total(LIMIT);
    Ok(ServiceBuilder::new()
        .layer(trace.observe(metrics.clone()).observe(page.clone()).build()?)
        .layer(timeout.observe(metrics.clone()).observe(page.clone()).build()?)
        .service(process.observe(metrics.clone()).observe(page).build()?))
}

/// Any invocation: most go well.
pub(super) fn any(seed: &mut Seed) -> Invocation {
    let ends = match seed.within(0..12) {
        0 => "hang",
        1 => "crash",
        2 | 3 => "3",
        _ => "0",
    };
    Invocation::new().arg(seed.within(1..200).to_string()).arg(ends)
}
