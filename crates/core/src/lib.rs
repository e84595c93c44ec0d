//! The words all layers of Portcullis share.
//!
//! A layer asks a [`Classify`] what became of a call, which tells the layer through a
//! [`Completion`] once the response's true end is reached. What the layers of one call share
//! travels in a [`Call`]; what they refuse comes as an [`Error`]; what they decide is told as an
//! [`Event`], with its [`Reason`].
//!
//! ```
//! use portcullis_core::{Call, Event, call};
//! use std::time::Duration;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! let within = call::with()
//!     .timeout(Duration::from_secs(2))
//!     .observe(|event: &Event<'_>| println!("{event}"))
//!     .run(async { Call::current().overrides().timeout })
//!     .await;
//! assert_eq!(within, Some(Duration::from_secs(2)));
//! # }
//! ```
//!
//! # Features
//!
//! - `tracing`: the `Tracing` observer.
//! - `serde`: outcomes and trace ids as serde types; backoffs; settings that a file can switch off.

pub mod backoff;
pub mod call;
mod classify;
pub mod clock;
mod completion;
mod error;
mod event;
mod follow;
mod invalid;
mod judged;
mod keep;
mod key;
mod keyed;
mod label;
mod notes;
#[cfg(feature = "serde")]
pub mod off;
mod once_map;
mod operations;
mod outcome;
mod process;
mod reason;
mod registry;
pub mod sync;
mod trace;
#[cfg(feature = "tracing")]
mod tracing;
mod voice;

#[cfg(feature = "tracing")]
pub use self::tracing::Tracing;
pub use self::{
    backoff::{Backoff, Jitter},
    call::Call,
    classify::{ByResult, Classify, ClassifyFn, Verdict, classify_fn},
    completion::{Completion, End, How, Settle, Ticket, Until, Watch},
    error::{
        BoxError, Elapsed, Error, Phase, Rejection, RejectionKind, find_error, find_rejection,
    },
    event::{Answer, Course, Event, LayerKind, Observer, State, What},
    follow::{Follow, FollowAsync, FollowFn, Look, Next, Progress, follow_async, follow_fn},
    invalid::Invalid,
    judged::Judged,
    keep::{ByClone, Cloned, Keep, Kept},
    key::Key,
    keyed::Keyed,
    label::Label,
    notes::{Name, Note, Noted, Notes, NotesLimits, Refusal, Word},
    once_map::OnceMap,
    operations::Operations,
    outcome::{Fault, FaultKind, Hint, Outcome, ProcessFault, Replay, Throttle},
    process::ProcessStage,
    reason::Reason,
    registry::Registry,
    trace::{ParseIdError, Record, RemoteTrace, Sheet, SpanId, TraceContext, TraceId},
    voice::Voice,
};
