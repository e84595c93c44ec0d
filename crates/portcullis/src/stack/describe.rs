//! What an HTTP call is about.

use http::Request;
use portcullis_core::Key;
use portcullis_http::ByHost;
use portcullis_trace::{About, Describe};

/// Describes an HTTP call in a trace by its method and its host, never by its path or query, which
/// may tell secrets and are without number.
#[derive(Clone, Copy, Debug, Default)]
pub struct DescribeHttp;

// ===== impl DescribeHttp =====

impl<B> Describe<Request<B>> for DescribeHttp {
    fn describe(&self, req: &Request<B>, about: &mut About<'_>) {
        about.operation(req.method().as_str()).target(&ByHost.key(req));
    }
}
