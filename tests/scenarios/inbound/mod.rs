//! An axum server with the inbound layer, real clients in front of it and a real server behind.

mod connection;
mod gateway;
mod hops;
