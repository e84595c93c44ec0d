//! Retries: sends failed requests again, without making an outage worse.
//!
//! [`RetryLayer`] makes [`Retry`] services. Each attempt is judged at its head by a
//! [`Classify`](portcullis_core::Classify); whether another follows is decided by a [`Policy`] on the
//! verdict, the attempts left, the peer's hint, the call's deadline and a [`Budget`]. The request is
//! kept by a [`Keep`](portcullis_core::Keep), so it need not be `Clone`.
//!
//! # Example
//!
//! ```
//! use portcullis_core::{ByClone, call};
//! use portcullis_retry::{Backoff, RetryLayer};
//! use portcullis_testkit::{Script, ScriptedService, Step, TestError, call as send};
//! use std::time::Duration;
//! use tower_layer::Layer;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), portcullis_core::Invalid> {
//! let client = ScriptedService::new(
//!     Script::new([Step::Err(TestError("connection reset"))]).then_repeat(Step::Ok(200)),
//! );
//! let retry = RetryLayer::builder("search", ByClone::not_idempotent())
//!     .max_attempts(4)
//!     .backoff(Backoff::exponential(Duration::from_millis(100), Duration::from_secs(5)))
//!     .build()?;
//! let mut service = retry.layer(client);
//!
//! // Nobody knows whether the server acted before the reset; the caller knows it does no harm.
//! let answer = call::with().idempotent().run(send(&mut service, "GET /")).await;
//! assert_eq!(answer.unwrap(), 200);
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! - `serde`: [`RetryConfig`] reads from files.

mod budget;
mod config;
mod decision;
mod engine;
mod error;
mod future;
mod layer;
mod service;
mod throttling;

pub use portcullis_core::{Backoff, Jitter};

pub use self::{
    budget::{Budget, Withdrawal},
    config::{BudgetConfig, OperationConfig, RetryConfig, ThrottlingConfig},
    decision::{Attempt, Decision, Opinion, Plan, Progress, Waits},
    engine::Policy,
    error::Exhausted,
    future::ResponseFuture,
    layer::{RetryBuilder, RetryLayer},
    service::Retry,
    throttling::Throttling,
};
