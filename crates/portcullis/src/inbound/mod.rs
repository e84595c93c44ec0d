//! Servers whose handlers call out: the scope of a request, from its headers to the end of its response.
//!
//! [`InboundLayer`] goes into an axum `Router`, around a tonic server or a hyper service. What a handler
//! calls through any client of this house is then a child of the trace that the request belongs to,
//! and has no more time than the request has left.
//!
//! ```
//! use axum::{Router, routing::get};
//! use portcullis::{Call, inbound::InboundLayer};
//! use std::time::Duration;
//!
//! # fn main() -> Result<(), portcullis::Invalid> {
//! let inbound = InboundLayer::builder("shop").max_timeout(Duration::from_secs(30)).build()?;
//! let app: Router = Router::new()
//!     .route("/", get(|| async { format!("{:?} to go", Call::current().deadline()) }))
//!     .layer(inbound);
//! # let _ = app;
//! # Ok(()) }
//! ```

mod body;
mod future;
mod layer;
mod name;
mod service;

pub use self::{
    body::Body,
    future::ResponseFuture,
    layer::{InboundBuilder, InboundLayer},
    name::Head,
    service::Inbound,
};
