//! What the layers of Portcullis do, over HTTP: an axum [`Router`](axum::Router) to nest anywhere, with
//! an API, a page, health and live events.
//!
//! ```
//! use axum::Router;
//! use portcullis_admin::Admin;
//! use portcullis_core::{Invalid, Registry};
//!
//! fn routes(registry: &Registry) -> Result<Router, Invalid> {
//!     let admin = Admin::builder().title("shop").registry(registry).build()?;
//!     Ok(Router::new().nest_service("/admin", admin.router()))
//! }
//! # routes(&Registry::new()).unwrap();
//! ```
//!
//! # Features
//!
//! - `otlp`: a trace as OTLP JSON, which Jaeger opens.

mod admin;
mod answer;
mod api;
mod builder;
mod figures;
mod gate;
mod live;
mod params;
mod problem;
mod routes;
mod token;
mod words;

pub use self::{
    admin::{Admin, AdminObserver},
    builder::AdminBuilder,
};
