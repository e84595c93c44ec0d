//! A circuit breaker: a Tower layer that stops calling a peer which is failing, lets it recover, and
//! probes it before it trusts it again.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), portcullis_core::BoxError> {
//! use portcullis_breaker::{BreakerLayer, Open};
//! use portcullis_core::Rejection;
//! use portcullis_testkit::{Script, ScriptedService, Step, TestError, call};
//! use tower_layer::Layer;
//!
//! let layer = BreakerLayer::builder("search").consecutive_failures(2).build()?;
//! let handle = layer.handle();
//!
//! let failing = ScriptedService::<_, ()>::new(Script::repeat(Step::Err(TestError("reset"))));
//! let mut search = layer.layer(failing);
//! for _ in 0..2 {
//!     assert!(call(&mut search, "q").await.unwrap_err().is::<TestError>());
//! }
//!
//! let refused = call(&mut search, "q").await.unwrap_err();
//! let open = refused.find::<Open>().unwrap();
//! assert_eq!(open.reason().to_string(), "2 failures in a row (limit 2)");
//! assert!(open.retry_after().unwrap().as_secs() >= 15 - 1);
//!
//! handle.reset();
//! assert!(call(&mut search, "q").await.unwrap_err().is::<TestError>());
//! # Ok(())
//! # }
//! ```
//!
//! - [`BreakerLayer`] puts a [`Breaker`] round a service: one for all calls, or one for each key.
//! - [`Handle`] inspects it and orders it about; it can also be used without a service.
//! - [`HealthCheck`] looks after the peer without a call, and tells the breaker.
//! - [`Engine`] is the state machine alone, told the time by whoever runs it.
//!
//! # Features
//!
//! - `serde`: [`BreakerConfig`] from configuration files.

mod config;
mod engine;
mod error;
mod future;
mod handle;
mod health;
mod layer;
mod pending;
mod select;
mod service;
mod shared;
mod snapshot;
mod waiting;

pub use self::{
    config::{Abandoned, BreakerConfig, Mode, Ramp, SlowPhase, WhenOpen, Window},
    engine::{Admission, Changes, Counts, Engine, Permit, Refusal, Transition},
    error::Open,
    future::ResponseFuture,
    handle::Handle,
    health::{HealthCheck, HealthCheckBuilder},
    layer::{BreakerBuilder, BreakerLayer, KeyFn, Unkeyed},
    select::{ByKey, Handles, Select, Single},
    service::Breaker,
    snapshot::Snapshot,
};
