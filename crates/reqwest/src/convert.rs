//! Requests and responses between `http`'s types and reqwest's.

use std::mem;

use http::{Extensions, Method, Uri};
use http_body::Body as HttpBody;
use portcullis_core::BoxError;
use portcullis_http::Redirected;
use reqwest::{ResponseBuilderExt, Url};

use crate::{Body, body};

/// A response as reqwest's own, whose body is read through the layers it came by.
///
/// Status, version, headers and extensions stay. So does the URL, if the response is a [`Client`]'s: the
/// one after all redirects.
///
/// [`Client`]: crate::Client
///
/// ```
/// # use bytes::Bytes;
/// # use http_body_util::Full;
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let response = http::Response::new(Full::new(Bytes::from("an answer")));
/// let response = portcullis_reqwest::response(response);
/// assert_eq!(response.text().await.unwrap(), "an answer");
/// # }
/// ```
pub fn response<B>(response: http::Response<B>) -> reqwest::Response
where
    B: HttpBody + Send + 'static,
    B::Error: Into<BoxError>,
{
    response.map(body).into()
}

/// Where a request was sent to, of which only the first server can say that nothing was done.
pub(crate) struct Asked(Option<Uri>);

impl Asked {
    pub(crate) fn by<B>(req: &http::Request<B>) -> Self {
        // What may be sent again whoever has acted need not be looked at.
        let is_read = matches!(*req.method(), Method::GET | Method::HEAD);
        Self((!is_read).then(|| req.uri().clone()))
    }

    /// Whether a response comes from elsewhere, as far as it matters to its verdict.
    fn is_left(&self, response: &reqwest::Response) -> bool {
        let asked = self.0.as_ref().filter(|_| !response.status().is_success());
        asked.is_some_and(|asked| {
            Url::parse(&asked.to_string()).is_ok_and(|asked| asked != *response.url())
        })
    }
}

/// A response of reqwest's that does not forget its URL, nor that it was redirected.
pub(crate) fn from_reqwest(asked: &Asked, response: reqwest::Response) -> http::Response<Body> {
    let url = response.url().clone();
    let redirected = asked.is_left(&response);
    let mut response = http::Response::<reqwest::Body>::from(response).map(Body::new);
    remember(url, response.extensions_mut());
    if redirected {
        response.extensions_mut().insert(Redirected);
    }
    response
}

/// Puts the URL where reqwest looks for it, by way of a builder: its extension has no name elsewhere.
fn remember(url: Url, extensions: &mut Extensions) {
    let mut builder = http::Response::builder();
    // A builder without an error has extensions, before and after.
    if let Some(built) = builder.extensions_mut() {
        mem::swap(built, extensions);
    }
    if let Some(built) = builder.url(url).extensions_mut() {
        mem::swap(built, extensions);
    }
}
