//! HTTP and gRPC for Portcullis: what a response means, to the end of its body.
//!
//! - [`HttpClassifier`] and [`GrpcClassifier`] judge calls for every layer of a stack.
//! - [`Body`] is what they wrap a response's body in: the verdict falls at its end, and the limits
//!   of a timeout layer hold until then.
//! - [`CloneBody`] and [`BufferBody`] keep requests so that they can be sent again.
//! - [`FollowAccepted`] follows operations that a server answers with `202 Accepted`.
//! - [`PeekLayer`] looks one frame ahead, so that a gRPC call that fails right after its head can be
//!   retried.
//! - [`PropagateLayer`] tells the server the time left, the attempt and the trace.
//! - [`GrpcCallLayer`] takes a gRPC call's operation and deadline from its request.
//! - [`trace_context`] reads and writes W3C Trace Context.
//! - [`RejectionsLayer`] turns refusals into responses.
//! - [`inbound`] reads what a request brings along, and judges what a server answers.
//! - [`hint`] reads the server's advice on when to come back.
//!
//! ```
//! use http::{Request, Response, StatusCode};
//! use http_body_util::Full;
//! use portcullis_core::{Classify, Keep, Kept, Outcome};
//! use portcullis_http::{CloneBody, HttpClassifier};
//!
//! let mut response = Response::new(Full::<bytes::Bytes>::default());
//! *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
//! let verdict = HttpClassifier::new().at_head(Ok(&response));
//! assert!(matches!(verdict.outcome(), Outcome::Throttled(_)));
//!
//! let (_sent, kept) = CloneBody.keep(Request::post("/charge").body(()).unwrap());
//! assert!(!kept.idempotent());
//! ```
//!
//! # Features
//!
//! - `hyper-util` (default): reads hyper's and hyper-util's errors, to know whether a request was
//!   sent at all.
//! - `h2` (default): reads HTTP/2's errors, to know a refused stream.

mod accepted;
mod answered;
mod body;
mod by_host;
mod classify;
mod client;
mod grpc;
mod grpc_call;
pub mod hint;
pub mod inbound;
mod keep;
mod peek;
mod propagate;
mod ratelimit_fields;
mod rejections;
pub mod trace_context;

pub use self::{
    accepted::{AcceptedOperation, FollowAccepted},
    answered::Answered,
    body::Body,
    by_host::{ByHost, ByHostOr},
    classify::{HttpClassifier, Redirected},
    grpc::{GRPC_STATUS, GrpcClassifier, GrpcCodes, GrpcRetryable, is_grpc},
    grpc_call::{GrpcCall, GrpcCallLayer, grpc_method},
    hint::GRPC_RETRY_PUSHBACK_MS,
    keep::{BufferBody, CloneBody, KeptBuffer, KeptClone, ReplayBody},
    peek::{Peek, PeekBody, PeekFuture, PeekLayer},
    propagate::{
        GRPC_PREVIOUS_RPC_ATTEMPTS, GRPC_TIMEOUT, Propagate, PropagateLayer, parse_grpc_timeout,
    },
    rejections::{Rejections, RejectionsBody, RejectionsLayer, ResponseFuture},
};
