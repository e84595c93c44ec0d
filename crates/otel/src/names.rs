//! The names of all instruments, attributes and span events; a table of them with their meaning is in
//! `docs/opentelemetry.md`.
//!
//! What the semantic conventions name (version 1.44) has that name. Breakers, retries and limits have
//! none there yet: theirs begin with `portcullis.`.

/// The scope of all instruments and spans.
pub const SCOPE: &str = "portcullis";

/// The upper bounds of the buckets of durations, in seconds, as the conventions for HTTP advise.
pub const SECONDS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// The upper bounds of the buckets of operations that take longer than a request, in seconds: to an hour.
pub const LONG_SECONDS: [f64; 14] =
    [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0];

/// The upper bounds of the buckets of sizes, in bytes: powers of four from a kibibyte to a gibibyte.
pub const BYTES: [f64; 11] = [
    1_024.0,
    4_096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
    268_435_456.0,
    1_073_741_824.0,
];

/// What stands for a value there is no room for, or no name.
pub const OTHER: &str = "_OTHER";

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident = $value:literal;)+) => {$(
        $(#[$doc])*
        pub const $name: &str = $value;
    )+};
}

/// Of metrics.
pub mod metric {
    names! {
        /// How long requests of HTTP took to their response's head: each attempt is one.
        HTTP_CLIENT_REQUEST_DURATION = "http.client.request.duration";
        /// What the heads of HTTP responses said of their bodies' sizes.
        HTTP_CLIENT_RESPONSE_BODY_SIZE = "http.client.response.body.size";
        /// How long calls by gRPC took, retries and all.
        RPC_CLIENT_CALL_DURATION = "rpc.client.call.duration";
        /// Calls that began.
        CALL_STARTED = "portcullis.call.started";
        /// Calls that have begun and not ended.
        CALL_ACTIVE = "portcullis.call.active";
        /// How long calls took to the end of their response's body, retries and waits included.
        CALL_DURATION = "portcullis.call.duration";
        /// Calls that ended in a failure, by its kind.
        CALL_ERRORS = "portcullis.call.errors";
        /// Calls that took longer than the threshold for slow ones.
        CALL_SLOW = "portcullis.call.slow";
        /// Time limits that ran out.
        TIMEOUTS = "portcullis.timeout.expired";
        /// Calls, or attempts, that a layer refused.
        REJECTIONS = "portcullis.rejections";
        /// Attempts that were begun.
        ATTEMPTS = "portcullis.attempt.started";
        /// Failed attempts after which another is to follow.
        RETRIES = "portcullis.retry.retries";
        /// Sent again at once, within the attempt, because no application had seen it.
        RESENT = "portcullis.retry.resent";
        /// Failed attempts after which none follows, by the reason.
        GAVE_UP = "portcullis.retry.given_up";
        /// Waits before another attempt.
        RETRY_DELAY = "portcullis.retry.delay";
        /// Retries that the budget would pay for now.
        RETRY_BUDGET = "portcullis.retry.budget";
        /// Breakers in each state.
        BREAKER_STATE = "portcullis.breaker.state";
        /// Changes of a breaker's state.
        TRANSITIONS = "portcullis.breaker.transitions";
        /// Calls that a disabled breaker would have refused.
        WOULD_REJECT = "portcullis.breaker.would_reject";
        /// Polls of operations that take longer than a request, by what came of them.
        POLLS = "portcullis.poll.polls";
        /// How long such operations took, from the call that began them to their end.
        POLL_DURATION = "portcullis.poll.duration";
        /// Processes that were started.
        PROCESSES_STARTED = "portcullis.process.started";
        /// Processes that were started and are not over.
        PROCESSES_ACTIVE = "portcullis.process.active";
        /// How long processes ran.
        PROCESS_DURATION = "portcullis.process.duration";
        /// How processes ended.
        PROCESS_EXITS = "portcullis.process.exits";
        /// Processes that could not be run, spoken with or understood, or took too long, by what failed.
        PROCESS_ERRORS = "portcullis.process.errors";
        /// What processes wrote to each of their streams.
        PROCESS_OUTPUT = "portcullis.process.output.size";
        /// How long calls waited for their turn.
        LIMIT_WAIT = "portcullis.limit.wait";
        /// What was taken from limits: a usual call costs 1.
        LIMIT_COST = "portcullis.limit.cost";
        /// Times that a server's hint held all calls back.
        HELD_BACK = "portcullis.limit.held_back";
        /// Calls whose key had to share an entry.
        OVERFLOWED = "portcullis.key.overflowed";
        /// Traces that came to their end.
        TRACES_ENDED = "portcullis.trace.ended";
        /// Traces that the sampling chose to keep.
        TRACES_KEPT = "portcullis.trace.kept";
        /// Traces that the store took.
        TRACES_STORED = "portcullis.trace.stored";
        /// Chosen traces that found no room in the queue to the store.
        TRACES_DROPPED = "portcullis.trace.dropped";
        /// Chosen traces that the store failed to take.
        TRACES_LOST = "portcullis.trace.lost";
        /// Traces that wait to be stored.
        TRACES_WAITING = "portcullis.trace.waiting";
        /// Spans that were handed to the exporter, by what became of them.
        SPANS = "portcullis.span.exported";
    }
}

/// Of attributes.
pub mod attribute {
    names! {
        /// The method of a request; `_OTHER` if it is none that everybody knows.
        HTTP_REQUEST_METHOD = "http.request.method";
        /// Which repetition of a request it is, from 1; absent on the first one.
        HTTP_REQUEST_RESEND_COUNT = "http.request.resend_count";
        /// The status of a response.
        HTTP_RESPONSE_STATUS_CODE = "http.response.status_code";
        /// The host that was asked.
        SERVER_ADDRESS = "server.address";
        /// Its port.
        SERVER_PORT = "server.port";
        /// The URL that was asked for, without credentials.
        URL_FULL = "url.full";
        /// What failed, in a bounded number of words.
        ERROR_TYPE = "error.type";
        /// The system of remote calls: `grpc`.
        RPC_SYSTEM = "rpc.system.name";
        /// What was called, in full: `shop.Carts/Add`.
        RPC_METHOD = "rpc.method";
        /// The status of a remote call, as a word.
        RPC_STATUS = "rpc.response.status_code";
        /// What an agent does: `execute_tool`, of a scope that is a tool's execution.
        GEN_AI_OPERATION_NAME = "gen_ai.operation.name";
        /// The tool that is executed.
        GEN_AI_TOOL_NAME = "gen_ai.tool.name";
        /// Which of the model's calls of a tool it is.
        GEN_AI_TOOL_CALL_ID = "gen_ai.tool.call.id";
        /// What a tool was called with, where that was noted and outputs are to be exported.
        GEN_AI_TOOL_CALL_ARGUMENTS = "gen_ai.tool.call.arguments";
        /// What came out of a tool, likewise.
        GEN_AI_TOOL_CALL_RESULT = "gen_ai.tool.call.result";
        /// The name of the layer or of the stack.
        TARGET = "portcullis.target";
        /// The key that a decision was made for.
        KEY = "portcullis.key";
        /// How a call ended: `success`, `error`, `timeout`, `rejected`, `throttled` or `cancelled`; of a
        /// poll also `pending`.
        OUTCOME = "portcullis.outcome";
        /// The kind of layer.
        LAYER = "portcullis.layer";
        /// What refused, or why something was given up.
        REASON = "portcullis.reason";
        /// How a process ended: `success` (code 0), `failure` (any other), `signal`, `broken` or `killed`.
        PROCESS_STATUS = "portcullis.process.status";
        /// The code that a process exited with, from 0 to 255.
        PROCESS_EXIT_CODE = "process.exit.code";
        /// The signal that ended a process: `SIGSEGV`.
        PROCESS_SIGNAL = "portcullis.process.signal";
        /// A stream of a process: `stdout` or `stderr`.
        PROCESS_STREAM = "portcullis.process.stream";
        /// Which part of a call a limit covers.
        PHASE = "portcullis.phase";
        /// The state of a breaker.
        STATE = "portcullis.state";
        /// The state that a breaker left.
        FROM = "portcullis.state.from";
        /// The state that a breaker came to.
        TO = "portcullis.state.to";
        /// Whether a dropped trace was a `success` or any `other`.
        CLASS = "portcullis.class";
        /// What became of a span: `exported`, `dropped` (no room) or `failed`.
        FATE = "portcullis.fate";
        /// What a call was for, where it is neither HTTP nor gRPC.
        OPERATION = "portcullis.operation";
        /// Which attempt, from 1.
        ATTEMPT = "portcullis.attempt";
        /// Why a trace was kept.
        KEPT = "portcullis.trace.kept_for";
        /// The share of traces like it that is kept.
        SAMPLING_RATE = "portcullis.trace.sampling_rate";
        /// What came out of a call, where that was captured and is to be exported.
        OUTPUT = "portcullis.output";
    }
}
