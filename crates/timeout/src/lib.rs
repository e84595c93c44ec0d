//! Time limits for calls of any Tower service: for the whole call, each attempt, readiness, the
//! response's head and its body.
//!
//! The whole limit becomes the deadline of the [`Call`](portcullis_core::Call) that all layers below
//! share; a nested one can only shorten it. The error is an [`Elapsed`] that names the layer, the
//! phase and the limit.
//!
//! ```
//! use portcullis_core::{Elapsed, Event, Phase, What, call};
//! use portcullis_timeout::{Limits, TimeoutLayer};
//! use std::time::Duration;
//! use tower_layer::Layer;
//! use tower_service::Service;
//!
//! # use portcullis_testkit::{ScriptedService, Step, TestError, ready};
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let client = ScriptedService::respond_with(|query: &str, _| match query {
//! #     "all" => Step::<&str, TestError>::Hang,
//! #     _ => Step::Ok("found").after(Duration::from_secs(3)),
//! # });
//! let layer = TimeoutLayer::builder("catalogue")
//!     .total(Duration::from_secs(30))
//!     .slow(Duration::from_secs(2))
//!     .operation("search", Limits::new().with_total(Duration::from_secs(5)))
//!     .observe(|event: &Event<'_>| match event.what {
//!         What::TimedOut { .. } | What::Slow { .. } => println!("{event}"),
//!         _ => {}
//!     })
//!     .build()?;
//! let mut service = layer.layer(client);
//!
//! // Slow, and told so.
//! # ready(&mut service).await?;
//! assert_eq!(service.call("one").await?, "found");
//!
//! // Too slow for a search.
//! # ready(&mut service).await?;
//! let search = call::with().name("search").run(async { service.call("all").await });
//! let error = search.await.unwrap_err();
//! assert_eq!(error.to_string(), "catalogue: total limit of 5s ran out");
//! assert_eq!(error.find::<Elapsed>().map(Elapsed::phase), Some(Phase::Total));
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! - `serde`: [`TimeoutConfig`] and [`Limits`] can be read and written.

mod config;
pub mod engine;
mod future;
mod layer;
mod service;
mod timer;

pub use portcullis_core::{Elapsed, Phase};

pub use self::{
    config::{Limits, TimeoutConfig},
    future::ResponseFuture,
    layer::{TimeoutBuilder, TimeoutLayer},
    service::Timeout,
};
