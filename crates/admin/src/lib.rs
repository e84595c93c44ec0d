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
//!     Ok(Router::new().nest("/admin", admin.router()))
//! }
//! # routes(&Registry::new()).unwrap();
//! ```

mod admin;
mod answer;
mod builder;
mod problem;
mod routes;

pub use self::{
    admin::{Admin, AdminObserver},
    builder::AdminBuilder,
};
