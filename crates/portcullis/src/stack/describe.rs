//! What an HTTP or gRPC call is about.

use http::Request;
use portcullis_core::Key;
use portcullis_http::{ByHost, grpc_method, is_grpc};
use portcullis_trace::{About, Describe};

/// Describes an HTTP call in a trace by its method and its host, never by its path or query, which
/// may tell secrets and are without number. A gRPC call, whose path is the name of what is called, it
/// describes by that: `shop.Carts/Add`.
#[derive(Clone, Copy, Debug, Default)]
pub struct DescribeHttp;

// ===== impl DescribeHttp =====

impl<B> Describe<Request<B>> for DescribeHttp {
    fn describe(&self, req: &Request<B>, about: &mut About<'_>) {
        let grpc = is_grpc(req.headers()).then(|| grpc_method(req.uri().path())).flatten();
        about.operation(grpc.unwrap_or(req.method().as_str()));
        let host = ByHost.key(req);
        if !host.is_empty() {
            about.target(&host);
        }
    }
}
