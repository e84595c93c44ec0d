//! What must hold for every input of the parsers and the bodies of `portcullis-http`.
//!
//! Each target is a function of bytes that panics where something does not hold. `cargo fuzz run
//! <target>` looks for such bytes; `cargo test -p properties` tries those in `fuzz/corpus` and as many
//! of its own making.

mod buffer_body;
mod clone_body;
mod grpc_status;
mod grpc_timeout;
mod http_status;
mod propagate;
mod pushback;
mod rate_limit;
mod rejection;
mod request;
mod retry_after;
mod script;
mod service_config;
mod text;
mod trace_context;
mod watched_body;

pub use self::{
    buffer_body::buffer_body,
    clone_body::clone_body,
    grpc_status::grpc_status,
    grpc_timeout::grpc_timeout,
    http_status::http_status,
    propagate::propagate,
    pushback::pushback,
    rate_limit::{rate_limit, x_rate_limit},
    rejection::rejection,
    request::request,
    retry_after::retry_after,
    service_config::service_config,
    trace_context::trace_context,
    watched_body::watched_body,
};

/// A target: its name, which is that of its corpus, and what must hold.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[Target] = &[
    ("buffer_body", buffer_body),
    ("clone_body", clone_body),
    ("grpc_status", grpc_status),
    ("grpc_timeout", grpc_timeout),
    ("http_status", http_status),
    ("propagate", propagate),
    ("pushback", pushback),
    ("rate_limit", rate_limit),
    ("rejection", rejection),
    ("request", request),
    ("retry_after", retry_after),
    ("service_config", service_config),
    ("trace_context", trace_context),
    ("watched_body", watched_body),
    ("x_rate_limit", x_rate_limit),
];
