//! reqwest behind the layers, on real sockets.

mod bodies;
mod chain;
mod drops;
mod errors;
mod stack;
mod support;
