//! HTTP requests that can be sent more than once.

mod buffer;
mod clone;

use http::{HeaderName, Method, request::Parts};

pub use self::{
    buffer::{BufferBody, KeptBuffer, ReplayBody},
    clone::{CloneBody, KeptClone},
};

/// The header by which a client promises that a request may be sent twice
/// (draft-ietf-httpapi-idempotency-key-header).
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Whether sending a request twice does no more than sending it once: by its method (RFC 9110,
/// section 9.2.2), or by its `Idempotency-Key`.
fn is_idempotent(head: &Parts) -> bool {
    let by_method = matches!(
        head.method,
        Method::GET | Method::HEAD | Method::PUT | Method::DELETE | Method::OPTIONS | Method::TRACE
    );
    by_method || head.headers.contains_key(IDEMPOTENCY_KEY)
}
