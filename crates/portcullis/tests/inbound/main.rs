//! The scope of a request that a server serves.

mod allocations;
mod contract;
mod deadline;
mod fakes;
mod grpc;
mod trace;
