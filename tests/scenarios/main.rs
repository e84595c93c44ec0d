//! Whole stacks in front of a real client, and a real server that misbehaves.

mod axum_app;
mod bodies;
mod buffered;
mod cancelled;
mod clocks;
mod dropped;
mod errors;
mod failures;
mod grpc;
mod inbound;
mod interop;
mod refused;
mod replayed;
mod support;
