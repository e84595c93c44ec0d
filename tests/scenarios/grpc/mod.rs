//! The ready-made stack in front of tonic: its channel, its generated clients and servers, and a
//! server of bare HTTP/2 that fails in ways no library would.

mod kit;
mod raw;
mod server;
pub(crate) mod wire;

mod connections;
mod deadlines;
mod dropped;
mod metadata;
mod refusals;
mod statuses;
mod streams;
