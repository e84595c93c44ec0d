//! Rate limits: GCRA with a burst, exact in every interval, that refuses at once or waits for a bounded
//! time in a fair order; for all calls, by key, or several at once; with weighted calls settled from
//! the response, and the server's hints.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), portcullis_core::BoxError> {
//! use portcullis_core::Rejection;
//! use portcullis_ratelimit::{Limited, RateLimitLayer};
//! use portcullis_testkit::{ScriptedService, call};
//! use std::time::Duration;
//! use tower_layer::Layer;
//!
//! let layer = RateLimitLayer::builder("search").rate(100, Duration::from_secs(60)).burst(2).build()?;
//! let mut search = layer.layer(ScriptedService::<_, u32>::answering(200));
//! for _ in 0..2 {
//!     call(&mut search, "q").await?;
//! }
//! let refused = call(&mut search, "q").await.unwrap_err();
//! let limited = refused.find::<Limited>().unwrap();
//! assert_eq!(limited.retry_after(), Some(Duration::from_millis(600)));
//! # Ok(())
//! # }
//! ```
//!
//! - [`RateLimitLayer`] puts a [`RateLimit`] round a service.
//! - [`Limiter`], [`KeyedLimiter`] and [`Limits`] work without one.
//! - [`Receipt`] and [`Tab`] settle what calls really cost.
//! - [`Quota`] and [`Bucket`] are the state machine alone, told the time by whoever runs it.
//!
//! # Features
//!
//! - `serde`: [`RateLimitConfig`] from configuration files.

mod claim;
mod config;
mod engine;
mod error;
mod future;
mod keyed;
mod layer;
mod limiter;
mod receipt;
mod rules;
mod select;
mod service;
mod snapshot;

pub use self::{
    claim::{One, Several, Slot, Slots},
    config::RateLimitConfig,
    engine::{Bucket, Charge, Quota, Refusal, Reservation},
    error::Limited,
    future::{ResponseFuture, UntilReady},
    keyed::{KeyedLimiter, Limits},
    layer::{First, Given, KeyFn, More, Own, RateLimitBuilder, RateLimitLayer},
    limiter::{Limiter, LimiterBuilder},
    receipt::{Receipt, Tab, Tabbed},
    rules::{By, Rule, Rules, Weigh},
    select::{Both, ByKey, Count, Select, Single},
    service::RateLimit,
    snapshot::Snapshot,
};
