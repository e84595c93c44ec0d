//! Callers that give up, at every stage: each call is dropped after 0, 1, 2 … polls until it has an end,
//! right after the poll and when it is woken for the next, and nothing may be lost or left behind.

mod bench;
mod ear;
mod grpc;
mod http;
mod line;
mod orders;
mod reply;
mod shelf;
