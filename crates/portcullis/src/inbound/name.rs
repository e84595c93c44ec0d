//! What the trace of a request is called.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use http::{Extensions, HeaderMap, Method, Uri};
use portcullis_http::grpc_method;

/// What a request's trace may be [named](super::InboundBuilder::name_by) by: all of the request but its
/// body.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Head<'a> {
    /// Its method.
    pub method: &'a Method,
    /// What it asks for.
    pub uri: &'a Uri,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// What the server and the layers outside have noted of it, such as the route.
    pub extensions: &'a Extensions,
}

pub(super) type NameFn = dyn Fn(&Head<'_>) -> Arc<str> + Send + Sync;

/// How traces are named.
#[derive(Clone)]
pub(super) struct Naming {
    methods: [(Method, Arc<str>); 9],
    other: Arc<str>,
    by: Option<Arc<NameFn>>,
}

// ===== impl Naming =====

impl Naming {
    /// By what a client cannot make endlessly many of: the method.
    pub(super) fn new() -> Self {
        let methods = [
            Method::GET,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
            Method::HEAD,
            Method::OPTIONS,
            Method::CONNECT,
            Method::TRACE,
        ];
        let named = |method: Method| {
            let name = method.as_str().into();
            (method, name)
        };
        Self { methods: methods.map(named), other: "HTTP".into(), by: None }
    }

    pub(super) fn with(self, by: Arc<NameFn>) -> Self {
        Self { by: Some(by), ..self }
    }

    pub(super) fn name(&self, head: &Head<'_>, grpc: bool) -> Arc<str> {
        if let Some(by) = &self.by {
            // It is the user's code, and what a trace is called is no reason to fail a request.
            return catch_unwind(AssertUnwindSafe(|| by(head)))
                .unwrap_or_else(|_| self.method(head.method));
        }
        let method = Some(head.uri.path()).filter(|_| grpc).and_then(grpc_method);
        method.map_or_else(|| self.method(head.method), Arc::from)
    }

    fn method(&self, method: &Method) -> Arc<str> {
        let known = self.methods.iter().find(|(known, _)| known == method);
        known.map_or(&self.other, |(_, name)| name).clone()
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn name(naming: &Naming, grpc: bool, method: &str, path: &str) -> String {
        let request = Request::builder().method(method).uri(path).body(()).unwrap();
        let head = Head {
            method: request.method(),
            uri: request.uri(),
            headers: request.headers(),
            extensions: request.extensions(),
        };
        naming.name(&head, grpc).to_string()
    }

    #[test]
    fn a_client_cannot_make_up_names_without_end() {
        let naming = Naming::new();
        assert_eq!(name(&naming, false, "GET", "/users/42?token=1"), "GET");
        assert_eq!(name(&naming, false, "BREW", "/"), "HTTP");
        assert_eq!(name(&naming, true, "POST", "/shop.v1.Carts/Add"), "shop.v1.Carts/Add");
        for odd in ["/", "/Carts", "/a/b/c", "//b"] {
            assert_eq!(name(&naming, true, "POST", odd), "POST", "{odd}");
        }
    }

    #[test]
    fn a_rule_that_panics_costs_the_name_only() {
        let naming = Naming::new().with(Arc::new(|_| panic!("no route")));
        assert_eq!(name(&naming, false, "PUT", "/"), "PUT");
    }
}
