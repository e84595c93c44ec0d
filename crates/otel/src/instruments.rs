//! The instruments, before they are bound to anybody's attributes.

use opentelemetry::metrics::{Counter, Histogram, Meter, UpDownCounter};

use crate::names::{BYTES, LONG_SECONDS, SECONDS, metric};

/// What events are counted by. Each is made once and bound for each target.
#[derive(Debug)]
pub(crate) struct Instruments {
    pub(crate) http_duration: Histogram<f64>,
    pub(crate) http_size: Histogram<u64>,
    pub(crate) rpc_duration: Histogram<f64>,
    pub(crate) started: Counter<u64>,
    pub(crate) active: UpDownCounter<i64>,
    pub(crate) duration: Histogram<f64>,
    pub(crate) errors: Counter<u64>,
    pub(crate) slow: Counter<u64>,
    pub(crate) timeouts: Counter<u64>,
    pub(crate) rejections: Counter<u64>,
    pub(crate) attempts: Counter<u64>,
    pub(crate) retries: Counter<u64>,
    pub(crate) resent: Counter<u64>,
    pub(crate) gave_up: Counter<u64>,
    pub(crate) retry_delay: Histogram<f64>,
    pub(crate) transitions: Counter<u64>,
    pub(crate) would_reject: Counter<u64>,
    pub(crate) polls: Counter<u64>,
    pub(crate) poll_duration: Histogram<f64>,
    pub(crate) processes_started: Counter<u64>,
    pub(crate) processes_active: UpDownCounter<i64>,
    pub(crate) process_duration: Histogram<f64>,
    pub(crate) process_exits: Counter<u64>,
    pub(crate) process_errors: Counter<u64>,
    pub(crate) process_output: Histogram<u64>,
    pub(crate) limit_wait: Histogram<f64>,
    pub(crate) limit_cost: Counter<u64>,
    pub(crate) held_back: Counter<u64>,
    pub(crate) overflowed: Counter<u64>,
}

// ===== impl Instruments =====

impl Instruments {
    pub(crate) fn new(meter: &Meter) -> Self {
        let counter = |name, unit, what| {
            meter.u64_counter(name).with_unit(unit).with_description(what).build()
        };
        let seconds = |name, what| {
            let histogram = meter.f64_histogram(name).with_unit("s").with_description(what);
            histogram.with_boundaries(SECONDS.to_vec()).build()
        };
        Self {
            http_duration: seconds(
                metric::HTTP_CLIENT_REQUEST_DURATION,
                "Duration of HTTP client requests.",
            ),
            http_size: meter
                .u64_histogram(metric::HTTP_CLIENT_RESPONSE_BODY_SIZE)
                .with_unit("By")
                .with_description("Size of HTTP client response bodies.")
                .with_boundaries(BYTES.to_vec())
                .build(),
            rpc_duration: seconds(
                metric::RPC_CLIENT_CALL_DURATION,
                "Duration of outbound remote procedure calls.",
            ),
            started: counter(metric::CALL_STARTED, "{call}", "Calls that began."),
            active: meter
                .i64_up_down_counter(metric::CALL_ACTIVE)
                .with_unit("{call}")
                .with_description("Calls that have begun and not ended.")
                .build(),
            duration: seconds(
                metric::CALL_DURATION,
                "Duration of calls to the end of the response, retries and waits included.",
            ),
            errors: counter(metric::CALL_ERRORS, "{call}", "Calls that ended in a failure."),
            slow: counter(metric::CALL_SLOW, "{call}", "Calls slower than their threshold."),
            timeouts: counter(metric::TIMEOUTS, "{timeout}", "Time limits that ran out."),
            rejections: counter(metric::REJECTIONS, "{rejection}", "Refusals by a layer."),
            attempts: counter(metric::ATTEMPTS, "{attempt}", "Attempts that were begun."),
            retries: counter(
                metric::RETRIES,
                "{retry}",
                "Failed attempts after which another is to follow.",
            ),
            resent: counter(
                metric::RESENT,
                "{request}",
                "Requests sent again at once, which no application had seen.",
            ),
            gave_up: counter(
                metric::GAVE_UP,
                "{call}",
                "Failed attempts after which none follows.",
            ),
            retry_delay: seconds(metric::RETRY_DELAY, "Waits before another attempt."),
            transitions: counter(
                metric::TRANSITIONS,
                "{transition}",
                "Changes of a breaker's state.",
            ),
            would_reject: counter(
                metric::WOULD_REJECT,
                "{rejection}",
                "Calls that a disabled breaker would have refused.",
            ),
            polls: counter(
                metric::POLLS,
                "{poll}",
                "Polls of operations that take longer than a request.",
            ),
            poll_duration: meter
                .f64_histogram(metric::POLL_DURATION)
                .with_unit("s")
                .with_description("Duration of operations that were polled.")
                .with_boundaries(LONG_SECONDS.to_vec())
                .build(),
            processes_started: counter(
                metric::PROCESSES_STARTED,
                "{process}",
                "Processes that were started.",
            ),
            processes_active: meter
                .i64_up_down_counter(metric::PROCESSES_ACTIVE)
                .with_unit("{process}")
                .with_description("Processes that were started and are not over.")
                .build(),
            process_duration: seconds(metric::PROCESS_DURATION, "Duration of processes."),
            process_exits: counter(metric::PROCESS_EXITS, "{process}", "Processes that ended."),
            process_errors: counter(
                metric::PROCESS_ERRORS,
                "{error}",
                "Processes that could not be run, spoken with or understood, or took too long.",
            ),
            process_output: meter
                .u64_histogram(metric::PROCESS_OUTPUT)
                .with_unit("By")
                .with_description("What processes wrote to each of their streams.")
                .with_boundaries(BYTES.to_vec())
                .build(),
            limit_wait: seconds(metric::LIMIT_WAIT, "Waits for a rate limit."),
            limit_cost: counter(metric::LIMIT_COST, "{permit}", "What was taken from limits."),
            held_back: counter(
                metric::HELD_BACK,
                "{hint}",
                "Times that a server's hint held all calls back.",
            ),
            overflowed: counter(
                metric::OVERFLOWED,
                "{call}",
                "Calls whose key had to share an entry.",
            ),
        }
    }
}
