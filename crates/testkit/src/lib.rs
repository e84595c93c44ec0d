//! What the tests of every Portcullis layer are written with.
//!
//! - [`ScriptedService`] answers from a [`Script`] of [`Step`]s, keeps a [`Journal`], is ready when
//!   its [`Readiness`] says so, and panics when Tower's contract is broken on it.
//! - [`contract::Suite`] holds any layer to that contract.
//! - [`ready`] and [`call`] use a service in one line; [`poll_k`], [`count_polls`] and
//!   [`WakeCounter`] poll by hand.
//! - [`Seed`] draws numbers that can be drawn again.
//! - [`assert_send`] and friends are facts the compiler checks.
//!
//! # Example
//!
//! A layer's test: a script inside, the layer round it, the journal to see what reached the inside.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! use portcullis_testkit::{Script, ScriptedService, Step, TestError, call, contract};
//! use std::time::Duration;
//!
//! # fn layer<S>(inner: S) -> S { inner }
//! let inner = ScriptedService::new(
//!     Script::new([Step::Err(TestError("reset")), Step::Ok(200).after(Duration::from_millis(20))])
//!         .then_repeat(Step::Hang),
//! );
//! let journal = inner.journal();
//! let mut service = layer(inner);
//!
//! assert!(call(&mut service, ()).await.is_err());
//! assert_eq!(call(&mut service, ()).await, Ok(200));
//! assert_eq!(journal.calls(), 2);
//! assert_eq!(journal.in_flight(), 0);
//!
//! contract::Suite::new(|inner: ScriptedService<(), u32>| layer(inner)).run().await;
//! # }
//! ```

mod assert;
mod bound;
pub mod contract;
mod effort;
mod error;
mod future;
mod journal;
mod poll;
mod readiness;
mod script;
mod seed;
mod service;
mod sync;

pub use assert::{
    assert_clone, assert_debug, assert_send, assert_send_value, assert_static, assert_sync,
    assert_unpin,
};
pub use bound::{Bound, Worst};
pub use effort::{LONG, effort};
pub use error::TestError;
pub use future::ResponseFuture;
pub use journal::Journal;
pub use poll::{
    CountPolls, GiveUp, Leave, PollK, WakeCounter, call, count_polls, give_up, poll_k, ready,
};
pub use readiness::Readiness;
pub use script::{Script, Step};
pub use seed::Seed;
pub use service::ScriptedService;
