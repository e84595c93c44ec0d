//! A reqwest client as a service.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http_body::Body as HttpBody;
use pin_project_lite::pin_project;
use portcullis_core::{BoxError, Error};
use tower_service::Service;

use crate::{
    Body, body,
    convert::{self, Asked},
    judge,
};

/// A reqwest client as a service of HTTP requests, for any layer to stand in front of.
///
/// Any body can be sent: see [`body`](crate::body). What comes back is read as it arrives, trailers
/// included; [`response`](crate::response) turns it into reqwest's own type.
///
/// ```
/// use portcullis_reqwest::Client;
/// use tower::ServiceExt;
///
/// # async fn search(client: reqwest::Client) -> anyhow::Result<()> {
/// let request = http::Request::get("http://search.internal/?q=tower").body(String::new())?;
/// let response = Client::new(client).oneshot(request).await?;
/// println!("{}", portcullis_reqwest::response(response).text().await?);
/// # Ok(()) }
/// ```
///
/// # Errors
///
/// reqwest's own, which [`Error::find`] finds as it is: `is_timeout()`, `is_connect()` and its kind are
/// kept. What the layers above make of it:
///
/// | reqwest's error | verdict | sent again |
/// |---|---|---|
/// | no connection, in time or at all | failure (connect) | yes |
/// | the request given back unsent, an HTTP/2 stream refused | failure | yes, at once |
/// | a timeout of reqwest's own | failure (timeout) | if idempotent |
/// | a URL it does not take, a redirect it does not follow, the request's body broke off | none | no |
/// | any other | failure | if idempotent |
///
/// # Cancellation
///
/// Dropping the future or the response's body gives the request up, as with reqwest.
///
/// # Panics
///
/// `call` panics outside a tokio runtime if the client has a timeout, as reqwest's own `execute` does.
///
/// # Clone
///
/// Clones share the connections. Always ready.
#[derive(Clone)]
pub struct Client {
    inner: reqwest::Client,
}

pin_project! {
    /// The future of [`Client`].
    ///
    /// # Panics
    ///
    /// When polled after it was ready.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture {
        #[pin]
        pending: Option<Pending>,
        asked: Asked,
        // In place of that, why the request could not be sent at all.
        refused: Option<reqwest::Error>,
    }
}

/// It has a name of its own that cannot be said.
type Pending = <reqwest::Client as Service<reqwest::Request>>::Future;

// ===== impl Client =====

impl Client {
    /// The client as a service.
    #[must_use]
    pub const fn new(inner: reqwest::Client) -> Self {
        Self { inner }
    }

    /// The client itself.
    #[must_use]
    pub const fn get_ref(&self) -> &reqwest::Client {
        &self.inner
    }
}

impl From<reqwest::Client> for Client {
    fn from(inner: reqwest::Client) -> Self {
        Self::new(inner)
    }
}

impl<B> Service<http::Request<B>> for Client
where
    B: HttpBody + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = http::Response<Body>;
    type Error = Error;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx).map_err(judge::call)
    }

    fn call(&mut self, req: http::Request<B>) -> ResponseFuture {
        let asked = Asked::by(&req);
        match reqwest::Request::try_from(req.map(body)) {
            Ok(req) => ResponseFuture { pending: Some(self.inner.call(req)), asked, refused: None },
            Err(error) => ResponseFuture { pending: None, asked, refused: Some(error) },
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

// ===== impl ResponseFuture =====

impl Future for ResponseFuture {
    type Output = Result<http::Response<Body>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let result = match this.pending.as_mut().as_pin_mut() {
            Some(pending) => ready!(pending.poll(cx)),
            None => {
                Err(this.refused.take().expect("a response future was polled after it was ready"))
            }
        };
        // Lets go of what reqwest keeps for the request, whoever keeps this.
        this.pending.set(None);
        let result = result.map(|response| convert::from_reqwest(this.asked, response));
        Poll::Ready(result.map_err(judge::call))
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
