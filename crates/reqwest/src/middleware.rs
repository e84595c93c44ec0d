//! A stack as a middleware of reqwest-middleware.

use std::{
    fmt,
    future::poll_fn,
    mem,
    pin::Pin,
    task::{Context, Poll},
};

use http::Extensions;
use http_body::Body as HttpBody;
use portcullis_core::{BoxError, Error, Rejection, find_rejection, sync::Mutex};
use reqwest_middleware::Next;
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    Body,
    convert::{self, Asked},
    judge,
};

/// Any stack, or any layer, as a middleware of `reqwest-middleware`.
///
/// The layers stand in front of whatever comes after: the middlewares that were added later, and the
/// client. Each attempt of a retry runs all of that anew.
///
/// ```
/// # use portcullis_core::Invalid;
/// use portcullis_http::HttpClassifier;
/// use portcullis_reqwest::{KeepBody, Middleware};
/// use portcullis_retry::RetryLayer;
///
/// # fn client() -> Result<reqwest_middleware::ClientWithMiddleware, Invalid> {
/// let retry = RetryLayer::builder("search", KeepBody::new()).classify(HttpClassifier::new());
/// let client = reqwest_middleware::ClientBuilder::new(reqwest::Client::new())
///     .with(Middleware::new(retry.build()?))
///     .build();
/// # Ok(client) }
/// ```
///
/// The layer is applied once for each request, to what is left of the chain. What it knows of earlier
/// requests must be the layer's own, as it is in every layer of this house; a layer of another house whose
/// state is born with each service, such as Tower's `ConcurrencyLimitLayer`, has none here.
///
/// # Extensions
///
/// Those of the request and those of the call reach every attempt. What the rest of the chain makes of the
/// call's is there for the next attempt and for the middlewares before, unless the attempt was dropped.
///
/// # Errors
///
/// reqwest's own stay `Error::Reqwest`, and those of other middlewares what they were. What a layer refuses
/// is `Error::Middleware`: see [`rejection`].
///
/// # Cancellation
///
/// Dropping the call drops the attempt under way and whatever the layers keep for it.
#[derive(Clone, Debug)]
pub struct Middleware<L> {
    layer: L,
}

/// What is left of a chain of middlewares, with the client at its end, as a service.
#[derive(Clone)]
pub struct Rest<'n> {
    next: Next<'n>,
    extensions: &'n Mutex<Extensions>,
}

/// A layer that can stand in front of the [`Rest`] of a chain. It is implemented for each that takes and
/// gives what reqwest does; none need implement it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no layer for requests of reqwest's",
    note = "a stack, and whatever retries, keeps them by `.keep(portcullis_reqwest::KeepBody::new())`"
)]
pub trait RestLayer<'n>: Send + Sync {
    /// The layered service.
    type Service: Service<
            http::Request<reqwest::Body>,
            Response = http::Response<Self::Body>,
            Error = Self::Error,
            Future = Self::Future,
        > + Send;
    /// The body of the layered service's responses.
    type Body: HttpBody<Error: Into<BoxError>> + Send + 'static;
    /// What the layered service fails with.
    type Error: Into<BoxError> + Send;
    /// The layered service's future.
    type Future: Future<Output = Result<http::Response<Self::Body>, Self::Error>> + Send;

    /// Puts the layer in front of `rest`.
    fn before(&self, rest: Rest<'n>) -> Self::Service;
}

/// The call's extensions while attempts work on copies of them; given back however the call ends.
struct Desk<'e> {
    owner: &'e mut Extensions,
    extensions: Mutex<Extensions>,
}

/// An error of another middleware, as one that its cause can be found in.
#[derive(Debug)]
struct Foreign(anyhow::Error);

/// The refusal in an error of `reqwest-middleware`, if one of the layers refused.
///
/// A response's body fails with a [`reqwest::Error`]: in that,
/// [`find_rejection`] finds it.
///
/// ```
/// # async fn search(client: reqwest_middleware::ClientWithMiddleware) {
/// match client.get("http://search.internal/").send().await {
///     Ok(response) => println!("{}", response.status()),
///     Err(error) => match portcullis_reqwest::rejection(&error) {
///         Some(refused) => println!("try again in {:?}", refused.retry_after()),
///         None => println!("{error}"),
///     },
/// }
/// # }
/// ```
#[must_use]
pub fn rejection(error: &reqwest_middleware::Error) -> Option<&dyn Rejection> {
    match error {
        reqwest_middleware::Error::Middleware(error) => find_rejection(error.as_ref()),
        reqwest_middleware::Error::Reqwest(error) => find_rejection(error),
    }
}

// ===== impl Middleware =====

impl<L> Middleware<L> {
    /// The layer as a middleware.
    pub fn new(layer: L) -> Self
    where
        L: for<'n> RestLayer<'n>,
    {
        Self { layer }
    }

    /// The layer.
    #[must_use]
    pub const fn get_ref(&self) -> &L {
        &self.layer
    }
}

#[async_trait::async_trait]
impl<L> reqwest_middleware::Middleware for Middleware<L>
where
    L: for<'n> RestLayer<'n> + 'static,
{
    async fn handle(
        &self,
        req: reqwest::Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<reqwest::Response> {
        let req = http::Request::<reqwest::Body>::try_from(req)?;
        let desk = Desk::new(extensions);
        let mut service = self.layer.before(Rest { next, extensions: &desk.extensions });
        let result = match poll_fn(|cx| service.poll_ready(cx)).await {
            Ok(()) => service.call(req).await,
            Err(error) => Err(error),
        };
        result.map(convert::response).map_err(|error| outward(Error::inner(error)))
    }
}

// ===== impl RestLayer =====

impl<'n, L, S, B> RestLayer<'n> for L
where
    L: Layer<Rest<'n>, Service = S> + Send + Sync,
    S: Service<http::Request<reqwest::Body>, Response = http::Response<B>> + Send,
    S::Error: Into<BoxError> + Send,
    S::Future: Send,
    B: HttpBody<Error: Into<BoxError>> + Send + 'static,
{
    type Service = S;
    type Body = B;
    type Error = S::Error;
    type Future = S::Future;

    fn before(&self, rest: Rest<'n>) -> S {
        self.layer(rest)
    }
}

// ===== impl Rest =====

impl<'n> Service<http::Request<reqwest::Body>> for Rest<'n> {
    type Response = http::Response<Body>;
    type Error = Error;
    // As every link of the chain is.
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Error>> + Send + 'n>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, req: http::Request<reqwest::Body>) -> Self::Future {
        let (next, desk) = (self.next.clone(), self.extensions);
        let mut extensions = desk.lock().clone();
        let asked = Asked::by(&req);
        Box::pin(async move {
            let req = reqwest::Request::try_from(req).map_err(judge::call)?;
            let result = next.run(req, &mut extensions).await;
            *desk.lock() = extensions;
            result.map(|response| convert::from_reqwest(&asked, response)).map_err(inward)
        })
    }
}

impl fmt::Debug for Rest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rest").finish_non_exhaustive()
    }
}

// ===== impl Desk =====

impl<'e> Desk<'e> {
    fn new(owner: &'e mut Extensions) -> Self {
        let extensions = Mutex::new(mem::take(owner));
        Self { owner, extensions }
    }
}

impl Drop for Desk<'_> {
    fn drop(&mut self) {
        *self.owner = mem::take(self.extensions.get_mut());
    }
}

// ===== impl Foreign =====

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Foreign {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(self.0.as_ref())
    }
}

/// An error of the chain, as the layers above see it.
fn inward(error: reqwest_middleware::Error) -> Error {
    match error {
        reqwest_middleware::Error::Reqwest(error) => judge::call(error),
        // One of ours that somebody has said more about stays theirs.
        reqwest_middleware::Error::Middleware(error) => match error.chain().next() {
            Some(first) if first.is::<Error>() => {
                error.downcast().unwrap_or_else(|error| Error::inner(Foreign(error)))
            }
            _ => Error::inner(Foreign(error)),
        },
    }
}

/// The same on its way out, as it was before.
fn outward(error: Error) -> reqwest_middleware::Error {
    let error = match error.into_inner() {
        Ok(error) => error,
        Err(refused) => return reqwest_middleware::Error::middleware(refused),
    };
    let error = match error.downcast::<reqwest::Error>() {
        Ok(error) => return (*error).into(),
        Err(error) => error,
    };
    match error.downcast::<Foreign>() {
        Ok(foreign) => reqwest_middleware::Error::Middleware(foreign.0),
        Err(error) => reqwest_middleware::Error::middleware(Error::inner(error)),
    }
}
