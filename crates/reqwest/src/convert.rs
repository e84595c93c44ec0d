//! Requests and responses between `http`'s types and reqwest's.

use std::mem;

use http::Extensions;
use http_body::Body as HttpBody;
use portcullis_core::BoxError;
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

/// A response of reqwest's that does not forget its URL.
pub(crate) fn from_reqwest(response: reqwest::Response) -> http::Response<Body> {
    let url = response.url().clone();
    let mut response = http::Response::<reqwest::Body>::from(response).map(Body::new);
    remember(url, response.extensions_mut());
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
