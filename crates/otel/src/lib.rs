//! OpenTelemetry metrics and spans of what the layers of Portcullis do.
//!
//! - [`Metrics`] counts what layers tell: an observer for a stack, or for any layer.
//! - [`Spans`] exports kept traces: calls, attempts, every decision as a span event.
//! - [`Telemetry`] is both, set up in a few lines.
//! - [`names`] has the name of every instrument and attribute.
//!
//! Types of OpenTelemetry are in the interface of this crate, and of no other.
//!
//! # Example
//!
//! ```
//! use portcullis::{Stack, trace::MemoryStore};
//! use portcullis_otel::Telemetry;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), portcullis::Invalid> {
//! let builder = Telemetry::builder("shop");
//! # #[cfg(feature = "otlp")]
//! let builder = builder.otlp("http://localhost:4318"); // feature `otlp`
//! let telemetry = builder.build()?;
//!
//! let recorder = telemetry.recorder(MemoryStore::new()).build()?;
//! let payments = Stack::production("payments")
//!     .recorder(&recorder)
//!     .observe(telemetry.metrics().clone())
//!     .register_in(telemetry.registry())
//!     .build()?;
//! # let _ = payments;
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! - `otlp`: `TelemetryBuilder::otlp` sends both to a collector, by OTLP over HTTP.
//! - `json`: `otlp_json` is traces as OTLP JSON, a file that Jaeger opens.
//! - `prometheus`: `Telemetry::prometheus` is the metrics as text for Prometheus.

mod export;
mod instruments;
#[cfg(feature = "json")]
mod json;
mod metrics;
pub mod names;
#[cfg(feature = "otlp")]
mod otlp;
mod processes;
mod setup;
mod spans;
mod target;
mod watch;
mod words;

#[cfg(feature = "json")]
pub use self::json::otlp_json;
pub use self::{
    export::{Exporting, Spans, SpansBuilder},
    metrics::{Metrics, MetricsBuilder},
    setup::{Telemetry, TelemetryBuilder},
};

/// The `content-type` of [`Telemetry::prometheus`].
#[cfg(feature = "prometheus")]
pub const TEXT: &str = prometheus::TEXT_FORMAT;
