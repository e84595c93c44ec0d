//! Portcullis in front of [reqwest].
//!
//! - [`Client`] is a reqwest client as a Tower service of HTTP requests.
//! - [`Middleware`] is any stack as a middleware of `reqwest-middleware`.
//! - [`KeepBody`] keeps reqwest's requests so that they can be sent again, streams included.
//!
//! # Features
//!
//! - `middleware` (default): what depends on `reqwest-middleware`.
//!
//! TLS, HTTP/2 and the rest are reqwest's own features, which the program chooses where it depends on
//! reqwest.

mod body;
mod client;
mod convert;
mod judge;
mod keep;
#[cfg(feature = "middleware")]
mod middleware;

#[cfg(feature = "middleware")]
pub use self::middleware::{Middleware, Rest, RestLayer, rejection};
pub use self::{
    body::{Body, body},
    client::{Client, ResponseFuture},
    convert::response,
    keep::{KeepBody, KeptBody},
};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
