//! Operations that take longer than one request: asks on until they are done.
//!
//! [`PollLayer`] makes [`Polling`] services. The caller makes one call, such as one that starts a job;
//! a [`Follow`](portcullis_core::Follow) says of each answer whether the job is done and what to ask next,
//! and the service asks that after a wait: the backoff's, or the one that the peer wants. What comes back
//! to the caller is what the operation came to, or an [`Unfinished`] that says how far it was seen to come.
//!
//! # Example
//!
//! ```
//! use portcullis_core::{Backoff, Next, Progress, follow_fn};
//! use portcullis_poll::PollLayer;
//! use portcullis_testkit::{Script, ScriptedService, Step, TestError, call};
//! use std::time::Duration;
//! use tower_layer::Layer;
//!
//! #[derive(Clone, Copy, PartialEq, Debug)]
//! enum Job { Queued(u32), Done(u32) }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), portcullis_core::Invalid> {
//! let client: ScriptedService<String, Job> = ScriptedService::new(
//!     Script::new([Step::Ok(Job::Queued(7)), Step::Ok(Job::Queued(7))])
//!         .then_repeat(Step::Ok(Job::Done(42))),
//! );
//! let poll = PollLayer::builder("render", follow_fn(|job: Job| match job {
//!     Job::Queued(number) => Ok(Progress::Pending(Next::new(format!("GET /jobs/{number}")))),
//!     Job::Done(answer) => Ok(Progress::Done(answer)),
//! }))
//! .backoff(Backoff::exponential(Duration::from_millis(200), Duration::from_secs(5)))
//! .limit(Duration::from_secs(120))
//! .build()?;
//! let mut service = poll.layer(client);
//!
//! assert_eq!(call(&mut service, "POST /jobs".to_owned()).await.unwrap(), 42);
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! - `serde`: [`PollConfig`] reads from files.

mod config;
mod engine;
mod error;
mod future;
mod layer;
mod service;

pub use self::{
    config::PollConfig,
    engine::{Asked, Plan, Policy},
    error::Unfinished,
    future::ResponseFuture,
    layer::{PollBuilder, PollLayer},
    service::Polling,
};
