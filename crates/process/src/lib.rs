//! Child processes as services: tools of agents, converters, whatever is a program rather than a server.
//!
//! A [`Process`] starts its program for each call, gives it the call's [`Invocation`] and answers with
//! its [`Output`]: how it [exited](Exit), and what it put out, within bounds. When the call is dropped,
//! by a timeout or by its caller, the program is killed with all that it started. A
//! [`ProcessClassifier`] judges by the exit code, so that breakers, retries and traces know a tool that
//! failed from one that worked.
//!
//! ```
//! use portcullis_core::ByClone;
//! use portcullis_process::{Invocation, Process, ProcessClassifier};
//! use portcullis_retry::RetryLayer;
//! use tower::{Layer, ServiceExt};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! let sort = Process::builder("sort", "sort").arg("-n").build()?;
//! let retry = RetryLayer::builder("sort", ByClone::idempotent())
//!     .classify(ProcessClassifier::new())
//!     .build()?;
//!
//! let output = retry.layer(sort).oneshot(Invocation::new().stdin("10\n9\n")).await?;
//! assert_eq!(output.stdout.text(), "9\n10\n");
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! - `serde`: [`ProcessConfig`] reads from files.

mod capture;
mod child;
mod classify;
mod config;
mod error;
mod invocation;
mod output;
mod run;
mod service;
mod tell;

pub use self::{
    capture::Captured,
    classify::ProcessClassifier,
    config::{Overflow, ProcessConfig},
    error::ProcessError,
    invocation::Invocation,
    output::{Exit, Output},
    service::{Process, ProcessBuilder, ResponseFuture},
};
