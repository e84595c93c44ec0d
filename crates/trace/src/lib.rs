//! Trace capture: what happened to a call, and why.
//!
//! [`TraceLayer`] makes [`Traced`] services, which record each call with its attempts and every
//! decision of the layers inside, reasons and numbers included. A [`TraceScope`] holds the calls of
//! one execution together. At a trace's end a [`Sampler`] decides whether it is kept: all that failed,
//! were slow or retried, and a share of the rest. A [`Recorder`] has those stored behind a bounded
//! queue, in a [`TraceStore`]; no call is ever failed or slowed for it. A [`Trace`]
//! displays as a picture for a terminal.
//!
//! # Example
//!
//! ```
//! use portcullis_testkit::{ScriptedService, call};
//! use portcullis_trace::{Query, Recorder, TraceLayer, TraceScope};
//! use tower_layer::Layer;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), portcullis_core::BoxError> {
//! let recorder = Recorder::builder().sample_rate(1.0).build()?;
//! let trace = TraceLayer::builder("search").recorder(&recorder).build()?;
//! let mut search = trace.layer(ScriptedService::<_, _>::answering(200));
//!
//! TraceScope::start("answer question")
//!     .run(async { call(&mut search, "GET /").await })
//!     .await?;
//!
//! recorder.flush().await;
//! let page = recorder.store().query(&Query::new().name("answer question"))?;
//! println!("{}", page.traces[0]);
//! assert_eq!(page.traces[0].calls[0].name, "search");
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! - `serde`: [`TraceConfig`] reads from files; the [`record`] reads and writes.
//! - `conformance`: what every [`TraceStore`] must do, as checks for your own.

mod bar;
mod buffer;
mod config;
#[cfg(feature = "conformance")]
pub mod conformance;
mod describe;
mod desk;
mod engine;
mod future;
mod hub;
mod ink;
mod layer;
mod live;
mod memory;
mod place;
mod pool;
pub mod record;
mod recorder;
mod render;
mod room;
mod scope;
mod service;
mod store;
mod sync;
mod text;
mod waterfall;
mod writer;

pub use self::{
    config::TraceConfig,
    describe::{About, Capture, CaptureFn, Describe, NoCapture, Undescribed},
    engine::{Kept, Sampler, Summary},
    future::ResponseFuture,
    layer::{TraceBuilder, TraceLayer},
    memory::MemoryStore,
    record::{Status, Trace},
    recorder::{Counts, Recorder, RecorderBuilder},
    scope::{Answers, Completes, Judge, ScopeFuture, TraceScope, attribute, fail, output},
    service::Traced,
    store::{Cursor, Page, ParseCursorError, Query, StoreCounts, TraceStore},
    waterfall::Waterfall,
};
