//! The layer, and its settings.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderName};
use portcullis_core::{Call, End, Invalid, Phase, Settle, Ticket, Until};
use portcullis_http::inbound;
use portcullis_trace::Recorder;
use tower_layer::Layer;

use super::{
    Head, Inbound,
    name::{NameFn, Naming},
};

/// Makes [`Inbound`] services, which open the scope of each request. Belongs outermost in a server.
///
/// It reads `traceparent` and `tracestate`, `grpc-timeout` of gRPC requests and, if it is told the name
/// of one, a header with a timeout in milliseconds. What is malformed is as if absent; no header makes
/// a request fail.
///
/// See the service for what it does to a request. Its errors are the inner service's own: around an
/// axum handler there are none, so it goes into `Router::layer` as it is.
///
/// ```
/// use axum::{Router, extract::MatchedPath, routing::get};
/// use http::HeaderName;
/// use portcullis::{inbound::InboundLayer, trace::Recorder};
/// use std::time::Duration;
///
/// # fn main() -> Result<(), portcullis::Invalid> {
/// let recorder = Recorder::builder().build()?;
/// let inbound = InboundLayer::builder("shop")
///     .timeout_header(HeaderName::from_static("x-timeout-ms"))
///     .default_timeout(Duration::from_secs(10))
///     .max_timeout(Duration::from_secs(60))
///     .recorder(&recorder)
///     .name_by(|request| {
///         let route = request.extensions.get::<MatchedPath>().map_or("?", MatchedPath::as_str);
///         format!("{} {route}", request.method).into()
///     })
///     .build()?;
/// let app: Router = Router::new().route("/users/{id}", get(|| async { "somebody" })).layer(inbound);
/// # let _ = app;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct InboundLayer {
    shared: Arc<Shared>,
}

/// An [`InboundLayer`] in the making.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct InboundBuilder {
    shared: Shared,
}

/// What the services of one layer share.
#[derive(Clone)]
pub(super) struct Shared {
    name: Arc<str>,
    timeout_header: Option<HeaderName>,
    default_timeout: Option<Duration>,
    max_timeout: Option<Duration>,
    pub(super) keeps_deadline: bool,
    pub(super) trusts_trace: bool,
    pub(super) recorder: Option<Recorder>,
    naming: Naming,
}

// ===== impl InboundLayer =====

impl InboundLayer {
    /// Continues the trace and keeps the `grpc-timeout` that a request comes with. Nothing is recorded.
    #[must_use]
    pub fn new() -> Self {
        Self { shared: Arc::new(Shared::new("inbound".into())) }
    }

    /// Begins a layer called `name`, for errors to say whose limit it was.
    pub fn builder(name: impl Into<Arc<str>>) -> InboundBuilder {
        InboundBuilder { shared: Shared::new(name.into()) }
    }
}

impl Default for InboundLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for InboundLayer {
    type Service = Inbound<S>;

    fn layer(&self, inner: S) -> Inbound<S> {
        Inbound::new(inner, self.shared.clone())
    }
}

// ===== impl InboundBuilder =====

impl InboundBuilder {
    /// Reads this header of any request as the time its sender waits, in whole milliseconds: the one
    /// that clients write by
    /// [`PropagateLayer::with_timeout_header`](portcullis_http::PropagateLayer::with_timeout_header).
    /// Where a gRPC request has both, the shorter one counts.
    pub fn timeout_header(mut self, name: HeaderName) -> Self {
        self.shared.timeout_header = Some(name);
        self
    }

    /// How long a request may take that says nothing of it, the response's body included; above 0. None
    /// unless set.
    pub fn default_timeout(mut self, limit: Duration) -> Self {
        self.shared.default_timeout = Some(limit);
        self
    }

    /// How long any request may take, whatever it says, the response's body included; above 0. None
    /// unless set.
    pub fn max_timeout(mut self, limit: Duration) -> Self {
        self.shared.max_timeout = Some(limit);
        self
    }

    /// Leaves it to the handler to be done in time: the deadline is known to the calls that it makes,
    /// but no request is refused, no handler dropped and no body ended for it.
    pub fn without_refusals(mut self) -> Self {
        self.shared.keeps_deadline = false;
        self
    }

    /// Begins a trace for each request, whatever `traceparent` it comes with: for the edge, where
    /// anybody may write one. Who chooses the id chooses whether the trace is sampled.
    pub fn without_remote_trace(mut self) -> Self {
        self.shared.trusts_trace = false;
        self
    }

    /// Records each request as a [scope](portcullis_trace::TraceScope), with the calls made in it.
    pub fn recorder(mut self, recorder: &Recorder) -> Self {
        self.shared.recorder = Some(recorder.clone());
        self
    }

    /// What a request's trace is called. Unless set, it is the method, and of gRPC requests the
    /// service and its method: a path has no place in it, for clients can make up new ones without end,
    /// and what is in one may be secret. Use the route.
    ///
    /// A rule that panics costs the name, not the request.
    pub fn name_by<N>(mut self, name: N) -> Self
    where
        N: Fn(&Head<'_>) -> Arc<str> + Send + Sync + 'static,
    {
        let name: Arc<NameFn> = Arc::new(name);
        self.shared.naming = self.shared.naming.with(name);
        self
    }

    /// Builds the layer.
    ///
    /// # Errors
    ///
    /// A timeout of 0, or a default that is longer than the maximum.
    pub fn build(self) -> Result<InboundLayer, Invalid> {
        let Shared { name, default_timeout, max_timeout, .. } = &self.shared;
        let bad = |field, limit: Duration, allowed: String| {
            Err(Invalid::new(field, limit, allowed).within(name.to_string()))
        };
        let both = [("max_timeout", *max_timeout), ("default_timeout", *default_timeout)];
        for (field, limit) in both {
            if limit == Some(Duration::ZERO) {
                return bad(field, Duration::ZERO, "above 0".to_owned());
            }
        }
        if let (Some(default), Some(max)) = (*default_timeout, *max_timeout)
            && default > max
        {
            let allowed = format!("at most max_timeout, {max:?}");
            return bad("default_timeout", default, allowed);
        }
        Ok(InboundLayer { shared: Arc::new(self.shared) })
    }
}

// ===== impl Shared =====

impl Shared {
    fn new(name: Arc<str>) -> Self {
        Self {
            name,
            timeout_header: None,
            default_timeout: None,
            max_timeout: None,
            keeps_deadline: true,
            trusts_trace: true,
            recorder: None,
            naming: Naming::new(),
        }
    }

    /// By when a request must be over, and what says so.
    pub(super) fn until(&self, headers: &HeaderMap, outer: &Call, now: Instant) -> Option<Until> {
        let asked = inbound::timeout(headers, self.timeout_header.as_ref());
        let limit = asked
            .map(|limit| (Phase::Inherited, limit))
            .or(self.default_timeout.map(|limit| (Phase::Total, limit)));
        let most = self.max_timeout.map(|limit| (Phase::Total, limit));
        let least = [limit, most].into_iter().flatten().min_by_key(|(_, limit)| *limit);
        let own = least.map(|(phase, limit)| Until::new(now, phase, limit));
        let inherited = outer.deadline().map(|at| {
            let limit = at.saturating_duration_since(now);
            Until { at, phase: Phase::Inherited, limit }
        });
        [own, inherited].into_iter().flatten().min_by_key(|until| until.at)
    }

    pub(super) fn name_of(&self, head: &Head<'_>, grpc: bool) -> Arc<str> {
        self.naming.name(head, grpc)
    }
}

/// Where nothing is recorded, nobody need be told of a request's end.
impl Settle for Shared {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn settle(&self, _: Ticket, _: &End<'_>) {}
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbound")
            .field("name", &self.name)
            .field("timeout_header", &self.timeout_header)
            .field("default_timeout", &self.default_timeout)
            .field("max_timeout", &self.max_timeout)
            .field("keeps_deadline", &self.keeps_deadline)
            .field("trusts_trace", &self.trusts_trace)
            .field("recorder", &self.recorder)
            .finish_non_exhaustive()
    }
}
