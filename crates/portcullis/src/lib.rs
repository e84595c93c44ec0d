#![doc = include_str!("../README.md")]
//!
//! # Features
//!
//! All are additive. `inbound`, `stack` and `tracing` are on by default.
//!
//! - `breaker`, `ratelimit`, `retry`, `timeout`, `trace`: the layers, each by itself.
//! - `poll`: the layer that asks on until an operation is done.
//! - `sqlite`: traces kept in an SQLite file.
//! - `http`: verdicts of HTTP and gRPC, watched bodies, replay, propagation.
//! - `process`: child processes as services.
//! - `reqwest`: reqwest's client as a service; `reqwest-middleware`: any stack as a middleware of its.
//! - `stack`: the ready-made [`Stack`] of them all.
//! - `inbound`: the layer of a server whose handlers call out.
//! - `service-config`: stacks with the settings of a gRPC service config.
//! - `tracing`: the [`Tracing`] observer.
//! - `otel`: OpenTelemetry metrics and spans; with `otlp` by OTLP, with `prometheus` as text.
//! - `admin`: what the layers do, over HTTP: an API, a page, health.
//! - `serde`: settings that read from files.

#[cfg(feature = "inbound")]
pub mod inbound;
#[cfg(feature = "service-config")]
mod service_config;
#[cfg(feature = "stack")]
mod stack;

pub use portcullis_core::*;

#[cfg(feature = "admin")]
pub use portcullis_admin as admin;
#[cfg(feature = "breaker")]
pub use portcullis_breaker as breaker;
#[cfg(feature = "http")]
pub use portcullis_http as http;
#[cfg(feature = "otel")]
pub use portcullis_otel as otel;
#[cfg(feature = "poll")]
pub use portcullis_poll as poll;
#[cfg(feature = "process")]
pub use portcullis_process as process;
#[cfg(feature = "ratelimit")]
pub use portcullis_ratelimit as ratelimit;
#[cfg(feature = "reqwest")]
pub use portcullis_reqwest as reqwest;
#[cfg(feature = "retry")]
pub use portcullis_retry as retry;
#[cfg(feature = "sqlite")]
pub use portcullis_sqlite as sqlite;
#[cfg(feature = "timeout")]
pub use portcullis_timeout as timeout;
#[cfg(feature = "trace")]
pub use portcullis_trace as trace;

#[cfg(feature = "service-config")]
pub use self::service_config::ServiceConfig;
#[cfg(feature = "stack")]
pub use self::stack::{
    DescribeHttp, Finding, GrpcOutermost, GrpcResponseBody, GrpcStack, GrpcStackBuilder, HttpStack,
    Inspect, Part, Preset, Report, ResponseBody, Rewrap, Severity, Stack, StackBuilder,
    check_order,
};

/// What most programs that use Portcullis name.
pub mod prelude {
    #[cfg(feature = "breaker")]
    pub use portcullis_breaker::BreakerLayer;
    #[cfg(feature = "http")]
    pub use portcullis_http::{
        BufferBody, ByHost, CloneBody, GrpcClassifier, HttpClassifier, PeekLayer, PropagateLayer,
        RejectionsLayer,
    };
    #[cfg(feature = "poll")]
    pub use portcullis_poll::PollLayer;
    #[cfg(feature = "ratelimit")]
    pub use portcullis_ratelimit::RateLimitLayer;
    #[cfg(feature = "retry")]
    pub use portcullis_retry::RetryLayer;
    #[cfg(feature = "timeout")]
    pub use portcullis_timeout::TimeoutLayer;
    #[cfg(feature = "trace")]
    pub use portcullis_trace::{Recorder, TraceLayer, TraceScope};

    #[cfg(feature = "stack")]
    pub use crate::Stack;
    #[cfg(feature = "inbound")]
    pub use crate::inbound::InboundLayer;
    pub use crate::{Call, Error, Event, Observer, Outcome, Registry, Rejection, What, call};
}

// The snippets of the project's pages are compiled and run with this crate's.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../../../README.md")]
    mod readme {}
    #[cfg(feature = "admin")]
    #[doc = include_str!("../../../docs/admin.md")]
    mod admin {}
    #[doc = include_str!("../../../docs/breaker.md")]
    mod breaker {}
    #[doc = include_str!("../../../docs/core.md")]
    mod core {}
    #[doc = include_str!("../../../docs/grpc.md")]
    mod grpc {}
    #[doc = include_str!("../../../docs/http.md")]
    mod http {}
    #[doc = include_str!("../../../docs/inbound.md")]
    mod inbound {}
    #[cfg(feature = "poll")]
    #[doc = include_str!("../../../docs/poll.md")]
    mod poll {}
    #[cfg(feature = "process")]
    #[doc = include_str!("../../../docs/process.md")]
    mod process {}
    #[cfg(all(feature = "otlp", feature = "prometheus"))]
    #[doc = include_str!("../../../docs/opentelemetry.md")]
    mod opentelemetry {}
    #[doc = include_str!("../../../docs/ratelimit.md")]
    mod ratelimit {}
    #[doc = include_str!("../../../docs/reqwest.md")]
    mod reqwest {}
    #[doc = include_str!("../../../docs/retry.md")]
    mod retry {}
    #[cfg(feature = "sqlite")]
    #[doc = include_str!("../../../docs/sqlite.md")]
    mod sqlite {}
    #[doc = include_str!("../../../docs/stack.md")]
    mod stack {}
    #[doc = include_str!("../../../docs/timeout.md")]
    mod timeout {}
    #[doc = include_str!("../../../docs/trace.md")]
    mod trace {}
}
