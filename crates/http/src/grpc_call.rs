//! What a gRPC request says of its call: which method it is of, and how much time it has.

use std::{
    num::NonZeroUsize,
    sync::Arc,
    task::{Context, Poll},
};

use http::Request;
use portcullis_core::{
    Call, Keyed,
    call::{Operation, Scoped},
    clock,
};
use tower_layer::Layer;
use tower_service::Service;

use crate::{GRPC_TIMEOUT, grpc::is_grpc, inbound, parse_grpc_timeout};

/// Makes [`GrpcCall`] services. Belongs outside of every layer that asks for a call's operation or for
/// its deadline; in front of a client as well as in a server.
///
/// - The method, `package.Service/Method`, becomes the operation's name, unless the caller gave one
///   by [`call::with().name(…)`](portcullis_core::call::With::name). Timeouts and traces know it by
///   that. It is no name of what a handler calls in turn: see
///   [`Call::with_operation`](portcullis_core::Call::with_operation), also for what must not stand
///   between this layer and those that ask.
/// - `grpc-timeout` becomes the call's deadline, unless an earlier one is in force. It is kept by the
///   timeout layers inside; without one of them, nobody keeps it. One that is malformed, or there more
///   than once, is as if absent.
///
/// Requests that are none of gRPC's, by their `content-type`, pass as they are.
///
/// It remembers up to 1024 methods, the least recently used are forgotten first; a call of one that
/// it remembers allocates nothing, unless the caller ordered something for it.
///
/// ```
/// use http::Request;
/// use portcullis_core::Call;
/// use portcullis_http::GrpcCallLayer;
/// use tower::{Layer, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let named = GrpcCallLayer::new().layer(service_fn(|_: Request<()>| {
///     std::future::ready(Ok::<_, portcullis_core::Error>(Call::current()))
/// }));
/// let request = Request::post("/shop.Orders/Place").header("content-type", "application/grpc");
/// let call = named.oneshot(request.header("grpc-timeout", "5S").body(()).unwrap()).await.unwrap();
/// assert_eq!(call.overrides().name.as_deref(), Some("shop.Orders/Place"));
/// assert!(call.deadline().is_some());
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct GrpcCallLayer {
    methods: Arc<Keyed<Operation>>,
}

/// Puts what a gRPC request says of its call into the [`Call`]. Made by [`GrpcCallLayer`].
///
/// # Errors
///
/// Those of the inner service, as they are.
#[derive(Clone, Debug)]
pub struct GrpcCall<S> {
    inner: S,
    layer: GrpcCallLayer,
}

/// How many methods a layer remembers. What calls come with may be anybody's invention.
const MOST_METHODS: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

/// Bytes of a name that is one of a method's.
const LONGEST: usize = 256;

/// The method that a request of this path calls, `package.Service/Method`; `None` if the path is none
/// of gRPC's (gRPC over HTTP/2, "Requests"), or longer than 256 bytes.
///
/// ```
/// use portcullis_http::grpc_method;
///
/// assert_eq!(grpc_method("/shop.Orders/Place"), Some("shop.Orders/Place"));
/// assert_eq!(grpc_method("/health"), None);
/// ```
#[must_use]
pub fn grpc_method(path: &str) -> Option<&str> {
    let name = path.strip_prefix('/').filter(|name| name.len() <= LONGEST)?;
    let (service, method) = name.split_once('/')?;
    let whole = !service.is_empty() && !method.is_empty() && !method.contains('/');
    whole.then_some(name)
}

// ===== impl GrpcCallLayer =====

impl GrpcCallLayer {
    /// A layer that remembers no method yet.
    #[must_use]
    pub fn new() -> Self {
        Self { methods: Arc::new(Keyed::new(MOST_METHODS)) }
    }

    fn named(&self, call: Call, path: &str) -> Call {
        if call.is_named() {
            return call;
        }
        let Some(name) = grpc_method(path) else { return call };
        match self.methods.get_or_insert_with(name, |_| true, |name| Operation::new(name)) {
            Some(method) => call.with_operation(&method),
            None => call.with_operation(&Operation::new(name)),
        }
    }
}

impl Default for GrpcCallLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for GrpcCallLayer {
    type Service = GrpcCall<S>;

    fn layer(&self, inner: S) -> GrpcCall<S> {
        GrpcCall { inner, layer: self.clone() }
    }
}

// ===== impl GrpcCall =====

impl<S, B> Service<Request<B>> for GrpcCall<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Scoped<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, req: Request<B>) -> Self::Future {
        let call = Call::here();
        if !is_grpc(req.headers()) {
            return call.enter_unread(|| self.inner.call(req));
        }
        let limit = inbound::only(req.headers(), &GRPC_TIMEOUT).and_then(parse_grpc_timeout);
        let named = self.layer.named(call, req.uri().path());
        let Some(limit) = limit else { return named.enter_unread(|| self.inner.call(req)) };
        // The layers below take this for the call's beginning, so the limit is to them what it says.
        let now = named.now();
        let call = named.with_deadline(clock::after(now, limit));
        call.enter(now, || self.inner.call(req))
    }
}

#[cfg(test)]
mod tests {
    use std::{future::ready, time::Duration};

    use http::header;
    use portcullis_core::{Error, call};
    use proptest::prelude::*;
    use tower::{ServiceExt, service_fn};

    use super::*;

    /// The call that a request is in, below the layer.
    async fn call_of(path: &str, timeout: Option<&str>, kind: &str) -> Call {
        seen_by(&GrpcCallLayer::new(), path, timeout, kind).await
    }

    async fn seen_by(layer: &GrpcCallLayer, path: &str, timeout: Option<&str>, kind: &str) -> Call {
        let inner = service_fn(|_: Request<()>| ready(Ok::<_, Error>(Call::current())));
        let mut request = Request::post(path).header(header::CONTENT_TYPE, kind);
        if let Some(timeout) = timeout {
            request = request.header(GRPC_TIMEOUT, timeout);
        }
        layer.layer(inner).oneshot(request.body(()).unwrap()).await.unwrap()
    }

    fn name(call: &Call) -> Option<&str> {
        call.overrides().name.as_deref()
    }

    #[tokio::test(start_paused = true)]
    async fn the_method_is_the_operation_and_the_timeout_the_deadline() {
        let now = clock::now();
        let call = call_of("/shop.Orders/Place", Some("1500m"), "application/grpc+proto").await;
        assert_eq!(name(&call), Some("shop.Orders/Place"));
        assert_eq!(call.deadline(), Some(now + Duration::from_millis(1500)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_callers_own_name_and_its_earlier_deadline_stand() {
        let soon = clock::now() + Duration::from_secs(1);
        let ordered = call::with().name("mine").deadline(soon);
        let call = ordered.run(call_of("/a.B/C", Some("2S"), "application/grpc")).await;
        assert_eq!(name(&call), Some("mine"));
        assert_eq!(call.deadline(), Some(soon));

        let late = call::with().deadline(soon);
        let call = late.run(call_of("/a.B/C", Some("1m"), "application/grpc")).await;
        assert_eq!(name(&call), Some("a.B/C"));
        assert_eq!(call.deadline(), Some(clock::now() + Duration::from_millis(1)));
    }

    #[tokio::test]
    async fn what_is_not_grpc_passes_as_it_is() {
        for kind in ["application/json", "application/grpc-web"] {
            let call = call_of("/a.B/C", Some("2S"), kind).await;
            assert_eq!((name(&call), call.deadline()), (None, None), "{kind}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_malformed_timeout_is_as_if_absent_and_an_absurd_one_is_kept() {
        for timeout in ["", "soon", "-1S", "123456789S", "1"] {
            let call = call_of("/a.B/C", Some(timeout), "application/grpc").await;
            assert_eq!(call.deadline(), None, "{timeout:?}");
        }
        let call = call_of("/a.B/C", Some("99999999H"), "application/grpc").await;
        assert!(call.deadline().is_some());
        let call = call_of("/a.B/C", Some("0n"), "application/grpc").await;
        assert!(call.is_overdue(clock::now()));
    }

    #[tokio::test]
    async fn methods_are_remembered_and_bounded_in_number() {
        let layer = GrpcCallLayer::new();
        for path in ["/a.B/C", "/a.B/D", "/a.B/C"] {
            let call = seen_by(&layer.clone(), path, None, "application/grpc").await;
            assert_eq!(name(&call), path.strip_prefix('/'));
        }
        assert_eq!(layer.methods.len(), 2);
        for nth in 0..2000 {
            let path = format!("/a.B/{nth}");
            let call = seen_by(&layer, &path, None, "application/grpc").await;
            assert_eq!(name(&call), path.strip_prefix('/'));
        }
        assert!(layer.methods.len() <= MOST_METHODS.get());
    }

    #[test]
    fn a_path_that_names_no_method_is_none() {
        let long = format!("/a.B/{}", "c".repeat(LONGEST));
        for path in ["", "/", "a.B/C", "/a.B", "/a.B/", "//C", "/a.B/C/D", "*", &long] {
            assert_eq!(grpc_method(path), None, "{path:?}");
        }
    }

    proptest! {
        #[test]
        fn no_path_makes_it_panic(path in ".{0,300}") {
            let _ = grpc_method(&path);
        }
    }
}
